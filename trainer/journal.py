"""The append-only record of a run: `journal.jsonl`, one event a line, `seq` counting from 1.

Events reach the disk first and subscribers after. A writer thread with a bounded queue keeps a slow disk
out of the training loop. The file is never rewritten; only a torn last line is cut before appending.
"""

from __future__ import annotations

import fcntl
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from trainer.events import NAMES, DecodeError, Event, Notice, decode, encode

FILE = "journal.jsonl"
RETRY_SECONDS = 1.0
NAMED = re.compile(rb'\{"seq": ?\d+, ?"event": ?"(\w+)"')


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


class Journal:
    """The writing end. publish: called with each event, in order, once it is on the disk."""

    def __init__(self, folder: Path, publish: Callable[[Event], None], capacity: int = 10_000) -> None:
        """Open for appending, cutting a torn tail.

        Raises BlockingIOError while another process has it open so, and OSError.
        """
        self._path = folder / FILE
        self._publish = publish
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._seq = max((event.seq for event in read(folder)), default=0)
        self._length = whole_lines(self._path)
        os.ftruncate(self._descriptor, self._length)
        self._lock = threading.Lock()
        self._queue: queue.Queue[tuple[Event | None, threading.Event | None] | None] = queue.Queue(capacity)
        self.trouble: str | None = None
        """Why nothing can be written at the moment, or None."""
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
        if written is not None:
            written.wait()

    def flush(self) -> int:
        """Wait until all that was appended so far is safe on the disk; the number of the last of it."""
        written = threading.Event()
        with self._lock:
            seq = self._seq
            self._queue.put((None, written))
        written.wait()
        return seq

    def close(self) -> None:
        """Write what is queued and close."""
        self._queue.put(None)
        self._thread.join()
        os.close(self._descriptor)

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            event, written = item
            if event is None:
                self._write(b"", sync=True)
            else:
                if not event.transient:
                    line = (encode(event) + "\n").encode("utf-8", "backslashreplace")
                    self._write(line, sync=written is not None)
                self._publish(event)
            if written is not None:
                written.set()

    def _write(self, line: bytes, *, sync: bool) -> None:
        """Write one line whole, trying again for as long as the disk refuses."""
        while True:
            try:
                if self.trouble is not None:
                    os.ftruncate(self._descriptor, self._length)  # what part of the line got through
                rest = line
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                if sync:
                    os.fsync(self._descriptor)
            except OSError as error:
                if self.trouble is None:
                    self.trouble = f"{self._path} cannot be written: {error.strerror}; trying again"
                    self._publish(Notice(message=self.trouble, level="error"))
                time.sleep(RETRY_SECONDS)
            else:
                self._length += len(line)
                self.trouble = None
                return


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
