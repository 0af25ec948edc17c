"""The charts of a run: which lines of which branches, over which x, with a mark for each stage and a sign for
what happened.

The live line of history is bright; what a roll back abandoned stays, dim, behind it. A loss that went to
hundreds there must not flatten what came after: the live line alone says how high the chart is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from stepwise_tui.charts import traces
from stepwise_tui.charts.canvas import Floats
from stepwise_tui.charts.chart import Axes, Line, Mark, Picture, Sign, picture
from stepwise_tui.charts.quantities import Curve, Quantity
from stepwise_tui.charts.smoothing import smoothed
from stepwise_tui.charts.traces import Trace
from stepwise_tui.charts.view import Extent, View, XAxis, frame
from stepwise_tui.history import History
from trainer.events import At

ABANDONED = "$foreground-disabled"
BESIDE = "$primary"
BESIDE_SIGN = "+"
RAW_SIGN = "."

UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
"""Of time along x: the first that goes twice into what is in view."""

HALVES = {"light": (0.01, 2.0), "strong": (0.05, 8.0)}
"""The half-life of the smoothing: of the width in view, but no less than so many samples."""

SIGNS: dict[str, tuple[str, str, str]] = {
    "nan": ("✗", "x", "bold $error"),
    "branch": ("←", "<", "bold $accent"),
    "alarm": ("▲", "!", "bold $error"),
    "operator": ("●", "o", "bold $accent"),
    "save": ("◆", "s", "bold $success"),
}
"""What stands below the curves where it happened, with braille and without. The first of two wins: an alarm
is over at the step of the roll back that answers it."""


class Beside(NamedTuple):
    """Another run, drawn for comparison."""

    name: str
    history: History


class _Scene(NamedTuple):
    """What all lines of a chart have in common."""

    view: View
    log: bool
    half: float


def chart(
    quantity: Quantity, history: History, size: tuple[int, int], view: View, beside: Beside | None = None
) -> Picture:
    """One quantity of a run, as the view has it."""
    extent = traces.extent(history, view.x_axis, [beside.history] if beside is not None else [])
    x_range = frame(view, extent)
    unit, label = _unit(view.x_axis, x_range, history)
    log = quantity.id in view.logs
    scene = _Scene(view, log, _half(quantity, view, extent, x_range))
    limits = traces.live(history)
    main = quantity.curves[-1]
    lines = [
        Line(traces.along(history, number, left, view.x_axis), left.value, ABANDONED, "'", behind=True)
        for number, left in traces.abandoned(history, main, limits)
    ]
    if beside is not None:
        other = main._replace(style=BESIDE, sign=BESIDE_SIGN)
        lines += _joined(beside.history, traces.live(beside.history), (other,), scene)
    lines += _joined(history, limits, quantity.curves, scene)
    at = sample(history, view)
    nothing = not any(len(main.of(branch).columns.step) for branch in history.branches.values())
    return picture(
        lines,
        [_mark(history, at, view.x_axis) for at in traces.entries(history, limits)],
        size,
        Axes(
            label,
            y_range=None if log else quantity.y_range,
            log=log,
            whole=view.x_axis != "time",
            x_range=x_range,
            unit=unit,
            steady=True,
        ),
        signs=_signs(history, limits, main, view),
        cursor=at.x if at is not None else None,
        braille=view.braille,
        empty=quantity.empty if nothing else "nothing measured here",
    )


def x_words(x_axis: XAxis, history: History) -> str:
    """What the charts are drawn by; removals are those of what the method's stages count."""
    return f"{history.config.method.counted}s removed" if x_axis == "removed" else x_axis


def _unit(x_axis: XAxis, x_range: tuple[float, float], history: History) -> tuple[float, str]:
    if x_axis != "time":
        return 1.0, x_words(x_axis, history)
    span = x_range[1] - x_range[0]
    return next((unit for unit in UNITS if span >= 2 * unit[0]), UNITS[-1])


def _half(quantity: Quantity, view: View, extent: Extent, x_range: tuple[float, float]) -> float:
    """The half-life of the smoothing, along x; 0 where nothing is smoothed."""
    if view.smoothing == "off" or not quantity.smooth:
        return 0.0
    share, samples = HALVES[view.smoothing]
    return max(share * (x_range[1] - x_range[0]), samples * extent.spacing)


def _joined(
    history: History, limits: Mapping[int, float], curves: tuple[Curve, ...], scene: _Scene
) -> list[Line]:
    """Curves along the live line of history, through all its branches; those that are smoothed over what they
    were before. A gap where x goes back, and by time also over what was abandoned."""
    raw, means = [], []
    entered = np.array([at.step for at in traces.entries(history, limits)], dtype=np.float64)
    for curve in curves:
        found = traces.trace(history, curve, scene.view.x_axis, limits)
        gone = found.begins & ((np.diff(found.x, prepend=found.x[:1]) < 0) | (scene.view.x_axis == "time"))
        x, y = _broken(found.x, found.value, gone)
        raw.append(Line(x, y, curve.style, curve.sign))
        if scene.half:
            raw[-1] = Line(x, y, curve.faint, RAW_SIGN)
            means.append(Line(*mean(found, entered, scene.half, log=scene.log), curve.style, curve.sign))
    return [*raw, *means]


