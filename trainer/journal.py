"""The append-only record of a run: `journal.jsonl`, one event a line, `seq` counting from 1.

Events reach the disk first and subscribers after. A writer thread with a bounded queue keeps a slow disk
out of the training loop. The file is never rewritten; only a torn last line is cut before appending.
"""

from __future__ import annotations

import errno
import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import FileIO
from pathlib import Path

from trainer import lock
from trainer.events import (
    NAMES,
    AlarmCleared,
    AlarmRaised,
    DecodeError,
    Event,
    Notice,
    RunCrashed,
    StateChanged,
    decode,
    encode,
)
from trainer.files import PATIENCE, RETRY_SECONDS, Trouble, sync_folder, trouble

FILE = lock.JOURNAL
NAMED = re.compile(rb'\{"seq": ?\d+, ?"event": ?"(\w+)"')
LOOKS = 0.2  # seconds between two looks whether the disk refuses
STAT_SECONDS = 1.0
"""Between two looks whether the file is still there."""
URGENT = (StateChanged, AlarmRaised, AlarmCleared, RunCrashed)
"""Events that are told at once while the disk refuses, without a number, and again when they are written."""
BLOCK = 1 << 20  # bytes read at once


def read(folder: Path, wanted: Callable[[bytes], bool] = lambda line: True) -> Iterator[Event]:
    """The events of a run folder in order. A torn last line is left out, as are lines that do not decode.

    wanted: asked for each line; to pass over a line is many times as quick as to decode it.
    """
    try:
        file = (folder / FILE).open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            if not wanted(line):
                continue
            try:
                yield decode(line)
            except DecodeError:
                continue


def after(seq: int) -> Callable[[bytes], bool]:
    """For `read`: the lines of events after number `seq`, which stands first in each."""

    def wanted(line: bytes) -> bool:
        number = line[len(b'{"seq":') : line.find(b",")]
        return not number.isdigit() or int(number) > seq

    return wanted


def of(*kinds: type[Event]) -> Callable[[bytes], bool]:
    """For `read`: the lines of events of these kinds, whose name stands second in each."""
    names = {NAMES[kind].encode() for kind in kinds}

    def wanted(line: bytes) -> bool:
        match = NAMED.match(line)
        return match is None or match[1] in names

    return wanted


def without(*kinds: type[Event], up_to: int) -> Callable[[bytes], bool]:
    """For `read`: all lines but those of events of these kinds up to number `up_to`."""
    names = {NAMES[kind].encode() for kind in kinds}
    follows = after(up_to)

    def wanted(line: bytes) -> bool:
        match = NAMED.match(line)
        return match is None or match[1] not in names or follows(line)

    return wanted


class Reader:
    """The lines of a journal from a place on, and as they come. offset: bytes from its start."""

    def __init__(self, folder: Path, offset: int = 0) -> None:
        self._path = folder / FILE
        self._file: FileIO | None = None
        self.offset = offset

    def take(self, most: int = BLOCK) -> bytes:
        """The next whole lines, about `most` bytes at once; nothing when nothing new is there."""
        if self._file is None:
            try:
                self._file = FileIO(self._path)
            except FileNotFoundError:
                return b""
        block = os.pread(self._file.fileno(), most, self.offset)
        if not block and self._is_another():
            self.close()  # it was deleted and written again, as it was and more
            return self.take(most)
        while (end := block.rfind(b"\n") + 1) == 0 and len(block) >= most:
            most *= 2
            block = os.pread(self._file.fileno(), most, self.offset)
        self.offset += end
        return block[:end]

    def _is_another(self) -> bool:
        """Whether there is a file now that is not the one being read."""
        assert self._file is not None
        found, read = _place(self._path), os.fstat(self._file.fileno())
        return found is not None and found != (read.st_dev, read.st_ino)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def place_after(folder: Path, seq: int) -> int:
    """Where the lines of events after number `seq` begin: bytes from the start. Looks at a few lines only."""
    path = folder / FILE
    try:
        low, high = 0, whole_lines(path)
    except FileNotFoundError:
        return 0
    follows = after(seq)
    with path.open("rb") as file:
        while high - low > BLOCK:
            file.seek((low + high) // 2)
            file.readline()
            start = file.tell()
            if start >= high or follows(file.readline()):
                high = (low + high) // 2
            else:
                low = start
        file.seek(low)
        while low < high:
            line = file.readline()
            if not line.endswith(b"\n") or follows(line):
                break
            low += len(line)
    return low


def last_seq(folder: Path) -> int:
    """The number of the last event, 0 where there is none."""
    path = folder / FILE
    end = whole_lines(path) if path.exists() else 0
    start = end
    while start > 0:
        start = max(0, start - BLOCK)
        with path.open("rb") as file:
            file.seek(start)
            lines = file.read(end - start).splitlines()
        for line in reversed(lines if start == 0 else lines[1:]):
            try:
                return decode(line).seq
            except DecodeError:
                continue
    return 0


class Journal:
    """The writing end. publish: called with each event, in order, once it is on the disk.

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
        self._place, self._looked = _place(self._path), time.monotonic()
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
        if _place(self._path) != self._place:
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
        self._descriptor, self._place = descriptor, _place(self._path)
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


def _place(path: Path) -> tuple[int, int] | None:
    """Which file that is; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def flaws(folder: Path, least: int) -> list[str]:
    """What is wrong with a journal: lines that are none, numbers that miss. least: events there must be."""
    broken, last = 0, 0
    missing: list[str] = []

    def reach(seq: int) -> None:
        if seq > last + 1:
            missing.append(f"{last + 1:,} to {seq - 1:,}" if seq > last + 2 else f"{seq - 1:,}")

    with (folder / FILE).open("rb") as file:
        for line in file:
            if NAMED.match(line) is None or not line.endswith(b"}\n"):
                broken += line.endswith(b"\n")
                continue
            seq = int(line[len(b'{"seq":') : line.find(b",")])
            reach(seq)
            last = max(last, seq)
    reach(least + 1)
    told = [f"{broken:,} line{'s' if broken > 1 else ''} cannot be read"] if broken else []
    if missing:
        more = f" and {len(missing) - 5:,} more places" if len(missing) > 5 else ""
        told.append(f"events {', '.join(missing[:5])}{more} are missing")
    return [f"{folder / FILE}: {'; '.join(told)}"] if told else []


def whole_lines(path: Path) -> int:
    """Length of a file up to the end of its last whole line, in bytes."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0
