"""A grid of character cells to draw lines on: eight braille dots a cell, or one sign where there are none.

Ours instead of a plotting library, because a chart here is redrawn every second beside a trainer on the
same two cores: this takes two to four milliseconds where plotext takes about twenty, survives any number,
draws thin lines behind thick ones, and follows the theme.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from textual.content import Content, Span

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BRAILLE = 0x2800
DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""The bit of each dot of a braille sign, by row and column (Unicode, Braille Patterns)."""


TURN = 2
"""Cells that each of several lines has in turn where they share them."""


class Joined(NamedTuple):
    """Points to be joined, in dots from the top left; one that is not finite makes a gap, and one between two
    gaps is a dot. sign: what stands for the line where there is no braille."""

    x: Floats
    y: Floats
    style: str
    sign: str = "*"


class Canvas:
    """width × height cells. What is drawn later covers, cell by cell, what was drawn before."""

    def __init__(self, width: int, height: int, *, braille: bool = True) -> None:
        self.width, self.height, self.braille = width, height, braille
        self.across, self.down = (2, 4) if braille else (1, 1)
        self._signs = np.full((height, width), ord(" "), dtype=np.uint32)
        self._styles = np.zeros((height, width), dtype=np.int64)
        self._names = [""]

    @property
    def columns(self) -> int:
        """Dots from left to right."""
        return self.width * self.across

    @property
    def rows(self) -> int:
        """Dots from top to bottom."""
        return self.height * self.down

    def lines(self, drawn: Sequence[Joined]) -> None:
        """Draw lines of equal rank: in cells that they share they take turns, so that none hides another."""
        cells = [self._cells(line) for line in drawn]
        count = sum((there for there, _ in cells), np.zeros((self.height, self.width), dtype=np.int64))
        turn = np.arange(self.width) // TURN % np.maximum(count, 1)
        before = np.zeros_like(count)
        for line, (there, signs) in zip(drawn, cells, strict=True):
            own = there & (before == turn)
            self._signs[own] = signs[own]
            self._styles[own] = self._style(line.style)
            before += there

    def _cells(self, line: Joined) -> tuple[NDArray[np.bool_], Ints]:
        """Which cells a line goes through, and what stands for it there."""
        x, y = line.x, line.y
        finite = np.isfinite(x) & np.isfinite(y)
        columns = np.where(finite, x, 0).round().astype(np.int64)
        rows = np.where(finite, y, 0).round().astype(np.int64)
        joined = finite[:-1] & finite[1:]
        steps = np.maximum(np.abs(np.diff(columns)), np.abs(np.diff(rows)))[joined]
        which = np.repeat(np.flatnonzero(joined), steps)
        part = (np.arange(steps.sum()) - np.repeat(steps.cumsum() - steps, steps)) / steps.repeat(steps)
        between_x = columns[which] + part * (columns[which + 1] - columns[which])
        between_y = rows[which] + part * (rows[which + 1] - rows[which])
        at_x = np.concatenate([columns[finite], between_x.round().astype(np.int64)])
        at_y = np.concatenate([rows[finite], between_y.round().astype(np.int64)])
        inside = (at_x >= 0) & (at_x < self.columns) & (at_y >= 0) & (at_y < self.rows)
        at_x, at_y = at_x[inside], at_y[inside]
        bits = np.zeros((self.height, self.width), dtype=np.int64)
        if self.braille:
            np.bitwise_or.at(bits, (at_y // 4, at_x // 2), DOTS[at_y % 4, at_x % 2])
            return bits > 0, bits + BRAILLE
        bits[at_y, at_x] = 1
        return bits > 0, np.full_like(bits, ord(line.sign))

    def column(self, cell: int, sign: str, style: str) -> None:
        """A vertical line of `sign` from top to bottom."""
        if 0 <= cell < self.width:
            self._signs[:, cell] = ord(sign)
            self._styles[:, cell] = self._style(style)

    def text(self, cell: int, row: int, text: str, style: str) -> None:
        """Write from a cell to the right; what does not fit is left out."""
        for offset, sign in enumerate(text):
            if 0 <= cell + offset < self.width and 0 <= row < self.height:
                self._signs[row, cell + offset] = ord(sign)
                self._styles[row, cell + offset] = self._style(style)

    def paste(self, other: Canvas, cell: int, row: int) -> None:
        """Put another canvas on this one, its top left cell there; it has to fit."""
        names = np.array([self._style(name) for name in other._names])
        here = np.s_[row : row + other.height, cell : cell + other.width]
        self._signs[here] = other._signs
        self._styles[here] = names[other._styles]

    def _style(self, name: str) -> int:
        if name not in self._names:
            self._names.append(name)
        return self._names.index(name)

    def content(self) -> Content:
        """The canvas as text, one span a run of one style."""
        if not self.width or not self.height:
            return Content("\n" * max(0, self.height - 1))
        lines = ["".join(map(chr, row)) for row in self._signs]
        spans = []
        for row, styles in enumerate(self._styles):
            start = row * (self.width + 1)
            edges = [0, *(np.flatnonzero(np.diff(styles)) + 1), self.width]
            for left, right in pairwise(edges):
                if name := self._names[styles[left]]:
                    spans.append(Span(int(start + left), int(start + right), name))
        return Content("\n".join(lines), spans)
