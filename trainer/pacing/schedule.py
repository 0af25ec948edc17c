"""When the next token goes, and how smoothly: pure functions of counters, after the paper and its code.

Order of operations of one batch, as in the official code: `remove_when_due`, then `count`, then the
offsets are drawn. A checkpoint is taken before these or between the first two, never after. The counter
counts batches since the last removal; it stands still while explicit CoT is trained first (`pretrain`)
and while the operator holds the schedule.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from trainer.config import GATED, ScheduleConfig

OFFSETS = 100
"""Offsets are drawn from 0…99, the last taking the rest of the mass (official code)."""


class Progress(NamedTuple):
    """scheduled: removals so far, s. counter: batches since the last one."""

    scheduled: int
    counter: int


class Pace(NamedTuple):
    """When removals come. steps: batches at the first stage, the second, …, the last entry for all after.

    pretrain: steps before the counter starts. start: removals at the first stage. stages: the stage at
    which nothing is left. share: of the stages that are left, how much goes at once; None: one stage.
    """

    steps: tuple[int, ...]
    pretrain: int = 0
    start: int = 0
    stages: int = 0
    share: float | None = None

    def wait(self, scheduled: int) -> int:
        """Batches between the removal that led to `scheduled` and the next."""
        return self.steps[min(scheduled - self.start, len(self.steps) - 1)]

    def next(self, scheduled: int) -> int:
        """Removals after the next one."""
        left = self.stages - scheduled
        if self.share is None or left <= 0:
            return scheduled + 1
        return scheduled + math.ceil(self.share * left)


def pace(config: ScheduleConfig, steps_per_epoch: int, *, start: int = 0, stages: int = 0) -> Pace:
    """The pace a configuration means.

    linear: a token every round(steps_per_epoch / Δ) batches, at least one. table: the batches of each
    stage. geometric: as often as linear, but each time a share of what is left: with one half, 47 tokens
    go by 24, 12, 6, 3, 1 and 1, after the logarithmic number of stages of Log-ICoT (arXiv 2605.28600).
    gated, adaptive: the times at which a removal comes if the gate has not let it come before (`gate`).
    """
    if config.steps is not None:
        steps = config.steps
    elif config.steps_per_token is not None:
        steps = (config.steps_per_token,)
    elif config.epochs_per_stage is not None:
        steps = (max(1, round(steps_per_epoch * config.epochs_per_stage)),)
    else:
        assert config.tokens_per_epoch is not None
        steps = (max(1, round(steps_per_epoch / config.tokens_per_epoch)),)
    if config.kind in GATED:
        steps = (*steps, math.ceil(config.longest * steps[0]))
    pretrain = config.pretrain_steps
    if pretrain is None:
        # The official code compares whole epochs: pretraining ends with the first epoch ≥ pretrain_epochs.
        pretrain = math.ceil(config.pretrain_epochs) * steps_per_epoch
    share = config.removed_share if config.kind == "geometric" else None
    return Pace(steps, pretrain, start, stages, share)


def remove_when_due(progress: Progress, pace: Pace, *, held: bool, early: int = 0) -> Progress:
    """First thing of a batch: the removal that is due, if one is.

    The counter is compared with ≥, not =, or lowering the pace while training would stall for ever. early:
    stages that may go before their time, once the counter counts.
    """
    scheduled, counter = progress
    if held:
        return progress
    if early and counter and scheduled < pace.stages:
        return Progress(min(scheduled + early, pace.stages), 0)
    if counter >= pace.wait(scheduled):
        return Progress(pace.next(scheduled), 0)
    return progress


def count(progress: Progress, pace: Pace, *, step: int, held: bool) -> Progress:
    """Second thing of batch `step` (from 0): it counts towards the next removal, once pretraining is over."""
    if held or step < pace.pretrain:
        return progress
    return progress._replace(counter=progress.counter + 1)


def steps_to_next(progress: Progress, pace: Pace, *, step: int) -> int:
    """Batches still to come at this stage, when nobody holds it. `step`: batches made so far."""
    return max(0, pace.pretrain - step) + max(0, pace.wait(progress.scheduled) - progress.counter)


def steps_to_none(progress: Progress, pace: Pace, *, step: int) -> int:
    """Batches until the last stage begins, when nobody holds the schedule."""
    total, scheduled = 0, progress.scheduled
    if scheduled < pace.stages:
        total, scheduled = steps_to_next(progress, pace, step=step), pace.next(scheduled)
    while scheduled < pace.stages:
        total += pace.wait(scheduled)
        scheduled = pace.next(scheduled)
    return total


def goes_on(stage: int, stages: int, kind: str, *, held: bool) -> str:
    """What the schedule does if nobody does anything, in words."""
    if stage >= stages:
        return "nothing is left to remove"
    if held:
        return "the schedule is held"
    if kind in GATED:
        return "the schedule waits for probes, but not for ever"
    return "the schedule goes on removing tokens"


def warm(updates: int, warmup: int) -> float:
    """Share of the learning rate after so many updates of an optimiser: linear, 1 from `warmup` on."""
    return min(1.0, (updates + 1) / (warmup + 1))


def offset_distribution(smoothing: float) -> list[float]:
    """P(o) for o = 0…99, P(o) ∝ exp(−λo), the last entry with the rest of the mass (paper, section 3).

    λ = inf puts all mass on 0; λ = 0 is uniform in the limit, which truncation puts on the last.
    """
    if math.isinf(smoothing):
        return [1.0] + [0.0] * (OFFSETS - 1)
    head = [(1.0 - math.exp(-smoothing)) * math.exp(-smoothing * o) for o in range(OFFSETS - 1)]
    return [*head, max(0.0, 1.0 - sum(head))]
