"""The curves of one run on matplotlib's axes: the live line, what was abandoned, and what happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stepwise_tui.charts import traces
from stepwise_tui.charts.canvas import Floats
from stepwise_tui.charts.curves import HALVES, mean, positive
from stepwise_tui.charts.quantities import ACCURACY, GRADIENT, LOSS, Quantity
from stepwise_tui.history import History
from stepwise_tui.render import picture
from stepwise_tui.render.compare import ABANDONED, ALL_GONE

SHOWN: tuple[Quantity, ...] = (ACCURACY, LOSS, GRADIENT)
SUM = "all"
"""The curve that says again what the others of its quantity say."""
MOST_NUMBERS = 24
"""Stages whose numbers have room above a chart."""
RAW = 0.3
"""How faint the values are beneath their running mean."""
SIGNS = (("branch", "<", "roll back"), ("alarm", "^", "alarm, or its end"))


def plot(quantity: Quantity, history: History, axes: Any) -> None:
    """One quantity of a run, by step. The curve that counts most has the first colour."""
    limits = traces.live(history)
    curves = [curve for curve in quantity.curves[::-1] if curve.name != SUM]
    log = quantity.y_range is None and positive(history, quantity)
    extent = traces.extent(history, "step")
    share, samples = HALVES["light"]
    half = max(share * (extent.end - extent.start), samples * extent.spacing)
    entered = np.array([at.step for at in traces.entries(history, limits)], dtype=np.float64)
    label: str | None = ABANDONED
    look: dict[str, Any] = {"color": picture.GREY, "linewidth": 0.9, "linestyle": ":"}
    for _, left in traces.abandoned(history, curves[0], limits):
        axes.plot(left.step, _finite(left.value), label=label, **look)
        label = None
    for number, curve in enumerate(curves):
        found = traces.trace(history, curve, "step", limits)
        look = {"color": picture.COLOURS[number], "linestyle": picture.DASHES[number], "linewidth": 1.2}
        look |= {"marker": "."} if len(found.step) == 1 else {}
        values = _finite(found.value)
        if quantity.smooth:
            axes.plot(found.step, values, color=picture.COLOURS[number], linewidth=0.6, alpha=RAW)
            x, y = mean(found, entered, half, log=log)
        else:
            x, y = found.step, values
        axes.plot(x, y, label=curve.name, **look)
    title = quantity.title
    if quantity.y_range is not None:
        axes.set_ylim(-0.02, 1.02)
    elif log:
        axes.set_yscale("log", nonpositive="mask")
        title = f"{title}, log scale"
    axes.set(xlabel="step", ylabel=title)
    axes.set_xlim(0, max(1.0, history.at.step, *(line.get_xdata().max(initial=0) for line in axes.lines)))
    _stages(history, limits, axes)
    _happened(history, axes)
    picture.legend(axes)


def _finite(values: Floats) -> Floats:
    """What is not finite is a gap."""
    return np.where(np.isfinite(values), values, np.nan)


def _stages(history: History, limits: Mapping[int, float], axes: Any) -> None:
    """A line where each stage of the live line was entered, with its number as far as there is room."""
    entered = [at for at in traces.entries(history, limits) if at.stage > 0]
    stride = 1 + len(entered) // MOST_NUMBERS
    across = axes.get_xaxis_transform()
    for index, at in enumerate(entered):
        last = at.stage == history.stages
        axes.axvline(
            at.step, color=picture.GREY, linewidth=1.0 if last else 0.4, linestyle="--" if last else "-"
        )
        text = ALL_GONE if last else str(at.stage) if index % stride == 0 else ""
        look: dict[str, Any] = {"rotation": 90, "ha": "right", "va": "center"} if last else {"va": "top"}
        axes.annotate(
            text,
            (at.step, 0.5 if last else 0.99),
            xycoords=across,
            xytext=(-4 if last else 2, 0),
            textcoords="offset points",
            fontsize=7,
            color=picture.GREY,
            **look,
        )


def _happened(history: History, axes: Any) -> None:
    """A sign at the foot of the chart for each roll back and alarm, of abandoned branches too."""
    for kind, sign, name in SIGNS:
        steps = [row.at.step for row in history.happenings if row.kind == kind]
        if steps:
            look: dict[str, Any] = {"color": picture.GREY, "linestyle": "", "marker": sign, "clip_on": False}
            axes.plot(steps, [0.0] * len(steps), transform=axes.get_xaxis_transform(), label=name, **look)
