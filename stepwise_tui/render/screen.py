"""Where a figure goes as text: a terminal with its size and colours, or a pipe, 80 wide and plain."""

from __future__ import annotations

import shutil
import string

from rich.console import Console
from rich.text import Text
from textual.content import Content

from stepwise_tui import glyphs
from stepwise_tui.charts.chart import AXIS, MARK
from stepwise_tui.text import clean_lines

COLOURS = ("cyan", "yellow", "magenta", "green", "red", "blue")
"""The terminal's own, so that they suit its background."""
SIGNS = "*ox#@%&$=" + string.ascii_uppercase
"""What stands for the lines, in the same order, where there are no colours, or too few."""
FAINT = "dim"
THEME = {AXIS: FAINT, MARK: FAINT}
"""What the cockpit's theme calls its colours, as a plain terminal knows them."""


class Screen:
    """Standard output. glyphs: what it can show; coloured: whether it shows colours."""

    def __init__(self) -> None:
        self.width, self.height = shutil.get_terminal_size((80, 30))
        self.console = Console(width=self.width, highlight=False)
        self.glyphs = glyphs.detect()
        self.coloured = self.console.color_system is not None and not self.console.no_color

    def print(self, text: Text | str = "") -> None:
        """Lines that are too long go on in the next one, as the terminal has it; nothing is cut."""
        if isinstance(text, str):
            text = clean_lines(text)
        else:
            text.plain = clean_lines(text.plain)
        self.console.print(text, soft_wrap=True, markup=False)

    def braille(self, lines: int) -> bool:
        """Whether dots will do; where lines share a colour they are told apart by signs instead."""
        return self.glyphs.braille and lines <= (len(COLOURS) if self.coloured else 1)

    def chart_size(self, below: int) -> tuple[int, int]:
        """Width and height for a chart with so many lines of text around it."""
        return self.width, min(max(12, self.height - below), max(12, self.width // 4))


def text(chart: Content) -> Text:
    """A chart of `charts` for rich."""
    drawn = Text(chart.plain, no_wrap=True)
    for span in chart.spans:
        style = str(span.style)
        drawn.stylize(THEME.get(style, style), span.start, span.end)
    return drawn
