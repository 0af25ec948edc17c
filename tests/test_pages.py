"""The pages of examples and of the timeline, what waits, and what escape stops: by keys."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, OptionList, Static

from stepwise_tui import keymap
from stepwise_tui.app import Cockpit
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.history import Happening
from stepwise_tui.screens import main
from stepwise_tui.screens.dialogs import Confirm
from stepwise_tui.screens.examples import Examples
from stepwise_tui.screens.main import Main
from stepwise_tui.screens.timeline import Timeline, limbs
from stepwise_tui.settings import Settings
from stepwise_tui.widgets.chat import ChatInput, ChatPanel
from stepwise_tui.widgets.readouts import Readout
from tests import scripted
from tests.scripted import Script, ScriptedLink
from tests.terminal import Terminal
from tests.test_cockpit import cockpit, sent, tell, text_of
from tests.tiny import endless, kill
from trainer.events import At, ChatToken, CommandAcknowledged, CommandReceived
from trainer.record.lineage import Fork

LAST = "b2-001600"
"""The last checkpoint of the scripted run."""


def on_page(app: Cockpit, selector: str) -> str:
    return str(app.screen.query_one(selector, Static).render())


def rows(app: Cockpit) -> list[str]:
    choices = app.screen.query_one(OptionList)
    return [str(choices.get_option_at_index(index).prompt) for index in range(choices.option_count)]


async def answer(app: Cockpit, pilot: Pilot[None], checkpoint: str = "", accuracy: float = 0.7) -> None:
    script = Script()
    script.step, script.stage, script.branch = 1_700, 6, 2
    script.answered(checkpoint, accuracy=accuracy)
    await tell(app, pilot, *script.events)


# Examples ---------------------------------------------------------------------------------------------------


async def test_examples_follow_the_evaluations_until_all_are_asked_for() -> None:
    app, link = cockpit(scripted.saved())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("x")
        assert isinstance(app.screen, Examples)
        heading = on_page(app, "#heading")
        assert "live   step 1,700" in heading and "from the last evaluation" in heading
        await pilot.press("e")
        assert sent(link) == ["examples"]
        assert "requested: examples" in on_page(app, "#said")
        await answer(app, pilot)
        assert ".700 (350/500)" in on_page(app, "#heading")
        more = Script()
        more.step = 1_750
        more.evaluate()
        await tell(app, pilot, *more.events)
        assert ".700 (350/500)" in on_page(app, "#heading"), "what is being looked at stays"


async def test_only_the_wrong_ones_and_closer_what_is_wrong() -> None:
    app, _ = cockpit(scripted.saved())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("x", "e")
        await answer(app, pilot)
        assert len(rows(app)) == 8
        await pilot.press("w")
        assert len(rows(app)) == 2 and all("✗" in row for row in rows(app))
        assert "only the wrong ones" in on_page(app, "#heading")
        assert "^" in on_page(app, "#detail") and "8. 10 × 10" in on_page(app, "#detail")
        await pilot.press("up")
        assert "7. 77 × 77" in on_page(app, "#detail")
        await pilot.press("w")
        assert len(rows(app)) == 8
        assert "7. 77 × 77" in on_page(app, "#detail"), "what was looked at stays chosen"


async def test_two_models_side_by_side_and_only_where_they_differ() -> None:
    app, link = cockpit(scripted.saved())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("x", "d")
        assert "nothing beside it; c compares" in on_page(app, "#said")
        await pilot.press("c", "down", "enter")
        assert sent(link) == ["examples", f"examples --at {LAST}"]
        assert f"{LAST}: not answered yet" in on_page(app, "#heading")
        await answer(app, pilot, accuracy=0.9)
        await answer(app, pilot, LAST, accuracy=0.6)
        assert f"both right 5, both wrong 1, only live 2, only {LAST} 0" in on_page(app, "#heading")
        assert [row[0] for row in rows(app)] == [*"     ≠≠", " "]
        await pilot.press("d")
        assert [row[0] for row in rows(app)] == ["≠", "≠"]
        await pilot.press("w", "d")
        assert len(rows(app)) == 3
        await pilot.press("w", "c", "enter")
        assert "both right" not in on_page(app, "#heading"), "the same again is one"
        assert sent(link)[2:] == []


async def test_the_answers_of_a_checkpoint_alone() -> None:
    app, link = cockpit(scripted.saved())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("x", "o", "down", "enter")
        await answer(app, pilot, LAST)
        assert sent(link) == [f"examples --at {LAST}"]
        assert on_page(app, "#heading").startswith(f"{LAST}   step 1,600")
        await pilot.press("e", "o", "enter")
        assert sent(link)[1:] == [f"examples --at {LAST}", "examples"]


async def test_before_the_first_evaluation_there_is_nothing_but_a_way() -> None:
    app, link = cockpit(Script().start())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("x", "w")
        assert "e has them answered now" in on_page(app, "#detail")
        await pilot.press("e")
        assert sent(link) == ["examples"]


# Timeline ---------------------------------------------------------------------------------------------------


async def test_a_checkpoint_of_the_timeline_is_asked_evaluated_and_compared() -> None:
    app, link = cockpit(scripted.saved())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("t")
        assert "enter roll back  c chat  e evaluate  x compare  esc close" in on_page(app, "#page-keys")
        await pilot.press("e")
        assert sent(link) == [f"examples --at {LAST}"]
        script = Script()
        script.step, script.stage, script.branch = 1_700, 6, 2
        count = app.screen.query_one(DataTable).row_count
        at = replace(script.at, time=scripted.BORN + 9_999)
        done = CommandAcknowledged(
            at=at, id=link.sent[0].id, command=link.sent[0].text, source="cockpit", ok=True,
            message=f"validation accuracy 0.954 (477/500) of {LAST}",
        )  # fmt: skip
        await tell(app, pilot, done)
        assert "validation accuracy 0.954" in on_page(app, "#said")
        assert app.screen.query_one(DataTable).row_count == count + 1, "it stands there from now on"
        assert app.screen.query_one(DataTable).cursor_row == count
        await pilot.press("x")
        assert "no checkpoint is kept of this row" in on_page(app, "#said")
        await pilot.press("up", "x")
        assert isinstance(app.screen, Examples)
        assert sent(link)[1:] == ["examples", f"examples --at {LAST}"]
        await pilot.press("escape")
        assert isinstance(app.screen, Timeline)
        await pilot.press("c")
        assert isinstance(app.screen, Main)
        assert LAST in str(app.main.query_one(ChatPanel).border_title)
        await pilot.press(*"12*34", "enter")
        assert sent(link)[-1] == f"ask --at {LAST} 12*34"
        await pilot.press("escape", "t", "up", "enter")
        assert isinstance(app.screen, Confirm)


async def test_who_reads_further_up_in_the_timeline_stays_there() -> None:
    app, _ = cockpit(scripted.saved())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("t", "up", "up")
        table = app.screen.query_one(DataTable)
        place = table.cursor_row
        script = Script()
        script.step, script.branch, script.stage = 1_800, 2, 7
        script.enter(7)
        script.events = [replace(e, at=replace(e.at, time=scripted.BORN + 9_999)) for e in script.events]
        await tell(app, pilot, *script.events)
        assert (table.cursor_row, table.row_count) == (place, len(app.history.timeline))


@pytest.mark.parametrize("width", [80, 200])
async def test_what_happened_ends_in_an_ellipsis_where_the_timeline_has_no_room_for_it(width: int) -> None:
    app, _ = cockpit(scripted.saved())
    async with app.run_test(size=(200 if width == 80 else 80, 24)) as pilot:
        await pilot.press("t")
        await pilot.resize_terminal(width, 24)
        await pilot.pause()
        table: DataTable[object] = app.screen.query_one(DataTable)
        told = [str(table.get_row_at(place)[-1]) for place in range(table.row_count)]
        if width == 80:
            assert told[2] == "1 of 9 CoT tokens removed,…"
        else:
            assert told == [row.text for row in app.history.timeline]


def test_a_branch_is_set_in_as_deep_as_it_hangs() -> None:
    forks = {2: Fork(1, 100, 1), 3: Fork(2, 150, 2), 4: Fork(1, 100, 1)}
    rows = [Happening(At(branch=branch), "stage", "") for branch in (1, 2, 2, 3, 4, 4)]
    assert limbs(rows, forks, "└") == ["1", "└ 2", "  2", "  └ 3", "└ 4", "  4"]


# What waits -------------------------------------------------------------------------------------------------


async def test_what_was_asked_for_is_seen_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "now", lambda: scripted.BORN + 1_000)
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        line = app.main.query_one("#pending", Readout)
        at = replace(app.history.at, time=scripted.BORN + 998)
        asked = CommandReceived(at=at, id="r", command="rollback 3", source="send")
        await tell(
            app,
            pilot,
            asked,
            replace(asked, id="e", command="evaluate", at=replace(at, time=scripted.BORN + 999.8)),
        )
        assert text_of(app, "#pending") == "pending: rollback 3 by send (asked 2s ago)"
        monkeypatch.setattr(main, "now", lambda: scripted.BORN + 1_003)
        app.tick()
        assert text_of(app, "#pending").endswith("(asked 5s ago), evaluate by send (asked 3s ago)")
        for id, command, ok in (("r", "rollback 3", False), ("e", "evaluate", True)):
            assert line.display
            done = CommandAcknowledged(at=at, id=id, command=command, source="send", ok=ok, message="")
            await tell(app, pilot, done)
        assert not line.display


async def test_a_pause_that_is_to_come_is_seen_until_it_comes_or_a_roll_back_drops_it() -> None:
    script = scripted.training()
    script.command("run 500", "training to step 1,840, then a pause")
    app, _ = cockpit(script)
    async with app.run_test(size=(80, 24)) as pilot:
        assert text_of(app, "#pending") == "pending: a pause at step 1,840"
        more = Script()
        more.step, more.stage = 1_340, 4
        more.roll_back(3, 1_000)
        await tell(app, pilot, *more.events)
        assert not app.main.query_one("#pending").display


# Escape -----------------------------------------------------------------------------------------------------


async def test_escape_stops_an_answer_that_streams_to_this_person_and_then_leaves() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", *"12*34", "enter")
        at, id = app.history.at, link.sent[0].id
        asked = CommandReceived(at=at, id=id, command="ask 12*34", source="cockpit")
        await tell(app, pilot, asked, ChatToken(at=at, id=id, text=" 8", part="cot"))
        await pilot.press("escape")
        assert sent(link)[1:] == ["interrupt"]
        assert isinstance(app.focused, ChatInput)
        await pilot.press("escape")
        assert app.focused is None and sent(link)[1:] == ["interrupt"]


async def test_escape_leaves_the_answers_of_others_alone() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c")
        asked = CommandReceived(at=app.history.at, id="q", command="ask 12*34", source="send")
        await tell(app, pilot, asked, ChatToken(at=app.history.at, id="q", text=" 8", part="cot"))
        await pilot.press("escape")
        assert app.focused is None and sent(link) == []


# Keys -------------------------------------------------------------------------------------------------------


async def test_keys_of_ones_own_are_those_that_are_named() -> None:
    keys = {"roll_back": "f8", "only_wrong": "f7", "compare_it": "ctrl+y"}
    app = Cockpit(ScriptedLink(scripted.lost().events), glyphs=UNICODE, settings=Settings(keys=keys))
    async with app.run_test(size=(80, 24)) as pilot:
        (said,) = (line.text for line in app.history.log if "ALARM" in line.text)
        assert "[f8] roll back" in said
        await pilot.press("x", "f7")
        assert "f7 wrong" in on_page(app, "#page-keys")
        assert "only the wrong ones" in on_page(app, "#heading")
        await pilot.press("escape", "t")
        assert "ctrl+y compare" in on_page(app, "#page-keys")
        await pilot.press("ctrl+y")
        assert isinstance(app.screen, Timeline), "the alarm's row keeps no checkpoint"


def test_a_page_has_no_key_twice_and_its_closing_keys_stay() -> None:
    for wanted in ({"only_wrong": "e"}, {"only_wrong": "x"}, {"chat_with": "q"}, {"chat_with": "f12"}):
        with pytest.raises(keymap.KeysError, match="give that one another key"):
            keymap.mapped(wanted)
    assert keymap.mapped({"only_wrong": "space"}), "it is another key's only where no page lies above"


async def test_the_palette_has_the_keys_of_the_page() -> None:
    app, _ = cockpit(scripted.saved())
    async with app.run_test(size=(80, 24)) as pilot:
        for opens, title in (("x", "Only the wrong ones (w)"), ("t", "Evaluate it (e)")):
            await pilot.press(opens)
            titles = [command.title for command in app.get_system_commands(app.screen)]
            assert title in titles and "Pause or resume (space)" in titles
            await pilot.press("escape")
        assert title not in [command.title for command in app.get_system_commands(app.screen)]


# A real terminal --------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    command = ("run", "config", endless(tmp_path), "--out", ".", "--name", "run")
    with contextlib.closing(Terminal(*command, cwd=tmp_path)) as opened:
        yield opened
    kill(tmp_path / "run")


def test_why_accuracy_dipped_in_a_real_terminal(terminal: Terminal) -> None:
    """From a checkpoint of the timeline to the digits that are wrong, and back."""
    terminal.until("tok/s")
    terminal.press("space")
    terminal.until("PAUSED")
    terminal.press("s")
    terminal.until("saved b1-")
    terminal.press("t", "e")
    terminal.until("c chat  e evaluate")
    terminal.until("no checkpoint is kept")
    terminal.press("up", "e")
    terminal.until("validation accuracy")
    terminal.press("x")
    terminal.until("both wrong")
    terminal.press("w")
    terminal.until("only the wrong ones")
    terminal.until("^")
    terminal.press("escape")
    terminal.until("c chat  e evaluate")
    terminal.press("c", *"12*34", "enter")
    terminal.until("12 × 34")
    assert "chat · b1-" in terminal.text
