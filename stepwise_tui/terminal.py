"""The terminal that a process was started from: whether it is there, stopping like any job, giving it up.

A process can neither give its shell back nor fork once CUDA and threads are up. So `split` forks before
anything heavy is imported: the shell waits for the parent, `_Front`, and the child trains and draws, in a
session of its own that no hang-up reaches. They talk over a socket pair, one byte a message.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable

DESCRIPTORS = (0, 1, 2)
LEFT, SHOW, STOP, UNDONE = b"d", b"s", b"z", b"u"
"""To the parent: end, the child goes on without the terminal; wait until the terminal is ours; stop, then
wait so; the child ends without having put the terminal in order."""
YOURS = b"y"
"""From the parent: the terminal is yours. Anything else is the number of a signal that it was sent."""
POLL_SECONDS = 0.5
TOGETHER_SECONDS = 1.0
PATIENCE_SECONDS = 1.0
SHELL_ENDS_SECONDS = 1.0
"""A shell that ends sends SIGTERM to its stopped jobs first, and its terminal is gone a moment later."""

RESTORE = (
    "\x1b[?2004l\x1b[?7h\x1b[?2048l\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?1004l"
    "\x1b[<u\x1b[?1049l\x1b[?25h\x1b[0m"
)
"""What an application that died left on: bracketed paste, no wrapping, reports of sizes, of the mouse and of
the focus, the Kitty keyboard, the alternate screen, no cursor, colours."""


class Terminal:
    """The terminal of this process, for as long as there is one; where none is, `there` is False."""

    def __init__(self) -> None:
        self._descriptors = [d for d in DESCRIPTORS if os.isatty(d)]

    @property
    def whole(self) -> bool:
        """Whether one can draw and read: stdin, stdout and stderr are terminals, and not dumb ones."""
        from trainer.terminals import DUMB  # which loads more than `--help` may take

        return len(self._descriptors) == len(DESCRIPTORS) and os.environ.get("TERM") not in DUMB

    @property
    def there(self) -> bool:
        """Whether the terminal is still there; it may vanish without a signal."""
        return bool(self._descriptors) and all(map(os.isatty, self._descriptors))

    def take(self) -> bool:
        """Wait until the job is in the foreground; False when there is no terminal any more."""
        return in_foreground()

    def stop(self, meanwhile: Callable[[], bool]) -> bool:
        """Stop the job, until the shell brings it to the foreground; False when it does not.

        meanwhile: called now and then where this process goes on; False ends the wait.
        """
        stop_job()
        return in_foreground()

    def give_up(self) -> None:
        """Neither read nor write the terminal any more: what was a terminal is `/dev/null` from now on."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in self._descriptors:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        self._descriptors = []


