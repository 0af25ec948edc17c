"""A real pseudo-terminal with a program in it, and pyte as the eyes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

STEPWISE = (sys.executable, "-m", "stepwise_tui")


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that is not on a screen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


class Terminal:
    """`stepwise …`, or another program, in a pseudo-terminal of its own. Close it when done.

    With `controlling` false the program writes to the terminal without being its session's.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        columns: int = 80,
        rows: int = 24,
        program: tuple[str, ...] = STEPWISE,
        controlling: bool = True,
        term: str = "xterm-256color",
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        environment = os.environ | {
            "TERM": term,
            "COLORTERM": "truecolor",
            "OMP_NUM_THREADS": "1",
        }
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])
        )
        self._master, other = pty.openpty()
        self.pid = os.fork()
        if self.pid == 0:
            if controlling:
                os.login_tty(other)
            else:  # nobody is told by a signal when it goes
                os.setsid()
                for descriptor in range(3):
                    os.dup2(other, descriptor)
            os.chdir(cwd)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a terminal, also where nohup began the tests
            os.execvpe(program[0], [*program, *arguments], environment)
        os.close(other)
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """As when a person drags the window's corner."""
        self.screen.resize(rows, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def forget_size(self) -> None:
        """As a serial console, or a container's, that was never told its size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def read(self, seconds: float = 0.1) -> None:
        """Take in what the program has drawn."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and (data := self.receive(left)):
            self.take(data)

    def receive(self, seconds: float) -> bytes | None:
        """What the program draws next, not shown yet; None when it draws nothing, or is gone."""
        if self._master < 0 or self._master not in select.select([self._master], [], [], seconds)[0]:
            return None
        try:
            return os.read(self._master, 65_536) or None
        except OSError:  # the other side is gone
            return None

    def take(self, data: bytes) -> None:
        """Show what was drawn."""
        self.raw += data
        self._stream.feed(data)

    def press(self, *keys: str) -> None:
        """Type: characters as they are, or names of `KEYS`."""
        for key in keys:
            os.write(self._master, KEYS.get(key, key).encode())
            self.read(0.15)

    def until(self, condition: str | Callable[[str], bool], seconds: float = 60.0) -> str:
        """Read until the screen shows a text or satisfies a condition; the screen then."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            shown = self.text
            if condition in shown if isinstance(condition, str) else condition(shown):
                return shown
            self.read()
        raise AssertionError(f"not seen within {seconds:g} s: {condition}\n{self.text}")

    def leave(self, seconds: float = 30.0) -> int:
        """Wait for the program to end; its exit status."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.read()
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"still running after {seconds:g} s:\n{self.text}")

    def freeze(self) -> None:
        """Let the terminal take nothing more, as when the line hangs."""
        self._flow(termios.TCOOFF)

    def thaw(self) -> None:
        self._flow(termios.TCOON)

    def _flow(self, action: int) -> None:
        side = os.open(f"/proc/{self.pid}/fd/0", os.O_RDWR | os.O_NOCTTY)
        termios.tcflow(side, action)
        os.close(side)

    def hang_up(self) -> None:
        """The window is closed, or the line drops."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self._master >= 0:
            os.close(self._master)


KEYS = {
    "space": " ",
    "enter": "\r",
    "escape": "\x1b",
    "tab": "\t",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "left": "\x1b[D",
    "right": "\x1b[C",
    "shift+left": "\x1b[1;2D",
    "shift+right": "\x1b[1;2C",
    "ctrl+c": "\x03",
    "ctrl+p": "\x10",
    "ctrl+q": "\x11",
    "ctrl+z": "\x1a",
}
