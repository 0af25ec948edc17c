"""Whole runs against a slow oracle: what the papers' code does to a batch, told again with Python's lists.

The oracle knows the order of one batch and nothing of tensors, padding, shapes or stages. That it is the
official code's own order is what `benchmarks/parity_official.py` shows; the last test runs it where a
checkout of that code is given.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.parity.sides import Step, caught
from tests import small_pretrained
from tests.test_removal import EOS, Row, examples_of, rows
from tests.tiny import tiny_config
from trainer.config import Config, MethodConfig
from trainer.data.layout import encode_lines, parse_line, text
from trainer.events import Event, RunCrashed, StageEntered
from trainer.methods.base import Batch, Examples
from trainer.methods.stepwise import IGNORED, Stepwise, remove
from trainer.parts import assemble
from trainer.run import Run

Side = Literal["left", "right"]
BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "parity_official.py"


# The oracle ----------------------------------------------------------------------------------------------


class Wanted(NamedTuple):
    """A row as a model should get it. labels: by the position whose token they are."""

    ids: list[int]
    positions: list[int]
    labels: dict[int, int]
    cot_left: int


def wanted_row(row: Row, removals: float, side: Side, keep_positions: bool) -> Wanted:
    question, cot, answer = row
    gone = int(min(removals, len(cot)))
    start = len(question) + 1 + (0 if side == "left" else len(cot) - gone)  # where the first one stood
    whole = [*question, EOS, *cot, EOS, *answer, EOS]
    here = [place for place in range(len(whole)) if not start <= place < start + gone]
    positions = list(range(len(here)))
    if keep_positions:  # they jump one token before the first that is missing
        positions = [p + gone if p >= start - 1 else p for p in positions]
    labels = {p: whole[place] for p, place in enumerate(here) if place > len(question)}
    return Wanted([whole[place] for place in here], positions, labels, len(cot) - gone)


@dataclass
class Recipe:
    """What decides the order of a run's batches. per_token: batches per removed token."""

    per_token: int = 1
    per_epoch: int = 1
    pretrain: int = 0
    start_from: int = 0
    beyond: float = math.inf
    reset: bool = True
    max_len: float = math.inf
    side: Side = "left"
    keep_positions: bool = False


@dataclass
class WantedBatch:
    rows: list[Wanted] = field(default_factory=list)
    reset: bool = False
    skipped: bool = False


def wanted_batches(
    recipe: Recipe, batches: list[list[Row]], offsets: list[list[int]]
) -> Iterator[WantedBatch]:
    """The order of one batch, as in the official code, for batch after batch."""
    scheduled, counter, free = recipe.start_from, 0, False
    for number, (batch, drawn) in enumerate(zip(batches, offsets, strict=False)):
        wanted = WantedBatch()
        pretraining = number // recipe.per_epoch < recipe.pretrain
        if counter >= recipe.per_token:
            scheduled, counter = scheduled + 1, 0
            wanted.reset = recipe.reset and not free
        counter += not pretraining
        s = math.inf if scheduled >= recipe.beyond else scheduled
        removals = [s + (0 if pretraining else offset) for offset in drawn]
        wanted.rows = [
            wanted_row(row, n, recipe.side, recipe.keep_positions)
            for row, n in zip(batch, removals, strict=True)
        ]
        free = all(row.cot_left == 0 for row in wanted.rows)
        wanted.skipped = max(len(row.ids) for row in wanted.rows) > recipe.max_len
        yield wanted


def check_rows(step: Step, wanted: list[Wanted]) -> None:
    """Ids, labels and positions of a batch; what is more than a row is padding without a label."""
    assert step.ids_BT is not None and step.labels_BT is not None
    assert len(step.ids_BT) == len(wanted)
    for i, row in enumerate(wanted):
        length = len(row.ids)
        ids, labels = step.ids_BT[i].tolist(), step.labels_BT[i].tolist()
        assert ids[:length] == row.ids
        assert set(ids[length:]) <= {EOS}
        assert {p: label for p, label in enumerate(labels) if label != IGNORED} == row.labels
        given = list(range(length)) if step.positions_BT is None else step.positions_BT[i].tolist()
        assert given[:length] == row.positions


# One batch -----------------------------------------------------------------------------------------------


def step_of(batch: Batch) -> Step:
    labels_BT = torch.full_like(batch.input_ids_BT, IGNORED)
    labels_BT[:, batch.first + 1 :] = batch.labels_BL
    return Step(batch.input_ids_BT, labels_BT, batch.position_ids_BT)


