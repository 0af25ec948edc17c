"""The schedule against a slow transcription of the order of operations in the official code."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import ScheduleConfig
from trainer.pacing.schedule import (
    Pace,
    Progress,
    count,
    offset_distribution,
    pace,
    remove_when_due,
    steps_to_next,
    steps_to_none,
    warm,
)


def official(batches: int, per_removal: int, pretrain: int) -> list[int]:
    """Removals in force at each batch: REFERENCE section 1, points 1 and 2, word for word."""
    s, counter, seen = 0, 0, []
    for batch in range(batches):
        if counter == per_removal:
            s += 1
            counter = 0
        if batch >= pretrain:
            counter += 1
        seen.append(s)
    return seen


def ours(batches: int, rule: Pace) -> list[int]:
    progress, seen = Progress(0, 0), []
    for step in range(batches):
        progress = remove_when_due(progress, rule, held=False)
        progress = count(progress, rule, step=step, held=False)
        seen.append(progress.scheduled)
    return seen


@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 60))
def test_removals_come_at_the_official_batches(batches: int, per_removal: int, pretrain: int) -> None:
    assert ours(batches, Pace((per_removal,), pretrain)) == official(batches, per_removal, pretrain)


@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 200))
def test_steps_to_next_says_when_the_next_removal_comes(per_removal: int, pretrain: int, made: int) -> None:
    rule = Pace((per_removal,), pretrain)
    progress = Progress(0, 0)
    for step in range(made):
        progress = count(remove_when_due(progress, rule, held=False), rule, step=step, held=False)
    promised = steps_to_next(progress, rule, step=made)
    for step in range(made, made + promised):
        assert remove_when_due(progress, rule, held=False) == progress
        progress = count(progress, rule, step=step, held=False)
    assert remove_when_due(progress, rule, held=False).scheduled == progress.scheduled + 1


@given(st.integers(0, 10), st.integers(0, 100))
def test_a_held_schedule_stands_still(scheduled: int, counter: int) -> None:
    rule, progress = Pace((5,)), Progress(scheduled, counter)
    assert remove_when_due(progress, rule, held=True) == progress
    assert count(progress, rule, step=99, held=True) == progress


def test_a_table_names_the_steps_of_each_stage() -> None:
    rule = pace(ScheduleConfig(kind="table", steps=(3, 1, 2), pretrain_steps=2), 100)
    assert ours(13, rule) == [0, 0, 0, 0, 0, 1, 2, 2, 3, 3, 4, 4, 5]


@given(st.integers(1, 500), st.floats(0.01, 0.99), st.integers(1, 5))
def test_geometric_chunks_shrink_until_all_is_gone(stages: int, share: float, wait: int) -> None:
    config = ScheduleConfig(
        kind="geometric", removed_share=share, tokens_per_epoch=None, steps_per_token=wait
    )
    rule = pace(config, 100, stages=stages)
    reached = [0]
    while reached[-1] < stages:
        reached.append(rule.next(reached[-1]))
    chunks = [b - a for a, b in itertools.pairwise(reached)]
    assert sum(chunks) == stages
    assert chunks == sorted(chunks, reverse=True) and chunks[-1] >= 1
    assert rule.next(stages) == stages + 1  # the schedule counts on


def test_log_icot_halves_what_is_left() -> None:
    config = ScheduleConfig(kind="geometric", tokens_per_epoch=None, steps_per_token=1)
    rule = pace(config, 100, stages=47)
    assert ours(8, rule) == [0, 24, 36, 42, 45, 46, 47, 48]


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 40), st.sampled_from(["linear", "geometric"]))
def test_steps_to_none_says_when_the_last_stage_begins(
    pretrain: int, wait: int, stages: int, kind: Literal["linear", "geometric"]
) -> None:
    config = ScheduleConfig(kind=kind, tokens_per_epoch=None, steps_per_token=wait, pretrain_steps=pretrain)
    rule = pace(config, 100, stages=stages)
    promised = steps_to_none(Progress(0, 0), rule, step=0)
    reached = ours(promised + 1, rule)
    assert reached[-1] >= stages
    assert promised == 0 or reached[-2] < stages


def test_lowering_the_pace_below_the_counter_does_not_stall() -> None:
    assert remove_when_due(Progress(3, 90), Pace((50,)), held=False) == Progress(4, 0)


def test_pace_of_the_paper() -> None:
    """808,000 examples at batch 32, Δ = 8: 25,250 steps an epoch, a token every 3,156."""
    assert pace(ScheduleConfig(), 25_250) == Pace((3_156,))
    slow = ScheduleConfig(tokens_per_epoch=None, steps_per_token=100, pretrain_steps=40)
    assert pace(slow, 25_250) == Pace((100,), 40)
    assert pace(ScheduleConfig(tokens_per_epoch=1e9, pretrain_epochs=0.5), 10) == Pace((1,), 10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0, 4.0, 50.0, math.inf])
def test_offsets_are_a_distribution(smoothing: float) -> None:
    p = offset_distribution(smoothing)
    assert len(p) == 100  # truncated as in the official code
    assert all(x >= 0 for x in p)
    assert sum(p) == pytest.approx(1.0)


def test_warm_up_rises_to_the_whole_rate_and_stays() -> None:
    assert [warm(k, 4) for k in range(6)] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    assert warm(0, 0) == 1.0


def test_offsets_of_the_paper() -> None:
    """λ = 4 leaves about 98 % without extra removal (paper, section 3)."""
    p = offset_distribution(4.0)
    assert p[0] == pytest.approx(0.9817, abs=1e-4)
    assert p[1] / p[0] == pytest.approx(math.exp(-4))
    assert offset_distribution(math.inf)[0] == 1.0
