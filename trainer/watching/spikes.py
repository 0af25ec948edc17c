"""Loss and gradient norm that jump though nothing was removed: robust windows over metrics, pure.

A jump right after a removal, a roll back, a new optimiser or the beginning of smoothing is the method at
work. So each of these clears the windows and begins a time of grace. After it, a value is a spike where it
stands out of the window's median by many times its median deviation; one alone may be an odd batch, so
several intervals in a row make an alarm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import median

from trainer.events import Metrics

GRACE = 10
"""Intervals of `log.every` after a removal that are not looked at."""
WINDOW, LEAST = 40, 12
"""Intervals that a window holds at most, and from which on it says anything."""
DEVIATIONS = 8.0
"""Of the window's median absolute deviation: what is further above its median is a spike."""
TIMES = 2.0
"""And it is this many times the median: where hardly anything varies, deviations are small."""
LOSS_FLOOR, NORM_FLOOR = 0.1, 1.0
"""And it is so much above the median: a loss of .002 that is .06 for a while (nats), or a gradient that
hardly needs to be clipped, is no trouble."""
IN_A_ROW = 4
"""Intervals that spike one after the other before it is trouble."""


@dataclass(frozen=True, slots=True)
class Window:
    """The last values that were no spikes. floor: what is no more above their median is none. over: intervals
    in a row that were; since: the step of the first; last: the value of the last.
    """

    floor: float = 0.0
    values: tuple[float, ...] = ()
    over: int = 0
    since: int = 0
    last: float = 0.0

    @property
    def middle(self) -> float:
        """The median; NaN without values."""
        return median(self.values) if self.values else math.nan

    @property
    def limit(self) -> float:
        """What lies above is a spike; inf while there are too few values."""
        if len(self.values) < LEAST:
            return math.inf
        middle = self.middle
        deviation = median(abs(value - middle) for value in self.values)
        return max(middle + DEVIATIONS * 1.4826 * deviation, TIMES * middle, middle + self.floor)

    def add(self, value: float, step: int) -> Window:
        """With the next value, which is not NaN."""
        if value > self.limit:
            return replace(self, over=self.over + 1, since=self.since if self.over else step, last=value)
        return Window(self.floor, (*self.values[-WINDOW + 1 :], value))


@dataclass(frozen=True, slots=True)
class Spikes:
    """grace: intervals still to be passed over."""

    loss: Window = field(default_factory=lambda: Window(LOSS_FLOOR))
    grad_norm: Window = field(default_factory=lambda: Window(NORM_FLOOR))
    grace: int = GRACE

    @property
    def jumped(self) -> tuple[str, Window] | None:
        """What has spiked for long enough, and its window; None where nothing has."""
        for name, window in (("loss", self.loss), ("gradient norm", self.grad_norm)):
            if window.over >= IN_A_ROW:
                return name, window
        return None

    @property
    def quiet(self) -> bool:
        """Whether the last interval was no spike."""
        return not (self.loss.over or self.grad_norm.over)


def look(spikes: Spikes, event: Metrics) -> Spikes:
    """With the next interval. What is not finite is the matter of another alarm."""
    if spikes.grace:
        return replace(spikes, grace=spikes.grace - 1)
    if not (math.isfinite(event.loss) and math.isfinite(event.grad_norm)):
        return spikes
    step = event.at.step - event.steps
    return replace(
        spikes,
        loss=spikes.loss.add(event.loss_answer, step),
        grad_norm=spikes.grad_norm.add(event.grad_norm, step),
    )
