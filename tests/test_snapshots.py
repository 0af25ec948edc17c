"""The main states as pictures. After a wanted change: `pytest tests/test_snapshots.py --snapshot-update`.

Everything that could differ between two runs or two machines stands still: the events are scripted with
their times, the time zone is UTC, the cursor does not blink, colours are on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from stepwise_tui.app import Cockpit
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.screens import main
from stepwise_tui.settings import Settings
from stepwise_tui.themes import NAMES
from stepwise_tui.widgets.chat import ChatInput
from tests import scripted
from tests.scripted import Script, ScriptedLink
from tests.test_system import BUSY
from trainer.events import CommandReceived

SMALL, MIDDLE, LARGE = (80, 24), (120, 40), (200, 60)
STATES: dict[str, tuple[Callable[[], Script], list[str]]] = {
    "starting": (Script, []),
    "training": (scripted.training, []),
    "paused": (lambda: scripted.training().pause(), []),
    "dip-alarm": (scripted.lost, []),
    "rolled-back": (scripted.saved, ["b"]),
    "chat": (lambda: scripted.training().chat(), ["c"]),
    "finished": (scripted.finished, []),
    "crashed": (lambda: scripted.training().crash(), []),
}
SCREENS: dict[str, list[str]] = {
    "log": ["tab"],
    "help": ["question_mark"],
    "roll-back": ["r"],
    "quit": ["q"],
    "system": ["g"],
    "whom": ["c", "ctrl+o"],
}


def compared() -> Script:
    """Answers of the live weights, and of the last checkpoint."""
    script = scripted.saved()
    return script.answered(accuracy=0.7).answered(script.saves[-1], accuracy=0.45, stage=5)


def waiting() -> Script:
    """A roll back that was asked for two seconds before `NOW`, and `run 500` under way."""
    script = scripted.training()
    script.command("run 500", "training to step 1,840, then a pause")
    at = replace(script.at, time=NOW - 2)
    script.say(CommandReceived(at=at, id="r", command="rollback 3", source="send"))
    return script


NOW = scripted.BORN + 10_000
PAGES: dict[str, tuple[Callable[[], Script], list[str]]] = {
    "examples": (scripted.saved, ["x"]),
    "examples-wrong": (compared, ["x", "e", "w"]),
    "examples-compared": (compared, ["x", "c", "down", "enter"]),
    "timeline": (scripted.saved, ["t"]),
    "pending": (waiting, []),
}


@pytest.fixture(autouse=True)
def _standing_still(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    monkeypatch.setattr(main, "now", lambda: NOW)
    yield
    monkeypatch.undo()
    time.tzset()


def cockpit(script: Script) -> Cockpit:
    return Cockpit(ScriptedLink(script.events), glyphs=UNICODE)


def pressing(keys: list[str]) -> Callable[[Pilot[None]], Any]:
    async def prepare(pilot: Pilot[None]) -> None:
        assert isinstance(pilot.app, Cockpit)
        while not pilot.app.main.query(ChatInput):
            await pilot.pause(0.01)
        pilot.app.main.query_one(ChatInput).cursor_blink = False
        await pilot.press(*keys)
        await pilot.pause()
        pilot.app.show_charts()
        await pilot.pause()

    return prepare


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80x24", "200x60"])
@pytest.mark.parametrize("state", STATES)
def test_state(state: str, size: tuple[int, int], snap_compare: Any) -> None:
    script, keys = STATES[state]
    assert snap_compare(cockpit(script()), terminal_size=size, run_before=pressing(keys))


@pytest.mark.parametrize("screen", SCREENS)
def test_screen(screen: str, snap_compare: Any) -> None:
    assert snap_compare(cockpit(scripted.saved()), terminal_size=SMALL, run_before=pressing(SCREENS[screen]))


@pytest.mark.parametrize("size", [SMALL, MIDDLE, LARGE], ids=["80x24", "120x40", "200x60"])
@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, size: tuple[int, int], snap_compare: Any) -> None:
    script, keys = PAGES[page]
    assert snap_compare(cockpit(script()), terminal_size=size, run_before=pressing(keys))


@pytest.mark.parametrize("theme", [name for name in NAMES if name != "dark"])
def test_theme(theme: str, snap_compare: Any) -> None:
    events = [*scripted.lost().chat().events, BUSY]
    app = Cockpit(ScriptedLink(events), glyphs=UNICODE, settings=Settings(theme))
    assert snap_compare(app, terminal_size=(120, 40), run_before=pressing(["g"]))


def test_a_terminal_that_is_too_small(snap_compare: Any) -> None:
    assert snap_compare(cockpit(scripted.training()), terminal_size=(50, 12), run_before=pressing([]))
