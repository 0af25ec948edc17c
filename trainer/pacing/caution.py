"""A schedule that goes by steps is more careful after a roll back: its next stages take longer. Pure.

It needs no memory: a roll back opens a branch, and the branch knows the stage at which it began. Schedules
that go by probes have a care of their own (`gate`).
"""

from __future__ import annotations

from trainer.config import GATED, ScheduleConfig
from trainer.pacing.schedule import Pace
from trainer.record.lineage import Lineage

CAREFUL = 3
"""Stages after a roll back that are gone through more slowly."""
TIMES = 2
"""So many times as long as the configuration says."""
CARE = f"the schedule is careful: the next {CAREFUL} stages take {TIMES} × as long"


def careful(lineage: Lineage, branch: int, stage: int, config: ScheduleConfig) -> bool:
    """Whether `stage` of `branch` is one of those."""
    fork = lineage.forks.get(branch)
    return fork is not None and stage < fork.stage + CAREFUL and config.kind not in GATED


def paced(pace: Pace, lineage: Lineage, branch: int, stage: int, config: ScheduleConfig) -> Pace:
    """The pace at `stage` of `branch`."""
    if not careful(lineage, branch, stage, config):
        return pace
    return pace._replace(steps=tuple(TIMES * steps for steps in pace.steps))