def mean(found: Trace, entered: Floats, half: float, *, log: bool) -> tuple[Floats, Floats]:
    """The running mean of a curve, broken where it begins anew: at removals, at branches and after gaps."""
    values = found.value
    if log:
        values = np.log10(np.where(values > 0, values, np.nan))
    stage = np.searchsorted(entered, found.step, side="left")
    piece = stage + found.begins.cumsum() + (~np.isfinite(values)).cumsum()
    x, values, piece = (column[found.fair] for column in (found.x, values, piece))
    begins = np.diff(piece, prepend=-1) != 0
    means = smoothed(x, values, begins, half)
    return _broken(x, np.power(10.0, means) if log else means, begins)


def _broken(x: Floats, y: Floats, begins: np.ndarray) -> tuple[Floats, Floats]:
    """A line with a gap before each point that begins anew."""
    where = np.flatnonzero(begins[1:]) + 1
    return np.insert(x, where, x[where]), np.insert(y, where, np.nan)


def _mark(history: History, at: At, x_axis: XAxis) -> Mark:
    last = history.stages > 0 and at.stage == history.stages
    return Mark(traces.mark_of(history, at, x_axis), "all gone" if last else str(at.stage), strong=last)


def _signs(history: History, limits: Mapping[int, float], main: Curve, view: View) -> list[Sign]:
    """What happened, of branches that are on the axis: by time all of them, else those of the live line."""
    found = traces.trace(history, main, view.x_axis, limits)
    signs = [_sign("nan", float(x), view) for x in found.x[~np.isfinite(found.value)]]
    saves = [event.at for event in history.saves.values() if event.cause != "stage"]
    happened = [(row.kind, row.at) for row in history.happenings if row.kind in SIGNS]
    happened += [("save", at) for at in saves]
    happened = [
        (kind, at) for kind, at in happened if view.x_axis == "time" or at.step <= limits.get(at.branch, -1.0)
    ]
    order = list(SIGNS)
    happened.sort(key=lambda one: order.index(one[0]))
    xs = traces.places(history, [at for _, at in happened], view.x_axis)
    return signs + [_sign(kind, x, view) for (kind, _), x in zip(happened, xs, strict=True)]


def _sign(kind: str, x: float, view: View) -> Sign:
    drawn, plain, style = SIGNS[kind]
    return Sign(x, drawn if view.braille else plain, style)


class Sample(NamedTuple):
    """Where the cursor stands: on a measurement of the live line."""

    step: int
    stage: int
    time: float
    x: float


def sample(history: History, view: View) -> Sample | None:
    """The measurement that the cursor is on, or the last before it; None without a cursor."""
    if view.cursor is None:
        return None
    found = traces.main_trace(history, view.x_axis)
    index = int(np.searchsorted(found.step, view.cursor, side="right")) - 1
    if index < 0:
        return None
    step = int(found.step[index])
    stages = [at.stage for at in traces.entries(history, traces.live(history)) if at.step < step]
    return Sample(step, stages[-1] if stages else 0, float(found.time[index]), float(found.x[index]))


class Reading(NamedTuple):
    """What a curve says at the cursor. step: where that was measured; None where it never was by then."""

    curve: Curve
    value: float
    step: int | None


def readings(history: History, quantity: Quantity, view: View) -> list[Reading]:
    """The values of all curves of a quantity at the cursor: the last that were measured by then."""
    at = sample(history, view)
    if at is None:
        return []
    limits = traces.live(history)
    result = []
    for curve in quantity.curves:
        found = traces.trace(history, curve, view.x_axis, limits)
        index = int(np.searchsorted(found.step, at.step, side="right")) - 1
        there = index >= 0
        result.append(
            Reading(curve, float(found.value[index]), int(found.step[index]))
            if there
            else Reading(curve, float("nan"), None)
        )
    return result


def step_at(history: History, quantity: Quantity, view: View, x: float) -> int | None:
    """The step of the sample of a quantity that is nearest to x; None where there is none."""
    found = traces.trace(history, quantity.curves[-1], view.x_axis, traces.live(history))
    if not len(found.x):
        return None
    return int(found.step[int(np.argmin(np.abs(found.x - x)))])


def next_step(history: History, quantity: Quantity, view: View, stride: float) -> int | None:
    """The step of the next sample of a quantity that lies at least `stride` beyond the cursor, before it if
    `stride` is negative; the last there is where none does. Without a cursor the newest in view."""
    found = traces.trace(history, quantity.curves[-1], view.x_axis, traces.live(history))
    if not len(found.x):
        return None
    at = sample(history, view)
    if at is None:
        high = frame(view, traces.extent(history, view.x_axis))[1]
        return int(found.step[max(0, int(np.searchsorted(found.x, high, side="right")) - 1)])
    beyond = found.x - at.x >= stride if stride > 0 else at.x - found.x >= -stride
    indices = np.flatnonzero(beyond)
    if not len(indices):
        return int(found.step[-1 if stride > 0 else 0])
    return int(found.step[indices[0 if stride > 0 else -1]])


def positive(history: History, quantity: Quantity) -> bool:
    """Whether there is anything that a logarithmic scale could show."""
    return any(
        bool((curve.of(branch).columns.value > 0).any())
        for branch in history.branches.values()
        for curve in quantity.curves
    )
