"""Where a configuration does not fit the data that it meets: refused before training, or told first."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.config import LATENT, Config
from trainer.data.layout import decode_example
from trainer.data.task import Remark
from trainer.data.text import BROKEN
from trainer.methods.base import Examples, Method

BLANK_COT = "  "  # what stands between its two EOS where a CoT is empty, one token each at most
SHOWN = 60  # characters of a question
CHUNK = 1 << 12  # rows that are measured at once
HARDLY = 0.001  # with fewer batches than this share there is no training
MANY = 0.5  # with fewer than this share a person should know it


class FittingError(ValueError):
    """A configuration with which these data cannot be trained on; the message says what to change."""


def check(
    config: Config, method: Method, train: Examples, tokenizer: PreTrainedTokenizerBase
) -> list[Remark]:
    """What a person should know before the first step. Raises `FittingError`."""
    return [
        *_removals(config, method, train, tokenizer),
        *_steps(config, method, train, tokenizer),
        *_lengths(config, method, train),
    ]


def _removals(
    config: Config, method: Method, train: Examples, tokenizer: PreTrainedTokenizerBase
) -> Iterator[Remark]:
    asked, longest = config.method, int(train.cot_N.max())
    if asked.name not in ("stepwise", *LATENT):
        return
    short = asked.name == "stepwise" and longest <= len(BLANK_COT)
    if short and len(_without_cot(train, tokenizer)) == len(train):
        raise FittingError(
            f"none of the {len(train):,} training examples has a CoT, so there is nothing to remove; a model "
            "that answers at once is trained by --set method.name=no_cot"
        )
    if asked.stop_at is not None and asked.stop_at > longest:
        raise FittingError(
            f"method.stop_at = {asked.stop_at}: the longest CoT here has {longest} tokens; a smaller number "
            "leaves some of it spoken, and without it all of the CoT goes (--set method.stop_at=none)"
        )
    if asked.start_from > method.start:
        what = method.describe(method.start)
        yield Remark(f"method.start_from = {asked.start_from}: it begins at the last stage, {what}")


def _steps(
    config: Config, method: Method, train: Examples, tokenizer: PreTrainedTokenizerBase
) -> Iterator[Remark]:
    """Of methods that put something in the place of steps."""
    asked, longest = config.method, int(train.steps.max())
    if not method.one_pass and config.compute.path not in ("auto", "eager"):
        raise FittingError(
            f'compute.path = "{config.compute.path}": a batch of {asked.name} is one pass for each thought, '
            'which runs as it is; "eager" or "auto" is allowed'
        )
    if not method.one_pass and config.compute.activation_checkpointing:
        raise FittingError(
            "compute.activation_checkpointing = true: blocks that are computed again keep no cache, and "
            f"a thought needs the cache; without it {asked.name} can be trained, in more parts "
            "(compute.parts) where memory is short"
        )
    if asked.name not in LATENT:
        return
    if without := _without_cot(train, tokenizer):
        question = decode_example(train, without[0], tokenizer).question
        what = (
            f"{len(without):,} of {len(train):,} training examples have no steps, for which {asked.name} "
            f"could put anything: the first asks {question[:SHOWN]!r}"
        )
        if len(without) * BROKEN > len(train):
            raise FittingError(
                f"{what}. Data with steps are needed: a list steps in JSON, <<…>> or sentences before ####"
            )
        yield Remark(what)
    if asked.max_latent_stage is not None and asked.max_latent_stage > longest:
        raise FittingError(
            f"method.max_latent_stage = {asked.max_latent_stage}: the longest CoT here has {longest} "
            f"step{'s' if longest > 1 else ''}, so there are no more stages; {longest} at most, or none for "
            "as many (--set method.max_latent_stage=none)"
        )
    if asked.curriculum and asked.start_from > method.stages:
        raise FittingError(
            f"method.start_from = {asked.start_from}: here the last stage is {method.stages}, where "
            f"{method.describe(method.stages)}; it can begin at 0 to {method.stages}"
        )


def _without_cot(train: Examples, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Which examples have none."""
    short = (train.cot_N <= len(BLANK_COT)).nonzero().flatten().tolist()
    return [index for index in short if not decode_example(train, index, tokenizer).cot]


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
