"""The inbox of a run: the one door between threads, which commands come in by, and what each was answered.

Whoever asks puts commands in; who trains takes them out between two optimiser steps. A command whose id was
taken in before is not taken again, and keeps its first answer. What commands are, and what they do, is
`control`'s matter; here stand threads, the clock and the memory of answers, and no decision.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from trainer.control import Command
from trainer.events import At, CommandAcknowledged


class Answer(NamedTuple):
    """How a command was acknowledged."""

    ok: bool
    message: str
    step: int


def acknowledgement(command: Command, at: At, answer: Answer) -> CommandAcknowledged:
    """The event that tells how a command was answered."""
    return CommandAcknowledged(
        at=at,
        id=command.id,
        command=command.text,
        source=command.source,
        ok=answer.ok,
        message=answer.message,
    )


class Inbox:
    """Commands on their way to the loop. Safe to use from several threads.

    All answers are remembered, for those who ask again: 100,000 of them take about 35 MB, and that is a
    command every second for more than a day.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._answers: dict[str, Answer] = {}
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._arrived = threading.Event()
        self._stop_asked = threading.Event()
        self._interrupting: set[str] = set()
        self.closing = threading.Event()
        """Set when the run is to be left: whoever serves the commands ends."""
        self.deadline = math.inf
        """When, by `time.monotonic`, a run that was asked to end waits for no disk any more."""

    def put(self, command: Command, before: Callable[[], None] = lambda: None) -> bool:
        """Take a command in; False when its id was taken in before, and nothing is done.

        before: done first, where it is taken in.
        """
        with self._lock:
            if command.id in self._seen:
                return False
            self._seen.add(command.id)
            if command.name == "interrupt":
                self._interrupting.add(command.id)
        before()
        self._queue.put(command)
        if command.name == "stop":
            self.deadline = min(self.deadline, time.monotonic() + command.within)
            self._stop_asked.set()
        self._arrived.set()
        return True

    def stop_asked(self) -> bool:
        """Whether a stop is on its way; evaluation and generation look at it between chunks."""
        return self._stop_asked.is_set()

    def interrupted(self) -> bool:
        """Whether an answer shall end here: a stop is on its way, or one that is not served yet."""
        return bool(self._interrupting) or self._stop_asked.is_set()

    def stop_served(self) -> None:
        """The stop has had its effect; what is asked from now on is not interrupted."""
        self._stop_asked.clear()

    def take(self) -> list[Command]:
        """All commands that have arrived, in order, without waiting."""
        return list(iter(self.next, None))

    def next(self) -> Command | None:
        """The one of them that came first, without waiting."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def waiting(self) -> int:
        """How many commands have arrived and were not taken yet."""
        return self._queue.qsize()

    def wake(self) -> None:
        """Let whoever waits look around, though no command came."""
        self._arrived.set()

    def wait(self, seconds: float) -> bool:
        """Wait until a command has arrived since the last wait, at most so long; whether one has."""
        arrived = self._arrived.wait(seconds)
        self._arrived.clear()  # before anything is taken, so that what arrives meanwhile is not waited for
        return arrived

    def answer(self, id: str) -> Answer | None:
        """The answer a command got, if it was answered before."""
        with self._lock:
            return self._answers.get(id)

    def answered(self, id: str, answer: Answer) -> None:
        """Remember an answer, of now or of an earlier process."""
        with self._lock:
            self._seen.add(id)
            self._interrupting.discard(id)
            self._answers.setdefault(id, answer)