@given(rows, st.data(), st.sampled_from(["left", "right"]), st.booleans())
def test_a_batch_is_what_lists_give(
    data: list[Row], draw: st.DataObject, side: Side, keep_positions: bool
) -> None:
    removals = [draw.draw(st.integers(0, 120)) for _ in data]
    planned = [draw.draw(st.integers(0, n)) for n in removals]
    batch = remove(
        examples_of(data),
        torch.tensor(removals),
        side,
        EOS,
        planned_B=torch.tensor(planned),
        keep_positions=keep_positions,
    )
    wanted = [wanted_row(row, n, side, keep_positions) for row, n in zip(data, removals, strict=True)]
    check_rows(step_of(batch), wanted)
    assert batch.longest == max(len(row.ids) for row in wanted)
    assert batch.tokens == sum(len(row.ids) for row in wanted)
    assert batch.cot_free == all(row.cot_left == 0 for row in wanted)
    if batch.position_ids_BT is not None:  # padding, too, must stay within what the model has
        assert int(batch.position_ids_BT.max()) < examples_of(data).ids_NT.shape[1]


class Tokenizer:
    """As much of a tokenizer as the method asks for."""

    eos_token_id = EOS

    def convert_tokens_to_ids(self, token: str) -> int:
        raise AssertionError(token)


@given(
    rows,
    st.integers(0, 9),
    st.sampled_from(["left", "right"]),
    st.none() | st.integers(1, 7),
    st.none() | st.integers(1, 7),
    st.booleans(),
)
def test_a_stage_is_what_lists_give(
    data: list[Row], scheduled: int, side: Side, beyond: int | None, stop_at: int | None, smooth: bool
) -> None:
    if beyond is not None and stop_at is not None:
        beyond = None
    config = MethodConfig(side=side, smoothing=0.3, remove_all_beyond=beyond, stop_at=stop_at)
    method = Stepwise(config, Tokenizer(), examples_of(data), separator_id=1)  # type: ignore[arg-type]
    drawn: list[torch.Tensor] = []
    multinomial = torch.multinomial

    def draw(*given: Any, **more: Any) -> torch.Tensor:
        drawn.append(multinomial(*given, **more))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", draw)
        batch = method.rows(examples_of(data), scheduled, torch.Generator() if smooth else None)
    assert len(drawn) == smooth
    s: float = scheduled if stop_at is None else min(scheduled, stop_at)
    if beyond is not None and s >= beyond:
        s = math.inf
    offsets = drawn[0].tolist() if smooth else [0] * len(data)
    check_rows(
        step_of(batch), [wanted_row(r, s + o, side, False) for r, o in zip(data, offsets, strict=True)]
    )


@settings(max_examples=15, deadline=None)
@given(rows, st.data(), st.sampled_from(["left", "right"]), st.booleans())
def test_the_loss_is_the_mean_over_all_labels_of_the_batch(
    data: list[Row], draw: st.DataObject, side: Side, keep_positions: bool
) -> None:
    """Each row by itself, without padding, its log-probabilities added up in Python."""
    removals = [draw.draw(st.integers(0, 8)) for _ in data]
    batch = remove(examples_of(data), torch.tensor(removals), side, EOS, keep_positions=keep_positions)
    parts = assemble(tiny_config(data__train=8, data__valid=1, data__test=1, model__dropout=0.0))
    # The lists' token ids are up to 99, the model's 16.
    batch.input_ids_BT.remainder_(17)
    batch.labels_BL.copy_(torch.where(batch.labels_BL == IGNORED, IGNORED, batch.labels_BL.remainder(17)))
    total, count = 0.0, 0
    for row, n in zip(data, removals, strict=True):
        wanted = wanted_row(row, n, side, keep_positions)
        ids = torch.tensor([[id % 17 for id in wanted.ids]])
        mask = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()[None, None]
        with torch.no_grad():
            logits = parts.model(
                input_ids=ids, position_ids=torch.tensor([wanted.positions]), attention_mask=mask
            ).logits
        log_p = logits[0].double().log_softmax(-1)
        total -= sum(float(log_p[p - 1, label % 17]) for p, label in wanted.labels.items())
        count += len(wanted.labels)
    losses = parts.method.loss(parts.model, batch)
    assert int(losses.answer_count + losses.cot_count) == count
    assert losses.mean.item() == pytest.approx(total / count, abs=1e-5)


# Whole runs ----------------------------------------------------------------------------------------------

