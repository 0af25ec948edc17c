"""The cockpit in a real terminal: every key, from launch to quit, while a real model trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.terminal import Terminal
from tests.tiny import endless, kill
from trainer import runs, status
from trainer.events import CommandAcknowledged, CommandReceived, RolledBack, StageEntered
from trainer.record import journal

pytestmark = pytest.mark.slow

SHOW_CURSOR, LEAVE_ALTERNATE_SCREEN = b"\x1b[?25h", b"\x1b[?1049l"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Opens terminals in which a tiny run, that never ends by itself, starts in the cockpit."""
    opened: list[Terminal] = []

    def launch(
        *options: str, columns: int = 80, rows: int = 24, term: str = "xterm-256color", **changes: object
    ) -> Terminal:
        command = ("run", "config", endless(tmp_path, **changes), "--out", ".", "--name", "run", *options)
        opened.append(Terminal(*command, cwd=tmp_path, columns=columns, rows=rows, term=term))
        return opened[-1]

    yield launch
    for terminal in opened:
        terminal.close()
    kill(tmp_path / "run")


def test_every_key_from_launch_to_quit(start: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = start()
    terminal.press(*"sehyb", "tab", "?", "escape")  # before anything is there: no harm
    terminal.until("TRAINING")
    terminal.until("tok/s")
    terminal.press("escape")

    terminal.press("space")
    terminal.until("PAUSED")
    terminal.press("s")
    terminal.until("saved b1-")
    terminal.press("h")
    terminal.until("held")
    terminal.press("h")
    terminal.until("the schedule goes on")
    terminal.press("e")
    terminal.until("validation accuracy")
    terminal.press("a")
    terminal.until("optimiser is reset")
    terminal.press("y")
    terminal.until("stage 1 of 9")
    terminal.press("r")
    terminal.until("roll back")
    terminal.press("enter")
    terminal.until("branch 2")
    terminal.press("n")
    terminal.until("then pause")
    terminal.press("7", "enter")
    terminal.until(lambda screen: "PAUSED" in screen and "then a pause" in screen)
    terminal.press(",")
    terminal.until("optim.lr")
    terminal.press("escape")
    for key, seen in (("x", "examples"), ("t", "timeline"), ("?", "Steer"), ("ctrl+p", "Search")):
        terminal.press(key)
        terminal.until(lambda screen, seen=seen: seen.lower() in screen.lower())
        terminal.press("escape")  # read together with what follows it is another key: so wait
        terminal.until(lambda screen: "tab: next" in screen and "🔎" not in screen)
    terminal.press("y", "b", "tab", "tab", "tab", "tab", "g")
    terminal.until("at the latest")
    terminal.press("tab", "p")
    terminal.until("the screen is saved")
    _look_around(terminal)
    terminal.screen.reset()
    terminal.press("ctrl+z")  # no shell could bring it back here: so it comes back itself
    terminal.until("PAUSED")
    terminal.read(2.0)  # what is typed before it has taken the terminal up again is not its own
    terminal.press("c", *"12*34", "enter")
    terminal.until("12 × 34")
    terminal.press(*"how are you", "enter")  # no key acts while typing
    terminal.until(lambda screen: "multipl" in screen)
    terminal.press("escape", "d")
    assert terminal.leave() == 0
    assert terminal.raw.endswith(b"stepwise attach run\r\n")
    last = terminal.raw.rpartition(LEAVE_ALTERNATE_SCREEN)[2]
    cleared, _, told = last.partition(b"\r\x1b[K")  # of the keys that were echoed before there was a screen
    assert b"run is paused in process" in told and b"run" not in cleared

    with contextlib.closing(Terminal("attach", "run", "--out", ".", cwd=tmp_path)) as again:
        again.until("PAUSED")
        again.press("space")
        again.until("TRAINING")
        again.press("q")
        again.until("stop and save")
        again.press("s")
        assert again.leave() == 0
    for one in (terminal, again):
        assert SHOW_CURSOR in one.raw
        assert LEAVE_ALTERNATE_SCREEN in one.raw
        assert "Traceback" not in one.text

    events = list(journal.read(tmp_path / "run"))
    asked = [e.command.split()[0] for e in events if isinstance(e, CommandReceived)]
    for command in (
        "pause",
        "save",
        "hold",
        "release",
        "evaluate",
        "advance",
        "rollback",
        "run",
        "ask",
        "stop",
    ):
        assert command in asked
    assert all(e.ok for e in events if isinstance(e, CommandAcknowledged))
    assert any(isinstance(e, RolledBack) for e in events)
    assert any(isinstance(e, StageEntered) and e.cause == "operator" for e in events)
    written = status.read(tmp_path / "run")
    assert written is not None
    assert written.state == "interrupted"


def _look_around(terminal: Terminal) -> None:
    """All keys of the charts, each by what it says."""
    for key, seen in (
        ("w", "newest samples"),
        ("m", "smoothed strongly"),
        ("v", "gradient norm"),
        ("0", "charts of the whole run"),
        ("left", " · stage "),
    ):
        terminal.press(key)
        terminal.until(seen)
    terminal.press("right", "o", "+", "-", "escape")
    terminal.until(lambda screen: " · stage " not in screen)
    terminal.press("0", "shift+left")
    terminal.until("the whole run is in view")
    terminal.press("shift+right", "k")
    terminal.until("draw another run")
    terminal.press("escape")
    terminal.until(lambda screen: "draw another run" not in screen)


def test_the_quit_dialog_is_reached_from_everywhere(start: Callable[..., Terminal], tmp_path: Path) -> None:
    """ctrl+c and ctrl+q are keys, no signal and no flow control of the line; also where one has attached."""
    terminal = start(columns=120, rows=40)
    terminal.until("TRAINING")
    terminal.press("c", *"12*3")
    for key in ("ctrl+q", "ctrl+c"):
        terminal.press(key)
        terminal.until("stop and save")
        terminal.press("escape")
        terminal.until(lambda screen: "stop and save" not in screen)
    _leave_by("ctrl+c", terminal)
    assert runs.state(tmp_path / "run") not in runs.ENDED
    with contextlib.closing(Terminal("attach", "run", "--out", ".", cwd=tmp_path)) as again:
        again.until("TRAINING")
        _leave_by("ctrl+q", again)
    assert runs.state(tmp_path / "run") not in runs.ENDED


def _leave_by(key: str, terminal: Terminal) -> None:
    """Pressed again, the key leaves, and the run goes on."""
    terminal.press(key)
    terminal.until("stop and save")
    terminal.press(key)
    assert terminal.leave() == 0


def test_an_escape_and_a_sign_in_one_packet_are_two_keys(start: Callable[..., Terminal]) -> None:
    """As a slow line sends them; the escape was dropped, and the dialog stayed."""
    terminal = start()
    terminal.until("TRAINING")
    terminal.press("n")
    terminal.until("then pause")
    terminal.press("\x1b,")
    terminal.until("optim.lr")
    terminal.press("\x1b?")
    terminal.until("Steer")


def test_resizing_is_survived_and_too_small_is_said(start: Callable[..., Terminal]) -> None:
    terminal = start()
    terminal.until("TRAINING")
    terminal.until("tok/s")
    terminal.resize(40, 10)
    terminal.until("too small")
    terminal.resize(200, 60)
    terminal.until(lambda screen: "loss" in screen and "chat" in screen and "too small" not in screen)
    terminal.resize(80, 24)
    terminal.until(lambda screen: "TRAINING" in screen and "too small" not in screen)
    terminal.press("q")
    terminal.until("stop and save")
    terminal.press("s")
    assert terminal.leave() == 0


def test_a_console_that_does_not_know_its_size_is_drawn_on_all_the_same(
    start: Callable[..., Terminal],
) -> None:
    """It was laid out with 24 lines, and with 25, and with 24, and so on, and never drawn."""
    terminal = start()
    terminal.forget_size()
    terminal.until("TRAINING")
    terminal.press("space")
    terminal.until("PAUSED")
    terminal.resize(100, 30)  # it has learnt it
    terminal.until(lambda shown: "q quit" in shown.splitlines()[29])


def test_a_dumb_terminal_gets_lines(start: Callable[..., Terminal]) -> None:
    """It was taken to have 25 lines, and its own number of them too: the cockpit hung, and held the shell."""
    terminal = start(term="dumb", stop__steps=4)
    assert terminal.leave() == 0
    assert b"loss" in terminal.raw and b"\x1b" not in terminal.raw
    assert terminal.raw.endswith(b"stepwise chat run\r\n")


def test_who_attaches_is_told_how_he_leaves_the_run(start: Callable[..., Terminal], tmp_path: Path) -> None:
    """That it is paused, and that its end could not be saved."""
    start("--plain").until("loss")
    with contextlib.closing(Terminal("attach", "run", "--out", ".", cwd=tmp_path)) as attached:
        attached.until("TRAINING")
        attached.press("space")
        attached.until("PAUSED")
        attached.press("d")
        assert attached.leave() == 0
        assert b"run is paused; the same command comes back to it" in attached.raw
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "away")
    (tmp_path / "run" / "checkpoints").touch()
    with contextlib.closing(Terminal("attach", "run", "--out", ".", cwd=tmp_path)) as attached:
        attached.until("PAUSED")
        attached.press("q")
        attached.until("stop and save")
        attached.press("s")
        assert attached.leave() == 0
        assert b"the end could not be saved: no checkpoint can be written" in attached.raw
        assert attached.raw.endswith(b"interrupted: run\r\nstepwise resume run\r\n")


def test_it_stays_when_the_run_ends_and_says_what_can_be_done(start: Callable[..., Terminal]) -> None:
    terminal = start(columns=100, rows=30, stop__steps=40, schedule__steps_per_token=3)
    terminal.until("FINISHED")
    terminal.until("stepwise chat")
    terminal.press("c", *"99*99", "enter")
    terminal.until("99 × 99")
    terminal.press("escape", "d")  # there is nothing to leave running
    assert terminal.leave() == 0
    assert terminal.raw.endswith(b"finished: run\r\nstepwise chat run\r\n")
    assert b"trains on" not in terminal.raw
