"""The charts of the screen."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content
from textual.widgets import Static

from stepwise_tui.charts.curves import Curve, View
from stepwise_tui.history import History

Draw = Callable[[History, tuple[int, int], View], Content]


class ChartPanel(Static, can_focus=True):
    """One chart. Drawn anew only when the numbers, the size or the view have changed."""

    def __init__(self, title: str, draw: Draw, curves: tuple[Curve, ...], id: str) -> None:
        super().__init__(id=id, classes="panel")
        self._title, self._draw, self._curves = title, draw, curves
        self._history = History()
        self._view = View()
        self._key: tuple[object, ...] = ()
        self._picture = Content("")

    def show(self, history: History, view: View) -> None:
        """Take up the numbers as they are now."""
        self._history, self._view = history, view
        if self._key[:2] != (history.drawn, view):
            self._retitle()
            self.refresh()

    def render(self) -> Content:
        size = (self.content_size.width, self.content_size.height)
        key = (self._history.drawn, self._view, size)
        if key != self._key:
            self._key, self._picture = key, self._draw(self._history, size, self._view)
        return self._picture

    def _retitle(self) -> None:
        stroke = "━" if self._view.braille else ""
        names = [f"[{curve.style}]{stroke or curve.sign} {curve.name}[/]" for curve in reversed(self._curves)]
        scale = " · log" if self._view.log and self.id == "loss" else ""
        title = f"{self._title}{scale}  {'  '.join(names)}"
        if self.border_title != title:
            self.border_title = title
