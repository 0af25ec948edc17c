"""How long the cockpit takes from its imports to its first whole screen, on a real pseudo-terminal.

    PYTHONPATH=. python benchmarks/first_paint.py --times 9

Each time in a process of its own: everything that the screen needs is imported, the events of a run in the
middle of its training are at hand, and then the clock starts. It stops when the screen that has taken in the
events has been written. Beside the time that passed stands the time that the process computed, which other
programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import datetime
import fcntl
import os
import platform
import pty
import struct
import subprocess
import sys
import termios
import threading
from statistics import median

CHILD = """
import os, sys, time
from pathlib import Path
import stepwise_tui
from stepwise_tui import link, session
from stepwise_tui.app import Cockpit
from stepwise_tui.driver import Driver
from stepwise_tui.terminal import Terminal
from stepwise_tui.glyphs import UNICODE
from tests import scripted
events = scripted.training().events
class Measured(Cockpit):
    CSS_PATH = Path(stepwise_tui.__file__).with_name("styles.tcss")
    def on_ready(self):
        super().on_ready()
        self.call_after_refresh(self.call_later, self.done)
    def done(self):
        self.took = time.perf_counter() - started, time.process_time() - computed
        self.exit("leave")
started, computed = time.perf_counter(), time.process_time()
app = Measured(scripted.ScriptedLink(events), Terminal(), glyphs=UNICODE)
app.run()
os.write(int(sys.argv[1]), repr(app.took).encode())
"""


def once(columns: int, rows: int) -> tuple[float, float]:
    """Seconds that passed, and seconds computed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    answer, told = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(told)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        pass_fds=[told],
        start_new_session=True,
    )
    os.close(theirs)
    os.close(told)
    drawn: list[bytes] = []
    threading.Thread(target=_read, args=(ours, drawn), daemon=True).start()
    said = os.read(answer, 200)
    child.wait()
    os.close(answer)
    if not said:
        raise SystemExit(b"".join(drawn).decode())
    passed, computed = ast.literal_eval(said.decode())
    return passed, computed


def _read(terminal: int, drawn: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 65_536):
            drawn.append(data)
    os.close(terminal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--size", type=int, nargs=2, default=(120, 40), metavar=("COLUMNS", "ROWS"))
    options = parser.parse_args()
    measured = [once(*options.size) for _ in range(options.times)]
    passed, computed = (sorted(column) for column in zip(*measured, strict=True))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}"
    print(f"{datetime.date.today()}, {machine}")
    for name, column in (("passed", passed), ("computed", computed)):
        print(f"{name}: median {median(column):.2f} s ({column[0]:.2f} to {column[-1]:.2f})")


if __name__ == "__main__":
    main()
