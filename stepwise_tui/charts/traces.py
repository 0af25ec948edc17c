"""Where the points of a run lie along x, through all branches of the live line of history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepwise_tui.charts.canvas import Floats
from stepwise_tui.charts.quantities import ACCURACY, LOSS, Curve
from stepwise_tui.charts.view import NEWEST, Extent, Span, XAxis
from stepwise_tui.history import History
from stepwise_tui.series import Columns
from trainer.events import At


class Trace(NamedTuple):
    """A curve along the live line: its points in order. begins: the first of each branch. fair: see
    `series.Columns`."""

    step: Floats
    time: Floats
    x: Floats
    value: Floats
    fair: NDArray[np.bool_]
    begins: NDArray[np.bool_]


def live(history: History) -> dict[int, float]:
    """Each branch of the live line of history, with its last step on that line."""
    number = history.at.branch
    limits: dict[int, float] = {number: np.inf}
    while (fork := history.forks.get(number)) is not None:
        limits[fork.parent] = min(fork.step, limits[number])
        number = fork.parent
    return limits


def trace(history: History, curve: Curve, x_axis: XAxis, limits: Mapping[int, float]) -> Trace:
    """A curve of the live line."""
    parts = []
    for number in sorted(limits):
        if number in history.branches:
            columns = curve.of(history.branches[number]).columns
            x = along(history, number, columns, x_axis)
            begins = np.zeros(len(x), dtype=np.bool_)
            begins[:1] = True
            on_it = columns.step <= limits[number]
            whole = (columns.step, columns.time, x, columns.value, columns.fair, begins)
            parts.append([column[on_it] for column in whole])
    return Trace(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def abandoned(history: History, curve: Curve, limits: Mapping[int, float]) -> Iterator[tuple[int, Columns]]:
    """What roll backs left of a curve, by branch: from where it leaves the live line to its end."""
    for number, branch in history.branches.items():
        columns = curve.of(branch).columns
        start = int(np.searchsorted(columns.step, limits.get(number, -1.0), side="right"))
        if start < len(columns.step):
            left = slice(max(0, start - 1), None)
            step, time, value, fair = columns
            yield number, Columns(step[left], time[left], value[left], fair[left])


def along(history: History, number: int, columns: Columns, x_axis: XAxis) -> Floats:
    """The x of points of a branch: their step, seconds since the run began, or what is removed; there a
    point stands between two removals as far as its stage has come."""
    if x_axis == "step":
        return columns.step
    if x_axis == "time":
        return columns.time - history.born
    branch = history.branches[number]
    removals = branch.removals
    if not removals:
        return columns.step
    steps = np.array([at.step for at in removals], dtype=np.float64)
    scheduled = np.array([at.scheduled for at in removals], dtype=np.float64)
    lengths = _stage_lengths(history, steps, live=number == history.at.branch)
    # Of those that come when all is gone not all are kept: there the next may be further up.
    heights = np.append(np.diff(scheduled), 1.0)
    heights[: len(branch.stages)] = 1.0
    stage = np.clip(np.searchsorted(steps, columns.step, side="right") - 1, 0, None)
    progress = np.clip((columns.step - steps[stage]) / lengths[stage], 0, 0.999)
    return np.asarray(scheduled[stage] + progress * heights[stage], dtype=np.float64)


def _stage_lengths(history: History, steps: Floats, live: bool) -> Floats:
    """Steps from each removal to the next; of the last, what is known or what the one before took."""
    lengths = np.diff(steps)
    to_next = history.steps_to_next if live else None
    spent = history.at.step - steps[-1] if live else 0.0
    last = spent + to_next if to_next is not None else max(spent, lengths[-1] if len(lengths) else 0.0)
    return np.asarray(np.maximum(np.append(lengths, last), 1.0), dtype=np.float64)


def places(history: History, ats: Sequence[At], x_axis: XAxis) -> list[float]:
    """The x of moments, of any branch that has points; NaN for others."""
    xs = np.full(len(ats), np.nan)
    for number in {at.branch for at in ats} & history.branches.keys():
        chosen = [i for i, at in enumerate(ats) if at.branch == number]
        step, time = (
            np.array([getattr(ats[i], name) for i in chosen], dtype=np.float64) for name in ("step", "time")
        )
        columns = Columns(step, time, step, np.ones(len(chosen), dtype=np.bool_))
        xs[chosen] = along(history, number, columns, x_axis)
    return [float(x) for x in xs]


def entries(history: History, limits: Mapping[int, float]) -> list[At]:
    """Where each stage of the live line was entered, in order."""
    return [
        at
        for number, limit in sorted(limits.items())
        if number in history.branches
        for at in history.branches[number].stages
        if at.step <= limit
    ]


def mark_of(history: History, at: At, x_axis: XAxis) -> float:
    """The x of a stage's beginning."""
    return float({"step": at.step, "removed": at.scheduled, "time": at.time - history.born}[x_axis])


def main_trace(history: History, x_axis: XAxis) -> Trace:
    """The live line by its losses, or by its accuracy where there are none."""
    limits = live(history)
    found = trace(history, LOSS.curves[-1], x_axis, limits)
    return found if len(found.step) else trace(history, ACCURACY.curves[-1], x_axis, limits)


def extent(history: History, x_axis: XAxis, others: Sequence[History] = ()) -> Extent:
    """Where the points of a run lie along x, and those of others that are drawn with it."""
    own = main_trace(history, x_axis)
    finite = own.x[np.isfinite(own.x)]
    removals = history.branch.removals
    now = mark_of(history, removals[-1], x_axis) if removals else 0.0
    ends = [*_ends(history, x_axis), *(end for other in others for end in _ends(other, x_axis))]
    newest = float(finite[-1]) if len(finite) else now
    spacing = np.diff(finite[-NEWEST:])
    spacing = spacing[spacing > 0]
    return Extent(
        start=min(0.0, *ends) if ends else 0.0,
        end=max([newest, now, *ends]),
        newest=newest,
        recent=float(finite[-NEWEST:][0]) if len(finite) else now,
        stage=now,
        spacing=float(np.median(spacing)) if len(spacing) else 1.0,
    )


def _ends(history: History, x_axis: XAxis) -> list[float]:
    """The x of the first and last points of every branch."""
    ends = []
    for number, branch in history.branches.items():
        for curve in (LOSS.curves[-1], ACCURACY.curves[-1]):
            x = along(history, number, curve.of(branch).columns, x_axis)
            x = x[np.isfinite(x)]
            ends += [float(x[0]), float(x[-1])] if len(x) else []
    return ends


def converted(history: History, span: Span, old: XAxis, new: XAxis) -> Span | None:
    """The same part of the run along another x; None where it has no length there."""
    before, after = main_trace(history, old), main_trace(history, new)
    order = np.argsort(before.x, kind="stable")
    low, high = (float(np.interp(x, before.x[order], after.x[order])) for x in span[:2])
    return Span(low, high, span.follows) if high > low else None
