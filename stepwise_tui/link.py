"""One interface to a trainer: events down, commands up. The cockpit and plain mode know no other.

Here the trainer lives in this process; one behind a socket will look the same from the other side.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trainer.config import Config
from trainer.control import Command
from trainer.events import Event

if TYPE_CHECKING:
    from trainer.run import Run


class Link(Protocol):
    """A run as the screen sees it. config: what it started with; later changes come as events."""

    name: str
    folder: Path
    config: Config

    def drain(self) -> list[Event]:
        """What has happened since the last call, in order, at once; the first call tells all so far."""
        ...

    def send(self, command: Command) -> None:
        """Ask for something; the acknowledgement comes as an event. Returns at once."""
        ...


class LocalLink:
    """A run in this process, once it has started."""

    def __init__(self, run: Run) -> None:
        self.name = run.name
        self.folder = run.folder
        self.config = run.config
        self._run = run
        self._events = run.subscribe()

    def drain(self) -> list[Event]:
        # Only what is there now: a fast trainer must not keep the screen here for ever.
        return [self._events.popleft() for _ in range(len(self._events))]

    def send(self, command: Command) -> None:
        self._run.submit(command)
