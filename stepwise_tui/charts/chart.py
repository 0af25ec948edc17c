"""A chart of lines with axes, as text: a pure function of the lines, the marks and the size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
from textual.content import Content

from stepwise_tui.charts import ticks
from stepwise_tui.charts.canvas import Canvas, Floats, Joined
from stepwise_tui.charts.points import cut, reduced

SMALLEST = (20, 5)
"""Below this there is no room for axes and a line."""

CLOSEST, APART = 3, 5
"""Cells that marks have on average before some are left out, and cells between those that are then drawn:
behind a fence nobody sees the curves."""

FLAT = 0.05
"""Of its largest value, that an axis shows at least."""

AXIS, MARK, MARK_TEXT = "$foreground-muted", "$surface-lighten-2", "$foreground-muted"
CURSOR = "$accent"


@dataclass(frozen=True)
class Line:
    """One line. x rises; style: Textual's, with the theme's names; sign: where there is no braille.

    equal: where it meets the equal lines beside it in the list they take turns, and none hides another.
    behind: the others alone, where there are any, say which values are shown; it may leave the chart.
    """

    x: Floats
    y: Floats
    style: str
    sign: str = "*"
    equal: bool = False
    behind: bool = False


class Mark(NamedTuple):
    """A vertical line at x. strong: the dashed one of "all removed"."""

    x: float
    label: str
    strong: bool = False


class Dot(NamedTuple):
    """One point, a sign with a label beside it; the label is left out where something stands already."""

    x: float
    y: float
    label: str
    style: str
    sign: str = "●"


class Sign(NamedTuple):
    """A sign below the curves, where something happened at x. Of two in one cell the first counts."""

    x: float
    sign: str
    style: str


class Axes(NamedTuple):
    """How the numbers are laid out. x_label: what x is. y_range: fixed limits; None takes the data's.

    log: y logarithmic; values at or below zero are then gaps, and y_range is None. whole: x is a count.
    x_range: the part of x that is shown; None shows all. unit: of x, in which its numbers are written.
    steady: limits of y are round numbers, so that they seldom move.
    """

    x_label: str = ""
    y_range: tuple[float, float] | None = None
    log: bool = False
    whole: bool = True
    x_range: tuple[float, float] | None = None
    unit: float = 1.0
    steady: bool = False


class Picture(NamedTuple):
    """A chart as text, and where in it x lies: `columns` cells from the cell `left` on show `x_range`.

    columns is 0 where a sentence stands in place of a chart.
    """

    text: Content
    left: int = 0
    columns: int = 0
    x_range: tuple[float, float] = (0.0, 1.0)

    def x_at(self, cell: int) -> float | None:
        """The x in the middle of a cell, counted from the chart's left; None beside the curves."""
        if not 0 <= cell - self.left < self.columns:
            return None
        low, high = self.x_range
        return low + (high - low) * (cell - self.left) / max(1, self.columns - 1)


def draw(
    lines: Sequence[Line],
    marks: Sequence[Mark],
    size: tuple[int, int],
    axes: Axes,
    *,
    dots: Sequence[Dot] = (),
    braille: bool = True,
    empty: str = "nothing measured yet",
) -> Content:
    """A chart of exactly `size` (width, height) cells; see `picture`."""
    return picture(lines, marks, size, axes, dots=dots, braille=braille, empty=empty).text


