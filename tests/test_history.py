"""The fold of events into what the screen shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwise_tui.charts.curves import chart
from stepwise_tui.charts.quantities import QUANTITIES
from stepwise_tui.charts.view import View
from stepwise_tui.history import History, apply, replay
from stepwise_tui.series import Kept, Series
from stepwise_tui.words import outcome
from tests import scripted
from tests.scripted import SCRIPTED, Script
from trainer.config import build
from trainer.events import (
    At,
    ChatToken,
    CommandAcknowledged,
    CommandReceived,
    Event,
    Metrics,
    Notice,
    RunStarted,
    SettingChanged,
    StageEntered,
    decode,
    encode,
)
from trainer.pacing import schedule
from trainer.pacing.schedule import Pace, Progress
from trainer.record.digest import LINES
from trainer.record.thinning import LIMIT, RECENT

LENGTH = 8 * LIMIT + RECENT


@pytest.mark.parametrize("script", [scripted.lost, scripted.saved, scripted.finished, scripted.training])
def test_a_journal_replays_to_the_same_charts_log_and_chat(script: type[Script]) -> None:
    """Through the codec, without what is transient, and piece by piece."""
    events = script().events
    live = History(config=SCRIPTED)
    for event in events:
        apply(live, event)
    journal = [decode(encode(event)) for event in events if not event.transient]
    again = replay(journal, SCRIPTED)
    assert again.log == live.log
    assert again.chat == live.chat
    assert again.timeline == live.timeline
    assert again.lineage == live.lineage
    for view in (View(), View("removed", logs=frozenset({"loss"})), View("time")):
        for quantity in QUANTITIES:
            one, other = (chart(quantity, history, (90, 20), view).text for history in (live, again))
            assert (one.plain, one.spans) == (other.plain, other.spans)


def metrics(step: int, scheduled: int = 0, branch: int = 1, time: float = 1.0, loss: float = 0.5) -> Metrics:
    stage = min(scheduled, 9)
    return Metrics(
        at=At(step, branch, stage, scheduled, stage, time),
        loss=loss,
        loss_answer=loss,
        loss_cot=None,
        grad_norm=1.0,
        lr=1e-3,
        steps=1,
        steps_per_second=10.0,
        tokens_per_second=1e4,
        epoch=0.0,
    )


def started(steps_per_epoch: int = 100) -> RunStarted:
    return RunStarted(at=At(time=1.0), name="a", stages=9, steps_per_epoch=steps_per_epoch)


@given(
    st.integers(1, 7), st.integers(0, 9), st.lists(st.sampled_from(["step", "hold", "release"]), max_size=80)
)
def test_the_next_removal_is_foretold_as_the_schedule_will_do_it(
    per_token: int, pretrain: int, doings: list[str]
) -> None:
    config = build({"schedule": {"steps_per_token": per_token, "pretrain_steps": pretrain}})
    pace, progress, held, step = Pace((per_token,), pretrain), Progress(0, 0), False, 0
    history = replay([started(), StageEntered(at=At(time=1.0), text="", cause="start")], config)
    for doing in doings:
        at = At(step, 1, min(progress.scheduled, 9), progress.scheduled, 0, 1.0)
        if doing != "step":
            held = doing == "hold"
            apply(
                history,
                CommandAcknowledged(at=at, id=doing, command=doing, source="cockpit", ok=True, message=""),
            )
            continue
        due = schedule.remove_when_due(progress, pace, held=held)
        if due != progress and due.scheduled <= 9:
            at = At(step, 1, due.scheduled, due.scheduled, 0, 1.0)
            apply(history, StageEntered(at=at, text="", cause="schedule"))
        progress = schedule.count(due, pace, step=step, held=held)
        step += 1
        apply(history, metrics(step, progress.scheduled))
        if held or progress.scheduled >= 9:
            assert history.steps_to_next is None
        else:
            assert history.steps_to_next == schedule.steps_to_next(progress, pace, step=step)


def test_the_next_removal_is_foretold_in_the_middle_of_a_stage_after_a_roll_back() -> None:
    script = scripted.lost().roll_back(3, 1_100)  # stage 3 was entered at 1,000, a token goes every 200
    # It takes twice its time after a roll back.
    assert replay(script.events, SCRIPTED).steps_to_next == 300


def test_a_request_is_pending_until_it_is_acknowledged() -> None:
    asked = CommandReceived(at=At(time=1.0), id="a", command="save", source="cockpit")
    done = CommandAcknowledged(
        at=At(time=1.0), id="a", command="save", source="cockpit", ok=True, message="saved"
    )
    history = replay([asked])
    assert list(history.pending) == ["a"]
    apply(history, done)
    assert not history.pending
    assert [line.text for line in history.log][-1] == "done at step 0: save: saved"
    assert history.timeline[-1].text == "save: saved"


def test_what_a_roll_back_did_has_room_at_80_columns() -> None:
    told = "back to stage 12, step 5,280 (b1-s005280-stage12); 3,032 steps become an abandoned branch"
    at = At(step=5_280)
    done = CommandAcknowledged(at=at, id="a", command="rollback 12", source="cockpit", ok=True, message=told)
    assert outcome(done) == "rollback: back to stage 12, step 5,280; 3,032 steps become an abandoned branch"


def test_what_an_ended_process_still_owed_is_given_up_when_the_run_is_taken_up_again() -> None:
    ask = CommandReceived(at=At(time=1.0), id="a", command="ask 1*1", source="cockpit")
    history = replay([started(), ask, started()])
    assert not history.pending
    assert history.chat[0].refused


def test_a_resumed_run_has_not_ended() -> None:
    history = replay([*scripted.finished().events, started()], SCRIPTED)
    assert not history.ended
    assert history.state == "starting"


def test_a_pause_to_come_is_forgotten_with_the_end_of_its_run() -> None:
    script = scripted.training()
    script.command("run 500", "training to step 2,200, then a pause")
    assert replay(script.events).control.pause_at is not None
    assert replay(script.finish().events).control.pause_at is None


def test_a_request_told_late_does_not_move_the_run() -> None:
    late = CommandReceived(at=At(5, 1, 0, 0, 0, 1.0), id="a", command="pause", source="cockpit")
    history = replay([started(), metrics(300, scheduled=2), late])
    assert history.at.step == 300
    assert (history.branch.removals[-1].step, history.branch.scheduled) == (300, 2)


def test_a_roll_back_ends_the_alarm_and_keeps_the_abandoned_branch() -> None:
    before, after = replay(scripted.lost().events, SCRIPTED), replay(scripted.saved().events, SCRIPTED)
    assert before.alarm is not None
    assert after.alarm is None
    assert after.branches[1].stages == before.branches[1].stages
    np.testing.assert_array_equal(after.branches[1].loss.columns, before.branches[1].loss.columns)
    assert after.at.branch == 2
    assert after.forks[2].step == 1_000


def test_a_setting_of_another_version_is_told_and_left_out() -> None:
    strange = SettingChanged(at=At(time=1.0), key="optim.of_tomorrow", old=1, new=2)
    known = SettingChanged(at=At(time=1.0), key="optim.lr", old=5e-5, new=0.01)
    history = replay([strange, known])
    assert history.config.optim.lr == 0.01
    assert "optim.of_tomorrow" in history.log[0].text


def test_streaming_shows_until_the_whole_turn_is_there() -> None:
    ask = CommandReceived(at=At(time=1.0), id="q", command="ask 12*34", source="cockpit")
    history = replay(
        [ask, ChatToken(id="q", text=" 8", part="cot"), ChatToken(id="q", text=" 4", part="answer")]
    )
    assert (history.chat[0].cot, history.chat[0].answer) == (" 8", " 4")


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b31m", "a\nb\rc\x07", "\u202eabc", "\x00"])
def test_nothing_a_terminal_would_obey_gets_into_log_or_chat(text: str) -> None:
    events: list[Event] = [
        CommandReceived(at=At(time=1.0), id="q", command=f"ask {text}", source="cockpit"),
        ChatToken(id="q", text=text, part="cot"),
        Notice(at=At(time=1.0), message=text, level="error"),
    ]
    history = replay(events)
    shown = history.log[-1].text + history.chat[0].asked + history.chat[0].cot
    assert shown.isprintable()


def test_memory_is_bounded() -> None:
    history = replay([started()])
    for step in range(1, LENGTH):
        apply(history, metrics(step, time=float(step)))
        apply(history, Notice(at=At(step, time=float(step)), message="x"))
    assert len(history.branch.loss.columns.value) <= 3 * LIMIT + RECENT
    assert len(history.log) == LINES
    assert history.log_total == LENGTH - 1 + 1


@settings(max_examples=10, deadline=None)
@given(st.integers(0, LENGTH), st.integers(0, LENGTH))
def test_thinning_keeps_spikes_gaps_and_both_ends_in_order(spike: int, gap: int) -> None:
    kept = Kept()
    series = Series(kept.steps, kept.metrics, branch=1, value=0)
    for step in range(LENGTH + 1):
        value = math.nan if step == gap else 9.0 if step == spike else (step % 7) / 10
        at = At(step, time=float(step))
        kept.steps.reach(1, step)
        kept.metrics.add(1, at, *[value] * 6)
        series.add(at, value)
    steps, _, values, fair = series.columns
    assert len(values) < 3 * LIMIT + RECENT
    assert (steps[-RECENT:] == np.arange(LENGTH + 1 - RECENT, LENGTH + 1)).all() and fair[-RECENT:].all()
    assert list(steps) == sorted(steps)
    assert steps[0] == 0 and steps[-1] == LENGTH
    assert np.isnan(values).any()
    assert spike == gap or 9.0 in values
