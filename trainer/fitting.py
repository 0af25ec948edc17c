"""Where a configuration does not fit the data that it meets: refused before training, or told first."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from trainer.config import Config
from trainer.data.task import Remark
from trainer.methods.base import Examples, Method

CHUNK = 1 << 12  # rows that are measured at once
HARDLY = 0.001  # with fewer batches than this share there is no training
MANY = 0.5  # with fewer than this share a person should know it


class FittingError(ValueError):
    """A configuration with which these data cannot be trained on; the message says what to change."""


def check(config: Config, method: Method, train: Examples) -> list[Remark]:
    """What a person should know before the first step. Raises `FittingError`."""
    return [*_removals(config, method, train), *_lengths(config, method, train)]


def _removals(config: Config, method: Method, train: Examples) -> Iterator[Remark]:
    asked, longest = config.method, int(train.cot_N.max())
    if asked.name != "stepwise":
        return
    if asked.stop_at is not None and asked.stop_at > longest:
        raise FittingError(
            f"method.stop_at = {asked.stop_at}: the longest CoT here has {longest} tokens; a smaller number "
            "leaves some of it spoken, and without it all of the CoT goes (--set method.stop_at=none)"
        )
    if asked.start_from > method.start:
        what = method.describe(method.start)
        yield Remark(f"method.start_from = {asked.start_from}: it begins at the last stage, {what}")


def _lengths(config: Config, method: Method, train: Examples) -> Iterator[Remark]:
    """Of data.max_len_train: one row that is longer leaves out its batch, or its part of one."""
    allowed = config.data.max_len_train
    if allowed is None:
        return
    lengths = row_lengths(method, train, method.start).sort().values
    fit = int((lengths <= allowed).sum())
    rows = min(config.optim.batch, len(train)) // config.optim.accumulate
    kept = kept_batches(len(train), fit, rows)
    most = int(lengths[math.ceil(0.9 * len(train)) - 1])
    facts = (
        f"data.max_len_train = {allowed}: {fit:,} of {len(train):,} training examples fit; they have "
        f"{int(lengths[0])} to {int(lengths[-1])} tokens, nine of ten at most {most}"
    )
    if kept < HARDLY:
        one = "" if fit < rows else f", and one that does not fit leaves out the {rows} of its batch"
        raise FittingError(
            f"{facts}{one}: nothing would be trained on; set it higher, or to none (--set "
            "data.max_len_train=none)"
        )
    if kept < MANY:
        one = f"one that does not fit leaves out the {rows} of its batch"
        yield Remark(f"{facts}; {one}, so that {1 - kept:.1%} of the batches are left out at the start")


def row_lengths(method: Method, examples: Examples, scheduled: int) -> Tensor:
    """Tokens of each row after so many removals, without random offsets."""
    starts = range(0, len(examples), CHUNK)
    return torch.cat([method.rows(examples[i : i + CHUNK], scheduled, None).length_B for i in starts])


def kept_batches(examples: int, fit: int, rows: int) -> float:
    """The share of batches without a row that does not fit, when `rows` are drawn without putting back."""
    return math.prod((fit - drawn) / (examples - drawn) for drawn in range(rows)) if fit >= rows else 0.0