def picture(
    lines: Sequence[Line],
    marks: Sequence[Mark],
    size: tuple[int, int],
    axes: Axes,
    *,
    dots: Sequence[Dot] = (),
    signs: Sequence[Sign] = (),
    cursor: float | None = None,
    braille: bool = True,
    empty: str = "nothing measured yet",
) -> Picture:
    """A chart of exactly `size` (width, height) cells.

    Later lines are drawn over earlier ones, unless they are equal, and dots over lines; of two dots in one
    cell the first is seen. cursor: a line at this x, behind the curves. Values that are not finite are gaps.
    Never raises.
    """
    width, height = size
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return Picture(_message("no room for a chart", size))
    lines = [_usable(line, axes.log) for line in lines]
    marks = [mark for mark in marks if abs(mark.x) < LARGEST]
    dots, points = _usable_dots(dots, axes.log)
    if axes.x_range is not None:
        lines = [_cut(line, *axes.x_range) for line in lines]
        marks = [mark for mark in marks if axes.x_range[0] <= mark.x <= axes.x_range[1]]
        signs = [sign for sign in signs if axes.x_range[0] <= sign.x <= axes.x_range[1]]
    x_range = _range([line.x for line in (*lines, points)])
    before = [line.y for line in (*lines, points) if not line.behind]
    y_range = axes.y_range or _range(before) or _range([line.y for line in lines])
    if x_range is None or y_range is None:
        return Picture(_message(empty, size))
    places = [mark.x for mark in marks]
    x_range = (min(x_range[0], *places), max(x_range[1], *places)) if places else x_range
    x_range = _wide(axes.x_range or x_range, 0.0)
    if not axes.y_range:
        y_range = _wide(_apart(*y_range), 0.0) if axes.steady else _wide(y_range, 0.05)
    if axes.steady and not axes.y_range:
        y_range = ticks.around(*y_range, max(1, (height - 3) // 3), log=axes.log)
    plot = _Plot(lines, marks, dots, size, axes, x_range, y_range, braille, signs, cursor)
    return Picture(plot.content(), plot.left, plot.plot_width, x_range)


class _Plot:
    """One drawing: y numbers on the left, marks' labels above, x numbers below."""

    def __init__(
        self,
        lines: Sequence[Line],
        marks: Sequence[Mark],
        dots: Sequence[Dot],
        size: tuple[int, int],
        axes: Axes,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        braille: bool,
        signs: Sequence[Sign],
        cursor: float | None,
    ) -> None:
        self.width, self.height = size
        self.axes, self.x_range, self.y_range, self.braille = axes, x_range, y_range, braille
        self.top = 1 if marks else 0
        self.plot_height = self.height - 2 - self.top
        y_marks = self._y_marks()
        self.left = max(len(text) for _, text in y_marks) + 1
        self.plot_width = self.width - self.left
        self.sheet = Canvas(self.width, self.height)
        self.plot = Canvas(self.plot_width, self.plot_height, braille=braille)
        self._draw_marks(marks)
        self._draw_cursor(cursor)
        self._draw_lines(lines)
        self._draw_dots(dots)
        self._draw_axes(y_marks)
        self._draw_signs(signs)

    def content(self) -> Content:
        self.sheet.paste(self.plot, self.left, self.top)
        return self.sheet.content()

    def _y_marks(self) -> list[tuple[float, str]]:
        low, high = self.y_range
        count = max(1, self.plot_height // 3)
        if self.axes.log:
            exponents = ticks.logarithmic(low, high, count) or [low]
            return [(exponent, ticks.plain(10**exponent)) for exponent in exponents]
        values, step = ticks.linear(low, high, count)
        return [(v, ticks.label(v, step)) for v in values] or [(low, ticks.label(low, step))]

    def _draw_marks(self, marks: Sequence[Mark]) -> None:
        free, apart = 0, APART if len(marks) * CLOSEST > self.plot_width else 0
        nearest = -apart
        for mark in marks:
            cell = self._cell(mark.x)
            if cell < nearest + apart and not mark.strong:
                continue
            nearest = cell
            sign = ("┊" if mark.strong else "│") if self.braille else (":" if mark.strong else "|")
            self.plot.column(cell, sign, MARK_TEXT if mark.strong else MARK)
            start = min(cell, self.plot_width - len(mark.label))
            if start >= free and mark.label:
                self.sheet.text(self.left + start, 0, mark.label, MARK_TEXT)
                free = start + len(mark.label) + 1

    def _draw_cursor(self, x: float | None) -> None:
        if x is not None and self.x_range[0] <= x <= self.x_range[1]:
            self.plot.column(self._cell(x), "┃" if self.braille else "#", CURSOR)

    def _draw_signs(self, signs: Sequence[Sign]) -> None:
        for sign in reversed(signs):
            self.sheet.text(
                self.left + self._cell(sign.x), self.top + self.plot_height, sign.sign, sign.style
            )

    def _draw_lines(self, lines: Sequence[Line]) -> None:
        low, high = self.y_range
        for _, equal in groupby(enumerate(lines), lambda numbered: -1 if numbered[1].equal else numbered[0]):
            joined = []
            for _, line in equal:
                x, y = reduced(line.x, line.y, self.plot.columns)
                if line.behind:  # it goes to the edge, and not along it
                    outside = (y < low) | (y > high)
                    y = np.where(outside & np.concatenate(([False], outside[:-1])), np.nan, y)
                rows = (high - y) / (high - low) * (self.plot.rows - 1)
                rows = np.clip(rows, 0, self.plot.rows - 1)
                joined.append(Joined(self._x(x), rows, line.style, line.sign))
            self.plot.lines(joined)

    def _draw_dots(self, dots: Sequence[Dot]) -> None:
        low, high = self.y_range
        taken: set[tuple[int, int]] = set()
        places = []
        for dot in dots:
            row = round((high - dot.y) / (high - low) * (self.plot_height - 1))
            place = self._cell(dot.x), min(max(0, row), self.plot_height - 1)
            places.append(place)
            if place not in taken:
                taken.add(place)
                self.plot.text(*place, dot.sign, dot.style)
        for dot, (cell, row) in zip(dots, places, strict=True):
            for start in (cell + 2, cell - 1 - len(dot.label)):
                cells = {(c, row) for c in range(start - 1, start + len(dot.label) + 1)}
                if start >= 0 and start + len(dot.label) <= self.plot_width and not cells & taken:
                    taken |= cells
                    self.plot.text(start, row, dot.label, dot.style)
                    break

    def _x(self, x: Floats) -> Floats:
        low, high = self.x_range
        return np.asarray((x - low) / (high - low) * (self.plot.columns - 1), dtype=np.float64)

    def _cell(self, x: float) -> int:
        return min(round(float(self._x(np.array([x]))[0]) / self.plot.across), self.plot_width - 1)

    def _draw_axes(self, y_marks: list[tuple[float, str]]) -> None:
        low, high = self.y_range
        vertical, cross, corner, dash, below = "│┤└─┬" if self.braille else "|++-+"
        base = self.top + self.plot_height
        edge = self.left - 1
        for row in range(self.top, base):
            self.sheet.text(edge, row, vertical, AXIS)
        for value, text in y_marks:
            row = self.top + round((high - value) / (high - low) * (self.plot_height - 1))
            self.sheet.text(edge - len(text), row, text, AXIS)
            self.sheet.text(edge, row, cross, AXIS)
        self.sheet.text(edge, base, corner + dash * self.plot_width, AXIS)
        self._draw_x_numbers(base, below)

    def _draw_x_numbers(self, base: int, below: str) -> None:
        label = self.axes.x_label
        room = self.plot_width - len(label) - 1
        if room < self.plot_width // 3:
            label, room = "", self.plot_width
        unit = self.axes.unit
        low, high = self.x_range[0] / unit, self.x_range[1] / unit
        values, step = ticks.linear(low, high, max(3, room // 8), whole=self.axes.whole)
        free = 0
        for value in values:
            text = ticks.label(value, step)
            cell = self._cell(value * unit)
            start = min(max(0, cell - len(text) // 2), self.plot_width - len(text))
            if start < free or start + len(text) > room:
                continue
            self.sheet.text(self.left + cell, base, below, AXIS)
            self.sheet.text(self.left + start, base + 1, text, AXIS)
            free = start + len(text) + 1
        self.sheet.text(self.width - len(label), base + 1, label, MARK_TEXT)


def _cut(line: Line, low: float, high: float) -> Line:
    x, y = cut(line.x, line.y, low, high)
    return replace(line, x=x, y=y)


def _usable(line: Line, log: bool) -> Line:
    """The line in the scale it is drawn in, with a gap wherever there is nothing to draw."""
    x, y = np.asarray(line.x, dtype=np.float64), np.asarray(line.y, dtype=np.float64)
    drawable = np.isfinite(x) & np.isfinite(y) & (np.abs(x) < LARGEST) & (np.abs(y) < LARGEST)
    if log:
        drawable &= y > 0
        y = np.log10(np.where(drawable, y, 1.0))
    return replace(line, x=np.where(drawable, x, np.nan), y=np.where(drawable, y, np.nan))


def _usable_dots(dots: Sequence[Dot], log: bool) -> tuple[list[Dot], Line]:
    """The dots that can be drawn, in the scale they are drawn in; and the same as a line, for the limits."""
    points = _usable(Line(np.array([d.x for d in dots]), np.array([d.y for d in dots]), ""), log)
    values = zip(points.x.tolist(), points.y.tolist(), strict=True)
    return [d._replace(x=x, y=y) for d, (x, y) in zip(dots, values, strict=True) if np.isfinite(x)], points


LARGEST = 1e300
"""Beyond this the distance of two numbers may not be a number any more."""


def _range(columns: Sequence[Floats]) -> tuple[float, float] | None:
    """The lowest and the highest finite value of all."""
    finite = [column[np.isfinite(column)] for column in columns]
    finite = [column for column in finite if len(column)]
    if not finite:
        return None
    return float(min(c.min() for c in finite)), float(max(c.max() for c in finite))


def _wide(limits: tuple[float, float], margin: float) -> tuple[float, float]:
    """Limits with a margin on both sides, apart enough to be told apart."""
    low, high = limits
    least = max(1e-6 * max(abs(low), abs(high)), 1e-9)
    if high - low < least:
        return low - 500 * least, high + 500 * least
    return low - margin * (high - low), high + margin * (high - low)


def _apart(low: float, high: float) -> tuple[float, float]:
    """Limits so far apart that what hardly changes looks level."""
    room = FLAT * max(abs(low), abs(high)) - (high - low)
    return (low - room / 2, high + room / 2) if room > 0 else (low, high)


def _message(text: str, size: tuple[int, int]) -> Content:
    """A sentence in the middle of an empty chart."""
    width, height = size
    sheet = Canvas(width, height)
    sheet.text(max(0, (width - len(text)) // 2), height // 2, text, MARK_TEXT)
    return sheet.content()
