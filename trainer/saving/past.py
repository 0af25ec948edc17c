"""What a run left in its folder when its process ended, read so that it can be taken up again.

Checkpoints that do not verify are passed over; what they and the journal say differently is told.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainer import config as configuration
from trainer import control
from trainer.config import Config, ConfigError
from trainer.control import Control
from trainer.events import (
    At,
    CheckpointRemoved,
    CheckpointSaved,
    Event,
    ExamplesShown,
    Metrics,
    Probed,
    SettingChanged,
)
from trainer.record import journal
from trainer.record.lineage import CheckpointRef, Lineage, replay
from trainer.saving import checkpoint
from trainer.saving.checkpoint import CheckpointError, TrainState
from trainer.saving.resumption import Plan, plan


class NoCheckpointError(ValueError):
    """A run whose every checkpoint is damaged; the message says which and how."""


@dataclass(frozen=True)
class Past:
    """A run up to the end of its last process.

    config: with the settings of the journal. origin: the checkpoint to go on from, None for the start; state:
    what it says. lineage: the good checkpoints, and the branches up to the origin. events: of the journal,
    without most of what training said before the origin; before: those of them that came before it. plan:
    what to do again. control: what the operator held at the origin; afterwards: at the end. damaged: what
    could not be read. missed: events that there was no time to tell.
    """

    config: Config
    origin: CheckpointRef | None = None
    state: TrainState | None = None
    lineage: Lineage = field(default_factory=Lineage)
    events: tuple[Event, ...] = ()
    before: tuple[Event, ...] = ()
    plan: Plan = field(default_factory=Plan)
    control: Control = field(default_factory=Control)
    afterwards: Control = field(default_factory=Control)
    damaged: tuple[str, ...] = ()
    missed: tuple[Event, ...] = ()

    @property
    def seq(self) -> int:
        """How much of the journal came before the origin."""
        return self.state.seq if self.state else 0

    @property
    def place(self) -> str:
        """The origin in a word."""
        return self.origin.id if self.origin else "the start"


def read(folder: Path, config: Config) -> Past:
    """The past of the run in `folder`, which began with `config`; what is half-written there is taken away.

    Raises `NoCheckpointError` when there are checkpoints and none is good.
    """
    checkpoint.tidy(folder)
    refs = checkpoint.list_checkpoints(folder)
    damaged = _unreadable(folder, refs)
    origin, rejected = _last_good(folder, refs, damaged)
    good = tuple(ref for ref in refs if ref not in rejected)
    state = checkpoint.load_state(_path(folder, origin)) if origin else None
    seq = state.seq if state else 0
    damaged += journal.flaws(folder, seq)
    # Most lines of a long journal only say how training went up to here.
    events = tuple(journal.read(folder, journal.without(Metrics, ExamplesShown, Probed, up_to=seq)))
    before = tuple(e for e in events if e.seq <= seq)
    for event in before:
        if isinstance(event, SettingChanged):
            try:
                config = configuration.changed(config, event.key, event.new)
            except ConfigError as error:
                damaged.append(f"a setting of the journal is left out: {error}")
    return Past(
        config=config,
        origin=origin,
        state=state,
        lineage=Lineage(good, replay(before).forks),
        events=events,
        before=before,
        plan=plan(events, seq, state.during if state else ""),
        control=replace(control.replay(before), pause_at=None),
        afterwards=replace(control.replay(events), held=False),
        damaged=tuple(damaged),
        missed=tuple(_missed(folder, events, good)),
    )


def _unreadable(folder: Path, known: list[CheckpointRef]) -> list[str]:
    ids = {ref.id for ref in known}
    paths = sorted((folder / checkpoint.FOLDER).glob("b*"))
    return [f"{path}: {checkpoint.STATE} cannot be read" for path in paths if path.name not in ids]


def _last_good(
    folder: Path, refs: list[CheckpointRef], damaged: list[str]
) -> tuple[CheckpointRef | None, list[CheckpointRef]]:
    """The latest checkpoint that verifies, None when none was ever finished, and later ones that do not.

    Those are noted in `damaged`.
    """
    rejected: list[CheckpointRef] = []
    for ref in reversed(refs):
        try:
            checkpoint.verify(_path(folder, ref))
        except CheckpointError as error:
            damaged.append(str(error))
            rejected.append(ref)
        else:
            return ref, rejected
    if damaged:
        raise NoCheckpointError(f"{folder} has no good checkpoint to go on from: {'; '.join(damaged)}")
    return None, []


def _missed(folder: Path, events: tuple[Event, ...], there: tuple[CheckpointRef, ...]) -> list[Event]:
    """Of checkpoints that were written or removed when there was no time to say so."""
    told = {c.id for c in replay(events).checkpoints}
    now = time.time()
    missed: list[Event] = []
    for ref in there:
        if ref.id not in told:
            state, size = checkpoint.load_state(_path(folder, ref)), checkpoint.size(_path(folder, ref))
            at = At(step=ref.step, branch=ref.branch, stage=ref.stage, scheduled=state.scheduled, time=now)
            missed.append(CheckpointSaved(at=at, checkpoint=ref.id, cause=ref.cause, seconds=0.0, bytes=size))
    gone = sorted(told - {ref.id for ref in there})
    return [*missed, *(CheckpointRemoved(at=At(time=now), checkpoint=id) for id in gone)]


def _path(folder: Path, ref: CheckpointRef) -> Path:
    return folder / checkpoint.FOLDER / ref.id
