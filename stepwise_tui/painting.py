"""Sends the terminal only the cells that changed, since every byte may go over a slow line.

Textual draws a widget anew as a whole, or by rows from its left edge: a step counter that moves costs its
whole line, a curve that grows the whole chart. What the terminal shows is kept here, and each update
compared with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.control import Control
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.geometry import Size
from textual.strip import Strip

Cell = tuple[str, Style | None]
"""What stands in a cell. The second half of a wide character is empty."""


class Look(NamedTuple):
    """How a terminal writes, in its own codes: bold and the like, the colour, the colour behind."""

    weight: str
    colour: str
    ground: str


PLAIN = Look("", "", "")
Piece = tuple[int, int, Strip]
"""Column, row, and what is drawn from there on."""

APART = 6
"""Cells between two changes that are sent too: to move past them would take as much."""
UNKNOWN: Cell = ("\0", None)


class Painting:
    """What the terminal shows, as far as it is known."""

    def __init__(self) -> None:
        self._size = Size(0, 0)
        self._rows: list[list[Cell]] = []

    def forget(self) -> None:
        """Someone else has drawn on the terminal."""
        self._rows = [[UNKNOWN] * self._size.width for _ in range(self._size.height)]

    def only_changes(self, update: CompositorUpdate, size: Size) -> CompositorUpdate:
        """The same update, sent without what is there already."""
        if size != self._size:
            self._size = size
            self.forget()
        return _Changes(self, update)

    def paint(self, update: CompositorUpdate, console: Console) -> str:
        """What has to be sent for an update; it counts as shown then."""
        if isinstance(update, LayoutUpdate):
            self.forget()
        system = console._color_system or ColorSystem.TRUECOLOR
        sent, look = [], PLAIN
        for piece in _pieces(update):
            for column, row, cells in self._changed(*piece):
                sent.append(Control.move_to(column, row).segment.text)
                for style, group in groupby(cells, lambda cell: cell[1]):
                    new = _look(style, system)
                    sent += [_turned(look, new), "".join(sign for sign, _ in group)]
                    look = new
        return "".join([*sent, _turned(look, PLAIN)])

    def _changed(self, column: int, row: int, strip: Strip) -> Iterator[tuple[int, int, list[Cell]]]:
        """Those parts of a strip that are not shown yet: column, row, cells."""
        if not 0 <= row < len(self._rows):
            return
        shown, cells = self._rows[row], _cells(strip)
        cells = cells[: max(0, len(shown) - column)]
        before = shown[column : column + len(cells)]
        if cells == before:
            return
        shown[column : column + len(cells)] = cells
        differing = [i for i, (new, old) in enumerate(zip(cells, before, strict=True)) if new != old]
        for start, end in _runs(differing):
            while start and not cells[start][0]:
                start -= 1
            while end < len(cells) and not cells[end][0]:
                end += 1
            yield column + start, row, cells[start:end]


class _Changes(CompositorUpdate):
    """An update that is compared when it is sent, for Textual drops some before."""

    def __init__(self, painting: Painting, update: CompositorUpdate) -> None:
        self._painting, self._update = painting, update

    def render_segments(self, console: Console) -> str:
        return self._painting.paint(self._update, console)


def _pieces(update: CompositorUpdate) -> Iterator[Piece]:
    """The parts of an update, whole where only a span of them is to be drawn."""
    if isinstance(update, LayoutUpdate):
        for row, strips in enumerate(update.strips, update.region.y):
            column = update.region.x
            for strip in strips:
                yield column, row, strip
                column += strip.cell_length
    elif isinstance(update, ChopsUpdate):
        for row, first, last in update.spans:
            for end, (column, piece) in zip(update.chop_ends[row], update.chops[row].items(), strict=False):
                if piece is not None and column < last and end > first:
                    yield column, row, piece


def _cells(strip: Strip) -> list[Cell]:
    cells: list[Cell] = []
    for text, style, control in strip:
        if control:
            continue
        if text.isascii() or cell_len(text) == len(text):
            cells += [(sign, style) for sign in text]
            continue
        for sign in text:
            width = cell_len(sign)
            if width:
                cells += [(sign, style), *[("", style)] * (width - 1)]
            elif cells:
                cells[-1] = (cells[-1][0] + sign, cells[-1][1])
    return cells


def _runs(indices: Iterable[int]) -> Iterator[tuple[int, int]]:
    """From where to where cells differ, near ones in one."""
    start = end = -1
    for index in indices:
        if start >= 0 and index - end > APART:
            yield start, end
            start = -1
        if start < 0:
            start = index
        end = index + 1
    if start >= 0:
        yield start, end


@lru_cache(1024)
def _look(style: Style | None, system: ColorSystem) -> Look:
    if style is None:
        return PLAIN
    colours = [
        ";".join(colour.downgrade(system).get_ansi_codes(foreground)) if colour is not None else ""
        for colour, foreground in ((style.color, True), (style.bgcolor, False))
    ]
    return Look(Strip.render_ansi(style.without_color, system), *colours)


def _turned(old: Look, new: Look) -> str:
    """What makes a terminal that writes in one look write in another."""
    if new == old:
        return ""
    if new.weight != old.weight:
        codes = ["0", new.weight, new.colour, new.ground]
    else:
        codes = [new.colour or "39"] if new.colour != old.colour else []
        codes += [new.ground or "49"] if new.ground != old.ground else []
    return f"\x1b[{';'.join(filter(None, codes))}m"
