"""The loss of a batch's labels, its parts apart, from hidden states or from logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trainer.methods.base import Batch, Losses
from trainer.methods.cross_entropy import IGNORED, linear_cross_entropy


def of_hidden(hidden_BLD: Tensor, head_VD: Tensor, batch: Batch, labels: Tensor | None) -> Losses:
    """Of the last hidden states at the labels, and a head that multiplies them and does nothing else."""
    total, losses_N = linear_cross_entropy(hidden_BLD.flatten(0, 1), head_VD, batch.labels_BL.flatten())
    return _parts(total, losses_N, batch, labels)


def of_logits(logits_BLV: Tensor, batch: Batch, labels: Tensor | None) -> Losses:
    """Of the logits at the labels."""
    losses_N = F.cross_entropy(
        logits_BLV.float().flatten(0, 1),
        batch.labels_BL.flatten(),
        ignore_index=IGNORED,
        reduction="none",
    )
    return _parts(losses_N.sum(), losses_N, batch, labels)


def _parts(total: Tensor, losses_N: Tensor, batch: Batch, labels: Tensor | None) -> Losses:
    losses_BL = losses_N.detach().view_as(batch.labels_BL)
    labelled_BL = batch.labels_BL != IGNORED
    answer_sum = (losses_BL * batch.answer_BL).sum()
    answer_count = (labelled_BL & batch.answer_BL).sum()
    count = labelled_BL.sum()
    mean = total / (count if labels is None else labels)
    return Losses(mean, answer_sum, answer_count, losses_BL.sum() - answer_sum, count - answer_count)
