"""A model spread over the ranks by torch's FSDP2: each holds a share of every weight, gradient and moment.

While a block computes its weights are gathered, and let go after it. What must have the whole model, answers
and checkpoints, gets a copy of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import AutoModelForCausalLM

from trainer.methods.base import Batch, Losses, Method, Model
from trainer.methods.cross_entropy import plain_head
from trainer.models.model import quicken


class Objective(nn.Module):
    """The loss as a module: within its forward embeddings and head are whole, also for who reads the head."""

    def __init__(self, method: Method, model: Model) -> None:
        super().__init__()
        self.model = model
        self._method = method

    def forward(self, batch: Batch, labels: Tensor | None) -> Losses:
        return self._method.loss(self.model, batch, labels)


def blocks(model: Model) -> list[nn.Module]:
    """The transformer blocks, as the architecture names them."""
    names = set(model._no_split_modules)
    return [module for module in model.modules() if type(module).__name__ in names]


def shard(method: Method, model: Model, ranks: int, *, lowered: bool) -> Objective:
    """Spread a model that all ranks have alike. Its parameters are `DTensor`s from then on.

    lowered: blocks multiply in bfloat16; weights, gradients and their sum stay as they are.
    """
    plain_head(model)  # tried while it is whole; the answer is remembered
    mesh = init_device_mesh(model.device.type, (ranks,))
    lower = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    policy = lower if lowered else MixedPrecisionPolicy()
    for block in blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    objective = Objective(method, model)
    fully_shard(objective, mesh=mesh)
    for module in objective.modules():
        if isinstance(module, FSDPModule):  # the sum, not the mean: losses are divided by all labels already
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return objective


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every rank; itself where it is not spread. All ranks call it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor that all ranks have, spread as `like` is. All ranks call it together."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device, like.dtype), like.device_mesh, like.placements)


def blank(model: Model) -> Model:
    """A whole model like one that is spread, whose weights `fill` puts in. Each rank calls it by itself."""
    with torch.device(model.device):
        copy = AutoModelForCausalLM.from_config(model.config, dtype=model.dtype)
        largest = max(model.parameters(), key=Tensor.numel)
        torch.empty(largest.numel(), dtype=model.dtype)  # each is gathered beside it: is there room for that?
    return copy


def fill(copy: Model, model: Model) -> Model:
    """A `blank` with all weights of the model, to answer with. All ranks call it together."""
    with torch.no_grad():
        for own, tensor in zip(copy.state_dict().values(), model.state_dict().values(), strict=True):
            own.copy_(whole(tensor))
    copy.generation_config = model.generation_config
    return quicken(copy).eval()
