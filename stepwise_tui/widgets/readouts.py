"""Widgets of one or a few lines that show what a function makes of the history."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content
from textual.widgets import Static

from stepwise_tui.history import History


def same(one: Content | None, other: Content | None) -> bool:
    """Whether two texts look the same; their own comparison leaves the styles out."""
    if one is None or other is None:
        return one is other
    return one.plain == other.plain and one.spans == other.spans


Write = Callable[[History, int], Content | None]


class Readout(Static):
    """Lines written by a function of the history and the width. None hides it."""

    def __init__(self, write: Write, id: str) -> None:
        super().__init__(id=id)
        self._write = write
        self._history = History()
        self._text: Content | None = Content("")

    def show(self, history: History) -> None:
        """Write it anew; touch the screen only when it reads differently."""
        self._history = history
        text = self._write(history, max(1, self.app.size.width - self.gutter.width))
        if same(text, self._text):
            return
        self._text = text
        self.display = text is not None
        if text is not None:
            height = self.styles.height
            self.update(text, layout=height is not None and height.is_auto)

    def on_resize(self) -> None:
        self.show(self._history)
