"""The gate of adaptive schedules: pure; then in real runs of a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.driven import Driven, same, weights
from tests.tiny import tiny_config
from trainer.answering.evaluate import evaluate
from trainer.answering.probe import learnt
from trainer.config import GATED, ScheduleConfig
from trainer.events import At, Event, Notice, Probed, RolledBack, RunFinished, StageEntered
from trainer.pacing import gate, schedule
from trainer.pacing.gate import CAREFUL, Gate, learn
from trainer.pacing.schedule import Pace, Progress
from trainer.parts import assemble
from trainer.record import journal

CONFIG = ScheduleConfig(kind="adaptive", probes=2, ready=0.9, stall=3, most_at_once=4)


def probed(accuracy: float) -> Probed:
    return Probed(accuracy=accuracy, n=10, mean=accuracy, target=0.0, at_once=1, careful=0, seconds=0.0)


def entered() -> StageEntered:
    return StageEntered(text="", cause="schedule")


def rolled_back() -> RolledBack:
    return RolledBack(checkpoint="c", parent=1, from_branch=1, from_step=9, keep_weights=False, seed="fresh")


def after(*events: Event, config: ScheduleConfig = CONFIG) -> Gate:
    state = Gate()
    for event in events:
        state = learn(state, event, config)
    return state


def told(*accuracies: float) -> list[Event]:
    """Stages whose probes were all so."""
    return [event for a in accuracies for event in (probed(a), probed(a), entered())]


def test_the_first_stage_must_reach_the_share_itself() -> None:
    assert not after(probed(0.95)).early(CONFIG)  # one probe is too few
    assert not after(probed(0.89), probed(0.89)).early(CONFIG)
    assert after(probed(0.87), probed(0.95)).early(CONFIG) == 1


def test_later_ones_must_come_back_to_their_share_of_the_best_before() -> None:
    state = after(*told(0.5), probed(0.44), probed(0.44))
    assert state.target(CONFIG) == pytest.approx(0.45)
    assert not state.early(CONFIG)
    assert learn(state, probed(0.47), CONFIG).early(CONFIG)
    assert after(*told(0.8, 0.5)).target(CONFIG) == pytest.approx(0.72)  # the best, not the last


def test_stages_that_cost_nothing_are_joined_and_a_dip_parts_them() -> None:
    easy = told(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert [after(*easy[: 3 * k]).chunk for k in range(7)] == [1, 1, 1, 2, 2, 4, 4]
    assert after(*told(*[1.0] * 20)).chunk == CONFIG.most_at_once
    assert after(*easy, probed(0.1), probed(1.0), entered()).chunk == 2
    assert after(*easy, probed(0.1)).at_once(replace_kind("gated")) == 1


def test_a_stage_that_gets_no_better_is_left() -> None:
    climbing = after(*told(1.0), *map(probed, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)))
    assert not climbing.early(CONFIG)
    flat = after(*told(1.0), *map(probed, (0.5, 0.4, 0.6, 0.5, 0.4, 0.6)))
    assert flat.early(CONFIG) == 1 and not flat.learnt(CONFIG)
    assert not flat.early(CONFIG.model_copy(update={"stall": None}))
    nothing = after(*told(1.0), *map(probed, [0.0] * 6))
    assert not nothing.early(CONFIG)  # there, time decides


def replace_kind(kind: str) -> ScheduleConfig:
    return CONFIG.model_copy(update={"kind": kind})


def test_a_roll_back_makes_it_careful_for_some_stages() -> None:
    state = after(*told(1.0, 1.0, 1.0, 1.0, 1.0), rolled_back())
    assert (state.chunk, state.careful) == (1, CAREFUL)
    assert not after(*told(1.0), rolled_back(), probed(1.0), probed(1.0)).early(CONFIG)
    for _ in range(CAREFUL):
        for _ in range(2 * CONFIG.probes):
            assert not state.early(CONFIG)
            state = learn(state, probed(1.0), CONFIG)
        assert state.early(CONFIG) == 1
        state = learn(state, entered(), CONFIG)
    assert state.careful == 0 and state.probes(CONFIG) == CONFIG.probes


steps = st.one_of(st.floats(0, 1).map(probed), st.builds(entered), st.builds(rolled_back))


@given(st.lists(steps, max_size=60), st.sampled_from(GATED))
def test_it_never_opens_without_its_probes_and_survives_a_checkpoint(events: list[Event], kind: str) -> None:
    config = replace_kind(kind)
    state = Gate()
    for event in events:
        state = learn(state, event, config)
        early = state.early(config)
        assert 0 <= early <= config.most_at_once
        if early:
            recent = state.recent[-state.probes(config) :]
            wanted = config.ready * (1.0 if state.best is None else state.best)
            back = len(recent) == state.probes(config) and sum(recent) / len(recent) >= wanted
            assert back or (early == 1 and state.stalled(config) and not state.careful)
            assert sum(recent) > 0
        assert Gate.load(json.loads(json.dumps(state.state()))) == state


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 30), st.data())
def test_early_removals_never_come_in_pretraining_beyond_the_end_or_while_held(
    stages: int, wait: int, pretrain: int, draw: st.DataObject
) -> None:
    pace, progress = Pace((wait, 4 * wait), pretrain, 0, stages), Progress(0, 0)
    for step in range(60):
        held, early = draw.draw(st.booleans()), draw.draw(st.integers(0, 4))
        due = schedule.remove_when_due(progress, pace, held=held, early=early)
        if due != progress:
            assert not held and step > pretrain
            assert due.scheduled <= max(stages, progress.scheduled + 1)
            assert early or progress.counter >= pace.wait(progress.scheduled)
        progress = schedule.count(due, pace, step=step, held=held)


def test_the_first_stage_takes_linears_time_at_most_and_later_ones_longest() -> None:
    config = ScheduleConfig(kind="gated", tokens_per_epoch=None, steps_per_token=100, longest=2.5)
    pace = schedule.pace(config, 1_000, stages=5)
    assert [pace.wait(scheduled) for scheduled in range(4)] == [100, 250, 250, 250]


ONE_DIGIT = {"data__digits": 1, "data__train": 60, "data__valid": 10, "data__test": 10}
GATED_RUN: dict[str, object] = ONE_DIGIT | {
    "schedule__kind": "adaptive",
    "schedule__steps_per_token": 60,
    "schedule__longest": 1.5,
    "schedule__probe_every": 4,
    "schedule__probes": 2,
    "schedule__ready": 0.05,
    "optim__lr": 1e-2,
    "stop__steps": 260,
}


def test_a_probe_is_exact_match_where_no_cot_is_left() -> None:
    """Against decoding, on a model that knows something."""
    parts = assemble(tiny_config(method__name="no_cot", **ONE_DIGIT))
    train = parts.splits["train"]
    optimizer = torch.optim.AdamW(parts.model.parameters(), lr=1e-2)
    shares = []
    for _ in range(12):
        for _ in range(5):
            parts.method.loss(parts.model, parts.method.rows(train, 0, None)).mean.backward()
            optimizer.step()
            optimizer.zero_grad()
        result = evaluate(parts.method, parts.model, train, 0, parts.tokenizer)
        assert result is not None
        share = int(learnt(parts.method, parts.model, train, 0, rows=16)) / len(train)
        # A right answer may be said in other tokens; what is right token by token is right.
        assert share <= result.accuracy <= share + 0.05
        shares.append(share)
    assert shares[-1] > 0


def test_the_gate_decides_in_a_run_and_a_resumed_one_ends_the_same(
    driven: Callable[..., Driven], tmp_path: Path
) -> None:
    whole = driven("whole", **GATED_RUN)
    end = whole.until(RunFinished).checkpoint
    stages = [e for e in whole.all(StageEntered) if e.cause == "schedule"]
    assert any("right after" in e.why for e in stages)
    whole.run.close()
    first = driven("parts", **GATED_RUN)
    first.until(Probed, lambda e: e.at.stage == 1)
    assert first.do("stop").ok
    first.until(RunFinished)
    first.run.close()
    second = driven("parts", resume=True, **GATED_RUN)
    assert second.until(RunFinished).checkpoint == end
    assert same(weights(tmp_path / "whole", end), weights(tmp_path / "parts", end))
    second.run.close()
    told = [journal.read(tmp_path / name, journal.of(Probed)) for name in ("whole", "parts")]
    seen = [[replace(e, at=replace(e.at, time=0.0), seq=0, seconds=0.0) for e in events] for events in told]
    assert seen[0] == seen[1]


def test_where_nothing_was_ever_right_the_reason_is_time_and_no_share_is_wanted() -> None:
    """The log said "240 steps are the longest time; 1.2% right, 0.0% wanted"."""
    why = gate.reason(Gate(best=0.0, recent=(0.01, 0.015)), 240, CONFIG)
    assert why == "240 steps are the longest time; 1.2% right, none was before, so time decides"


def test_what_is_not_learnt_goes_after_the_longest_time(driven: Callable[..., Driven]) -> None:
    one = driven(**GATED_RUN | {"schedule__ready": 1.0, "optim__lr": 1e-9})
    one.until(RunFinished)
    stages = [e for e in one.all(StageEntered) if e.cause == "schedule"]
    assert [e.at.step for e in stages] == [65, 155, 245]  # pretraining and 60 steps, then 90 each
    assert all("longest time" in e.why for e in stages)


def test_a_roll_back_is_answered_by_care(driven: Callable[..., Driven]) -> None:
    one = driven(**GATED_RUN | {"stop__steps": 10**6})
    one.until(StageEntered, lambda e: e.at.stage == 1)
    assert one.do("hold").ok and one.do("rollback 0").ok
    one.until(Notice, lambda e: e.message == gate.CARE)
    assert one.until(Probed, lambda e: e.at.branch == 2).careful == CAREFUL
    assert one.do("advance").ok  # the operator is asked no questions
    assert one.until(Probed, lambda e: e.at.branch == 2 and e.at.stage == 1).careful == CAREFUL - 1


def test_what_a_probe_means_is_told_with_it() -> None:
    state = after(*told(1.0))
    event = gate.told(state, 0.5, CONFIG, at=At(step=7), n=4, seconds=0.1)
    assert (event.mean, event.target, event.at_once) == (0.5, pytest.approx(0.9), 1)
    assert replace(event, accuracy=0.5) == event
