"""Attention for transformers' models: torch's SDPA without a mask, and a quick one where SDPA has none.

Rows are padded on the right, so causal attention needs no mask, and none is made where the caller gives none:
neither under `torch.compile`, where transformers makes a dense one that rules out fast kernels, nor for
position ids that jump (`keep_positions`), which it would take for several texts in one row. Rows padded on
the left (questions, thoughts) come with their mask, and get what transformers makes of it: a boolean one.

On a CPU, SDPA has dropout by way of its slowest path only, and its fast one is slow in bfloat16: 13 ms
against 3 for 32 rows of 63, forward and backward on two cores with AMX. There it is written out here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trainer.models.dropout import drop

NAME = "stepwise"
"""What transformers calls it, as `attn_implementation`."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention over heads, shapes and arguments as transformers has them: (batch, heads, length, size)."""
    length, context = query.shape[2], key.shape[2]
    slow = query.device.type == "cpu" and (dropout > 0 or query.dtype == torch.bfloat16)
    if not slow or (attention_mask is None and length not in (1, context)):
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return output
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    queries, keys = query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2)
    if attention_mask is None:
        future = torch.full((length, context), -torch.inf, dtype=query.dtype).triu_(1 + context - length)
        scores = torch.baddbmm(future, queries, keys, alpha=scale)
    else:
        # Padding sees nothing, and must stay finite: no −inf, whose softmax is none.
        hidden = torch.zeros(attention_mask.shape, dtype=query.dtype)
        hidden.masked_fill_(~attention_mask, torch.finfo(query.dtype).min)
        scores = (queries @ keys).mul_(scale).unflatten(0, query.shape[:2]).add_(hidden).flatten(0, 1)
    weights = drop(scores.softmax(-1), dropout)
    attended = weights @ value.flatten(0, 1)
    return attended.view(query.shape).transpose(1, 2), None


def mask(
    *,
    q_length: int,
    kv_length: int,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    **more: Any,
) -> Tensor | None:
    """None where the caller gave none and `is_causal` says the same: whole rows, or one token more."""
    whole = q_length in (1, kv_length) and kv_length <= (local_size or kv_length)
    if attention_mask is None and whole:
        return None
    made: Tensor | None = sdpa_mask(
        q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, local_size=local_size, **more
    )
    return made


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, mask)
