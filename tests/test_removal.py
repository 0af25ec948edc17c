"""Removal, labels and loss in tensors, against the same things done with Python lists."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import tiny_config
from trainer.methods.base import Examples
from trainer.methods.stepwise import IGNORED, remove
from trainer.parts import assemble

EOS = 0
Row = tuple[list[int], list[int], list[int]]

tokens = st.lists(st.integers(1, 99), min_size=1, max_size=6)
rows = st.lists(st.tuples(tokens, st.lists(st.integers(1, 99), max_size=6), tokens), min_size=1, max_size=5)


def examples_of(data: list[Row]) -> Examples:
    full = [[*q, EOS, *c, EOS, *a, EOS] for q, c, a in data]
    width = max(map(len, full))
    return Examples(
        torch.tensor([row + [EOS] * (width - len(row)) for row in full]),
        torch.tensor([len(q) + 1 for q, _, _ in data]),
        torch.tensor([len(c) for _, c, _ in data]),
        torch.tensor([len(row) for row in full]),
    )


def reference(row: Row, removals: int, side: str) -> tuple[list[int], list[int], list[bool]]:
    """Ids, the labels after the first EOS, and whether each of these comes after the CoT."""
    question, cot, answer = row
    gone = min(removals, len(cot))
    left = cot[gone:] if side == "left" else cot[: len(cot) - gone]
    labels = [*left, EOS, *answer, EOS]
    return [*question, EOS, *labels], labels, [i >= len(left) for i in range(len(labels))]


@given(rows, st.data(), st.sampled_from(["left", "right"]))
def test_removal_is_what_lists_give(
    data: list[Row], draw: st.DataObject, side: Literal["left", "right"]
) -> None:
    removals = [draw.draw(st.integers(0, 9)) for _ in data]
    stage = draw.draw(st.integers(0, min(removals)))
    examples = examples_of(data)
    batch = remove(examples, torch.tensor(removals), side, EOS, planned_B=torch.full((len(examples),), stage))

    assert batch.cot_free == all(n >= len(cot) for (_, cot, _), n in zip(data, removals, strict=True))
    assert batch.labels_BL.shape[1] == batch.input_ids_BT.shape[1] - 1 - batch.first
    total = 0
    for i, (row, n) in enumerate(zip(data, removals, strict=True)):
        ids, labels, after = reference(row, n, side)
        total += len(ids)
        got = batch.input_ids_BT[i].tolist()
        assert got[: len(ids)] == ids
        assert set(got[len(ids) :]) <= {EOS}
        kept = batch.labels_BL[i] != IGNORED
        assert batch.labels_BL[i][kept].tolist() == labels
        assert batch.answer_BL[i][kept].tolist() == after
        # Each label is the token after the position that predicts it.
        positions = (batch.first + torch.arange(len(kept)))[kept]
        assert positions.tolist() == list(range(len(row[0]), len(row[0]) + len(labels)))
    assert batch.tokens == total


@given(rows, st.integers(0, 8))
def test_the_width_depends_on_the_stage_and_not_on_offsets(data: list[Row], stage: int) -> None:
    examples = examples_of(data)
    plain = remove(
        examples, torch.full((len(data),), stage), "left", EOS, planned_B=torch.full((len(examples),), stage)
    )
    offset = remove(
        examples,
        torch.full((len(data),), stage + 3),
        "left",
        EOS,
        planned_B=torch.full((len(examples),), stage),
    )
    assert plain.input_ids_BT.shape == offset.input_ids_BT.shape


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_official_example(side: Literal["left", "right"]) -> None:
    """One token less on either side of 8 4 0 + 0 6 3 0, blank included."""
    row: Row = ([2, 1, 10, 4, 3, 15], [8, 4, 9, 11, 9, 6, 3, 9, 15], [16, 8, 9, 4, 9, 15])
    batch = remove(examples_of([row]), torch.tensor([1]), side, EOS)
    cot = batch.input_ids_BT[0].tolist()[7:15]
    assert cot == ([4, 9, 11, 9, 6, 3, 9, 15] if side == "left" else [8, 4, 9, 11, 9, 6, 3, 9])


@pytest.mark.parametrize("stage", [0, 1, 5, 9])
def test_moved_positions_are_kept_positions(stage: int) -> None:
    """After s removals the model sees what it would see with position ids shifted by s (keep-position)."""
    parts = assemble(tiny_config(method__move_positions=True, model__dropout=0.0))
    examples = parts.splits["valid"][:4]
    first = int(examples.question_N[0]) - 1
    batch = remove(
        examples, torch.full((4,), stage), "left", EOS, planned_B=torch.full((len(examples),), stage)
    )
    ids = batch.input_ids_BT
    column = torch.arange(ids.shape[1])
    kept = (column + stage * (column >= first)).expand_as(ids)
    # A causal mask of its own: transformers would take position ids that jump for packed sequences.
    mask = torch.ones(ids.shape[1], ids.shape[1]).tril().bool().expand(4, 1, -1, -1)
    with torch.no_grad():
        wanted = parts.model(input_ids=ids, position_ids=kept, attention_mask=mask).logits
        parts.method.enter(parts.model, 0, stage)
        got = parts.model(input_ids=ids).logits
        parts.method.enter(parts.model, stage, 0)
        given_back = parts.model(input_ids=ids, position_ids=kept, attention_mask=mask).logits
    assert torch.allclose(got, wanted, atol=1e-5)
    assert torch.equal(given_back, wanted)
