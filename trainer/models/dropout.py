"""Dropout whose random numbers are cheap on a CPU.

torch draws a 53-bit number for each element there, one after the other: more than a fifth of a small model's
step. Here each element takes 16 bits, four of them from one draw of the same generator; the probability is
then right to 1/65,536. On a GPU torch's own is used, which has no such cost.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        draws = bits.view(torch.int16)[: x.numel()].view(x.shape)
        dropped = round(p * LEVELS)
        scale = LEVELS / (LEVELS - dropped)
        kept = (draws >= dropped - LEVELS // 2).to(x.dtype).mul_(scale)
        ctx.save_for_backward(kept)
        return x * kept

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.saved_tensors[0], None


def drop(x: Tensor, p: float) -> Tensor:
    """Each element 0 with probability `p`, else larger by 1 / (1 − p)."""
    if p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped: Tensor = _Dropped.apply(x, p)  # type: ignore[no-untyped-call]
    return dropped


class Dropout(nn.Dropout):
    """`nn.Dropout` by `drop`."""

    def forward(self, input: Tensor) -> Tensor:
        return drop(input, self.p) if self.training else input


def replace_dropout(model: nn.Module) -> None:
    """Put `Dropout` in the place of each `nn.Dropout`; it has no weights, so names stay as they are."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
