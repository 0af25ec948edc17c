"""Which part of a run the charts show: pure functions of what a person chose and of where the points lie."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from stepwise_tui.charts.ticks import granule

XAxis = Literal["step", "removed", "time"]
X_AXES: tuple[XAxis, ...] = ("step", "removed", "time")
Window = Literal["all", "recent", "stage"]
WINDOWS: tuple[Window, ...] = ("all", "recent", "stage")
Smoothing = Literal["off", "light", "strong"]
SMOOTHINGS: tuple[Smoothing, ...] = ("off", "light", "strong")

NEWEST = 200
"""Samples in the window `recent`."""
LEAST = 5
"""Samples at least in view, however closely one looks."""
PARTS = 8
"""A window that follows moves on by this part of its width: until then the cells stand still."""


class Span(NamedTuple):
    """A part of x that a person chose. follows: whether it moves on with the newest point."""

    low: float
    high: float
    follows: bool


class View(NamedTuple):
    """How the person wants to see the charts.

    logs: ids of the quantities on a logarithmic scale. span: chosen by zoom or pan, goes before `window`.
    cursor: the step whose values are read.
    """

    x_axis: XAxis = "step"
    window: Window = "all"
    smoothing: Smoothing = "light"
    logs: frozenset[str] = frozenset()
    span: Span | None = None
    cursor: int | None = None
    braille: bool = True


class Extent(NamedTuple):
    """Where along x the points of a run lie.

    start, end: of all that is drawn, other runs and abandoned branches too. newest: the newest point of the
    live line. recent: where its newest samples begin. stage: where its present stage does. spacing: of its
    newest samples.
    """

    start: float = 0.0
    end: float = 0.0
    newest: float = 0.0
    recent: float = 0.0
    stage: float = 0.0
    spacing: float = 1.0

    @property
    def whole(self) -> tuple[float, float]:
        """Limits that all of it fits between."""
        return self.start, self.start + _up(self.end - self.start)


def frame(view: View, extent: Extent) -> tuple[float, float]:
    """The limits of x. They move on in strides, so that between two of them the picture stands still."""
    if view.span is not None and view.span.low < extent.whole[1]:  # else it is of another run by that name
        return _moved_on(view.span, extent.newest)
    if view.window == "stage":
        return extent.stage, extent.stage + _up(extent.newest - extent.stage)
    if view.window == "recent":
        width = _up(extent.newest - extent.recent)
        stride = granule(width, PARTS)
        high = math.ceil(extent.newest / stride - 1e-9) * stride
        return max(extent.start, high - width), max(high, extent.start + stride)
    return extent.whole


def zoomed(view: View, extent: Extent, factor: float, at: float | None = None) -> View:
    """The view with `factor` times as much of x in it, around `at`; else around the newest point if that is
    in view, else around the middle. With room for all of it, all is shown."""
    low, high = frame(view, extent)
    if at is None:
        at = extent.newest if low <= extent.newest <= high else (low + high) / 2
    width = (high - low) * factor
    width = max(width, min(LEAST * extent.spacing, high - low))
    start, end = extent.whole
    if width >= end - start:
        return view._replace(span=None, window="all")
    return _at(view, extent, at - (at - low) / (high - low) * width, width)


def panned(view: View, extent: Extent, share: float) -> View:
    """The view moved along x by a share of its width, within what there is."""
    low, high = frame(view, extent)
    start, end = extent.whole
    if high - low >= end - start:
        return view
    return _at(view, extent, low + share * (high - low), high - low)


def _at(view: View, extent: Extent, low: float, width: float) -> View:
    start, end = extent.whole
    low = max(start, min(low, end - width))
    return view._replace(span=Span(low, low + width, follows=low <= extent.newest <= low + width))


def _moved_on(span: Span, newest: float) -> tuple[float, float]:
    low, high, follows = span
    if not follows or newest <= high:
        return low, high
    stride = (high - low) / PARTS
    shift = math.ceil((newest - high) / stride) * stride
    return low + shift, high + shift


def _up(length: float) -> float:
    """A round number that is no less, and at most a tenth more."""
    if length < 1e-9:
        return 1.0
    grain = granule(length, 10)
    return math.ceil(length / grain - 1e-9) * grain
