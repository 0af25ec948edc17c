"""A configuration for a file of examples, as a person would begin with: TOML for `stepwise run config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomlkit

from trainer.data.held_out import SHARE

UNEVEN = 0.75  # where most are shorter than this share of the longest, lengths differ much
HELD_OUT = 1_000  # examples for valid, and for test, at most

Lengths = dict[str, int]  # by percentile

PRETRAIN = 500  # steps of explicit CoT, from scratch
PACE = 100  # steps a token
REST = 2_000  # steps once all are gone
FEW_WORDS = 100  # half the width is enough for so many

DATA = """\
title = {title}

[data]
task = "text"
train_file = {file}
train = {train:<23}# at most; valid and test are cut off first, by the seed,
valid = {held_out:<23}# unless valid_file and test_file name files of their own
test = {held_out}
"""

SCRATCH = """
[model]
init = "scratch"               # a small GPT-2
vocab = "task"                 # the words of the examples are its vocabulary
layers = 2
heads = 4
width = {width}
dropout = 0.0
{method}{schedule}
[optim]
lr = 2e-3
batch = {batch}
warmup = 50                    # steps after each removal: a new optimiser's first ones are its wildest

[eval]
every = 100                    # steps
examples = 250

[stop]
steps = {steps}
accuracy = 0.98                # ends early when this holds with no CoT left
"""

PRETRAINED = """
[model]
init = {model}
vocab = "full"                 # with the model's own tokenizer
{method}{schedule}
[optim]
lr = 5e-5                      # the paper's for GPT-2; for models of 4 and 7 billion parameters 1e-5
batch = 32

[eval]
every = 500                    # steps
"""

BY_STEPS = f"""
[schedule]
pretrain_steps = {PRETRAIN:<14}# explicit CoT first, until it is learnt
steps_per_token = {PACE:<13}# then a token goes every so many steps: slower is safer
"""

BY_EPOCHS = """
[schedule]
tokens_per_epoch = 1.0         # the paper's Δ for GSM8K; for multiplication it has 8
"""

STEPWISE = """
[method]
name = "stepwise"
smoothing = 4.0                # the paper's λ
"""

BEYOND = "remove_all_beyond = {:<11}# then all go: nine CoTs of ten are no longer, as in the paper\n"
UNKNOWN_BEYOND = "# remove_all_beyond: CoT lengths differ much; `data check --tokenizer` finds a value\n"
LONGEST = "max_len_train = {:<15}# tokens; one row in a hundred is longer, and its batch is left out\n"

NO_COT = """
[method]
name = "no_cot"                # no example has a CoT
"""


def propose(
    file: Path,
    lengths: Mapping[str, Lengths],
    examples: int,
    with_cot: bool,
    *,
    words: int | None,
    model: str | None,
) -> str:
    """The configuration.

    lengths: of `Survey`. examples: how many there are. with_cot: whether any has one. words: how many there
    are, where they are to be the vocabulary, and the lengths are in its tokens; then the model begins from
    scratch. model: whose tokens the lengths are in; without `words` and `model` they are in words.
    """
    cot, row = lengths["CoT"], lengths["row"]
    method = STEPWISE if with_cot else NO_COT
    stages = cot["most"] + 1 if with_cot else 0  # the blank after the CoT goes as well
    if cot["p90"] < UNEVEN * cot["most"]:
        if words is not None or model is not None:
            stages = cot["p90"]
            method += BEYOND.format(stages)
        else:
            method += UNKNOWN_BEYOND
    held_out = min(HELD_OUT, max(1, examples // SHARE))
    data = DATA.format(title=_quoted(file.name), file=_quoted(str(file)), train=examples, held_out=held_out)
    if (words is not None or model is not None) and row["p99"] < UNEVEN * row["most"]:
        data += LONGEST.format(row["p99"])
    if words is not None:
        return data + SCRATCH.format(
            width=64 if words <= FEW_WORDS else 128,
            method=method,
            schedule=BY_STEPS if with_cot else "",
            batch=min(64, max(1, examples // 10)),
            steps=PRETRAIN + PACE * stages + REST,
        )
    schedule = BY_EPOCHS if with_cot else ""
    return data + PRETRAINED.format(method=method, schedule=schedule, model=_quoted(_init(model)))


def _init(model: str | None) -> str:
    """The model to begin with; GPT-2 where only a tokenizer was given."""
    only_tokenizer = model is not None and Path(model).is_dir() and not (Path(model) / "config.json").exists()
    return "gpt2" if model is None or only_tokenizer else model


def _quoted(text: str) -> str:
    return tomlkit.item(text).as_string()
