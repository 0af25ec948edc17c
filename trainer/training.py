"""What trains a run: its loop with all that it needs, from loading on.

It lives in a thread of the process that hosts the run (`Run`), or, where several ranks train it, in a process
of its own (`member`). What it tells goes to a journal, here or there.
"""

from __future__ import annotations

import gc
import os
import shutil
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Protocol

from trainer import runs, status
from trainer.computing import moments
from trainer.computing.choosing import choose
from trainer.computing.compute import Compute
from trainer.computing.heap import ran_out, release
from trainer.computing.world import World
from trainer.config import Config
from trainer.control import Command
from trainer.data import sources
from trainer.events import (
    At,
    CommandAcknowledged,
    Evaluated,
    Event,
    Metrics,
    Notice,
    RunStarted,
    StepsRepeated,
)
from trainer.files import Trouble
from trainer.inbox import Answer, Inbox
from trainer.loop import Loop
from trainer.memory import available, estimate, longest
from trainer.parts import Parts, assemble
from trainer.rank import DeclinedError, Rank
from trainer.record.lineage import CheckpointRef
from trainer.saving import checkpoint, past, room
from trainer.saving.past import Past
from trainer.saving.resumption import Place, Retold
from trainer.saving.room import Room
from trainer.system import Needs


class RunError(ValueError):
    """A run that cannot be started or taken up; the message says why and what can be done."""


class RanksError(RuntimeError):
    """Ranks that broke; the message says which and how. trace: what Python had to say of it, if anything."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class Journal(Protocol):
    """Where a run's events go."""

    def append(self, event: Event, *, wait: bool = False) -> None:
        """Hand an event on. wait: return when it is on the disk."""
        ...

    def flush(self) -> None:
        """Wait until all that was appended is on the disk. Raises OSError while that refuses."""
        ...

    @property
    def seq(self) -> int:
        """The number of the last event."""
        ...

    @property
    def trouble(self) -> Trouble | None:
        """Why nothing can be written at the moment, or None."""
        ...


@dataclass(frozen=True)
class Begun:
    """What there was before the first step. config: with the settings of the journal. answers: to commands
    given before. accuracy: the last on validation. place: what it goes on from, in a word."""

    config: Config
    stages: int
    answers: dict[str, Answer] = field(default_factory=dict)
    accuracy: float | None = None
    place: str = ""


