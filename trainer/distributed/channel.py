"""Between the process that hosts a run and rank 0, which trains it: events one way, commands the other.

A Unix socket in this user's private folder. What goes over it are our own objects, pickled: both ends are
processes of one run.
"""

from __future__ import annotations

import errno
import queue
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from trainer import wire
from trainer.config import Config
from trainer.control import Command
from trainer.distributed.signs import Sign
from trainer.events import Event
from trainer.files import Trouble
from trainer.inbox import Inbox
from trainer.system import Needs
from trainer.training import Begun

CONNECT_SECONDS = 60.0


class Job(NamedTuple):
    """To rank 0: what to train, as `Training.begin` has it. pid: of the host."""

    config: Config
    resume: bool
    paused: bool | None
    asked: Command | None
    pid: int


class Appended(NamedTuple):
    """From rank 0: an event. wait: it is to be answered when that is on the disk."""

    event: Event
    wait: bool


class Flush(NamedTuple):
    """From rank 0: answer when all that was told is on the disk, with the reason where that refuses."""


class Seq(NamedTuple):
    """From rank 0: answer with the number of the last event."""


class Answered(NamedTuple):
    """To rank 0: an answer."""

    value: Any


class Failed(NamedTuple):
    """From rank 0: it cannot begin, and why."""

    reason: str


class Crashed(NamedTuple):
    """From rank 0: training broke."""

    reason: str
    traceback: str


class Closed(NamedTuple):
    """From rank 0: the run is closed, all is written. To rank 0: close it."""


class State(NamedTuple):
    """From rank 0, now and then: how all ranks do, and the run."""

    signs: tuple[Sign, ...]
    needs: Needs | None
    ended: bool


class Stop(NamedTuple):
    """From rank 0: a signal asks for the end."""

    source: str


class Refuses(NamedTuple):
    """To rank 0: why nothing can be written now, or None."""

    trouble: Trouble | None


Message = Begun | Appended | Flush | Seq | Failed | Crashed | Closed | State | Stop


def address(folder: Path) -> str:
    """Where the socket of a run lies. Raises OSError where its folder is not ours alone."""
    return str(wire.address(folder).with_suffix(".ranks"))


class HostEnd:
    """Rank 0's end: the inbox that commands arrive in, and the journal that events go to.

    lost: called when the host is gone before it was told how it ends; nothing can be told any more.
    """

    def __init__(self, address: str, inbox: Inbox, lost: Callable[[], None]) -> None:
        self._connection = _connect(address)
        job = self._connection.recv()
        assert isinstance(job, Job)
        self.job = job
        self.trouble: Trouble | None = None
        """Why the host can write nothing at the moment, or None."""
        self._inbox, self._lost, self._done = inbox, lost, False
        self._sending, self._asking = threading.Lock(), threading.Lock()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._receive, name="stepwise-host", daemon=True).start()

    def say(self, message: Message) -> None:
        """Tell the host something."""
        with self._sending:
            self._connection.send(message)

    def say_last(self, message: Failed | Crashed | Closed) -> None:
        """Tell the host how it ends; it may be gone before this process is."""
        self._done = True
        self.say(message)

    def append(self, event: Event, *, wait: bool = False) -> None:
        """Have an event journalled. wait: return only when it is safe on the disk."""
        if wait:
            self._ask(Appended(event, True))
        else:
            self.say(Appended(event, False))

    def flush(self) -> None:
        """Wait until all that was told is on the disk. Raises OSError while that refuses."""
        reason = self._ask(Flush())
        if reason is not None:
            raise OSError(errno.EIO, reason)

    @property
    def seq(self) -> int:
        """The number of the last event."""
        return int(self._ask(Seq()))

    def _ask(self, message: Message) -> Any:
        with self._asking:
            self.say(message)
            return self._answers.get()

    def _receive(self) -> None:
        try:
            while True:
                message = self._connection.recv()
                match message:
                    case Command():
                        self._inbox.put(message)
                    case Answered():
                        self._answers.put(message.value)
                    case Refuses():
                        self.trouble = message.trouble
                    case Closed():
                        self._inbox.closing.set()
                        self._inbox.wake()
        except (OSError, EOFError):
            if not self._done:
                self._lost()


def connection(end: socket.socket) -> Connection[Any, Any]:
    """The socket as a connection that objects go over."""
    return Connection(end.detach())


def _connect(address: str) -> Connection[Any, Any]:
    until = time.monotonic() + CONNECT_SECONDS
    while True:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(address)
            return connection(end)
        except OSError:
            end.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
