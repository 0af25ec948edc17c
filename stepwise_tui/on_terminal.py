"""What the cockpit does with its terminal, as a part of the cockpit.

It draws there, and only what differs; gives it back to the shell for a while; takes up its size; ends without
it when it is gone. What signals and the shell ask for is here, and nothing of a run.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from typing import Literal

from rich.console import RenderableType
from textual._compositor import CompositorUpdate
from textual.events import Resize
from textual.geometry import Size
from textual.screen import Screen

from stepwise_tui.driver import Driver
from stepwise_tui.painting import Painting
from stepwise_tui.terminal import Terminal
from stepwise_tui.typing_ahead import TypingAhead

Departure = Literal["stop", "leave"]
"""How a cockpit ended: the run shall end too, or go on without it."""


class _TerminalLostError(Exception):
    """It did not come back after a stop."""


class OnTerminal(TypingAhead[Departure]):
    """An app that does what signals and its terminal ask of it, and ends without a terminal that is gone."""

    def __init__(self, terminal: Terminal | None) -> None:
        """terminal: what it is drawn on; None in a test."""
        super().__init__(driver_class=Driver if terminal is not None else None)
        self._terminal = terminal
        self._asked: deque[Departure | Literal["suspend", "redraw"]] = deque()
        self._painting = Painting()
        self._named = ""

    def keep_up(self) -> None:
        """Take in what happens while nothing is drawn."""
        raise NotImplementedError

    def attend(self) -> bool:
        """Do what was asked for, and look after the terminal; False when it is gone, and the app ends."""
        if self._asked:
            self._obey(self._asked.popleft())
        if self._terminal is not None and not self._terminal.there:
            self._abandon()
            return False
        self._follow_size()
        return True

    def ask(self, what: Departure | Literal["suspend", "redraw"]) -> None:
        """For signals and other threads: to be done at the next tick."""
        self._asked.append(what)

    def call(self, message: str) -> None:
        """Get the person's attention, who may be looking elsewhere."""
        self.bell()
        if isinstance(self._driver, Driver):
            self._driver.notify(message)

    def name_window(self, name: str) -> None:
        """What the terminal's window, or its tab, is called."""
        if name != self._named and isinstance(self._driver, Driver):
            self._named = name
            self._driver.title(name)

    def _obey(self, what: Departure | Literal["suspend", "redraw"]) -> None:
        match what:
            case "suspend":
                self.action_suspend()
            case "redraw" if isinstance(self._driver, Driver):
                self._driver.redraw()
                self._painting.forget()
                self.refresh(layout=True)
            case "stop" | "leave":
                self.exit(what)

    def action_suspend(self) -> None:
        """Give the shell back for a while, as ctrl+z does everywhere; the run goes on meanwhile."""
        if self._terminal is None:
            return
        with contextlib.suppress(_TerminalLostError), self.suspend():
            if not self._terminal.stop(self._meanwhile):
                self._abandon()
                raise _TerminalLostError  # so that nothing is drawn again
        self._painting.forget()
        if self._asked and self._asked[0] == "redraw":
            self._asked.popleft()  # that was the signal which brought it back

    def _abandon(self) -> None:
        """End without the terminal, which is gone or the shell's."""
        assert self._terminal is not None
        assert isinstance(self._driver, Driver)
        self._terminal.give_up()
        self._driver.abandon()
        self.exit("stop" if "stop" in self._asked else "leave")

    def _meanwhile(self) -> bool:
        """What the app does while it is stopped; False when it shall end."""
        self.keep_up()
        return not {"stop", "leave"}.intersection(self._asked)

    def _follow_size(self) -> None:
        """Take up the terminal's size where the signal of a resize was lost, as it is on a busy machine."""
        if self.is_headless or sys.__stdout__ is None or not sys.__stdout__.isatty():
            return
        size = Size(*os.get_terminal_size(sys.__stdout__.fileno()))
        if size != self.size:
            self.post_message(Resize(size, size))

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        """Textual's, for each update of the screen: send what differs, not what was drawn anew."""
        if isinstance(renderable, CompositorUpdate):
            renderable = self._painting.only_changes(renderable, self.size)
        super()._display(screen, renderable)
