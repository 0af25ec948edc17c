"""When the next token goes, and how smoothly: pure functions of counters, after the paper and its code.

Order of operations of one batch, as in the official code: `remove_when_due`, then `count`, then the
offsets are drawn. A checkpoint is taken before these or between the first two, never after. The counter
counts batches since the last removal; it stands still while explicit CoT is trained first (`pretrain`)
and while the operator holds the schedule.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from trainer.config import ScheduleConfig

LONGEST_OFFSET = 100
"""Offsets are drawn from 0…100, the last taking the rest of the mass (official code)."""


class Progress(NamedTuple):
    """scheduled: removals so far, s. counter: batches since the last one."""

    scheduled: int
    counter: int


class Pace(NamedTuple):
    """steps_per_removal: batches per removed token. pretrain: steps before the counter starts."""

    steps_per_removal: int
    pretrain: int


def pace(config: ScheduleConfig, steps_per_epoch: int) -> Pace:
    """The pace a configuration means: round(steps_per_epoch / Δ), at least one batch per token."""
    if config.steps_per_token is not None:
        per_removal = config.steps_per_token
    else:
        assert config.tokens_per_epoch is not None
        per_removal = max(1, round(steps_per_epoch / config.tokens_per_epoch))
    if config.pretrain_steps is not None:
        return Pace(per_removal, config.pretrain_steps)
    # The official code compares whole epochs: pretraining ends with the first epoch ≥ pretrain_epochs.
    return Pace(per_removal, math.ceil(config.pretrain_epochs) * steps_per_epoch)


def remove_when_due(progress: Progress, pace: Pace, *, held: bool) -> Progress:
    """First thing of a batch: the removal that is due, if one is.

    The counter is compared with ≥, not =, or lowering the pace while training would stall for ever.
    """
    if held or progress.counter < pace.steps_per_removal:
        return progress
    return Progress(progress.scheduled + 1, 0)


def count(progress: Progress, pace: Pace, *, step: int, held: bool) -> Progress:
    """Second thing of batch `step` (from 0): it counts towards the next removal, once pretraining is over."""
    if held or step < pace.pretrain:
        return progress
    return progress._replace(counter=progress.counter + 1)


def steps_to_next(progress: Progress, pace: Pace, *, step: int) -> int:
    """Batches still to come at this stage, when nobody holds it. `step`: batches made so far."""
    return max(0, pace.pretrain - step) + max(0, pace.steps_per_removal - progress.counter)


def warm(updates: int, warmup: int) -> float:
    """Share of the learning rate after so many updates of an optimiser: linear, 1 from `warmup` on."""
    return min(1.0, (updates + 1) / (warmup + 1))


def offset_distribution(smoothing: float) -> list[float]:
    """P(o) for o = 0…100, P(o) ∝ exp(−λo), the last entry with the rest of the mass (paper, section 3).

    λ = inf puts all mass on 0; λ = 0 is uniform in the limit, which truncation puts on the last.
    """
    if math.isinf(smoothing):
        return [1.0] + [0.0] * LONGEST_OFFSET
    head = [(1.0 - math.exp(-smoothing)) * math.exp(-smoothing * o) for o in range(LONGEST_OFFSET)]
    return [*head, max(0.0, 1.0 - sum(head))]
