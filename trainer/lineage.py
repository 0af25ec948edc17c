"""The tree that a run's checkpoints and branches form, and which checkpoints are worth their disk.

Pure, and light to import: `control` decides about roll backs with it, before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trainer.events import CheckpointRemoved, CheckpointSaved, Event, RolledBack, SaveCause


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """A checkpoint by its place: what it is called, where it was taken, and why."""

    id: str
    branch: int
    step: int
    stage: int
    cause: SaveCause

    @property
    def is_entry(self) -> bool:
        """Whether it was taken on entering its stage, before the stage's first step."""
        return self.cause == "stage"


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a branch left its parent."""

    parent: int
    step: int


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
        limits: dict[int, int | None] = {branch: None}
        while (fork := self.forks.get(branch)) is not None:
            limits[fork.parent] = fork.step
            branch = fork.parent
        return [
            c
            for c in self.checkpoints
            if c.branch in limits and ((limit := limits[c.branch]) is None or c.step <= limit)
        ]

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
            ref = CheckpointRef(event.checkpoint, at.branch, at.step, at.stage, event.cause)
            checkpoints[event.checkpoint] = ref
        elif isinstance(event, CheckpointRemoved):
            checkpoints.pop(event.checkpoint, None)
        elif isinstance(event, RolledBack):
            forks[at.branch] = _fork_of(event, checkpoints)
    return Lineage(tuple(checkpoints.values()), forks)


def _fork_of(event: RolledBack, checkpoints: Mapping[str, CheckpointRef]) -> Fork:
    """A roll back hangs the new branch on the branch its checkpoint was taken on, not on the one it left."""
    origin = checkpoints.get(event.checkpoint)
    if event.keep_weights or origin is None:
        return Fork(event.from_branch, event.from_step)
    return Fork(origin.branch, origin.step)


def surplus(
    checkpoints: Sequence[CheckpointRef],
    *,
    keep: int,
    stages: int,
    every_stage: int,
    best: Collection[str] = (),
) -> list[str]:
    """Ids that may go: all but the last `keep`, every manual and final one, the best, the entries of the
    last `stages` stages, and of the older ones each `every_stage`-th (DESIGN, the run folder)."""
    kept = {c.id for c in checkpoints[-max(keep, 1) :]} | set(best)
    kept |= {c.id for c in checkpoints if c.cause in ("manual", "final")}
    entries = [c for c in checkpoints if c.is_entry]
    recent = sorted({c.stage for c in entries})[-stages:]
    newest = {c.stage: c.id for c in entries}
    for stage, id_ in newest.items():
        if stage in recent or stage % every_stage == 0:
            kept.add(id_)
    return [c.id for c in checkpoints if c.id not in kept]
