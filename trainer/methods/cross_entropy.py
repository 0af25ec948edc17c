"""The loss of a large vocabulary without its logits: a head and its cross-entropy, some rows at a time.

With 50,257 symbols the logits of a batch take more memory than all else together, and moving them takes much
of a step's time. Here only a few exist at once; the gradients are made with them, while they are at hand. The
same products, no more of them. Idea: Liger Kernel (arXiv 2410.10989, section 3.2).
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

IGNORED = -100
"""A label that predicts nothing."""
ROWS_PER_WIDTH = 1.5
"""Rows whose logits exist at once, for each column of the hidden states: the wider the model, the more it
costs to add up the gradient of its head, slice by slice (docs/log.md)."""
LEAST_ROWS = {"cpu": 128, "cuda": 4_096}
"""What keeps the units of a device busy."""

CLEAR = {torch.float32: 2**-12, torch.bfloat16: 2**-5, torch.float16: 2**-8}
"""By what share of its size a logit must lead in these products, lest rounding turn the order."""

_plain: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def plain_head(model: Any) -> Tensor | None:
    """The weights of a head whose logits are the last hidden states times them, and nothing else; or None.

    Some models scale or cap their logits or add to them. So it is tried, once for each model; again as long
    as its weights are ruined and tell nothing, lest a run taken up there count in another way ever after.
    """
    head = model.get_output_embeddings()
    if model not in _plain:
        if not isinstance(head, nn.Linear) or head.bias is not None:
            _plain[model] = False
        elif not _captures(head.weight) and (same := _says_the_same(model, head)) is not None:
            _plain[model] = same
    return head.weight if _plain.get(model) else None


def _captures(weight: Tensor) -> bool:
    """Whether a graph is being captured, when nothing may be looked at."""
    return weight.is_cuda and torch.cuda.is_current_stream_capturing()


def _says_the_same(model: Any, head: nn.Linear) -> bool | None:
    """None: its logits are no numbers."""
    training = model.training
    model.eval()
    with torch.no_grad():
        ids = torch.tensor([[0, 1]], device=head.weight.device)
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        logits = model(input_ids=ids, use_cache=False).logits
        scale = logits.abs().max()
        same = (logits - head(hidden)).abs().max() <= 1e-3 * scale if scale.isfinite() else None
    model.train(training)
    return None if same is None else bool(same)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        learns = ctx.needs_input_grad[1]  # beside adapters the head may stay as it is
        losses_N = torch.empty(len(labels_N), device=hidden_ND.device)
        grad_ND = torch.empty_like(hidden_ND) if wanted else None
        grad_VD = torch.zeros_like(weight_VD) if learns else None
        factor_VD = weight_VD.to(dtype)
        count = _rows_at_once(hidden_ND)
        for start in range(0, len(labels_N), count):
            rows = slice(start, start + count)
            hidden_RD, labels_R = hidden_ND[rows].to(dtype), labels_N[rows]
            ignored_R = labels_R == IGNORED
            targets_R1 = labels_R.masked_fill(ignored_R, 0)[:, None]
            logits_RV = (hidden_RD @ factor_VD.t()).float()
            norm_R1 = logits_RV.logsumexp(1, keepdim=True)
            losses_R = (norm_R1 - logits_RV.gather(1, targets_R1))[:, 0]
            losses_N[rows] = losses_R.masked_fill(ignored_R, 0.0)
            if grad_ND is not None:
                # Of the sum of the losses: softmax − one at the label, nothing where it is ignored.
                slope_RV = logits_RV.sub_(norm_R1).exp_()
                slope_RV.scatter_add_(1, targets_R1, torch.full_like(norm_R1, -1.0))
                slope_RV = slope_RV.masked_fill_(ignored_R[:, None], 0.0).to(dtype)
                grad_ND[rows] = (slope_RV @ factor_VD).to(grad_ND.dtype)
                if grad_VD is None:
                    continue
                if dtype == grad_VD.dtype:
                    grad_VD.addmm_(slope_RV.t(), hidden_RD)
                else:
                    grad_VD += slope_RV.t() @ hidden_RD
        ctx.save_for_backward(grad_ND, grad_VD)
        ctx.mark_non_differentiable(losses_N)
        return losses_N.sum(), losses_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_ND, grad_VD = ctx.saved_tensors
        return grad_ND * grads[0], None if grad_VD is None else grad_VD * grads[0], None, None


def linear_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of −log P(label), to be minimised, and each row's part of it, 0 where it is `IGNORED`.

    The logits are hidden_ND @ weight_VDᵀ, multiplied in autocast's precision where that is on; nats in fp32.
    """
    device = hidden_ND.device.type
    dtype = _multiplied_in(device, weight_VD)
    with torch.autocast(device, enabled=False):
        total, losses_N = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden_ND, weight_VD, labels_N, dtype
        )
    return total, losses_N


def lead(hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> Tensor:
    """Whether each label is the likeliest token by far more than rounding turns (N); true where `IGNORED`."""
    device = hidden_ND.device.type
    dtype = _multiplied_in(device, weight_VD)
    factor_VD = weight_VD.to(dtype)
    ahead_N = labels_N == IGNORED
    count = _rows_at_once(hidden_ND)
    with torch.autocast(device, enabled=False):
        for start in range(0, len(labels_N), count):
            rows = slice(start, start + count)
            targets_R = labels_N[rows].masked_fill(ahead_N[rows], 0)
            logits_RV = hidden_ND[rows].to(dtype) @ factor_VD.t()
            own = (torch.arange(len(targets_R), device=hidden_ND.device), targets_R)
            own_R = logits_RV[own].float()
            logits_RV[own] = -torch.inf  # on a CPU `scatter_` copies them all
            other_R = logits_RV.max(1).values.float()
            scale_R = torch.maximum(own_R.abs(), other_R.abs()).clamp(min=1.0)
            ahead_N[rows] |= own_R - other_R > CLEAR[dtype] * scale_R
    return ahead_N


def _multiplied_in(device: str, weight_VD: Tensor) -> torch.dtype:
    """The dtype of products with that weight: autocast's where that is on."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype


def _rows_at_once(hidden_ND: Tensor) -> int:
    return max(LEAST_ROWS[hidden_ND.device.type], int(ROWS_PER_WIDTH * hidden_ND.shape[1]))
