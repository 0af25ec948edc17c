"""Loss and gradient norm that jump though nothing was removed: robust windows over metrics, pure.

A jump right after a removal, a roll back, a new optimiser or the beginning of smoothing is the method at
work. So each of these clears the windows and begins a time of grace. After it, a value is a spike where it
stands out of the window's median by many times its median deviation; one alone may be an odd batch, so
several intervals in a row make an alarm. While a cleared window cannot say what is usual, a loss is a spike
where it is above anything the run has had: no removal does that for several intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import median

from trainer.events import Metrics

GRACE = 10
"""Intervals of `log.every` after a removal that are not compared with each other."""
WINDOW, LEAST = 40, 12
"""Intervals that a window holds at most, and from which on it says anything."""
DEVIATIONS = 8.0
"""Of the window's median absolute deviation: what is further above its median is a spike."""
TIMES = 2.0
"""And it is this many times the median: where hardly anything varies, deviations are small."""
LOSS_FLOOR, NORM_FLOOR = 0.1, 1.0
"""And it is so much above the median: a loss of .002 that is .06 for a while (nats), or a gradient that
hardly needs to be clipped, is no trouble."""
GUESS = 3.0
"""Nats, about what a guess among twenty characters costs: a loss that was never higher may be so high."""
IN_A_ROW = 4
"""Intervals that spike one after the other before it is trouble."""


@dataclass(frozen=True, slots=True)
class Window:
    """The last values that were no spikes. floor: what is no more above their median is none. ceiling: what
    is above it is one while there are too few to say. over: intervals in a row that were; since: the step of
    the first; last: the value of the last.
    """

    floor: float = 0.0
    ceiling: float = math.inf
    values: tuple[float, ...] = ()
    over: int = 0
    since: int = 0
    last: float = 0.0

    @property
    def middle(self) -> float:
        """The median of what there is."""
        return median(self.values)

    @property
    def limit(self) -> float:
        """What lies above is a spike."""
        if len(self.values) < LEAST:
            return self.ceiling
        middle = self.middle
        deviation = median(abs(value - middle) for value in self.values)
        return max(middle + DEVIATIONS * 1.4826 * deviation, TIMES * middle, middle + self.floor)

    def add(self, value: float, step: int, *, keep: bool = True) -> Window:
        """With the next value, which is not NaN. keep: it tells what is usual."""
        if value > self.limit:
            return replace(self, over=self.over + 1, since=self.since if self.over else step, last=value)
        values = (*self.values[-WINDOW + 1 :], value) if keep else self.values
        return Window(self.floor, self.ceiling, values)


@dataclass(frozen=True, slots=True)
class Spikes:
    """grace: intervals that are not usual yet. highest: loss of the run in an interval that was no spike."""

    loss: Window = field(default_factory=lambda: Window(LOSS_FLOOR))
    grad_norm: Window = field(default_factory=lambda: Window(NORM_FLOOR))
    grace: int = GRACE
    highest: float = 0.0

    @property
    def ceiling(self) -> float:
        """A loss above has nothing to do with the method."""
        return TIMES * max(GUESS, self.highest)

    def cleared(self) -> Spikes:
        """After what makes the loss jump by itself."""
        return Spikes(loss=Window(LOSS_FLOOR, self.ceiling), highest=self.highest)

    @property
    def jumped(self) -> tuple[str, Window] | None:
        """What has spiked for long enough, and its window; None where nothing has."""
        for name, window in (("loss", self.loss), ("gradient norm", self.grad_norm)):
            if window.over >= IN_A_ROW:
                return name, window
        return None

    @property
    def blown_up(self) -> bool:
        """Whether the last interval had a loss that no jump explains."""
        return self.loss.last > self.ceiling

    @property
    def quiet(self) -> bool:
        """Whether the last interval was no spike."""
        return not (self.loss.over or self.grad_norm.over)


def look(spikes: Spikes, event: Metrics) -> Spikes:
    """With the next interval. What is not finite is the matter of another alarm."""
    grace, step = max(0, spikes.grace - 1), event.at.step - event.steps
    if not (math.isfinite(event.loss) and math.isfinite(event.grad_norm)):
        return replace(spikes, grace=grace)
    loss = spikes.loss.add(event.loss_answer, step, keep=not spikes.grace)
    norm = spikes.grad_norm if spikes.grace else spikes.grad_norm.add(event.grad_norm, step)
    highest = spikes.highest if loss.over else max(spikes.highest, event.loss_answer)
    return Spikes(loss, norm, grace, highest)
