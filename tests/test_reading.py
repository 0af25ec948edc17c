"""Reading while the run goes on: nothing pulls the reader away, and what is selected can be copied."""

from __future__ import annotations

import pytest
from textual.geometry import Offset
from textual.pilot import Pilot
from textual.selection import Selection

from stepwise_tui.app import Cockpit
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.screens.dialogs import Leave
from stepwise_tui.widgets.chat import ChatInput, ChatPanel, Turns
from stepwise_tui.widgets.log import LogPanel
from tests import scripted
from tests.scripted import Script, ScriptedLink
from tests.test_cockpit import tell
from trainer.events import ChatToken, CommandReceived, Event, Notice


def cockpit(script: Script) -> Cockpit:
    return Cockpit(ScriptedLink(script.events), glyphs=UNICODE)


def notices(number: int, word: str = "line") -> list[Event]:
    return [Notice(at=scripted.training().at, message=f"{word} {i}") for i in range(number)]


async def settled(pilot: Pilot[None]) -> None:
    for _ in range(3):
        await pilot.pause()


async def test_the_log_follows_at_its_end_and_leaves_alone_who_reads_further_up() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        log = app.main.query_one(LogPanel)
        await pilot.press("tab")
        await tell(app, pilot, *notices(60))
        await settled(pilot)
        assert app.focused is log
        assert log.scroll_y == log.max_scroll_y > 0

        await pilot.press("pageup")
        await settled(pilot)
        place = log.scroll_y
        await tell(app, pilot, *notices(3, "news"))
        await settled(pilot)
        assert log.scroll_y == place < log.max_scroll_y
        assert log.border_subtitle == "↓ 3 new"

        await pilot.press("end")
        await settled(pilot)
        assert not log.border_subtitle
        await tell(app, pilot, *notices(2))
        await settled(pilot)
        assert log.scroll_y == log.max_scroll_y


async def test_what_the_window_itself_says_has_no_time_of_the_run() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("tab")
        await tell(app, pilot, Notice(message="the run is reached again", level="warning"))
        await settled(pilot)
        line = app.main.query_one(LogPanel).lines[-1].text
        assert "the run is reached again" in line and ":00" not in line


async def test_a_resize_keeps_the_place_in_the_log() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        log = app.main.query_one(LogPanel)
        await pilot.press("tab")
        await tell(app, pilot, *notices(200))
        await settled(pilot)
        await pilot.press("home")
        await settled(pilot)
        await pilot.resize_terminal(70, 24)
        await settled(pilot)
        assert log.scroll_y < 5
        await pilot.press("end")
        await pilot.resize_terminal(80, 24)
        await settled(pilot)
        assert log.scroll_y == log.max_scroll_y


async def test_lines_that_fall_out_of_a_full_log_do_not_move_the_text_that_is_read() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        log = app.main.query_one(LogPanel)
        log.max_lines = 100
        await pilot.press("tab")
        await tell(app, pilot, *notices(100))
        await pilot.press("pageup")
        await settled(pilot)
        read = log.lines[round(log.scroll_y)].text
        await tell(app, pilot, *notices(10, "news"))
        await settled(pilot)
        assert log.lines[round(log.scroll_y)].text == read


async def test_the_chat_is_read_by_keys_while_an_answer_streams_in() -> None:
    script = scripted.training()
    for _ in range(6):
        script.chat()
    app = cockpit(script)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c")
        await settled(pilot)
        turns, panel = app.main.query_one(Turns), app.main.query_one(ChatPanel)
        assert turns.scroll_y == turns.max_scroll_y > 0
        await pilot.press(*"12", "pageup")
        await settled(pilot)
        place = turns.scroll_y
        assert place < turns.max_scroll_y
        await tell(app, pilot, CommandReceived(at=script.at, id="z", command="ask 1*2", source="send"))
        await tell(app, pilot, ChatToken(at=script.at, id="z", text=" 2", part="cot"))
        await settled(pilot)
        assert turns.scroll_y == place
        assert panel.border_subtitle == "↓ 1 new"
        assert app.main.query_one(ChatInput).value == "12", "the question is still there"

        await pilot.press("pagedown", "pagedown", "pagedown", "pagedown")
        await settled(pilot)
        assert not panel.border_subtitle
        await tell(app, pilot, ChatToken(at=script.at, id="z", text=" 2" * 200, part="cot"))
        await settled(pilot)
        assert turns.scroll_y == turns.max_scroll_y


async def test_asking_leads_back_to_the_end_of_the_chat() -> None:
    script = scripted.training()
    for _ in range(6):
        script.chat()
    app = cockpit(script)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", "pageup", *"12*34", "enter")
        await settled(pilot)
        turns = app.main.query_one(Turns)
        assert turns.scroll_y == turns.max_scroll_y


async def test_ctrl_c_copies_what_is_selected_and_else_asks_whether_to_leave() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", *"12*34", "shift+home", "ctrl+c")
        assert app.clipboard == "12*34"
        await pilot.press("ctrl+c")
        assert isinstance(app.screen, Leave), "it copies once"


@pytest.mark.parametrize("widget", ["#status", "#log"])
async def test_what_the_mouse_selects_is_copied(widget: str) -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=(200, 60)) as pilot:
        await settled(pilot)
        chosen = app.main.query_one(widget)
        app.main.selections = {chosen: Selection(Offset(0, 0), Offset(11, 0))}
        await settled(pilot)
        await pilot.press("ctrl+c")
        text = "brisk-otter" if widget == "#status" else app.main.query_one(LogPanel).lines[0].text[:11]
        assert app.clipboard == text
        assert not app.main.selections
