"""Whether a stage is learnt, told by single forward passes: what a gate goes by, and cheap enough for it."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.methods.base import Examples, Method, Model
from trainer.methods.decode import inference


def learnt(method: Method, model: Model, examples: Examples, scheduled: int, rows: int) -> Tensor:
    """Of how many `examples` every label is the likeliest token, given the true ones before it.

    The labels are what is left of the CoT after `scheduled` removals, and the answer; with no CoT left that
    is what greedy decoding says right. rows: examples of one pass. No random number is drawn.
    """
    right = torch.zeros((), dtype=torch.long, device=model.device)
    with inference(model):
        for start in range(0, len(examples), rows):
            batch = method.rows(examples[start : start + rows], scheduled, None).to(model.device)
            right += method.right(model, batch).all(1).sum()
    return right
