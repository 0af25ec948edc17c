"""The writing end of the journal: events reach the disk first and subscribers after.

A thread with a bounded queue keeps a slow disk out of the training loop. While the disk refuses it tries
again and again, and says so. A file that was deleted is written again.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trainer.events import AlarmCleared, AlarmRaised, Event, Notice, RunCrashed, StateChanged, encode
from trainer.files import PATIENCE, RETRY_SECONDS, Trouble, sync_folder, trouble
from trainer.record import lock
from trainer.record.journal import BLOCK, FILE, last_seq, place_of, whole_lines

LOOKS = 0.2  # seconds between two looks whether the disk refuses
STAT_SECONDS = 1.0
"""Between two looks whether the file is still there."""
URGENT = (StateChanged, AlarmRaised, AlarmCleared, RunCrashed)
"""Events that are told at once while the disk refuses, without a number, and again when they are written."""


class Recorder:
    """The writing end of a journal. publish: called with each event, in order, once it is on the disk.

    renew: called from the writer's thread, before a file that was deleted is written again; the folder may be
    gone too.
    """

    def __init__(
        self,
        folder: Path,
        publish: Callable[[Event], None],
        capacity: int = 10_000,
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        """Open for appending, cutting a torn tail.

        Raises BlockingIOError while another process has it open so, and OSError.
        """
        self._path = folder / FILE
        self._publish, self._renew = publish, renew
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            lock.take(self._descriptor)
            self._seq = last_seq(folder)
            self._length = whole_lines(self._path)
            os.ftruncate(self._descriptor, self._length)
            sync_folder(folder)
        except OSError:
            os.close(self._descriptor)
            raise
        self._place, self._looked = place_of(self._path), time.monotonic()
        self._lock = threading.Lock()
        self._queue: queue.Queue[tuple[Event | None, threading.Event | None] | None] = queue.Queue(capacity)
        self._urgent: deque[Event] = deque()
        self.trouble: Trouble | None = None
        """Why nothing can be written at the moment, or None."""
        self._since = 0.0  # when the trouble began
        self._ending: float | None = None  # when the run was asked to end
        self._given_up = False
        self._thread = threading.Thread(target=self._write_all, name="stepwise-journal", daemon=True)
        self._thread.start()

    @property
    def seq(self) -> int:
        """The last number given out."""
        return self._seq

    def append(self, event: Event, *, wait: bool = False) -> None:
        """Queue an event. wait: return only when it is safe on the disk (fsync)."""
        written = threading.Event() if wait else None
        with self._lock:
            if not event.transient:
                self._seq += 1
                event = replace(event, seq=self._seq)
            self._queue.put((event, written))
            if self.trouble is not None and isinstance(event, URGENT):
                self._urgent.append(event)
        if written is not None:
            written.wait()

    def flush(self) -> None:
        """Wait until all that was appended so far is safe on the disk. Raises OSError while that refuses."""
        written = threading.Event()
        self._queue.put((None, written))
        while not written.wait(LOOKS):
            if self.trouble is not None:
                break
        if self.trouble is not None:
            raise OSError(errno.EIO, self.trouble.reason)

    def hurry(self) -> None:
        """The run is asked to end: what the disk goes on refusing is given up, told and not written."""
        if self._ending is None:
            self._ending = time.monotonic()

    def close(self) -> None:
        """Give up the lock; `end` comes first."""
        self.end()
        os.close(self._descriptor)

    def end(self) -> None:
        """Write what is queued, and nothing after it; what the disk goes on refusing is given up."""
        self.hurry()
        self._queue.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=STAT_SECONDS)
            except queue.Empty:
                item = None, None
                if self._is_there():
                    continue
            if item is None:
                return
            event, written = item
            if event is None:
                self._write(b"", sync=True)
            else:
                if not event.transient:
                    line = (encode(event) + "\n").encode("utf-8", "backslashreplace")
                    if not self._write(line, sync=written is not None):
                        event = replace(event, seq=0)
                self._publish(event)
            if written is not None:
                written.set()

    def _write(self, line: bytes, *, sync: bool) -> bool:
        """Write one line whole, trying again for as long as the disk refuses; False when that is given up."""
        while not self._given_up:
            try:
                if not self._is_there():
                    self._write_again()
                if self.trouble is not None:
                    os.ftruncate(self._descriptor, self._length)  # what part of the line got through
                rest = line
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                if sync:
                    os.fsync(self._descriptor)
            except OSError as error:
                self._bear(error)
            else:
                self._length += len(line)
                self.trouble = None
                self._urgent.clear()
                return True
        return False

    def _is_there(self) -> bool:
        """Whether the file that is written to is the one that others find; looks every so often."""
        if time.monotonic() - self._looked < STAT_SECONDS and self.trouble is None:
            return True
        if place_of(self._path) != self._place:
            return False
        self._looked = time.monotonic()
        return True

    def _write_again(self) -> None:
        """Put the file back, whole, where it was deleted or replaced: it lives while it is open.

        Raises OSError, also where another run has the folder now.
        """
        if lock.held(self._path):
            raise OSError(errno.EEXIST, "another run has its folder now")
        self._renew()
        temporary = self._path.with_name(f".{FILE}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        try:
            lock.take(descriptor)
            copied = 0
            while copied < self._length:
                block = os.pread(self._descriptor, min(BLOCK, self._length - copied), copied)
                copied += os.write(descriptor, block)
            os.fsync(descriptor)
            temporary.rename(self._path)
        except OSError:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        os.close(self._descriptor)
        self._descriptor, self._place = descriptor, place_of(self._path)
        sync_folder(self._path.parent)

    def _bear(self, error: OSError) -> None:
        """Say that the disk refuses and wait a little, or give up."""
        now = time.monotonic()
        if self.trouble is None:
            self._since = now
            self.trouble = trouble(f"{self._path} cannot be written", error)
            self._publish(Notice(message=f"{self.trouble.reason}; trying again", level="error"))
        while self._urgent:
            self._publish(replace(self._urgent.popleft(), seq=0))
        if self._ending is not None and now >= max(self._since, self._ending) + PATIENCE:
            self._given_up = True
            message = "the run ends without a record of what was told since; it can be resumed"
            self._publish(Notice(message=f"{self.trouble.reason}; {message}", level="error"))
        else:
            time.sleep(RETRY_SECONDS)
