"""What the cockpit says of a command, a wait and a key, in words that fit the moment."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual.widgets import Static

from stepwise_tui.answers import Pair
from stepwise_tui.app import Cockpit
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.history import History, apply
from stepwise_tui.keymap import KEYS, names
from stepwise_tui.widgets import answers, closing, lines, replies, system
from stepwise_tui.words import outcome
from tests import scripted
from tests.scripted import SCRIPTED, STAGES, Script, ScriptedLink
from trainer.config import Config
from trainer.events import (
    AlarmRaised,
    CommandAcknowledged,
    ExamplesShown,
    Metrics,
    Probed,
    ReachChanged,
    RunFinished,
    StateChanged,
    StepsRepeated,
    WatchPlanned,
)


def history_of(script: Script, config: Config = SCRIPTED) -> History:
    history = History(config=config)
    for event in script.events:
        apply(history, event)
    return history


@pytest.mark.parametrize(
    ("command", "ok", "message", "told"),
    [
        ("pause", True, "paused at step 1,340", "pause: paused at step 1,340"),
        (
            "rollback b1-01",
            True,
            "back to stage 2, step 96",
            "rollback: back to stage 2, step 96 (at step 1,340)",
        ),
        ("set optim.lr 1e-4", True, "optim.lr = 0.0001", "set: optim.lr = 0.0001 (at step 1,340)"),
        ("advance 3", False, "nothing is left", "advance 3: nothing is left (at step 1,340)"),
    ],
)
def test_an_answer_says_the_command_and_the_step_once(
    command: str, ok: bool, message: str, told: str
) -> None:
    at = scripted.training().at
    done = CommandAcknowledged(at=at, id="1", command=command, source="cockpit", ok=ok, message=message)
    assert outcome(done) == told


def test_before_a_speed_is_known_steps_are_told_and_the_next_evaluation() -> None:
    script = Script().start()
    script.step = 960
    script.say(StateChanged(at=script.at, state="paused"))
    history = history_of(script)
    assert history.metrics is None
    assert "next in " in lines.removal_line(history, 80, UNICODE).plain
    assert " steps" in lines.removal_line(history, 80, UNICODE).plain
    assert "at step 1,000" in replies.example_line(history, 80, UNICODE).plain


def test_of_a_long_question_in_words_the_end_is_seen_which_asks_and_of_a_sum_its_beginning() -> None:
    script = scripted.training()
    asks = "Every felpus is a fom. " * 9 + "Is Davis a fom or fompus?"
    for question, seen in ((asks, "…a fom or fompus? =  "), ("9" * 99, f"{'9' * 20}… =  ")):
        first, *rest = scripted.examples(4, 1.0)
        script.say(ExamplesShown(at=script.at, examples=(replace(first, question=question), *rest)))
        assert replies.example_line(history_of(script), 78, UNICODE).plain.startswith(seen)


def test_of_answers_in_words_that_do_not_fit_the_word_is_seen_by_which_they_differ() -> None:
    """It had "Davis is a … ✗ Davis is a …"."""
    script = scripted.training()
    first, *rest = scripted.examples(4, 1.0)
    wrong = replace(first, answer="Davis is a fompus", given="Davis is a brimpus", correct=False)
    script.say(ExamplesShown(at=script.at, examples=(wrong, *rest)))
    assert "…a brimpus ✗ …a fompus " in replies.example_line(history_of(script), 78, UNICODE).plain
    pairs = [Pair(1, (wrong,)), Pair(2, (replace(wrong, given=wrong.answer, correct=True),))]
    columns = answers.layout(pairs, ["live"], 60, UNICODE)
    row = answers.row(pairs[0], columns, UNICODE)
    assert "…is a brimpus " in row.plain and "…is a fompus " in row.plain
    (marked,) = (row.plain[span.start : span.end] for span in row.spans if span.style == answers.WRONG)
    assert marked == "brimpus"


def test_nobody_waits_while_paused() -> None:
    assert "all gone in" in lines.status_line(history_of(scripted.training()), "otter", 120, UNICODE).plain
    paused = history_of(scripted.training().pause())
    assert "all gone in" not in lines.status_line(paused, "otter", 120, UNICODE).plain


def test_a_gated_schedule_says_what_it_waits_for_and_in_steps_while_paused() -> None:
    gated = SCRIPTED.model_copy(update={"schedule": SCRIPTED.schedule.model_copy(update={"kind": "gated"})})
    script = scripted.training()
    probe = Probed(at=script.at, accuracy=0.5, n=200, mean=0.5, target=0.9, at_once=1, careful=0, seconds=0.1)
    script.say(probe)
    script.pause()
    line = lines.removal_line(history_of(script, gated), 110, UNICODE).plain
    assert "next at .900, now .500   within" in line and "steps" in line.partition("within")[2]
    script.say(replace(probe, target=0.0))
    line = lines.removal_line(history_of(script, gated), 110, UNICODE).plain
    assert "none right before, now .500" in line, "it goes by time; at any share it would have gone"


def test_a_run_whose_process_went_with_its_end_is_not_offered_to_be_asked_here() -> None:
    script = scripted.finished()
    there = closing.closing(history_of(script), ScriptedLink([]), names(KEYS))
    script.say(ReachChanged(gone="crashed", advice="its process is gone"))
    left = closing.closing(history_of(script), ScriptedLink([]), names(KEYS))
    assert there is not None and "here and now" in there.plain
    assert left is not None and "here and now" not in left.plain and "stepwise chat" in left.plain


def test_while_steps_of_a_killed_process_are_made_again_nothing_of_later_ones_stands_beside_them() -> None:
    script = scripted.training()
    told = len(script.events)
    started, last = script.events[0], script.at
    script.say(replace(started, at=replace(last, step=800, stage=2, scheduled=2)))
    status = lines.status_line(history_of(script), "x", 110, UNICODE).plain
    assert "step 800" in status and "loss" not in status and "tok/s" not in status
    script.say(StepsRepeated(at=replace(last, step=810, stage=2, scheduled=2), upto=last.step))
    assert (
        f"step 810   made again, up to {last.step:,}"
        in lines.status_line(history_of(script), "x", 110, UNICODE).plain
    )
    newest = next(e for e in reversed(script.events[:told]) if isinstance(e, Metrics))
    script.say(replace(newest, at=replace(last, step=last.step + 10)))
    status = lines.status_line(history_of(script), "x", 110, UNICODE).plain
    assert "again" not in status and "loss" in status


def test_where_a_limit_ended_a_run_before_all_was_removed_the_end_says_how_it_goes_on() -> None:
    script = scripted.training()
    script.finish()
    end = script.events[-2]
    assert isinstance(end, RunFinished)
    script.events[-2] = replace(end, reason="1,340 steps (stop.steps)", limit="stop.steps")
    shown = closing.closing(history_of(script), ScriptedLink([]), names(KEYS))
    assert shown is not None
    assert f"at stage {end.at.stage} of {STAGES}, after" in shown.plain
    assert "go on    stepwise resume runs/brisk-otter --set stop.steps=N" in shown.plain
    assert "next " not in shown.plain


async def test_in_80_columns_all_is_seen_of_an_alarm_and_of_what_the_watch_will_do() -> None:
    script = scripted.lost()
    raised = next(e for e in script.events if isinstance(e, AlarmRaised))
    script.say(replace(raised, remedy="roll back to the entry of stage 2, from before"))
    script.command("hold", "the schedule is held at stage 3")
    plan = "waits for accuracy 0.80; not better after 2 evaluations more: back to stage 2 (4 roll backs left)"
    script.say(WatchPlanned(at=script.at, plan=plan))
    app = Cockpit(ScriptedLink(script.events), glyphs=UNICODE)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        bar = lines.alarm(app.history, 78, UNICODE, names(KEYS))
        assert bar is not None and "(4 roll backs left)" in " ".join(bar.plain.split())
        assert app.main.query_one("#alarm").size.height == len(bar.plain.splitlines()) == 6


def test_a_limit_that_ends_the_run_before_all_is_gone_is_told_while_it_trains() -> None:
    """It promised "all gone in 13m49s" of a run that `stop.epochs` was to end in two minutes."""
    stop = SCRIPTED.stop.model_copy(update={"steps": 1_400})
    script = scripted.training()
    soon = history_of(script, SCRIPTED.model_copy(update={"stop": stop}))
    line = lines.status_line(soon, "otter", 80, UNICODE).plain
    assert "ends in " in line and "not all gone" in line and "all gone in" not in line
    assert "all gone not before the end" in " ".join(system.panel(soon, 60, UNICODE).plain.split())


def test_where_it_goes_by_what_is_learnt_times_are_bounds_and_the_end_comes_before_none_of_them() -> None:
    """It had "a removal in 10s, all gone in 17m35s, end in 7m51s at the latest"."""
    schedule = SCRIPTED.schedule.model_copy(update={"kind": "adaptive"})
    adaptive = SCRIPTED.model_copy(update={"schedule": schedule})
    history = history_of(scripted.training(), adaptive)
    panel = " ".join(system.panel(history, 60, UNICODE).plain.split())
    assert "a removal within " in panel and "all gone within " in panel
    assert "all gone within " in lines.status_line(history, "otter", 120, UNICODE).plain
    stop = SCRIPTED.stop.model_copy(update={"steps": 1_400})
    history = history_of(scripted.training(), adaptive.model_copy(update={"stop": stop}))
    assert "perhaps not before the end" in system.panel(history, 60, UNICODE).plain
    line = lines.status_line(history, "otter", 120, UNICODE).plain
    assert "ends within " in line and "perhaps not all gone" in line


def test_an_alarm_says_what_the_schedule_does_now_and_offers_no_key_that_would_undo_the_answer() -> None:
    script = scripted.lost()
    raised = next(e for e in script.events if isinstance(e, AlarmRaised))
    bar = lines.alarm(history_of(script), 78, UNICODE, names(KEYS))
    assert bar is not None and "goes on removing tokens" in " ".join(bar.plain.split())
    script.command("hold", "the schedule is held at stage 3")
    bar = lines.alarm(history_of(script), 78, UNICODE, names(KEYS))
    assert bar is not None and "the schedule is held" in " ".join(bar.plain.split())
    assert "removing" not in bar.plain and " h " not in bar.plain
    script.say(replace(raised, kind="trend", key="h", remedy="hold the schedule, and set a gentler pace"))
    bar = lines.alarm(history_of(script), 78, UNICODE, names(KEYS))
    assert bar is not None and " ,  set a gentler pace" in bar.plain and " h " not in bar.plain
    script.pause()
    bar = lines.alarm(history_of(script), 78, UNICODE, names(KEYS))
    assert bar is not None and "; training is paused" in " ".join(bar.plain.split())


def test_where_all_is_gone_no_alarm_offers_to_hold() -> None:
    script = scripted.lost()
    before = lines.alarm(history_of(script), 78, UNICODE, names(KEYS))
    assert before is not None
    assert "hold the schedule" in before.plain
    script.enter(STAGES)
    after = lines.alarm(history_of(script), 78, UNICODE, names(KEYS))
    assert after is not None
    assert "hold" not in after.plain


async def test_the_footer_names_the_keys_that_act_now() -> None:
    app = Cockpit(ScriptedLink(scripted.training().events), glyphs=UNICODE)

    def footer() -> str:
        return str(app.main.query_one("#keys", Static).render())

    async with app.run_test(size=(80, 24)) as pilot:
        assert "space pause" in footer()
        await pilot.press("c")
        await pilot.pause()
        assert "enter ask" in footer()
        assert "pause" not in footer()
        await pilot.press("escape")
        await pilot.pause()
        assert "space pause" in footer()


@pytest.mark.parametrize(
    ("script", "offered"), [(scripted.finished(), False), (scripted.training().crash(), True)]
)
async def test_what_would_be_refused_after_the_end_is_not_offered(script: Script, offered: bool) -> None:
    app = Cockpit(ScriptedLink(script.events), glyphs=UNICODE)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        footer = str(app.main.query_one("#keys", Static).render())
        assert "advance" not in footer
        assert "c chat" in footer
        assert ("take up again" in footer) is offered
