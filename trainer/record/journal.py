"""The append-only record of a run: `journal.jsonl`, one event a line, `seq` counting from 1. How it is read.

The file is never rewritten; only a torn last line is cut before appending (`trainer.record.recorder`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from trainer.events import NAMES, DecodeError, Event, decode
from trainer.record import lock

FILE = lock.JOURNAL
NAMED = re.compile(rb'\{"seq": ?\d+, ?"event": ?"(\w+)"')
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
        found, read = place_of(self._path), os.fstat(self._file.fileno())
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


def place_of(path: Path) -> tuple[int, int] | None:
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
