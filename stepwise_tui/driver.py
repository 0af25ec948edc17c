"""Textual's terminal driver, for a terminal that may vanish and a process that must not stop.

Textual's own ends its writing thread at the first error, and the screen then waits for it for ever; it stops
the whole process on SIGTSTP; and on SIGCONT it starts a second pair of threads. Its parser drops the escape
that it reads together with a comma.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Key

from stepwise_tui.text import clean

if TYPE_CHECKING:
    from stepwise_tui.on_terminal import OnTerminal


class Parser(XTermParser):
    """Reads alt with a sign as such, as Textual's does with a letter. `TypingAhead` makes two keys of it."""

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[Key]:
        for key in super()._sequence_to_key_events(sequence, alt):
            sign = alt and key.is_printable and not key.key.startswith("alt+")
            yield Key(f"alt+{key.key}", key.character) if sign else key


linux_driver.XTermParser = Parser  # type: ignore[attr-defined]

UNKNOWN_SIZE = (24, 80)
"""Lines and columns."""


class Driver(LinuxDriver):
    """Draws on stderr, reads stdin."""

    def __init__(self, app: OnTerminal, **options: Any) -> None:
        super().__init__(app, **options)
        self._file: Any = _Patient(self._file)
        self._settle_size()
        signal.signal(signal.SIGTSTP, lambda *_: app.ask("suspend"))
        signal.signal(signal.SIGCONT, lambda *_: app.ask("redraw"))

    _abandoned = False

    def _settle_size(self) -> None:
        """Tell a console that does not know its size, as a serial one or a container's, the usual one.

        Else Textual takes it to have 24 lines in one place and 25 in another, and never stops resizing.
        """
        with contextlib.suppress(OSError, termios.error):
            if 0 in termios.tcgetwinsize(self.fileno):
                termios.tcsetwinsize(self.fileno, UNKNOWN_SIZE)

    def start_application_mode(self) -> None:
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self.write("\x1b[22;2t")  # the terminal keeps its title, for the end

    def stop_application_mode(self) -> None:
        self.write("\x1b[23;2t")
        super().stop_application_mode()
        self.write("\r\x1b[K")  # keys that came while all was loading were echoed here
        self.flush()

    def title(self, text: str) -> None:
        """What the window or the tab is called."""
        self.write(f"\x1b]2;{clean(text)}\x07")
        self.flush()

    def notify(self, text: str) -> None:
        """Have the terminal show a message outside of its window, where it can (OSC 9).

        tmux passes it on where `allow-passthrough` is set.
        """
        message = f"\x1b]9;{clean(text)}\x07"
        if os.environ.get("TMUX"):
            message = "\x1bPtmux;{}\x1b\\".format(message.replace("\x1b", "\x1b\x1b"))
        self.write(message)
        self.flush()

    def abandon(self) -> None:
        """Neither draw nor read any more: at a terminal that is gone Textual reads its end over and over."""
        self._abandoned = True
        self.exit_event.set()

    def write(self, data: str) -> None:
        if not self._abandoned:
            super().write(data)

    def redraw(self) -> None:
        """Take the terminal anew: after a stop that nobody could foresee the shell has set it its own way."""
        self.suspend_application_mode()
        self.resume_application_mode()

    def _run_input_thread(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone: the cockpit looks for that itself
            self.run_input_thread()


class _Patient:
    """A file whose errors nobody hears: what a terminal that is gone does not show is no loss."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()
