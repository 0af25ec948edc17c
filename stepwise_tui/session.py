"""One sitting at the terminal: a run trained or watched, in the cockpit or as lines; a chat."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from stepwise_tui.output import FAILURE, block, complain, pairs, say, so_many, turn
from stepwise_tui.terminal import Borrowed, Terminal, is_the_same, split
from stepwise_tui.text import next_command
from trainer.paths import named

if TYPE_CHECKING:
    from stepwise_tui.link import Link
    from stepwise_tui.settings import Settings
    from trainer.config import Config
    from trainer.control import Command
    from trainer.events import RunFinished
    from trainer.run import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST_SAVE_SECONDS = 15.0
"""After a signal; Slurm and Kubernetes kill 30 s after theirs."""
GRACE_SECONDS = 5.0
THINKING = {"/thoughts 3": "answer after so many thoughts; without a number, as the stage has"}
HELP = {"/help": "this list", "Ctrl-D": "end; anything else is a question"}
"""What there is in a chat; the first where the model thinks."""


def train(
    config: Config,
    folder: Path,
    *,
    plain: bool,
    frugal: bool = False,
    resume: bool = False,
    paused: bool = False,
    first: Sequence[Command] = (),
) -> None:
    """Train until the run ends or is told to. Exits 1 when training crashed. frugal: see `Cockpit`. first:
    commands to be done before the first step.

    On a terminal with the cockpit, unless `plain`, in a process of its own, which goes on when the person
    leaves or the terminal is gone; this one ends then.
    Raises ValueError with a sentence when the run cannot be started.
    """
    terminal = Terminal()
    with _signals() as signals:
        if not plain and terminal.whole:
            terminal = split(named(folder))
            terminal.on_signal = signals.relay
            terminal.on_loss = signals.vanished
            terminal.listen()
        signals.hang_up = terminal.give_up
        settings = _settings(plain, terminal)
        # Loading torch takes seconds: say so before, on stderr, where it is in nobody's way.
        typer.echo(f"{folder.name}: {'going on' if resume else 'starting'}; loading torch …", err=True)
        if config.model.init != "scratch" and not resume:
            download = "" if Path(config.model.init).is_dir() else "; the first time that is a download"
            typer.echo(f"loading {config.model.init} too{download} …", err=True)
        from trainer import registry
        from trainer.host import Host
        from trainer.run import Run

        run = Run(config, folder, resume=resume, paused=paused, first=first)
        run.start()
        signals.stop = lambda: _stop(run, terminal, signals)  # at once: it trains
        signals.lost = lambda: _tell_loss(run)
        registry.note(folder)
        with Host(run):
            _show(run, terminal, signals, settings, frugal=frugal)
        run.close()
    place = named(run.folder)
    following = f"stepwise {next_command(run.state)} {place}"
    farewell = _farewell(run.state, place, following, run.end)
    _say(farewell, err=not isinstance(terminal, Borrowed))
    if run.state == "crashed":
        raise typer.Exit(FAILURE)


def changes(config: Config, assignments: Sequence[str]) -> list[Command]:
    """What `--set` asks of a run that is taken up. Raises `ConfigError` for what no longer can change."""
    from trainer import config as configuration
    from trainer.control import parse

    for text in assignments:
        config = configuration.changed(config, *configuration.parse_assignment(text))
    return [parse(f"set {text.replace('=', ' ', 1)}", source="resume") for text in assignments]


def watch(link: Link, *, plain: bool, frugal: bool = False, beside: Path | None = None) -> None:
    """Follow a run of another process until the person leaves. With `plain` lines it exits as the run did.

    frugal, beside: see `Cockpit`.
    """
    terminal = Terminal()
    if plain or not terminal.whole:
        from stepwise_tui import plain as lines

        raise typer.Exit(lines.follow(link, sys.stdout))
    from stepwise_tui import looks
    from stepwise_tui.app import Cockpit

    settings = _settings(plain, terminal)
    terminal.take()
    look = looks.load(link.name, link.folder)
    app = Cockpit(link, terminal, settings=settings, frugal=frugal, beside=beside, look=look)
    with _signals() as signals:
        signals.stop = signals.hang_up = lambda: app.ask("leave")
        app.run()
    looks.save(link.name, link.folder, app.look)
    state = app.history.standing
    if app.history.ended or state == "crashed":
        # Two sweeps may have a run of one name; a folder of another machine is none here.
        run = named(link.folder) if link.local else link.name
        _say(_farewell(state, run, link.command(next_command(state)), app.history.finished))
    elif app.history.gone is None:
        how = "is paused" if state == "paused" else "goes on without this window"
        _say(f"{link.name} {how}; the same command comes back to it")


def chat(
    run: str,
    checkpoint: str | None,
    out: Path,
    *,
    explicit: bool,
    thoughts: int | None,
    base: str | None,
    preset: str | None,
) -> None:
    """Ask a model: a prompt on a terminal, one question per line from a pipe.

    Raises ValueError with a sentence when it cannot be opened or asked so.
    """
    typer.echo("loading torch …", err=True)
    from stepwise_tui import glyphs
    from stepwise_tui.search import below
    from trainer import control
    from trainer.asking import inspection

    loaded = inspection.open_checkpoint(run, checkpoint, out, base=base, preset=preset, without_data=True)
    inspection.check_explicit(loaded, explicit)
    inspection.check_thoughts(loaded, thoughts)
    for caveat in inspection.caveats(loaded):
        complain(caveat)
    prompt = sys.stdin.isatty()
    if prompt:
        say(f"{inspection.greeting(loaded)} /help lists what there is (Ctrl-D ends)", err=True)
    signs = glyphs.detect()
    per_step = loaded.config.method.thoughts_per_step if loaded.config else 1
    for question in _questions(prompt):
        word, _, number = question.partition(" ")
        if word == "/help":
            block(pairs(THINKING | HELP if loaded.parts.method.thinks else HELP), err=True)
            continue
        if word == "/thoughts":  # as in the cockpit
            try:
                wanted = control.thoughts(number.strip()) if number else None
                inspection.check_thoughts(loaded, wanted or 0)
                thoughts = wanted
                count = "as many thoughts as the stage has" if wanted is None else so_many(wanted)
                say(f"answers come after {count} from now on", err=True)
            except ValueError as error:
                complain(str(error))
            continue
        answered = inspection.ask(loaded, question, explicit=explicit, thoughts=thoughts)
        say(turn(answered, thoughts))
        for line in below(answered, per_step, signs):
            typer.echo(line)


def _settings(plain: bool, terminal: Terminal) -> Settings | None:
    """What the person wants of every cockpit, where there will be one. Raises `SettingsError`."""
    if plain or not terminal.whole:
        return None
    from stepwise_tui import settings

    return settings.load()


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


def _show(
    run: Run, terminal: Terminal, signals: _Signals, settings: Settings | None, *, frugal: bool
) -> None:
    """Follow the run until it has ended or the person ends it."""
    from stepwise_tui import plain
    from stepwise_tui.link import LocalLink

    if not isinstance(terminal, Borrowed):
        plain.follow(LocalLink(run), sys.stdout)
        return
    if terminal.take():
        from stepwise_tui import looks
        from stepwise_tui.app import Cockpit

        link = LocalLink(run)
        app = Cockpit(
            link, terminal, settings=settings, frugal=frugal, look=looks.load(link.name, link.folder)
        )
        signals.leave, signals.hang_up = (lambda: app.ask("stop")), (lambda: app.ask("leave"))
        if signals.asked:
            app.ask("stop")
        app.run()
        looks.save(link.name, link.folder, app.look)
        signals.hang_up = terminal.give_up
        if not terminal.there:
            signals.lose()
        signals.let_go = True
        link.close()
        if app.return_value == "stop" or run.wait(0):
            return
        if app.return_value is None:
            typer.echo("the cockpit broke; training goes on, told in lines", err=True)
            plain.follow(LocalLink(run), sys.stdout)
            return
        how = "is paused" if run.state == "paused" else "trains on"
        _say(f"{run.name} {how} in process {os.getpid()}\nstepwise attach {named(run.folder)}")
    terminal.give_up()
    run.wait()


def _say(text: str, *, err: bool = False) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        block(text, err=err)


def _stop(run: Run, terminal: Terminal, signals: _Signals) -> None:
    """Save and end the run, and this process, also where the terminal takes nothing and holds the screen."""
    from trainer.control import parse

    stop = parse("stop", source=signal.Signals(signals.number).name)
    run.submit(replace(stop, within=LAST_SAVE_SECONDS))
    signals.leave()
    run.wait()
    time.sleep(GRACE_SECONDS)
    run.close()
    if isinstance(terminal, Borrowed):
        terminal.leave_undone()
    os._exit(FAILURE if run.state == "crashed" else 0)


def _tell_loss(run: Run) -> None:
    from trainer.events import Notice

    message = "the terminal is gone; training goes on, and `stepwise attach` takes over"
    run.tell(Notice(at=run.at, level="warning", message=message))


def _farewell(state: str, run: str, following: str, end: RunFinished | None) -> str:
    """How a run ended, where it lies and the command that makes most of it. end: None after a crash."""
    unsaved = ""
    if end is not None and end.unsaved:
        stands = f"{end.checkpoint} stands" if end.checkpoint else "nothing was saved yet"
        unsaved = f"the end could not be saved: {end.unsaved}; {stands}\n"
    return f"{unsaved}{state}: {run}\n{following}"


class _Signals:
    """What signals do. SIGINT, SIGTERM: the first asks for the end, a second ends the process at once with
    128 + its number; before there is anything to save the first one ends it already. SIGHUP: the terminal
    is gone, and nothing else.

    stop: saves and ends; runs in a thread of its own, since the one a signal interrupts may hold the very
    lock it needs; number: of the signal that asked for it. leave: closes the cockpit. hang_up: goes on
    without the terminal. lost: tells that it is gone; `lose` calls it, once, never in the interrupted thread.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self.leave: Callable[[], None] = lambda: None
        self.hang_up: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None
        self.asked = False
        self.number = 0
        self._asked_at = 0.0
        self.let_go = False
        """Whether the terminal was lost and that was told, or given back."""
        self._relayed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.hang_up()
            threading.Thread(target=self.lose, daemon=True).start()
        elif self.stop is None:
            raise SystemExit(128 + number)
        elif self.asked and self._relayed:
            self._relayed = False  # all processes were signalled, and this is the same one
        elif self.asked:
            if not is_the_same(number, self._asked_at):
                os._exit(128 + number)
        else:
            self.asked, self.number, self._asked_at = True, number, time.monotonic()
            threading.Thread(target=self.stop, daemon=True).start()

    def lose(self) -> None:
        """Tell, once, that the terminal is gone."""
        if not self.let_go:
            self.let_go = True
            self.lost()

    def vanished(self) -> None:
        """The terminal is gone, as its parent is."""
        self.hang_up()
        self.lose()

    def relay(self, number: int) -> None:
        """A signal that the parent was sent; called in a thread."""
        if not self.asked:
            self._relayed = True
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, number)


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    """Handle signals while inside. An interrupt that is ignored stays so."""
    handler = _Signals()
    numbers = [n for n in SIGNALS if n == signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield handler
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
