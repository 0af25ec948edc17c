"""Textual's terminal driver, for a terminal that may vanish and a process that must not stop.

Textual's own ends its writing thread at the first error, and the screen then waits for it for ever; it stops
the whole process on SIGTSTP; and on SIGCONT it starts a second pair of threads.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any, TextIO

from textual.drivers.linux_driver import LinuxDriver

if TYPE_CHECKING:
    from stepwise_tui.app import Cockpit


class Driver(LinuxDriver):
    """Draws on stderr, reads stdin."""

    def __init__(self, app: Cockpit, **options: Any) -> None:
        super().__init__(app, **options)
        self._file: Any = _Patient(self._file)
        signal.signal(signal.SIGTSTP, lambda *_: app.ask("suspend"))
        signal.signal(signal.SIGCONT, lambda *_: app.ask("redraw"))

    _abandoned = False

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