LINES = [
    "1 + 1 =||<<1+1=2>> #### 2",
    "how much is 7 * 8 ?|| #### 56",
    "Zoë has 1,000 apples||<<1000*2=2000>> <<2000+1=2001>> #### 2,001",
    "what?||0 #### 0",
    "a rather long question that needs no thought at all||1 2 3 #### 6",
    "9||8 7 6 5 4 3 2 1 0 #### 45",
]
RECIPES = {
    "left": Recipe(),
    "right, slow": Recipe(side="right", per_token=2, reset=False),
    "beyond": Recipe(beyond=5, max_len=59),
    "from 3, after pretraining": Recipe(start_from=3, pretrain=2, side="right", beyond=8),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_is_what_the_oracle_tells(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    recipe.per_epoch = 2
    init = small_pretrained.gpt2(tmp_path / "pretrained", positions=128)
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    steps = 24
    offsets = [[(7 * i + 5 * j) % 11 // 4 for j in range(3)] for i in range(steps)]
    chosen = run_config(recipe, init, file, steps)
    events: list[Event] = []
    with caught(offsets) as (got, indices):
        run = Run(chosen, tmp_path / "run")
        run.start(on_event=events.append)
        run.wait()
        run.close()
    assert not [event for event in events if isinstance(event, RunCrashed)]
    resets = {event.at.step for event in events if isinstance(event, StageEntered) and event.optimizer_reset}

    tokenizer = small_pretrained.gpt2_tokenizer(tmp_path / "again")
    lists = [
        cut(tokenizer(text(parse_line(line), tokenizer.eos_token)).input_ids, tokenizer) for line in LINES
    ]
    batches = [[lists[i] for i in batch] for batch in indices]
    wanted = list(wanted_batches(recipe, batches, offsets))
    assert len(got) == len(wanted) == steps
    assert [step.loss is None for step in got] == [batch.skipped for batch in wanted]
    assert resets == {number for number, batch in enumerate(wanted) if batch.reset}
    assert any(resets) == recipe.reset
    if recipe.max_len < math.inf:
        assert 0 < sum(batch.skipped for batch in wanted) < steps
    for step, batch in zip(got, wanted, strict=True):
        assert step.ids_BT is not None and step.labels_BT is not None
        step.ids_BT = step.ids_BT.where(step.ids_BT != tokenizer.eos_token_id, EOS)
        step.labels_BT = step.labels_BT.where(step.labels_BT != tokenizer.eos_token_id, EOS)
        check_rows(step, batch.rows)


def run_config(recipe: Recipe, init: Path, file: Path, steps: int) -> Config:
    files = {f"data__{split}_file": str(file) for split in ("train", "valid", "test")}
    return tiny_config(
        **files,
        data__task="text",
        data__valid=1,
        data__test=1,
        data__max_len_train=None if math.isinf(recipe.max_len) else int(recipe.max_len),
        model__init=str(init),
        model__vocab="full",
        method__side=recipe.side,
        method__reset_optimizer=recipe.reset,
        method__start_from=recipe.start_from,
        method__remove_all_beyond=None if math.isinf(recipe.beyond) else int(recipe.beyond),
        schedule__steps_per_token=recipe.per_token,
        schedule__pretrain_steps=recipe.pretrain * recipe.per_epoch,
        optim__batch=3,
        eval__every=1_000,
        stop__steps=steps,
    )


def cut(ids: list[int], tokenizer: Any) -> Row:
    """A text's ids as question, CoT and answer; its EOS as the lists have it."""
    first = ids.index(tokenizer.eos_token_id)
    second = ids.index(tokenizer.eos_token_id, first + 1)
    assert ids.index(tokenizer.eos_token_id, second + 1) == len(ids) - 1
    return ids[:first], ids[first + 1 : second], ids[second + 1 : -1]


def test_lines_are_cut_at_the_eos_of_one_text(tmp_path: Path) -> None:
    """Also for a tokenizer that joins blanks, or puts a BOS before: never part by part."""
    byte_level = small_pretrained.gpt2_tokenizer(tmp_path)
    examples: Examples = encode_lines([parse_line(line) for line in LINES], byte_level)
    for i, line in enumerate(LINES):
        question, cot, answer = cut(
            byte_level(text(parse_line(line), byte_level.eos_token)).input_ids, byte_level
        )
        assert int(examples.question_N[i]) == len(question) + 1
        assert int(examples.cot_N[i]) == len(cot)
        assert int(examples.length_N[i]) == len(question) + len(cot) + len(answer) + 3


def test_the_official_code_computes_the_same() -> None:
    official = os.environ.get("STEPWISE_OFFICIAL")
    if official is None:
        pytest.skip("set STEPWISE_OFFICIAL to a checkout of github.com/da03/Internalize_CoT_Step_by_Step")
    command = [sys.executable, str(BENCHMARK), "--official", official, "--only", "100 steps: mixed"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
