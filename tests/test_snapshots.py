"""Every screen and state as pictures, at three sizes (tests/pictures.py). After a wanted change: `pytest
tests/test_snapshots.py --snapshot-update`.

Everything that could differ between two runs or two machines stands still: the events are scripted with
their times, the time zone is UTC, the cursor does not blink, colours are on. One app is drawn at one size
after the other, since to start it costs more than all three pictures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from syrupy import SnapshotAssertion
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import DataTable, Input

from stepwise_tui import app as cockpit_module
from stepwise_tui import launcher
from stepwise_tui.app import Cockpit
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.launcher import Launcher, Seen
from stepwise_tui.screens import beside, main
from stepwise_tui.settings import Settings
from stepwise_tui.themes import NAMES
from stepwise_tui.widgets.chat import ChatInput
from tests import scripted
from tests.pictures import PictureExtension, picture
from tests.scripted import Script, ScriptedLink
from tests.test_launcher import row
from tests.test_system import BUSY
from trainer import presets
from trainer.events import (
    AlarmRaised,
    CommandAcknowledged,
    CommandReceived,
    QuizTaken,
    ReachChanged,
    StateChanged,
)

Size = tuple[int, int]
SIZES: tuple[Size, ...] = ((80, 24), (120, 40), (200, 60))
NOW = scripted.BORN + 10_000


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


def not_finite() -> Script:
    """Updates left out, and training that waits for an answer."""
    script = scripted.training()
    message = (
        "loss or gradient not finite: 20 updates left out since step 1,321; optim.lr 0.002 → 0.5 at step "
        "1,320; training waits"
    )
    remedy, target = "roll back to b1-001200, from before", "b1-001200"
    script.say(
        AlarmRaised(at=script.at, kind="not finite", message=message, remedy=remedy, key="r", target=target)
    )
    return script.pause()


def disk_full() -> Script:
    """A disk that takes nothing."""
    script = scripted.training()
    message = "training waits: b1-s001340-stage4-time: No space left on device"
    remedy = "make room; then it goes on by itself"
    script.say(AlarmRaised(at=script.at, kind="disk", message=message, remedy=remedy, key=""))
    script.say(StateChanged(at=script.at, state="paused"))
    return script


def asked() -> Script:
    """The same question to the live weights and to a checkpoint, and a quiz."""
    script = scripted.saved()
    left = scripted.COT[script.stage :]
    for id, at in (("a", ""), ("b", "--at b1-000800 ")):
        script.say(CommandReceived(at=script.at, id=id, command=f"ask {at}97*86", source="cockpit"))
        given = scripted.answer(
            id, "97*86", script.at, question="97 × 86", cot=left if not at else scripted.COT[2:],
            answer="8342", correct=True,
        )  # fmt: skip
        script.say(replace(given, checkpoint="b1-000800", cot_removed=2, saved=2) if at else given)
    script.say(CommandReceived(at=script.at, id="z", command="quiz 100", source="cockpit"))
    wrong = tuple(example for example in scripted.examples(script.stage, 0.5) if not example.correct)
    script.say(
        QuizTaken(
            at=script.at,
            id="z",
            n=100,
            correct=83,
            cot_tokens=3.0,
            saved=6.0,
            milliseconds=4.6,
            wrong=wrong[:3],
        )
    )
    for id in ("a", "b", "z"):
        script.say(
            CommandAcknowledged(at=script.at, id=id, command="ask it", source="cockpit", ok=True, message="")
        )
    return script


def unreached() -> Script:
    """A run whose process is gone."""
    script = scripted.training()
    advice = "its process is gone; `stepwise resume runs/brisk-otter` goes on with it"
    script.say(ReachChanged(at=script.at, gone="crashed", advice=advice))
    return script


STATES: dict[str, tuple[Callable[[], Script], list[str]]] = {
    "starting": (Script, []),
    "training": (scripted.training, []),
    "paused": (lambda: scripted.training().pause(), []),
    "dip-alarm": (scripted.lost, []),
    "not-finite-alarm": (not_finite, []),
    "disk-alarm": (disk_full, []),
    "rolled-back": (scripted.saved, ["b"]),
    "chat": (lambda: scripted.training().chat(), ["c"]),
    "chat-of-two": (asked, ["c"]),
    "finished": (scripted.finished, []),
    "crashed": (lambda: scripted.training().crash(), []),
    "gone": (unreached, []),
    "pending": (waiting, []),
    "endless": (scripted.endless, []),
}
SCREENS: dict[str, list[str]] = {
    "log": ["tab"],
    "help": ["question_mark"],
    "roll-back": ["r"],
    "advance": ["a"],
    "run-n": ["n"],
    "settings": ["comma"],
    "beside": ["k"],
    "palette": ["ctrl+p"],
    "quit": ["q"],
    "system": ["g"],
    "cursor": ["left", "left"],
    "large": ["o", "o", "z"],
    "whom": ["c", "ctrl+o"],
    "examples": ["x"],
    "timeline": ["t"],
}
COMPARED: dict[str, list[str]] = {
    "examples-wrong": ["x", "e", "w"],
    "examples-compared": ["x", "c", "down", "enter"],
}


@pytest.fixture(autouse=True)
def _standing_still(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    monkeypatch.setattr(main, "now", lambda: NOW)
    monkeypatch.setattr(cockpit_module, "SILENCE_SECONDS", math.inf)
    for seconds in ("MESSAGE_SECONDS", "HINT_SECONDS"):
        monkeypatch.setattr(main, seconds, 1e6)
    monkeypatch.setattr(beside.runs, "list_runs", lambda out: ROWS)
    yield
    monkeypatch.undo()
    time.tzset()


ROWS = [
    row("brisk-otter", "training"),
    row("mult2x2-a-name-that-somebody-has-typed-with-care", "finished"),
    row("wild-goose", "crashed"),
]


@pytest.fixture
def pictures(snapshot: SnapshotAssertion) -> Any:
    """Draws an app at one size after the other, and compares the pictures with what they were."""

    async def draw(app: App[Any], keys: Sequence[str] = (), sizes: Sequence[Size] = SIZES) -> None:
        async with app.run_test(size=sizes[0]) as pilot:
            if isinstance(app, Cockpit):
                while not app.main.query(ChatInput):
                    await pilot.pause(0.01)
                app.main.query_one(ChatInput).cursor_blink = False
            await pilot.press(*keys)
            for field in app.screen.query(Input):
                field.cursor_blink = False
            for width, height in sizes:
                await pilot.resize_terminal(width, height)
                await pilot.pause()
                if isinstance(app, Cockpit):
                    app.show_charts()
                    await pilot.pause()
                kept = snapshot(name=f"{width}x{height}", extension_class=PictureExtension)
                assert await settled(app, pilot) == kept

    return draw


async def settled(app: App[Any], pilot: Pilot[Any]) -> str:
    """The screen as soon as it stays as it is: tables find their widths when there is nothing else to do."""
    before, now = "", drawn(app)
    while now != before:
        await pilot.pause(0.1)
        while any(table._require_update_dimensions for table in app.screen.query(DataTable)):
            await pilot.pause(0.01)
        before, now = now, drawn(app)
    return now


def drawn(app: App[Any]) -> str:
    return picture(app.screen._compositor.render_strips())


def cockpit(script: Script, theme: str = "dark") -> Cockpit:
    return Cockpit(ScriptedLink([*script.events, BUSY]), glyphs=UNICODE, settings=Settings(theme))


@pytest.mark.parametrize("state", STATES)
async def test_state(state: str, pictures: Any) -> None:
    script, keys = STATES[state]
    await pictures(cockpit(script()), keys)


@pytest.mark.parametrize("screen", [*SCREENS, *COMPARED])
async def test_screen(screen: str, pictures: Any) -> None:
    script = scripted.saved() if screen in SCREENS else compared()
    await pictures(cockpit(script), (SCREENS | COMPARED)[screen])


@pytest.mark.parametrize("theme", [name for name in NAMES if name != "dark"])
async def test_theme(theme: str, pictures: Any) -> None:
    await pictures(cockpit(scripted.lost().chat(), theme), ["g"], [(120, 40)])


@pytest.mark.parametrize("screen", ["examples-compared", "roll-back", "timeline"])
async def test_what_is_chosen_and_what_is_wrong_on_a_light_ground(screen: str, pictures: Any) -> None:
    await pictures(cockpit(compared(), "light"), (SCREENS | COMPARED)[screen], [(120, 40)])


@pytest.mark.parametrize("rows", [ROWS, []], ids=["runs", "no runs"])
async def test_launcher(rows: list[Any], pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [Seen(one, (0.2, 0.5, 0.9, 0.95, 0.3)) for one in rows]
    few = [preset for preset in presets.listing() if preset.name in ("mult2x2", "mult2x2-breaks", "mult7x7")]
    monkeypatch.setattr(launcher.presets, "listing", lambda: few)
    monkeypatch.setattr(launcher, "look", lambda out: seen)
    monkeypatch.setattr(launcher.time, "time", lambda: 1_795_270_000.0)
    app = Launcher(Path("runs"), glyphs=UNICODE, settings=Settings())
    await pictures(app, [])


async def test_a_terminal_that_is_too_small(pictures: Any) -> None:
    await pictures(cockpit(scripted.training()), sizes=[(50, 12)])
