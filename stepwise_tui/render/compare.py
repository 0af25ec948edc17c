"""Accuracy against scheduled removals, several runs in one figure (paper, Figures 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.text import Text

from stepwise_tui.charts.canvas import Floats
from stepwise_tui.charts.chart import Axes, Line, Mark, draw
from stepwise_tui.output import table
from stepwise_tui.render import picture, screen
from stepwise_tui.render.screen import FAINT, Screen
from stepwise_tui.text import DASH, accuracy, clip, clip_apart, wrapped
from trainer.analysis.compare import Curve, Group, Point

ALL_GONE = "all CoT removed"
ABANDONED = "abandoned by a roll back"
X_LABEL, Y_LABEL = "scheduled removals", "validation accuracy"
LONGEST_NAME, LEAST_NAME = 30, 20


class Entry(NamedTuple):
    """One colour of the figure, with the runs that have it. apart: what else is to be known of it."""

    label: str
    curves: tuple[Curve, ...]
    apart: str = ""

    @property
    def legend(self) -> str:
        return f"{self.label}: {self.apart}" if self.apart else self.label


def entries(groups: Sequence[Group]) -> list[Entry]:
    """A colour for each configuration; where there is only one, for each of its seeds (Figure 4)."""
    if len(groups) == 1:
        seeds = [curve.seed for curve in groups[0].curves]
        named = len(set(seeds)) == len(seeds) > 1
        return [Entry(f"seed {c.seed}" if named else c.name, (c,)) for c in groups[0].curves]
    return [Entry(_counted(group), group.curves, _apart(group)) for group in groups]


def _apart(group: Group) -> str:
    """What its removals are, its task and its method, where they differ and its label does not say so."""
    unit = group.unit and f"removes {group.unit}"
    return ", ".join(part for part in (unit, group.task, group.method) if part not in group.label)


def _counted(group: Group) -> str:
    runs = len(group.curves)
    return group.label if runs == 1 else f"{group.label} ({runs} runs)"


def gone(drawn: Sequence[Entry]) -> dict[int, str]:
    """Where all CoT is gone, and what is written there: also whose it is, where that is not one place.

    Drawn only as far as some run has come: a run that begins is not squeezed by what is far ahead of it.
    """
    reached = max((point.x for entry in drawn for c in entry.curves for point in c.live), default=0)
    who: dict[int, list[str]] = {}
    for entry in drawn:
        for x in sorted({c.all_gone for c in entry.curves if c.all_gone}):
            who.setdefault(x, []).append(entry.label)
    said = {x: clip(f"all gone: {', '.join(labels)}", LONGEST_NAME) for x, labels in sorted(who.items())}
    if len(who) == 1:
        said = dict.fromkeys(who, ALL_GONE)
    return {x: text for x, text in said.items() if x <= reached}


def show(groups: Sequence[Group], out: Screen) -> None:
    """The chart, its legend, and a row for each run."""
    drawn = entries(groups)
    braille = out.braille(len(drawn))
    keys = [_key(number, braille) for number in range(len(drawn))]
    runs = [(key, curve) for key, entry in zip(keys, drawn, strict=True) for curve in entry.curves]
    lines = [Line(*_columns(piece), FAINT, "'") for _, curve in runs for piece in curve.abandoned]
    lines += [
        Line(*_columns(curve.live), str(key.style), key.plain.strip(), equal=True) for key, curve in runs
    ]
    legend = [
        Text.assemble(key, " ", _legend(entry, out.width - 4)) for key, entry in zip(keys, drawn, strict=True)
    ]
    if all(entry.legend == entry.curves[0].name for entry in drawn):
        legend = []
    if len(drawn) > len(screen.SIGNS):
        legend.append(Text(f"from the {len(screen.SIGNS) + 1}th on, signs come again", FAINT))
    if any(curve.abandoned for _, curve in runs):
        legend.append(Text.assemble(("━━" if braille else " '", FAINT), " ", ABANDONED))
    head, *rows = _table([curve for _, curve in runs], out.width - 3)

    marks = [Mark(float(x), label, strong=True) for x, label in gone(drawn).items()]
    below = sum(line.plain.count("\n") + 1 for line in legend)
    size = out.chart_size(below=below + len(rows) + 5)
    chart = draw(lines, marks, size, Axes(X_LABEL, (0.0, 1.0)), braille=braille, empty="not evaluated yet")
    out.print(Text(Y_LABEL, FAINT))
    out.print(screen.text(chart))
    for line in legend:
        out.print(line)
    out.print("\n   " + head)
    for (key, _), row in zip(runs, rows, strict=True):
        out.print(Text.assemble(key, " ", row))


def _legend(entry: Entry, width: int) -> str:
    """What is apart takes as many lines as it needs."""
    return wrapped(entry._replace(label=clip(entry.label, width - 1)).legend, width, 5)


def _key(number: int, braille: bool) -> Text:
    sign = "━━" if braille else f" {screen.SIGNS[number % len(screen.SIGNS)]}"
    return Text(sign, screen.COLOURS[number % len(screen.COLOURS)])


def _table(curves: Sequence[Curve], width: int) -> list[str]:
    """The head and a line for each run; what operators did only where they did something.

    Names have what the other columns leave of the width.
    """
    head = ["seed", "state", "removals", "last", "best, no CoT"]
    rows = [_row(curve) for curve in curves]
    if any(curve.steered for curve in curves):
        head.append("steered by")
        for row, curve in zip(rows, curves, strict=True):
            row.append(", ".join(f"{name} {count}×" for name, count in curve.steered.items()))
    room = width - 2 - max(map(len, table(head, rows).split("\n")))
    names = clip_apart([curve.name for curve in curves], max(LEAST_NAME, room))
    named = [[name, *row] for name, row in zip(names, rows, strict=True)]
    return table(["run", *head], named).split("\n")


def _row(curve: Curve) -> list[str]:
    last = curve.live[-1] if curve.live else None
    # The schedule counts on when nothing is left to remove.
    removals = str(min(last.scheduled, curve.stages)) if last else DASH
    return [
        str(curve.seed),
        curve.state,
        removals if curve.all_gone is None else f"{removals} of {curve.all_gone}",
        accuracy(last.accuracy if last else None),
        accuracy(curve.without_cot),
    ]


def plot(groups: Sequence[Group], axes: Any) -> None:
    """The same on matplotlib's axes."""
    drawn = entries(groups)
    for number, entry in enumerate(drawn):
        colour, dashes = picture.LOOKS[number % len(picture.LOOKS)]  # gaps show what lies beneath
        width = 1.4 if len(entry.curves) == 1 else 0.9
        for curve in entry.curves:
            for piece in curve.abandoned:
                axes.plot(*_columns(piece), color=colour, linewidth=0.8, linestyle=":", alpha=0.7)
            axes.plot(*_columns(curve.live), color=colour, linewidth=width, linestyle=dashes)
        axes.plot([], [], color=colour, linewidth=1.6, linestyle=dashes, label=entry.legend)
    if any(curve.abandoned for entry in drawn for curve in entry.curves):
        axes.plot([], [], color=picture.GREY, linewidth=0.8, linestyle=":", label=ABANDONED)
    axes.set(xlabel=X_LABEL, ylabel=Y_LABEL, ylim=(-0.02, 1.02))
    axes.set_xlim(left=0)
    for x, label in gone(drawn).items():
        axes.axvline(x, color=picture.GREY, linewidth=1.0, linestyle="--", zorder=1.5)
        axes.annotate(
            label,
            (x, 0.5),
            xytext=(-4, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="center",
            fontsize=8,
            color=picture.GREY,
        )
    picture.legend(axes)


def _columns(points: Sequence[Point]) -> tuple[Floats, Floats]:
    """x and accuracy, with a gap where a roll back that kept the weights gave CoT back."""
    x = np.array([point.x for point in points], dtype=np.float64)
    y = np.array([point.accuracy for point in points], dtype=np.float64)
    back = np.flatnonzero(np.diff(x) < 0) + 1
    return np.insert(x, back, x[back]), np.insert(y, back, np.nan)
