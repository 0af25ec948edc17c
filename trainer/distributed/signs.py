"""Signs of life of the ranks: each says every second what it is at; who hangs is found out and named.

A rank that is frozen gives no signs. One whose thread is stuck gives them, and says so: it is at the same
operation for minutes while others wait for it in theirs.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import FrameType
from typing import NamedTuple

SECONDS = 1.0
"""Between two signs."""
SILENT_SECONDS = 30.0
"""Without a sign: then a rank is frozen, or gone without a word."""
APART_SECONDS = 2.0
"""Between the last signs of two ranks, where one fell silent before the other: they come every second."""
STUCK_SECONDS = 300.0
"""At one operation, while others wait."""


class Sign(NamedTuple):
    """What a rank says of itself. number: of signs so far. order: number of the operation it was asked
    last; busy: whether it is still at it. waits: for other ranks. place: of our code that it is at."""

    rank: int
    pid: int
    host: str
    number: int
    order: int
    busy: bool
    waits: bool
    place: str

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host})"


def sign(rank: int, number: int, order: int, busy: bool, thread: int) -> Sign:
    """What there is to say of the thread that trains."""
    frame = sys._current_frames().get(thread)
    waits, place = False, ""
    while frame is not None:
        waits = waits or "torch/distributed" in frame.f_code.co_filename
        place = place or _place(frame)
        frame = frame.f_back
    return Sign(rank, os.getpid(), socket.gethostname(), number, order, busy, waits, place)


def _place(frame: FrameType) -> str:
    """Where it is in our code, from `trainer` on; "" where it is not."""
    _, ours, inside = frame.f_code.co_filename.rpartition("/trainer/")
    return f"trainer/{inside}:{frame.f_lineno}" if ours else ""


@dataclass
class Vigil:
    """Whoever is told the signs, and by its own clock finds out who hangs. Pure but for what it remembers.

    lives: whether the process of a rank is still there, or may be.
    """

    silent: float = SILENT_SECONDS
    stuck: float = STUCK_SECONDS
    lives: Callable[[Sign], bool] = lambda last: True
    _last: dict[int, Sign] = field(default_factory=dict)
    _heard: dict[int, float] = field(default_factory=dict)
    _began: dict[int, float] = field(default_factory=dict)

    def hear(self, signs: Iterable[Sign], now: float) -> None:
        """Take in what came at the time `now`, in seconds of any clock that does not go back."""
        for new in signs:
            old = self._last.get(new.rank)
            if old is None or new.number != old.number:
                self._heard[new.rank] = now
            if old is None or (new.order, new.busy, new.waits) != (old.order, old.busy, old.waits):
                self._began[new.rank] = now
            self._last[new.rank] = new

    def complaint(self, now: float) -> str | None:
        """Which rank hangs, and how that shows; None while none does."""
        signs = dict(sorted(dict(self._last).items()))  # at once: another thread hears
        for rank, last in signs.items():
            if now - self._heard[rank] > self.silent:
                how = "stopped or frozen" if self.lives(last) else "gone"
                return f"{last} gives no sign of life for {self.silent:.0f} s: its process is {how}"
        stuck = [last for rank, last in signs.items() if now - self._began[rank] > self.stuck]
        newest = max((last.order for last in signs.values()), default=0)
        seen = any(last.busy and last.waits for last in stuck)
        # On a GPU nobody need be seen to wait: who calls for NCCL goes on, and stops elsewhere, later.
        behind = [last for last in stuck if last.order < newest and (last.busy or seen)]
        beside = [last for last in stuck if seen and last.busy and not last.waits]
        hang = min(behind + beside, key=lambda last: (last.order, last.waits), default=None)
        if hang is not None:
            return f"{hang} hangs at {hang.place or 'an unknown place'} for {self.stuck:.0f} s; others wait"
        return f"all ranks wait for each other for {self.stuck:.0f} s" if seen else None

    def first_silent(self) -> Sign | None:
        """The rank whose last sign came before those of all others; None where they came together."""
        heard = sorted((when, rank) for rank, when in dict(self._heard).items())
        if len(heard) < 2 or heard[1][0] - heard[0][0] <= APART_SECONDS:
            return None
        return self._last[heard[0][1]]

    @property
    def ranks(self) -> tuple[Sign, ...]:
        """The last sign of each."""
        return tuple(sign for _, sign in sorted(dict(self._last).items()))
