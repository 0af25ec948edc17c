"""The tree that a run's checkpoints and branches form, and which checkpoints are worth their disk.

Pure, and light to import: `control` decides about roll backs with it, before torch is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainer.events import CheckpointRemoved, CheckpointSaved, Event, RolledBack, SaveCause


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """A checkpoint by its place: what it is called, where it was taken, why, and what it takes on disk."""

    id: str
    branch: int
    step: int
    stage: int
    cause: SaveCause
    bytes: int = 0

    @property
    def is_entry(self) -> bool:
        """Whether it was taken on entering its stage, before the stage's first step."""
        return self.cause == "stage"


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a branch left its parent. The stage tells apart what was saved at one step."""

    parent: int
    step: int
    stage: int


@dataclass(frozen=True)
class Lineage:
    """Every checkpoint there is, oldest first, and how the branches hang together. Branch 1 has no fork."""

    checkpoints: tuple[CheckpointRef, ...] = ()
    forks: Mapping[int, Fork] = field(default_factory=dict)

    @property
    def branches(self) -> int:
        """How many branches there have been."""
        return 1 + len(self.forks)

    def past(self, branch: int) -> list[CheckpointRef]:
        """The checkpoints on the way to the tip of `branch`, its own and its ancestors', oldest first."""
        limits: dict[int, tuple[float, float]] = {branch: (math.inf, math.inf)}
        while (fork := self.forks.get(branch)) is not None:
            limits[fork.parent] = (fork.step, fork.stage)
            branch = fork.parent
        return [c for c in self.checkpoints if c.branch in limits and (c.step, c.stage) <= limits[c.branch]]

    def before(self, branch: int, step: int) -> CheckpointRef | None:
        """The last checkpoint on the way to the tip of `branch` with weights of `step` or before."""
        return next((c for c in reversed(self.past(branch)) if c.step <= step), None)

    def entry(self, branch: int, stage: int) -> CheckpointRef | None:
        """The entry of `stage` in the past of `branch`; of a skipped stage, the nearest before it.

        A stage entered more than once in that past gives its latest entry.
        """
        entries = [c for c in self.past(branch) if c.is_entry and c.stage <= stage]
        return max(entries, key=lambda c: (c.stage, c.branch, c.step), default=None)


def replay(events: Iterable[Event]) -> Lineage:
    """The lineage that a journal tells of."""
    checkpoints: dict[str, CheckpointRef] = {}
    forks: dict[int, Fork] = {}
    for event in events:
        at = event.at
        if isinstance(event, CheckpointSaved):
            ref = CheckpointRef(event.checkpoint, at.branch, at.step, at.stage, event.cause, event.bytes)
            checkpoints[event.checkpoint] = ref
        elif isinstance(event, CheckpointRemoved):
            checkpoints.pop(event.checkpoint, None)
        elif isinstance(event, RolledBack):
            forks[at.branch] = Fork(event.parent, at.step, at.stage)
    return Lineage(tuple(checkpoints.values()), forks)


def surplus(
    lineage: Lineage,
    branch: int,
    *,
    keep: int,
    stages: int,
    every_stage: int,
    budget: float = math.inf,
    sound: CheckpointRef | None = None,
) -> list[str]:
    """Ids that may go while `branch` is live (DESIGN, the run folder).

    Kept are the last `keep`, every manual and final one, the best, what the branch would resume from, and
    on the way to its tip the entries of the last `stages` stages and of each `every_stage`-th. Where these,
    with another as large as the largest to come, take more than `budget` bytes, the oldest go, except the
    newest, manual and final ones, the best, and what the branch would resume from.

    sound: the one to return to while updates are left out; it stays whatever it is.
    """
    everything, past = lineage.checkpoints, lineage.past(branch)
    always = {c.id for c in (*everything[-1:], *past[-1:])}
    always |= {c.id for c in everything if c.cause in ("manual", "final") or c == sound}
    always |= {c.id for c in [c for c in everything if c.cause == "best"][-1:]}
    entries = [c for c in past if c.is_entry]
    recent = sorted({c.stage for c in entries})[-stages:]
    kept = always | {c.id for c in everything[-max(keep, 1) :]}
    kept |= {c.id for c in entries if c.stage in recent or c.stage % every_stage == 0}
    taken = sum(c.bytes for c in everything if c.id in kept) + max((c.bytes for c in everything), default=0)
    for c in everything:
        if taken > budget and c.id in kept and c.id not in always:
            kept.remove(c.id)
            taken -= c.bytes
    return [c.id for c in everything if c.id not in kept]
