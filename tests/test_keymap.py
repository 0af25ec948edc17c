"""The one table of keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from stepwise_tui import keymap
from stepwise_tui.app import Cockpit
from stepwise_tui.charts.view import View
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.widgets.charts import Charts
from tests.scripted import ScriptedLink
from tests.test_snapshots import compared
from trainer.control import COMMANDS

CONTRACT = {
    "space": "pause_or_resume",
    "s": "save",
    "a": "advance",
    "r": "roll_back",
    "h": "hold_or_release",
    "e": "evaluate",
    "n": "run_steps",
    "c": "chat",
    "x": "examples",
    "t": "timeline",
    "d": "detach",
    "y": "log_scale",
    "tab": "next_panel",
    "question_mark": "help",
    "q": "leave",
    "ctrl+p": "command_palette",
}


def test_the_contract_holds() -> None:
    table = {key.key: key.action for key in keymap.KEYS}
    assert CONTRACT.items() <= table.items()


def test_no_key_is_given_twice() -> None:
    keys = [key.key for key in keymap.KEYS] + [
        k for key in keymap.KEYS if key.also for k in key.also.split(",")
    ]
    assert len(keys) == len(set(keys))
    assert {"ctrl+c", "ctrl+q"} <= set(keys)


def test_each_key_has_an_action_a_title_and_a_sentence() -> None:
    for key in keymap.KEYS:
        assert hasattr(Cockpit, f"action_{key.action}")
        assert key.title and key.label and key.help


def test_each_command_is_within_reach_of_a_key() -> None:
    said = " ".join(key.help for key in (*keymap.KEYS, *keymap.PAGE_KEYS))
    chat = {"ask": "ask the live weights", "quiz": "/quiz", "interrupt": "stops the answer"}
    assert [name for name, spec in COMMANDS.items() if chat.get(name, spec.help) not in said] == []


def test_no_key_promises_what_only_the_typed_command_takes() -> None:
    """`,` had "for example set optim.lr 1e-4", which its dialog refuses."""
    said = {key.action: key.help for key in keymap.KEYS}
    assert not re.search(r"\bN\b", said["advance"]) and "named" not in said["roll_back"]
    assert "set optim" not in said["change_setting"] and "this page" not in said["help"]


@pytest.mark.parametrize("width", range(1, 260, 7))
def test_the_footer_fits(width: int) -> None:
    assert keymap.footer(width, {"pause_or_resume": "resume"}).cell_length <= width


def test_the_footer_of_80_columns_has_the_keys_one_cannot_do_without() -> None:
    text = keymap.footer(80, {}).plain
    for word in ("pause", "save", "advance", "roll back", "hold", "chat", "help", "quit"):
        assert word in text


def test_a_wide_footer_has_them_all() -> None:
    text = keymap.footer(400, {}).plain
    assert all(key.label in text for key in keymap.KEYS)


BEFORE = {
    "zoom_out": ["plus", "plus"],
    "zoom_off": ["plus"],
    "pan_back": ["plus"],
    "pan_on": ["plus", "shift+left", "shift+left"],
    "cursor_on": ["left", "left", "left"],
    "drop_cursor": ["left"],
    "only_wrong": ["e"],
    "only_differing": ["c", "down", "enter"],
    "return_to": ["up"],
}
"""What is pressed before a key, so that there is something for it to do; its page is open already."""

ELSEWHERE = {"detach", "suspend"}
"""Keys that leave the screen: tests/test_cockpit.py and tests/test_hangup.py press them."""


async def test_every_key_does_something_that_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the table, on the cockpit's screen or the page it is for; a new one is among them at once."""
    monkeypatch.chdir(tmp_path)  # p saves a picture
    app = Cockpit(ScriptedLink(compared().events), glyphs=UNICODE)
    silent = []
    async with app.run_test(size=(80, 24)) as pilot:
        for key in (*keymap.KEYS, *keymap.PAGE_KEYS):
            if key.action in ELSEWHERE:
                continue
            await _as_at_first(app, pilot)
            opener = [one.key for one in keymap.KEYS if one.action == key.page]
            await pilot.press(*opener, *BEFORE.get(key.action, []))
            await pilot.pause()
            before = seen(app)
            await pilot.press(key.key)
            await pilot.pause()
            if seen(app) == before:
                silent.append(key.action)
    assert silent == []


async def _as_at_first(app: Cockpit, pilot: Pilot[None]) -> None:
    while len(app.screen_stack) > 1:
        app.pop_screen()
    app.main.open("charts")
    app.main._enlarge("")
    app.main.query_one(Charts)._see(View())
    await pilot.pause()


def seen(app: Cockpit) -> str:
    """All that stands on the screen, styles too: a chosen panel is told by its border's."""
    strips = app.screen._compositor.render_strips()
    return "\n".join(f"{segment.text}{segment.style}" for strip in strips for segment in strip)
