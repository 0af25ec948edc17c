"""The curves of a run: which lines of which branches, over which x, with a mark for each stage.

The live line of history is bright; what a roll back abandoned stays, dim, behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from textual.content import Content

from stepwise_tui.charts.canvas import Floats
from stepwise_tui.charts.chart import Axes, Line, Mark, draw
from stepwise_tui.history import Branch, History
from stepwise_tui.series import Columns, Series
from trainer.events import At

XAxis = Literal["step", "removed", "time"]
X_AXES: tuple[XAxis, ...] = ("step", "removed", "time")
X_LABELS: dict[XAxis, str] = {"step": "step", "removed": "tokens removed", "time": "minutes"}

ABANDONED = "$foreground-disabled"


class Curve(NamedTuple):
    """How one quantity is drawn. name: what the legend calls it."""

    name: str
    of: Callable[[Branch], Series]
    style: str
    sign: str


LOSS = (
    Curve("all", lambda branch: branch.loss, "$foreground-muted", "."),
    Curve("CoT", lambda branch: branch.loss_cot, "$secondary", "o"),
    Curve("answer", lambda branch: branch.loss_answer, "bold $accent", "*"),
)
ACCURACY = (
    Curve("per token", lambda branch: branch.token_accuracy, "$secondary", "."),
    Curve("exact", lambda branch: branch.accuracy, "bold $success", "*"),
)


class View(NamedTuple):
    """How the person wants to see the charts."""

    x_axis: XAxis = "step"
    log: bool = False
    braille: bool = True


def loss_chart(history: History, size: tuple[int, int], view: View) -> Content:
    """Training loss, nats per token: on the answer, on the CoT, on both."""
    axes = Axes(X_LABELS[view.x_axis], log=view.log, whole=view.x_axis != "time")
    return _chart(history, LOSS, size, view, axes, "no loss yet")


def accuracy_chart(history: History, size: tuple[int, int], view: View) -> Content:
    """Validation accuracy: exact answers, and single tokens."""
    axes = Axes(X_LABELS[view.x_axis], y_range=(0.0, 1.0), whole=view.x_axis != "time")
    return _chart(history, ACCURACY, size, view, axes, "not evaluated yet")


def _chart(
    history: History, curves: tuple[Curve, ...], size: tuple[int, int], view: View, axes: Axes, empty: str
) -> Content:
    limits = _live(history)
    lines = [
        line for number in history.branches for line in _abandoned(history, number, limits, curves, view)
    ]
    lines += [_joined(history, limits, curve, view) for curve in curves]
    return draw(lines, _marks(history, limits, view.x_axis), size, axes, braille=view.braille, empty=empty)


def _abandoned(
    history: History, number: int, limits: Mapping[int, float], curves: tuple[Curve, ...], view: View
) -> list[Line]:
    """The last of the curves, from where its branch was left to its end."""
    columns = curves[-1].of(history.branches[number]).columns
    x, step = _x(history, number, columns, view.x_axis), columns.step
    start = int(np.searchsorted(step, limits.get(number, -1.0), side="right"))
    if start == len(step):
        return []
    kept = slice(max(0, start - 1), None)
    return [Line(x[kept], columns.value[kept], ABANDONED, "'")]


def _joined(history: History, limits: Mapping[int, float], curve: Curve, view: View) -> Line:
    """A curve along the live line of history, through all its branches; a gap where x goes back."""
    xs, ys = [np.empty(0)], [np.empty(0)]
    for number in sorted(limits):
        if number in history.branches:
            columns = curve.of(history.branches[number]).columns
            live = columns.step <= limits[number]
            x, y = _x(history, number, columns, view.x_axis)[live], columns.value[live]
            if len(x) and len(xs[-1]) and x[0] < xs[-1][-1]:
                xs.append(x[:1])
                ys.append(np.array([np.nan]))
            xs.append(x)
            ys.append(y)
    return Line(np.concatenate(xs), np.concatenate(ys), curve.style, curve.sign)


def _live(history: History) -> dict[int, float]:
    """Each branch of the live line of history, with its last step on that line."""
    number = history.at.branch
    limits: dict[int, float] = {number: np.inf}
    while (fork := history.forks.get(number)) is not None:
        limits[fork.parent] = min(fork.step, limits[number])
        number = fork.parent
    return limits


def _x(history: History, number: int, columns: Columns, x_axis: XAxis) -> Floats:
    """The x of a series' points. By removals, a point stands between two as far as its stage has come."""
    if x_axis == "step":
        return columns.step
    if x_axis == "time":
        return (columns.time - history.born) / 60
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


def _marks(history: History, limits: Mapping[int, float], x_axis: XAxis) -> list[Mark]:
    """Where each stage of the live line was entered, and where the last token went."""
    marks = []
    for number, limit in sorted(limits.items()):
        stages = history.branches[number].stages if number in history.branches else []
        marks += [_mark(history, at, x_axis) for at in stages if at.step <= limit]
    return marks


def _mark(history: History, at: At, x_axis: XAxis) -> Mark:
    x = {"step": at.step, "removed": at.scheduled, "time": (at.time - history.born) / 60}[x_axis]
    last = history.stages > 0 and at.stage == history.stages
    return Mark(float(x), "all gone" if last else str(at.stage), strong=last)
