"""Accuracy against speed, one point a stage, with the line that nobody is beyond (paper, Figure 2a)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.text import Text

from stepwise_tui.charts.chart import Axes, Dot, Line, draw
from stepwise_tui.output import table
from stepwise_tui.render import picture, screen
from stepwise_tui.render.screen import FAINT, Screen
from stepwise_tui.text import accuracy
from trainer.analysis.frontier import Point

X_LABEL = "speed, relative to no CoT (batch 1)"
BEST, DOMINATED = "cyan", FAINT
HEAD = ("removed", "spoken", "accuracy", "n", "speed", "step", "checkpoint", "")


def show(points: Sequence[Point], counted: str, out: Screen) -> None:
    """The chart, each point labelled with what is removed, and a row for each. counted: "token" or "step"."""
    best = _best(points)
    dots = [Dot(p.speed, p.accuracy, str(p.removed), BEST, "●" if out.glyphs.braille else "o") for p in best]
    dots += [
        Dot(p.speed, p.accuracy, str(p.removed), DOMINATED, "○" if out.glyphs.braille else ".")
        for p in points
        if p.dominated
    ]
    lines = [Line(np.array([p.speed for p in best]), np.array([p.accuracy for p in best]), FAINT, "'")]
    lines = lines if len(best) > 1 else []
    size = out.chart_size(below=len(points) + 6)
    axes = Axes("speed, no CoT at 1", (0.0, 1.0), whole=False)  # short, so that there is room for numbers
    out.print(Text(f"test accuracy, speed at batch 1; the numbers are CoT {counted}s removed", FAINT))
    if len(points) > 1:  # all but the last were saved so
        out.print(Text("what is saved on entering a stage is measured as the stage before it", FAINT))
    out.print(screen.text(draw(lines, [], size, axes, dots=dots, braille=out.glyphs.braille)))
    out.print()
    out.print(table(HEAD, [_row(point) for point in points]))


def _row(point: Point) -> tuple[str, ...]:
    return (
        str(point.removed),
        f"{point.cot_tokens:.1f}",
        accuracy(point.accuracy),
        f"{point.n:,}",
        f"{point.speed:.2f}",
        f"{point.step:,}",
        point.checkpoint,
        "dominated" if point.dominated else "",
    )


def plot(points: Sequence[Point], counted: str, axes: Any) -> None:
    """The same on matplotlib's axes."""
    best, left = _best(points), [p for p in points if p.dominated]
    colour = picture.COLOURS[0]
    axes.plot(
        [p.speed for p in best],
        [p.accuracy for p in best],
        "-o",
        color=colour,
        label=f"not dominated (numbers: CoT {counted}s removed)",
    )
    if left:
        axes.plot(
            [p.speed for p in left],
            [p.accuracy for p in left],
            "o",
            color=picture.GREY,
            markerfacecolor="none",
            label="dominated: another is as fast and as accurate",
        )
    for point in points:
        axes.annotate(
            str(point.removed),
            (point.speed, point.accuracy),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
            color=picture.GREY if point.dominated else "black",
        )
    axes.set(xlabel=X_LABEL, ylabel="test accuracy", ylim=(-0.02, 1.05))
    axes.set_xlim(left=0)
    picture.legend(axes)


def _best(points: Sequence[Point]) -> list[Point]:
    return sorted((p for p in points if not p.dominated), key=lambda p: p.speed)
