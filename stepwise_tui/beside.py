"""Another run's journal, read for comparison: in a thread, read only, and followed while it grows."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

from trainer import config as configuration
from trainer import runs
from trainer.events import Event, decoded
from trainer.record import journal
from trainer.record.digest import Digest

LOOK_SECONDS = 5.0
"""Between two looks for what is new."""


class Other:
    """A run that is drawn beside the one on the screen.

    Raises `ConfigError` when its configuration cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = folder.name, folder.absolute()
        self.config = configuration.build(configuration.load(folder / runs.CONFIG_FILE))
        self._reader = journal.Reader(folder)
        self._events: deque[Event] = deque()
        self._closed = threading.Event()
        threading.Thread(target=self._read, name="stepwise-beside", daemon=True).start()

    def drain(self) -> list[Event]:
        """What was read since the last time; the first time what matters of all that was before."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def close(self) -> None:
        """Read no more."""
        self._closed.set()

    def _read(self) -> None:
        digest = Digest()
        while (lines := self._reader.take()) and not self._closed.is_set():
            digest.take(lines)
        self._events.extend(decoded(digest.lines()))
        while not self._closed.wait(LOOK_SECONDS):
            self._events.extend(decoded(self._reader.take().split(b"\n")))
        self._reader.close()
