"""Forward and backward through the model, by the path that was chosen: gradients add up in the parameters.

Nothing here waits for the device. Weights and their gradients are fp32 also where products are bf16.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.computing.compute import Compute
from trainer.computing.sharding import Objective
from trainer.methods.base import Batch, Losses, Method, Model
from trainer.methods.cross_entropy import IGNORED

GRAPHS = 32
"""Captured shapes kept; a stage has one where all texts are of one length."""
BUCKET = 16
"""Columns of a captured batch are rounded to so many, for texts of mixed length."""
SHAPES = 64
"""Recompilations before torch.compile would fall back to eager without a word."""

Run = Callable[[Batch, "Tensor | None", float], Losses]


class Passes:
    """What turns a batch into gradients. Called with it and its share of the step's loss."""

    def __init__(
        self, method: Method, model: Model, compute: Compute, objective: Objective | None = None
    ) -> None:
        """objective: the loss as a module, where the model is spread over ranks."""
        self._method, self._model, self._compute = method, model, compute
        self._objective = objective
        self._seen = _Compiled(model) if compute.path == "compiled" else model
        self._run: Run = _Graphs(self._eager, model) if compute.path == "graphs" else self._eager

    def __call__(
        self, batch: Batch, share: float, labels: Tensor | None = None, fewest: int | None = None
    ) -> Losses:
        """Add the gradients of the mean loss times `share`; the mean comes back so multiplied, too.

        labels: what the mean divides by, where the batch is part of a larger one. fewest: rows of that one's
        smallest part; all compute theirs in equally many passes, since those of a model that is spread meet.
        """
        rows = len(batch.length_B) if fewest is None else fewest
        parts = max(1, min(self._compute.parts, rows))
        batch = batch.to(self._model.device)
        if parts == 1:
            return self._run(batch, labels, share)
        if labels is None:
            labels = (batch.labels_BL != IGNORED).sum()
        losses = [self._run(part, labels, share) for part in batch.split(parts)]
        return Losses(*(torch.stack(values).sum(0) for values in zip(*losses, strict=True)))

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self._model.parameters():
            if self._compute.path == "graphs" and parameter.grad is not None:
                parameter.grad.zero_()  # a captured graph writes where it was
            else:
                parameter.grad = None

    def _eager(self, batch: Batch, labels: Tensor | None, share: float) -> Losses:
        with self._compute.autocast(self._model.device):
            if self._objective is not None:
                losses: Losses = self._objective(batch, labels)
            else:
                losses = self._method.loss(self._seen, batch, labels)
        (losses.mean * share).backward()
        return losses._replace(mean=losses.mean.detach() * share)


class _Compiled:
    """A model whose inner part goes through torch.compile, for training; decoding keeps the plain one."""

    def __init__(self, model: Model) -> None:
        torch._dynamo.config.recompile_limit = SHAPES
        self._model = model
        self.base_model = torch.compile(model.base_model, dynamic=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **given: Any) -> Any:
        return self._model(**given)


class _Graphs:
    """Passes as CUDA graphs, one for each shape, captured when it first comes."""

    def __init__(self, run: Run, model: Model) -> None:
        self._run, self._model = run, model
        self._captured: OrderedDict[tuple[Any, ...], _Captured] = OrderedDict()

    def __call__(self, batch: Batch, labels: Tensor | None, share: float) -> Losses:
        batch = _rounded(batch, self._model.config.max_position_embeddings)
        positions = batch.position_ids_BT is not None
        key = (batch.input_ids_BT.shape, batch.first, positions, labels is None, share)
        if key not in self._captured:
            self._captured[key] = _Captured(self._run, self._model, batch, labels, share)
            if len(self._captured) > GRAPHS:
                self._captured.popitem(last=False)
        self._captured.move_to_end(key)
        return self._captured[key](batch, labels)


class _Captured:
    """One shape's pass. What it reads and writes stays where it is; the gradients are added in place."""

    def __init__(
        self, run: Run, model: Model, batch: Batch, labels: Tensor | None, share: float, warm_up: int = 3
    ) -> None:
        self._batch = batch.each(Tensor.clone)
        self._labels = None if labels is None else labels.clone()
        parameters = [p for p in model.parameters() if p.requires_grad]
        before = [None if p.grad is None else p.grad.clone() for p in parameters]
        state = torch.cuda.get_rng_state(model.device)
        stream = torch.cuda.Stream(model.device)
        stream.wait_stream(torch.cuda.current_stream(model.device))
        with torch.cuda.stream(stream):
            for _ in range(warm_up):
                run(self._batch, self._labels, share)
        torch.cuda.current_stream(model.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._losses = run(self._batch, self._labels, share)
        for parameter, grad in zip(parameters, before, strict=True):
            if grad is None:
                parameter.grad.zero_()
            else:
                parameter.grad.copy_(grad)
        torch.cuda.set_rng_state(state, model.device)

    def __call__(self, batch: Batch, labels: Tensor | None) -> Losses:
        for name, given in batch.tensors.items():
            self._batch.tensors[name].copy_(given)
        if self._labels is not None and labels is not None:
            self._labels.copy_(labels)
        self._graph.replay()
        # The next replay, maybe of another part of the same batch, writes where this one wrote.
        return Losses(*(value.clone() for value in self._losses))


def _rounded(batch: Batch, most: int) -> Batch:
    """The same batch with columns of padding on the right and labels of nothing on the left."""
    width = batch.input_ids_BT.shape[1]
    right = min(-width % BUCKET, max(0, most - width))
    left = batch.first % BUCKET
    positions = batch.position_ids_BT
    return replace(
        batch,
        input_ids_BT=F.pad(batch.input_ids_BT, (0, right)),
        position_ids_BT=None if positions is None else F.pad(positions, (0, right)),
        labels_BL=F.pad(batch.labels_BL, (left, right), value=IGNORED),
        answer_BL=F.pad(batch.answer_BL, (left, right)),
        first=batch.first - left,
    )
