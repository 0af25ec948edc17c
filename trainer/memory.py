"""How much of a device's memory training will take, estimated before the first step.

Weights, gradients and moments are counted. What the forward pass keeps for the backward pass is measured, by
torch's own hooks, on batches of one row and of two, since it grows by the row.
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from trainer.computing import moments
from trainer.computing.sharding import blocks
from trainer.config import Config
from trainer.methods.base import Batch, Examples, Method, Model
from trainer.methods.cross_entropy import LEAST_ROWS, ROWS_PER_WIDTH
from trainer.models.model import forget_activations
from trainer.saving.room import gigabytes


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on each device. weights, gradients, moments: its share. activations: of a batch, kept for the
    backward pass. passing: what comes and goes: logits, or the gradient of the widest layer and activations
    of a block that is computed again; with FSDP2 the weights of blocks at work, too. copy: with FSDP2, all of
    the weights, which lie beside the shares before training, and to answer."""

    weights: int
    gradients: int
    moments: int
    activations: int
    passing: int
    copy: int = 0

    @property
    def peak(self) -> int:
        """Activations go as gradients come, so the larger of the two counts; while it answers, neither."""
        training = max(self.activations, self.gradients) + self.passing
        return self.weights + self.moments + max(training, self.copy)

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "moments": self.moments,
            "activations of a batch": self.activations,
        }
        if self.copy:
            parts["a whole copy to answer with"] = self.copy
        listed = ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items())
        return f"about {gigabytes(self.peak)} at its peak: {listed}"


def least(model: Model, config: Config) -> Memory:
    """What training takes without any activation. It needs no device."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    shards = config.gpus if config.compute.parallel == "fsdp" else 1
    passing, copy = (_gathered(model), weights) if shards > 1 else (0, 0)
    kept = moments.size(model, config.optim)
    return Memory(weights // shards, trained // shards, kept // shards, 0, passing, copy)


def check(model: Model, config: Config, device: torch.device) -> None:
    """Raises `ValueError`, with the ways out, where a device has not even room for `least`."""
    needs, free = least(model, config), available(device)
    if needs.peak <= free:
        return
    what = "weights, gradients and moments take"
    if needs.copy > needs.gradients + needs.passing:
        what = "shares of weights and moments, and beside them all weights to answer with, take"
    ways = ["a smaller model"]
    if not config.model.lora_rank and config.compute.parallel == "ddp":
        ways.insert(0, "adapters beside weights that stay as they are by --set model.lora_rank=16")
    if config.optim.moments == "full" and config.compute.parallel == "ddp":
        ways.insert(0, "moments in 8 bits by --set optim.moments=8bit")
    if config.model.dtype == "float32":
        ways.insert(0, "half of it by --set model.dtype=bfloat16")
    if config.compute.parallel == "ddp" or config.gpus == 1:
        ways.insert(0, "several GPUs that share it by --gpus N --set compute.parallel=fsdp")
    else:
        ways.insert(0, "more GPUs")
    raise ValueError(
        f"{what} {gigabytes(needs.peak)} on each device, and {device} has {gigabytes(free)} free. "
        f"The ways out: {'; '.join(ways)}"
    )


def longest(train: Examples, rows: int, allowed: int | None) -> Examples:
    """The longest examples that are trained on: a batch with one of them is as wide as it is."""
    length_N = train.length_N if allowed is None else train.length_N * (train.length_N <= allowed)
    return train[length_N.argsort(descending=True, stable=True)[:rows]]


def estimate(method: Method, model: Model, batch: Batch, config: Config, parts: int) -> Memory:
    """What training takes with such a batch of the longest rows, computed in `parts` by so many ranks.

    Runs two forward passes; no weight changes, and what they draw at random concerns nobody.
    """
    rows = -(-len(batch.length_B) // (config.gpus * parts))
    (kept, widest), again = _kept_of(method, model, batch, rows), 0
    if config.compute.activation_checkpointing:
        forget_activations(model, False)
        every, widest = _kept_of(method, model, batch, rows)
        again = (every - kept) // len(blocks(model))
        forget_activations(model)
    static = least(model, config)
    width, symbols = model.config.hidden_size, model.config.vocab_size
    slice_rows = max(LEAST_ROWS[model.device.type], int(ROWS_PER_WIDTH * width))
    logits = 3 * 4 * symbols * min(slice_rows, rows * batch.labels_BL.shape[1])
    return Memory(
        static.weights,
        static.gradients,
        static.moments,
        kept,
        static.passing + max(logits, again + widest),
        static.copy,
    )


def available(device: torch.device) -> int:
    """Free bytes of a device's memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _kept_of(method: Method, model: Model, batch: Batch, rows: int) -> tuple[int, int]:
    """Bytes that the forward pass of so many rows keeps, by those of one and of two; and the largest single
    tensor that grows by the row: as much passes through that layer as gradient."""
    one, two = (_kept(method, model, batch.share(slice(0, count))) for count in (1, 2))
    widest = max({*two} - {*one}, default=0) * rows // 2
    return sum(one) + (sum(two) - sum(one)) * (rows - 1), widest


def _kept(method: Method, model: Model, batch: Batch) -> list[int]:
    """Bytes of each tensor that the forward pass keeps for the backward pass, besides the weights."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        method.loss(model, batch.to(model.device))
    return list(sizes.values())


def _gathered(model: Model) -> int:
    """The weights that are whole at once with FSDP2: embeddings and head, and two blocks with a gradient."""
    sizes = [sum(p.numel() * p.element_size() for p in block.parameters()) for block in blocks(model)]
    whole: int = sum(p.numel() * p.element_size() for p in model.parameters())
    return 2 * (whole - sum(sizes)) + 3 * max(sizes, default=0)
