"""The curves of a run: which lines of which branches, over which x, with a mark for each stage.

The live line of history is bright; what a roll back abandoned stays, dim, behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from textual.content import Content

from stepwise_tui.charts.canvas import Floats
from stepwise_tui.charts.chart import Axes, Line, Mark, draw
from stepwise_tui.history import Branch, History
from stepwise_tui.series import Series
from trainer.events import At

XAxis = Literal["step", "removed", "time"]
X_AXES: tuple[XAxis, ...] = ("step", "removed", "time")
X_LABELS: dict[XAxis, str] = {"step": "step", "removed": "tokens removed", "time": "minutes"}

ABANDONED = "$text-disabled"


class Curve(NamedTuple):
    """How one quantity is drawn. name: what the legend calls it."""

    name: str
    of: Callable[[Branch], Series]
    style: str
    sign: str


LOSS = (
    Curve("all", lambda branch: branch.loss, "$text-muted", "."),
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
    return _chart(history, LOSS, size, view, axes, "the first loss comes with the first steps")


def accuracy_chart(history: History, size: tuple[int, int], view: View) -> Content:
    """Validation accuracy: exact answers, and single tokens."""
    axes = Axes(X_LABELS[view.x_axis], y_range=(0.0, 1.0), whole=view.x_axis != "time")
    return _chart(history, ACCURACY, size, view, axes, "no evaluation yet; e asks for one")


def _chart(
    history: History, curves: tuple[Curve, ...], size: tuple[int, int], view: View, axes: Axes, empty: str
) -> Content:
    limits = _live(history)
    lines = []
    for number, branch in history.branches.items():
        limit = limits.get(number, -1)
        x_of = _x_of(history, branch, view.x_axis, live=number == history.at.branch)
        for curve in curves:
            series = curve.of(branch)
            step, y = np.array(series.step), np.array(series.value)
            x = x_of(series)
            gone = step > limit
            if curve is curves[-1]:
                lines.append(Line(x[gone], y[gone], ABANDONED, "'"))
            lines.append(Line(x[~gone], y[~gone], curve.style, curve.sign))
    depth = [ABANDONED, *(curve.style for curve in curves)]
    lines.sort(key=lambda line: depth.index(line.style))
    return draw(lines, _marks(history, limits, view.x_axis), size, axes, braille=view.braille, empty=empty)


def _live(history: History) -> dict[int, float]:
    """Each branch of the live line of history, with its last step on that line."""
    forks = history.lineage.forks
    number = history.at.branch
    limits: dict[int, float] = {number: np.inf}
    while (fork := forks.get(number)) is not None:
        limits[fork.parent] = min(fork.step, limits[number])
        number = fork.parent
    return limits


def _x_of(history: History, branch: Branch, x_axis: XAxis, *, live: bool) -> Callable[[Series], Floats]:
    """The x of a series' points."""
    if x_axis == "step":
        return lambda series: np.array(series.step)
    if x_axis == "time":
        return lambda series: (np.array(series.time) - history.born) / 60
    steps = np.array([step for step, _ in branch.removals], dtype=np.float64)
    scheduled = np.array([n for _, n in branch.removals], dtype=np.float64)
    lengths = _stage_lengths(history, steps, live)

    def removed(series: Series) -> Floats:
        """The removals scheduled so far, and how far the stage has come, so that no two points coincide."""
        step = np.array(series.step)
        if not len(steps):
            return step
        stage = np.clip(np.searchsorted(steps, step, side="right") - 1, 0, None)
        progress: Floats = np.clip((step - steps[stage]) / lengths[stage], 0, 0.999)
        return np.asarray(scheduled[stage] + progress, dtype=np.float64)

    return removed


def _stage_lengths(history: History, steps: Floats, live: bool) -> Floats:
    """Steps from each removal to the next; of the last, what is known or what the one before took."""
    lengths = np.diff(steps)
    to_next = history.steps_to_next if live else None
    spent = history.at.step - steps[-1] if live and len(steps) else 0.0
    last = spent + to_next if to_next is not None else max(spent, lengths[-1] if len(lengths) else 0.0)
    return np.maximum(np.append(lengths, last), 1.0)


def _marks(history: History, limits: dict[int, float], x_axis: XAxis) -> list[Mark]:
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
