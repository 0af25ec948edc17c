"""One optimiser step: the gradients of each part of a batch, clip, update.

Nothing here waits for the device, but for moments in 8 bits: what came out is returned as tensors on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.computing import moments
from trainer.computing.passes import Passes
from trainer.computing.sharding import whole
from trainer.computing.world import World
from trainer.config import OptimConfig
from trainer.methods.base import Batch, Losses, Model
from trainer.methods.cross_entropy import IGNORED
from trainer.pacing import schedule


class Applied(NamedTuple):
    """What a step did. losses: of all parts. grad_norm: before clipping. finite: whether it was applied."""

    losses: Losses
    grad_norm: Tensor
    finite: Tensor


class Updater:
    """AdamW and how many updates it has made. It starts anew by `reset`."""

    def __init__(self, model: Model, config: OptimConfig, world: World | None = None) -> None:
        """world: the ranks that make each update together; this process alone when not given."""
        self._model, self._world = model, world or World()
        self.configure(config)
        self.reset()

    def configure(self, config: OptimConfig) -> None:
        """Take up settings, now or while the run trains."""
        self._config = config

    def reset(self) -> None:
        """A new optimiser, with no memory of former gradients."""
        self.updates = 0
        self.optimizer = moments.adamw(self._model, self._config)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._config.lr * schedule.warm(self.updates, self._config.warmup)

    def step(self, passes: Passes, parts: Sequence[Batch], share: float) -> Applied:
        """Update on the sum over `parts` of their mean loss times `share`; on nothing that is not finite.

        With `share` = 1 / parts it is the mean of the parts' means, as the official code accumulates.
        Several ranks take some rows each, and divide by the labels of all rows: the same update as of one.
        """
        losses = [self._pass(passes, batch, share) for batch in parts]
        total = Losses(*(torch.stack(values).sum(0) for values in zip(*losses, strict=True)))
        if not self._world.alone:
            total = Losses(*self._world.summed(torch.stack(total)))
            if not self._world.sharded:
                self._world.add(p.grad for p in self._model.parameters() if p.grad is not None)
        norm = whole(torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._config.clip))
        finite = torch.isfinite(norm) & torch.isfinite(total.mean)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
            group["weight_decay"] = self._config.weight_decay
        if isinstance(self.optimizer, torch.optim.AdamW):
            # The fused optimiser leaves the update out on the device: no one waits to look at the number.
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif finite:  # this does wait
            self.optimizer.step()
        passes.clear()
        self.updates += 1
        return Applied(total, norm, finite)

    def _pass(self, passes: Passes, batch: Batch, share: float) -> Losses:
        if self._world.alone:
            return passes(batch, share)
        labels, rows = (batch.labels_BL != IGNORED).sum().to(self._model.device), len(batch.length_B)
        return passes(batch.share(self._world.share(rows)), share, labels, rows // self._world.size)
