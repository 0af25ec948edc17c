"""Which checkpoints a run has: when the next is due, saving it, and letting old ones go.

Between two steps a save is a copy in memory; a thread of its own writes it, and deletes what retention lets
go. One copy at a time: a save waits for the one before. What is written is told by `collect`, between two
steps again. While the disk refuses the writer tries again and again, `trouble` says why, and the copies wait.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from trainer.config import SaveConfig
from trainer.events import At, CheckpointRemoved, CheckpointSaved, Event, Notice
from trainer.files import RETRY_SECONDS, Trouble, trouble
from trainer.methods.base import Model
from trainer.record.lineage import CheckpointRef, Fork, Lineage, surplus
from trainer.saving import checkpoint
from trainer.saving.checkpoint import Snapshot, Tensors, TrainState
from trainer.saving.room import GB, gigabytes

LOOKS = 0.2
"""Seconds between two looks whether there is still time to wait for the writer."""
COSTS_BETWEEN_SAVES = 30
"""Timed saves are at least this many times as far apart as writing one takes."""


class _Written(NamedTuple):
    snapshot: Snapshot
    at: At
    seconds: float
    bytes: int


class Keeper:
    """The owner of a run's lineage and of its checkpoint folder. One thread uses it; `close` it at the end.

    settle: puts on the disk what the run has told so far, which must be there before a checkpoint is. It
    raises OSError. tokenizer: for the writer alone. deadline: from when on, by `time.monotonic`, nobody waits
    for the writer any more; it may change while somebody does.
    """

    def __init__(
        self,
        folder: Path,
        lineage: Lineage,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        settle: Callable[[], None],
        deadline: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self.folder = folder
        self.lineage = lineage
        self.trouble: Trouble | None = None
        """Why nothing can be written at the moment, or None."""
        self._model, self._tokenizer, self._settle = model, tokenizer, settle
        self._deadline = deadline
        self._last = time.monotonic()
        self._budget_told: float | None = None
        self._since = self._last  # when the trouble began
        self._cost = 0.0
        self._news = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._written: deque[_Written] = deque()
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._writer: threading.Thread | None = None

    def due(self, config: SaveConfig) -> bool:
        """Whether the longest time between two checkpoints will have passed when one more is written."""
        interval = max(60 * config.minutes, COSTS_BETWEEN_SAVES * self._cost)
        return not self._jobs and time.monotonic() - self._last + self._cost >= interval

    def put_off(self) -> None:
        """Let the time to the next checkpoint begin anew without one."""
        self._last = time.monotonic()

    def save(self, state: TrainState, at: At, copy: Callable[[], Tensors]) -> str:
        """Copy a checkpoint and have it written; its id. Waits for the one before, if the disk takes that.

        After the deadline nothing is copied any more.
        """
        self._last = time.monotonic()
        id = checkpoint.name(state)
        if not self.has(id):
            self.wait()
            if time.monotonic() >= self._deadline():
                return id
            snapshot = Snapshot(state, self._model, self._tokenizer, copy())
            self._do(partial(self._write, snapshot, at))
        return id

    def wait(self, patience: float = 0.0) -> None:
        """Wait until all is written or the deadline is over; while the disk refuses, only so many seconds."""
        asked = time.monotonic()

        def over() -> bool:
            refused = self.trouble is not None and time.monotonic() >= max(asked, self._since) + patience
            late = time.monotonic() >= self._deadline()
            return not self._jobs or refused or late or self._failure is not None

        with self._news:
            while not over():
                self._news.wait(LOOKS)

    def collect(
        self, branch: int, config: SaveConfig, sound: Callable[[Lineage], CheckpointRef | None]
    ) -> list[Event]:
        """What there is to tell of saves that are written, with retention applied while `branch` is live.

        sound: the checkpoint to return to, of those there are, where the weights are in doubt; it is kept.
        Raises what ended the writer, if that was not the disk.
        """
        told: list[Event] = []
        while self._written:
            saved = self._written.popleft()
            ref = saved.snapshot.state.ref(saved.snapshot.id, saved.bytes)
            if self.has(ref.id):
                continue
            told.append(
                CheckpointSaved(
                    at=saved.at,
                    checkpoint=ref.id,
                    cause=ref.cause,
                    seconds=saved.seconds,
                    bytes=saved.bytes,
                )
            )
            lost = [c.id for c in self.lineage.checkpoints if not checkpoint.exists(self.folder, c.id)]
            told += [CheckpointRemoved(at=saved.at, checkpoint=id) for id in lost]
            there = [c for c in self.lineage.checkpoints if c.id not in lost]
            everything = Lineage((*there, ref), self.lineage.forks)
            gone = surplus(
                everything,
                branch,
                keep=config.keep,
                stages=config.stages,
                every_stage=config.every_stage,
                budget=math.inf if config.disk_gb is None else config.disk_gb * GB,
                sound=sound(everything),
            )
            kept = tuple(c for c in everything.checkpoints if c.id not in gone)
            self.lineage = Lineage(kept, self.lineage.forks)
            told += [CheckpointRemoved(at=saved.at, checkpoint=id) for id in gone]
            if gone:
                self._do(partial(checkpoint.remove, self.folder, gone))
            told += self._over_budget(saved.at, config)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return told

    def _over_budget(self, at: At, config: SaveConfig) -> list[Event]:
        """A notice, once, when what is always kept is more than the budget."""
        taken = sum(c.bytes for c in self.lineage.checkpoints)
        if config.disk_gb is None or taken <= config.disk_gb * GB or self._budget_told == config.disk_gb:
            return []
        self._budget_told = config.disk_gb
        message = (
            f"the checkpoints take {gigabytes(taken)}, more than save.disk_gb = {config.disk_gb:g}: the "
            "newest, the best, what training would go on from and those you saved are kept all the same"
        )
        return [Notice(at=at, level="warning", message=message)]

    def fork(self, branch: int, fork: Fork) -> None:
        """Open a branch."""
        self.lineage = Lineage(self.lineage.checkpoints, {**self.lineage.forks, branch: fork})

    def has(self, id: str) -> bool:
        """Whether a checkpoint is written, told and kept."""
        return any(c.id == id for c in self.lineage.checkpoints)

    def last(self) -> str:
        """Id of the newest checkpoint, "" when there is none."""
        return self.lineage.checkpoints[-1].id if self.lineage.checkpoints else ""

    def close(self) -> None:
        """End the writer. What the disk refuses now, or does not take before the deadline, is given up."""
        self._closing.set()
        with self._news:
            self._news.notify_all()
        while self._writer is not None and self._writer.is_alive() and time.monotonic() < self._deadline():
            self._writer.join(LOOKS)

    # The writer -------------------------------------------------------------------------------------------

    def _do(self, job: Callable[[], None]) -> None:
        with self._news:
            self._jobs.append(job)
            self._news.notify_all()
        if self._writer is None:
            self._writer = threading.Thread(target=self._work, name="stepwise-saving", daemon=True)
            self._writer.start()

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._jobs or self._closing.is_set())
                if not self._jobs:
                    return
                job = self._jobs[0]
            try:
                job()
            except Exception as error:
                self._failure = error
            with self._news:
                self._jobs.popleft()
                self._news.notify_all()

    def _write(self, snapshot: Snapshot, at: At) -> None:
        """Write one, trying again for as long as the disk refuses and nobody closes.

        A timed one whose weights are not finite is of no use, and would take the place of one that is.
        """
        if snapshot.state.cause == "time" and not snapshot.finite:
            if snapshot.tensors.spread is not None:
                snapshot.tensors.spread.forget()
            return
        while True:
            started = time.monotonic()
            try:
                size = checkpoint.write(self.folder, snapshot, self._settle)
            except OSError as error:
                with self._news:
                    self._since = self._since if self.trouble else time.monotonic()
                    self.trouble = trouble("no checkpoint can be written", error)
                    self._news.notify_all()
                if self._closing.wait(max(RETRY_SECONDS, time.monotonic() - started)):
                    return
            else:
                self._cost = time.monotonic() - started
                self._written.append(_Written(snapshot, replace(at, time=time.time()), self._cost, size))
                self.trouble = None
                return
