"""One interface to a trainer: events down, commands up. The cockpit and plain mode know no other.

The trainer lives in this process, or behind a control socket; from this side both look the same.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, Protocol

from stepwise_tui.text import next_command
from trainer import config as configuration
from trainer import runs, status, wire
from trainer.config import Config
from trainer.control import Command
from trainer.events import (
    DecodeError,
    Event,
    HistoryTold,
    Notice,
    ReachChanged,
    RunFinished,
    RunState,
    StateChanged,
    decode,
    decoded,
)
from trainer.paths import named, shortest
from trainer.record import journal, lock
from trainer.record.digest import Digest

if TYPE_CHECKING:
    from trainer.run import Run


class Link(Protocol):
    """A run as the screen sees it. config: what it started with; later changes come as events."""

    name: str
    folder: Path
    config: Config
    owner: bool
    """Whether the run lives in this process."""
    local: bool
    """Whether its folder, and what trains it, are on this machine."""

    def drain(self) -> list[Event]:
        """What has happened since the last call, in order, at once; the first call tells all so far."""
        ...

    def send(self, command: Command) -> None:
        """Ask for something; the acknowledgement comes as an event. Returns at once."""
        ...

    def command(self, name: str, *options: str) -> str:
        """What a person types on this machine to do something with the run."""
        return shlex.join(["stepwise", name, shortest(self.folder), *options])


class LocalLink(Link):
    """A run in this process, once it has started."""

    owner = True
    local = True

    def __init__(self, run: Run) -> None:
        self.name = run.name
        self.folder = run.folder
        self.config = run.config
        self._run = run
        self._events = run.subscribe()

    def drain(self) -> list[Event]:
        return self._events.drain()

    def send(self, command: Command) -> None:
        self._run.submit(command)

    def close(self) -> None:
        """Take in nothing more."""
        self._run.unsubscribe(self._events)


class LinkError(ValueError):
    """A run that cannot be attached to; the message says why."""

    exit_code = 1


LOOK_SECONDS = 1.0
"""Between two looks into a journal that another machine writes."""
APPEARS_SECONDS = 5.0
"""For so long a run that lives may have no socket: it makes one as it starts, another where it was swept."""
MOST_WAITING = 20_000
"""Events taken from the socket before anyone drains them."""


class Connection(Protocol):
    """What of a socket a link needs."""

    def sendall(self, data: bytes) -> None: ...
    def makefile(self, mode: Literal["rb"]) -> IO[bytes]: ...


class SocketLink(Link):
    """A run in another process of this machine: what was, and what comes, from its socket.

    When the connection ends it is made again as soon as the run can be reached; nothing is told twice.
    """

    owner = False
    local = True
    _again = 1.0
    """Seconds between two attempts to reach it again."""
    _lost = "the process that trained this run is gone, or does not answer; looking for it"

    def __init__(self, folder: Path, *, history: bool = True, ended: bool = False) -> None:
        """history: tell of what was before, too. ended: the run may have ended; its journal is told then, and
        control is had when it is taken up again. Raises `LinkError` when the run does not answer."""
        self.name = folder.name
        self.folder = folder
        self.config = configuration.build(configuration.load(folder / runs.CONFIG_FILE))
        try:
            connection = connect(folder)
        except LinkError:
            if not ended or runs.lives(folder) is not None:
                raise
            self._begin_without()
        else:
            self._begin(connection, history=history)

    def _begin_without(self) -> None:
        self._connection: Connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # takes nothing
        reader = journal.Reader(self.folder)
        told, self._seq = _told(reader)
        self._finished = False
        self._events: deque[Event] = deque(told)
        reader.close()

        def wait() -> None:
            self._seek()
            self._listen()

        threading.Thread(target=wait, name="stepwise-link", daemon=True).start()

    def _begin(self, connection: Connection, *, history: bool = True) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._events = deque()
        self._seq = 0
        self._finished = False
        with contextlib.suppress(OSError):  # closed already; why, it may have said
            self._connection.sendall(wire.hello(0 if history else None))
        if history:
            self._take_history()
        threading.Thread(target=self._listen, name="stepwise-link", daemon=True).start()

    def drain(self) -> list[Event]:
        return [self._events.popleft() for _ in range(len(self._events))]

    def send(self, command: Command) -> None:
        try:
            self._connection.sendall(wire.command(command))
        except OSError:
            # What helps comes first: a question may be longer than the line that tells this.
            self._say(f"{self._look().advice}. Not sent: {command.text}")

    def _listen(self) -> None:
        while True:
            with contextlib.suppress(OSError), self._lines:
                for line in self._lines:
                    self._take(line)
            self._read_journal()  # it may have been left before it was told the end
            if not self._finished:  # then its process went as it should
                self._say(self._lost)
            self._seek()

    def _seek(self) -> None:
        """Look for the run until it is reached."""
        gone: ReachChanged | None = None
        while True:
            if (seen := self._look()) != gone:
                gone = seen
                self._events.append(seen)
            time.sleep(self._again)
            with contextlib.suppress(OSError, LinkError):
                self._connection = self._connect()
                self._lines = self._connection.makefile("rb")
                self._connection.sendall(wire.hello(self._seq))
                self._events.append(ReachChanged())
                self._say("the run is reached again")
                return

    def _take_history(self) -> None:
        """All that was before, at once. Raises `LinkError` when the run ends in the middle of it."""
        with contextlib.suppress(OSError):
            for line in self._lines:
                self._take(line)
                if self._events and isinstance(self._events[-1], HistoryTold):
                    return
        if self._events and isinstance(refused := self._events[-1], Notice) and not refused.seq:
            raise LinkError(f"{self.name}: {refused.message}")
        raise LinkError(f"{self.name} ended, or broke off, while it told its history; try again")

    def _connect(self) -> Connection:
        return connect(self.folder)

    def _look(self) -> ReachChanged:
        """What is to be said of a run that is not reached."""
        if (state := runs.state(self.folder)) in runs.ENDED:
            helps = _what_helps(self.folder, state)
            if state == "finished":
                return ReachChanged(gone="crashed", advice=f"it has finished; {helps}")
            advice = f"its process is gone; {helps}, and this window follows"
            return ReachChanged(gone="crashed", advice=advice)
        return ReachChanged(gone="not reached", advice="its process does not answer; looking for it")

    def _read_journal(self) -> None:
        reader = journal.Reader(self.folder, journal.place_after(self.folder, self._seq))
        while lines := reader.take():
            for line in lines[:-1].split(b"\n"):
                self._take(line)
        reader.close()

    def _take(self, line: bytes) -> None:
        try:
            event = decode(line)
        except DecodeError:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._say(str(json.loads(line)["error"]))
            return
        if event.seq:
            if event.seq <= self._seq:
                return
            self._seq = event.seq
            self._finished = isinstance(event, RunFinished) or (
                self._finished and isinstance(event, StateChanged)
            )
        while len(self._events) >= MOST_WAITING:
            time.sleep(0.05)  # whoever drains them is behind; the rest waits where it is
        self._events.append(event)

    def _say(self, message: str) -> None:
        self._events.append(Notice(message=message, level="warning"))


class JournalLink(Link):
    """A run of another machine that shares its folder with this one: its journal to read, and no control."""

    owner = False
    local = False

    def __init__(self, folder: Path, host: str) -> None:
        self.name = f"{folder.name} on {host}"
        self.folder = folder
        self.config = configuration.build(configuration.load(folder / runs.CONFIG_FILE))
        self._elsewhere = (
            f"read only: it runs on {host}; `stepwise attach` there, or --ssh {host}, has control"
        )
        self._reader = journal.Reader(folder)
        self._looked = time.monotonic()
        self._events = [*_told(self._reader)[0], Notice(message=self._elsewhere, level="warning")]

    def drain(self) -> list[Event]:
        events, self._events = self._events, []
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            events += decoded(self._reader.take().split(b"\n"))
        return events

    def send(self, command: Command) -> None:
        self._events.append(Notice(message=f"not sent: {command.text}; {self._elsewhere}", level="warning"))


def _told(reader: journal.Reader) -> tuple[list[Event], int]:
    """What a journal tells of so far, by its digest, and the number of its last event."""
    digest = Digest()
    while lines := reader.take():
        digest.take(lines)
    return decoded(digest.lines()), digest.seq


def attach(folder: Path, *, ended: bool = False) -> SocketLink | JournalLink:
    """The way to a run from this machine. Raises `LinkError` when nobody trains it, unless it
    may have `ended`."""
    found = runs.lives(folder)
    if found is not None and found.host != status.host():
        return JournalLink(folder, found.host)
    return SocketLink(folder, ended=ended)


def connect(folder: Path) -> socket.socket:
    """The socket of a live run. Raises `LinkError` when there is none, with what can be done."""
    until = time.monotonic() + APPEARS_SECONDS
    while True:
        found = status.read(folder)
        lives = found is not None and found.state not in runs.ENDED and status.process_lives(folder, found)
        if found is not None and lives is None:
            host = found.host
            raise LinkError(f"{folder.name} runs on {host}; attach there, for example by ssh {host}")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Where the run says it is: its temporary folder need not be ours.
            address = found.socket if found is not None else None
            connection.connect(address or str(wire.address(folder, make=False)))
        except OSError as error:
            connection.close()
            if found is None or not lives:
                state = runs.state(folder)
                what_helps = _what_helps(folder, state)
                raise LinkError(f"{folder.name} does not run: {state}; {what_helps}") from None
            nobody = isinstance(error, FileNotFoundError | ConnectionRefusedError)
            if not nobody or time.monotonic() >= until:
                raise LinkError(_unreached(folder, found, error)) from None
            time.sleep(0.1)
        else:
            return connection


def _unreached(folder: Path, found: status.Status, error: OSError) -> str:
    """What is to be said of a run that lives and has no socket."""
    if found.state == "starting":
        return f"{folder.name} is still starting; try again in a moment"
    text = f"{folder.name} runs {runs.process(folder, found)}, but cannot be reached: {error.strerror}"
    proven = lock.holds(found.pid, folder / journal.FILE)
    return f"{text}; kill {found.pid} saves and ends it" if proven else text


def _what_helps(folder: Path, state: RunState) -> str:
    what = "asks it" if state == "finished" else "goes on with it"
    return f"`stepwise {next_command(state)} {named(folder)}` {what}"