class Borrowed(Terminal):
    """The terminal of a child that was split off, lent by the parent.

    on_signal: called, in a thread, with a signal that the parent was sent. on_loss: called so when the
    parent is gone, and with it the right to the terminal.
    """

    def __init__(self, parent: socket.socket) -> None:
        super().__init__()
        self._parent = parent
        self._ours = threading.Event()
        self._gone = False
        self.on_signal: Callable[[int], None] = lambda number: None
        self.on_loss: Callable[[], None] = lambda: None

    def listen(self) -> None:
        """Hear the parent, in a thread, from now on."""
        threading.Thread(target=self._listen, name="stepwise-terminal", daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while message := self._parent.recv(1):
                if message == YOURS:
                    self._ours.set()
                else:
                    self.on_signal(message[0])
        self._gone = True
        self.on_loss()

    def take(self) -> bool:
        return self._ask(SHOW, lambda: True)

    def stop(self, meanwhile: Callable[[], bool]) -> bool:
        return self._ask(STOP, meanwhile)

    def _ask(self, message: bytes, meanwhile: Callable[[], bool]) -> bool:
        self._ours.clear()
        self._tell(message)
        while not self._ours.wait(POLL_SECONDS):
            if self._gone or not self.there or not meanwhile():
                return False
        return True

    def give_up(self) -> None:
        super().give_up()
        self._tell(LEFT)

    def leave_undone(self) -> None:
        """This process ends now and leaves the terminal as it is."""
        self._tell(UNDONE)

    def _tell(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            self._parent.send(message)


def split(run: str) -> Borrowed:
    """Fork. Returns in the child; in the parent this raises SystemExit when the child has ended, or has
    given the terminal up. run: what it trains, as commands name it."""
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child:
        theirs.close()
        raise SystemExit(_Front(child, ours, run).stand())
    ours.close()
    os.setsid()
    return Borrowed(theirs)


class _Front:
    """The parent: the foreground job of the shell, in front of the process that trains."""

    def __init__(self, child: int, channel: socket.socket, run: str) -> None:
        self._child = child
        self._run = run
        self._channel = channel
        self._asked = 0
        self._asked_at = 0.0
        self._drawn = False
        self._undone = False
        self._stopped = False
        self._later = 0

    def stand(self) -> int:
        """Serve the child until it has ended or needs the terminal no more; the exit code."""
        attributes = termios.tcgetattr(0)
        handlers: dict[signal.Signals, Callable[[int, object], None]] = {
            signal.SIGINT: self._end,
            signal.SIGTERM: self._end,
            signal.SIGHUP: self._forward,
            signal.SIGQUIT: self._forward,
            signal.SIGWINCH: self._forward,
            signal.SIGTSTP: self._stop,
        }
        for number, handler in handlers.items():
            if number == signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)
        while message := self._hear():
            if message == LEFT:
                return 0
            if message == UNDONE:
                self._undone = True
                continue
            self._drawn = True
            if message == STOP and self._end_while_stopped():
                continue
            if not in_foreground():
                self._channel.shutdown(socket.SHUT_RDWR)  # it goes on without
                return 0
            self._channel.send(YOURS)
        code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        if self._drawn and (self._undone or not 0 <= code <= 128):
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(0, termios.TCSANOW, attributes)
                termios.tcflush(1, termios.TCOFLUSH)
                if select.select([], [1], [], PATIENCE_SECONDS)[1]:
                    os.write(1, RESTORE.encode())
        if code >= 0:
            return code
        if not self._asked:
            with contextlib.suppress(OSError):
                killed = f"the process that trained was killed (signal {-code})"
                helps = f"`stepwise resume {self._run}` goes on from its last checkpoint"
                os.write(2, f"stepwise: {killed}; {helps}\n".encode())
        return 128 + (self._asked or -code)

    def _hear(self) -> bytes:
        try:
            return self._channel.recv(1)
        except OSError:
            return b""

    def _end_while_stopped(self) -> bool:
        """Stop until the shell continues this job; whether it was told to end then, and not by a shell that
        ends itself: that one takes the terminal away, and training goes on."""
        self._stopped = True
        stop_job()
        self._stopped = False
        number, self._later = self._later, 0
        if number:
            time.sleep(SHELL_ENDS_SECONDS)
            if os.isatty(0):
                self._end(number, None)
                return True
        return False

    def _end(self, number: int, frame: object) -> None:
        """The first time ask the child to end; the second time end it."""
        if self._stopped:
            self._later = number
            return
        if self._asked and is_the_same(number, self._asked_at):
            return
        if self._asked:
            self._kill(signal.SIGKILL)
        self._asked, self._asked_at = number, time.monotonic()
        with contextlib.suppress(OSError):
            self._channel.send(bytes([number]))

    def _forward(self, number: int, frame: object) -> None:
        self._kill(number)

    def _stop(self, number: int, frame: object) -> None:
        """With the screen drawn the child has to clear it first, and asks for the stop then."""
        if self._drawn:
            self._kill(number)
        else:
            stop_job()

    def _kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, number)


def is_the_same(number: int, asked_at: float) -> bool:
    """Whether a signal is the one of that time, by `time.monotonic`, once more. `timeout`, for one, signals
    its command, and then the group that this is in; no person sends a second SIGTERM so soon."""
    return number == signal.SIGTERM and time.monotonic() - asked_at < TOGETHER_SECONDS


def stop_job() -> None:
    """Stop this job, with the script or `make` that it may be part of, until it is continued."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(0, signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, before)


def in_foreground() -> bool:
    """Wait until this job may use its terminal, stopped in the meantime as a job in the background is.

    False when there is no terminal any more, or no shell that could bring it back.
    """
    while True:
        try:
            termios.tcsetattr(0, termios.TCSANOW, termios.tcgetattr(0))
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                return False
        else:
            return True