class Training:
    """A run's loop and what it goes on from. It is the loop's record, too."""

    def __init__(
        self, folder: Path, inbox: Inbox, journal: Journal, world: World | None = None, pid: int | None = None
    ) -> None:
        """pid: of the process that hosts the run; this one when not given."""
        self._folder, self._inbox, self._journal = folder, inbox, journal
        self._world = world or World()
        self._pid = pid or os.getpid()
        self._retold = Retold()
        self._news: list[Event] = []
        """What taking up the run showed, to be told."""
        self._base = 0
        """Bytes of the base of its adapters, which stays: nobody need ask a disk that may be stuck."""
        self.loop: Loop | None = None

    def begin(
        self, config: Config, *, resume: bool, paused: bool | None, asked: Command | None = None
    ) -> Begun:
        """Load data and model, or a checkpoint, and tell that it starts.

        paused: whether to wait before the first step; None: as it was left. asked: the command that asks for
        it, which the caller answers; what was received after it waits in the inbox, and is not lost.
        Raises ValueError with a sentence when data, model, device or checkpoint cannot be had.
        """
        before = past.read(self._folder, config) if resume else Past(config)
        lost = tuple(takewhile(lambda command: asked is None or command.id != asked.id, before.plan.lost))
        before = replace(before, plan=replace(before.plan, lost=lost))
        self._retold = Retold(before.events, before.seq)
        self._news = [*before.missed, *map(_warning, before.damaged)]
        begun = Begun(before.config, 0, place=before.place)
        for event in before.events:
            if isinstance(event, CommandAcknowledged):
                begun.answers[event.id] = Answer(event.ok, event.message, event.at.step)
                self._inbox.answered(event.id, begun.answers[event.id])
            elif isinstance(event, Evaluated) and event.split == "valid":
                begun = replace(begun, accuracy=event.accuracy)
        loop = self._loaded(before)
        if not resume:
            self._check_room(loop)
        if config.model.lora_rank and before.origin is None:
            self._write_base(loop)
        self._base = checkpoint.size(checkpoint.base_folder(self._folder))
        self._tell_start(loop, before.origin)
        self._journal.flush()  # whoever subscribes next must not take an earlier end for this run's own
        if paused is not None and loop.orders.repeating:
            loop.orders.afterwards = replace(loop.orders.afterwards, paused=paused)
        elif paused is not None:
            loop.control = replace(loop.control, paused=paused)
        self.loop = loop
        return replace(begun, stages=loop.method.stages)

    def run(self) -> None:
        """Train until the run is closed. Raises what breaks it."""
        assert self.loop is not None
        self._tell_news(self.loop)
        self.loop.run()

    @property
    def at(self) -> At:
        """Where the run stands."""
        assert self.loop is not None
        return self.loop.at

    @property
    def ended(self) -> bool:
        """Whether it has come to its end, and only answers."""
        return self.loop is not None and self.loop.ended

    def last(self) -> str:
        """Id of the newest checkpoint, "" when there is none."""
        return self.loop.keeper.last() if self.loop else ""

    def needs(self) -> Needs | None:
        """What the run uses now; None while nothing is loaded. For any thread; asks no disk."""
        loop = self.loop
        if loop is None:
            return None
        still = max(0, self._wanted(loop).bytes - self._there(loop))
        return Needs(str(loop.parts.device), still, loop.seconds)

    def free(self) -> None:
        """Let go of what broke: there may be no room for a second model beside the first."""
        self.loop = None
        gc.unfreeze()
        release()

    # Start ------------------------------------------------------------------------------------------------

    def _loaded(self, before: Past) -> Loop:
        """The loop, ready to run."""
        config, origin = before.config, before.origin
        self._check_folder()
        self._world.sharded = not self._world.alone and config.compute.parallel == "fsdp"
        saved = self._saved(config, origin) if origin else None
        self._world.same((config, saved))
        parts = assemble(config, saved, sources.began_with(before.events))
        if parts.changed:
            raise RunError(
                f"{parts.changed}. What was held out may be among what it would train on now: put the "
                "file back as it was, or begin anew with `stepwise run config "
                f"{self._folder / runs.CONFIG_FILE}`"
            )
        compute = self._world.same(self._compute(config, parts, before))
        self._check_alike(parts)
        rank = Rank(config, parts, compute, self._world)
        loop = Loop(config, self._folder, rank, self._inbox, self, before.lineage)
        loop.take_up(before)
        tip = max((e.at.step for e in before.events if e.at.branch == loop.branch), default=0)
        if loop.orders.repeating and tip > loop.at.step:
            self._news.append(
                _warning(
                    f"what came after {before.place} is done again, up to step {tip:,}; what was told of it "
                    "is not told twice"
                )
            )
        return loop

    def _saved(self, config: Config, origin: CheckpointRef) -> Path:
        """The model that the run goes on with; beside adapters it is their base. Raises `CheckpointError`."""
        if not config.model.lora_rank:
            return checkpoint.model_folder(self._folder / checkpoint.FOLDER / origin.id)
        checkpoint.verify(checkpoint.base_folder(self._folder))
        return checkpoint.base_folder(self._folder)

    def _write_base(self, loop: Loop) -> None:
        """Raises `RunError` where the disk refuses."""
        try:
            checkpoint.write_base(self._folder, loop.parts.model, loop.parts.tokenizer)
        except OSError as error:
            raise RunError(f"{self._folder}: the base of its adapters cannot be saved: {error}") from None

    def _compute(self, config: Config, parts: Parts, before: Past) -> Compute:
        """How steps are computed: as they were, or as is best here, found out before the first."""
        if before.state is not None and before.state.compute.device == parts.device.type:
            compute, how = before.state.compute, "as before"
            if self._world.sharded and compute.path != "eager":
                compute, how = replace(compute, path="eager"), "eagerly now, since the model is spread"
            self._news.append(Notice(message=f"computed {how}: {compute}"))
            return compute
        train, rows = parts.splits["train"], config.optim.batch // config.optim.accumulate
        batch = parts.method.rows(train[:rows], parts.method.start, None)
        asked = config.compute
        if self._world.sharded:
            asked = asked.model_copy(update={"path": "eager"})
        moved = before.state is not None
        compute, reason = choose(asked, parts.device, parts.method, parts.model, batch, moved)
        method, widest = parts.method, longest(train, rows, config.data.max_len_train)
        batches = [method.rows(widest, method.start, None)]
        if method.thinks:  # thoughts may take more than the steps in whose place they come
            batches.append(method.rows(widest, method.stages, None))
        with compute.autocast(parts.device):
            found = (estimate(method, parts.model, one, config, compute.parts) for one in batches)
            needs = max(found, key=lambda memory: memory.peak)
        free = available(parts.device)
        message = (
            f"memory of {'each' if config.gpus > 1 else 'the'} device: {needs}; {room.gigabytes(free)} free"
        )
        told = Notice(message=message, level="info" if needs.peak < free else "warning")
        self._news += [Notice(message=reason), told]
        return compute

    def _tell_start(self, loop: Loop, origin: CheckpointRef | None) -> None:
        parts = loop.parts
        self.tell(
            RunStarted(
                at=loop.at,
                name=self._folder.name,
                title=loop.config.title,
                method=loop.config.method.name,
                task=parts.task.name,
                model=loop.config.model.init,
                device=str(parts.device),
                parameters=parts.parameters,
                train_examples=len(loop.rank.train),
                stages=loop.method.stages,
                steps_per_epoch=loop.order.steps_per_epoch,
                checkpoint=origin.id if origin else None,
                pid=self._pid,
                host=status.host(),
                sources=parts.task.sources,
                longest=parts.longest,
            )
        )

    def _tell_news(self, loop: Loop) -> None:
        for event in self._news:
            self.tell(event if event.at.time else replace(event, at=loop.at))
        self._news.clear()
        for remark in loop.parts.remarks:
            self.tell(Notice(at=loop.at, level=remark.level, message=remark.message))
        wanted, free = self._room(loop)
        self.tell(Notice(at=loop.at, message=room.habits(loop.config.save, wanted, free)))
        short = room.shortage(wanted, free)
        if short is not None:
            self.tell(Notice(at=loop.at, level="warning", message=short))

    def _wanted(self, loop: Loop) -> Room:
        """What the run's checkpoints will take."""
        method = loop.method
        return room.needed(
            loop.config.save,
            loop.rank.bytes,
            moments.size(loop.rank.model, loop.config.optim),
            start=method.start,
            stages=method.stages,
            resets=method.resets(previous_cot_free=False),
            trained=loop.rank.trained_bytes,
        )

    def _room(self, loop: Loop) -> tuple[Room, int]:
        """What the run's checkpoints will take, and what its disk has for them."""
        return self._wanted(loop), shutil.disk_usage(self._folder).free + self._there(loop)

    def _there(self, loop: Loop) -> int:
        """Bytes that the run's checkpoints, and the base of its adapters, take already."""
        return self._base + sum(c.bytes for c in loop.keeper.lineage.checkpoints)

    def _check_folder(self) -> None:
        """Raises `RunError` where a rank does not see the run's folder."""
        self._world.same(self._folder.resolve())
        blind = [str(rank) for rank, sees in enumerate(self._world.gather(True)) if not sees]
        if blind:
            raise RunError(
                f"{self._folder} is not there for rank {', '.join(blind)}: on several machines --out must be "
                "on a disk that all of them share"
            )

    def _check_alike(self, parts: Parts) -> None:
        """Raises `RunError` where a rank has put together something else than this one, rank 0."""
        if self._world.alone:
            return
        own, *others = self._world.gather(parts.marks())
        odd = [
            f"rank {rank} has other {what}"
            for rank, marks in enumerate(others, 1)
            for what, mark in own.items()
            if marks[what] != mark
        ]
        if odd:
            raise RunError(
                f"{', '.join(odd)} than rank 0, so they would not train one model: every rank must read the "
                "same files, by the same versions of stepwise, torch and transformers"
            )

    def _check_room(self, loop: Loop) -> None:
        """Raises `RunError` where a new run could not save even twice."""
        wanted, free = self._room(loop)
        if free < wanted.least:
            raise RunError(
                f"{self._folder.parent} has {room.gigabytes(free)} free, and two checkpoints of this model, "
                f"the least that a run needs, take {room.gigabytes(wanted.least)}: make room, or give --out "
                "on another disk"
            )

    # The record: what the loop is given to tell its story to ------------------------------------------------

    def tell(self, event: Event, *, wait: bool = False) -> None:
        """Journal an event, unless the journal has it from before the process ended."""
        if not self._retold.has(event):
            self._journal.append(event, wait=wait)
        elif isinstance(event, Metrics):
            self._journal.append(StepsRepeated(at=event.at, upto=self._retold.tip(event.at.branch)))

    @property
    def trouble(self) -> Trouble | None:
        """Why nothing that is told can be written at the moment, or None."""
        return self._journal.trouble

    def position(self, *, repeating: bool) -> int:
        """How much of the journal came before the loop's place."""
        return self._retold.seq if repeating else self._journal.seq

    def settle(self) -> None:
        """Return when all that was told is on the disk. Raises OSError while the disk refuses."""
        self._journal.flush()

    def passed(self, seq: int) -> None:
        """What event `seq` tells of has been done again."""
        self._retold.passed(seq)

    def ahead(self, place: Place) -> bool:
        """Whether the journal tells already of what comes here."""
        return self._retold.ahead(place)


def _warning(message: str) -> Notice:
    return Notice(level="warning", message=message)


def explain(error: BaseException) -> str:
    """An error of the training thread in a sentence."""
    if ran_out(error):
        said = str(error).partition("\n")[0] or type(error).__name__
        return (
            "the device ran out of memory; a smaller optim.batch, fewer eval.examples or a smaller model "
            f"would fit ({said})"
        )
    if isinstance(error, RanksError | DeclinedError):
        return str(error)
    return f"{type(error).__name__}: {error}"
