"""What a run tells to those who listen: first what was before, by its digest, then each event as it comes.

Nothing is queued for a listener that the journal has: each reads on in the file, at its own pace, so one that
is slow, asleep or forgotten costs no memory. Only what is transient is held for it, a little.
"""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

from trainer.events import Event, decoded, encode
from trainer.record import journal
from trainer.record.digest import Digest
from trainer.record.journal import Reader

KEEP_UP_SECONDS = 1.0
MOST_TRANSIENT = 1_000
"""Transient events held for one listener; of more the oldest go."""


class Listener:
    """One who listens to a run. Take what there is by `take` or by `drain`, not by both."""

    def __init__(self, before: list[bytes], reader: Reader) -> None:
        self._before = before
        self._reader = reader
        self.transient: deque[Event] = deque(maxlen=MOST_TRANSIENT)

    def take(self) -> bytes:
        """Lines that are new, a block at once; nothing when nothing is."""
        before, self._before = self._before, []
        lines = b"".join(line + b"\n" for line in before) or self._reader.take()
        # Only what is there now: they come from another thread.
        new = [self.transient.popleft() for _ in range(len(self.transient))]
        return lines + b"".join(encode(event).encode("utf-8", "backslashreplace") + b"\n" for event in new)

    def drain(self) -> list[Event]:
        """Events that are new, a block at once."""
        return decoded(self.take().split(b"\n"))

    def close(self) -> None:
        """Let it end; nothing more may be taken."""
        self._reader.close()


class Story:
    """A run's journal as it is told. Keeps its digest up to date in a thread, so that nobody has to wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = Reader(folder)
        self._digest = Digest()
        self._digesting = threading.Lock()
        self._listeners: list[Listener] = []
        self._changing = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="stepwise-story", daemon=True)
        self._thread.start()

    def listen(self, after: int | None = 0) -> Listener:
        """Hear of every event after number `after`; after 0 of what was before by its digest, which ends
        with `HistoryTold`. None: only of what comes."""
        if after is None:
            offset = journal.whole_lines(self._folder / journal.FILE)
            listener = Listener([], Reader(self._folder, offset))
        elif after > 0:
            listener = Listener([], Reader(self._folder, journal.place_after(self._folder, after)))
        else:
            with self._digesting:
                while self._read_on():
                    pass
                listener = Listener(self._digest.lines(), Reader(self._folder, self._reader.offset))
        with self._changing:
            self._listeners = [*self._listeners, listener]
        return listener

    def leave(self, listener: Listener) -> None:
        with self._changing:
            self._listeners = [other for other in self._listeners if other is not listener]
        listener.close()

    def tell(self, event: Event) -> None:
        """An event that no journal has. Never waits."""
        for listener in self._listeners:
            listener.transient.append(event)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _keep_up(self) -> None:
        while not self._closing.is_set():
            with self._digesting:
                new = self._read_on()
            if not new:
                self._closing.wait(KEEP_UP_SECONDS)

    def _read_on(self) -> bool:
        """Take in the next lines; whether there were any."""
        lines = self._reader.take()
        self._digest.take(lines)
        return bool(lines)
