"""One sitting at the terminal: a run trained here with the cockpit or with plain lines, or a chat."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from stepwise_tui.output import FAILURE, complain, turn

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.run import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def train(config: Config, folder: Path, *, plain: bool, resume: bool = False, paused: bool = False) -> None:
    """Train in this process until the run ends or the person leaves. Exits 1 when training crashed.

    With the cockpit where stdin and stdout are a terminal and `plain` is not asked for.
    Raises ValueError with a sentence when the run cannot be started.
    """
    cockpit = not plain and sys.stdin.isatty() and sys.stdout.isatty()
    with _signals() as signals:
        # Loading torch takes seconds: say so before, on stderr, where it is in nobody's way.
        typer.echo(f"{folder.name}: {'going on' if resume else 'starting'}; loading torch …", err=True)
        if config.model.init != "scratch" and not resume:
            typer.echo(f"loading {config.model.init} too; the first time that is a download …", err=True)
        from trainer.control import parse
        from trainer.host import Host
        from trainer.run import Run

        run = Run(config, folder, resume=resume, paused=paused)
        run.start()
        signals.stop = lambda: run.submit(parse("stop", source="signal"))
        with Host(run):
            _show(run, cockpit, signals)
        run.close()
    with contextlib.suppress(OSError):  # the terminal may be gone
        typer.echo(_farewell(run), err=not cockpit)
    if run.state == "crashed":
        raise typer.Exit(FAILURE)


def chat(
    run: str, checkpoint: str | None, out: Path, *, explicit: bool, base: str | None, preset: str | None
) -> None:
    """Ask a model: a prompt on a terminal, one question per line from a pipe.

    Raises ValueError with a sentence when it cannot be opened or asked so.
    """
    typer.echo("loading torch …", err=True)
    from trainer import inspection

    loaded = inspection.open_checkpoint(run, checkpoint, out, base=base, preset=preset)
    inspection.check_explicit(loaded, explicit)
    for caveat in inspection.caveats(loaded):
        complain(caveat)
    prompt = sys.stdin.isatty()
    if prompt:
        typer.echo(f"{inspection.greeting(loaded)} (Ctrl-D ends)", err=True)
    for question in _questions(prompt):
        typer.echo(turn(inspection.ask(loaded, question, explicit=explicit)))


def _questions(prompt: bool) -> Iterator[str]:
    """What is asked, line by line, empty lines left out."""
    while True:
        if prompt:
            typer.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _show(run: Run, cockpit: bool, signals: _Signals) -> None:
    """Follow the run until it has ended or the person closes the cockpit."""
    from stepwise_tui.link import LocalLink

    link = LocalLink(run)
    if cockpit:
        from stepwise_tui.app import Cockpit

        app = Cockpit(link)
        signals.leave = lambda: app.call_from_thread(app.exit)
        app.run()
        if not app.return_code:
            return
        typer.echo("the cockpit broke; training goes on, told in lines", err=True)
    from stepwise_tui import plain

    # A link of its own: the broken cockpit may have drained the end of the run already.
    plain.follow(LocalLink(run), sys.stdout)


def _farewell(run: Run) -> str:
    """Where the run lies and what can be done next."""
    folder = _shortest(run.folder)
    action = "chat" if run.state == "finished" else "resume"
    return f"{run.state}: {folder}\nstepwise {action} {folder}"


def _shortest(path: Path) -> Path:
    """`path` from the working directory on, if it lies there."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


class _Signals:
    """What SIGINT, SIGTERM and SIGHUP do: the first asks the run to save and end, a second ends the process
    at once with 128 + its number. Before there is anything to save the first one ends it already.

    stop: asks the run to end. leave: closes the cockpit. Both run in a thread of their own, since the one
    a signal interrupts may hold the very lock they need.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self.leave: Callable[[], None] = lambda: None
        self._asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.stop is None:
            raise SystemExit(128 + number)
        if self._asked:
            os._exit(128 + number)
        self._asked = True
        threading.Thread(target=self._obey, args=(self.stop,), daemon=True).start()

    def _obey(self, stop: Callable[[], None]) -> None:
        stop()
        self.leave()


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    """Handle signals while inside. One that is ignored (nohup ignores SIGHUP) stays so."""
    handler = _Signals()
    numbers = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield handler
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
