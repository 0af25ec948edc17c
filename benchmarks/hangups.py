"""Take the terminal away from runs, in ten ways, and see whether each trains on and can be steered.

    python benchmarks/hangups.py --rounds 5 --json docs/results/hangups.json

Each time a tiny run that does not end by itself is started in a pseudo-terminal (or in tmux), and loses it.
It must train on in the same process with no terminal open, acknowledge a pause over its socket, and draw an
attached cockpit, whose key makes it go on. Then the CPU time of such an orphan is compared with that of a run
with `--plain` whose lines go to a file: while paused, and per step while training. Exit 1 when one failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arguments import positive, written
from stepwise_tui.link import SocketLink
from tests.terminal import STEPWISE, Terminal, until
from tests.tiny import endless, kill
from trainer import control, runs, status
from trainer.events import CommandAcknowledged, Event, StateChanged

ROOT = Path(__file__).resolve().parents[1]
NAME = "run"
STEPS, PAIRS = 200, 7
PATIENCE = 120.0  # seconds


def arguments(folder: Path, *options: str) -> list[str]:
    return ["run", "config", endless(folder), "--out", ".", "--name", NAME, *options]


def process_of(folder: Path) -> int:
    found = status.read(folder / NAME)
    assert found is not None
    return found.pid


@contextlib.contextmanager
def in_a_terminal(folder: Path, *options: str, program: tuple[str, ...] = STEPWISE) -> Iterator[Terminal]:
    """A run that trains in a terminal of its own."""
    with contextlib.closing(Terminal(*arguments(folder, *options), cwd=folder, program=program)) as terminal:
        terminal.until("loss" if options else "tok/s", PATIENCE)
        yield terminal


def window_closed(folder: Path) -> None:
    with in_a_terminal(folder) as terminal:
        terminal.hang_up()
        terminal.leave(PATIENCE)


def window_closed_while_loading(folder: Path) -> None:
    with contextlib.closing(Terminal(*arguments(folder), cwd=folder)) as terminal:
        terminal.until("loading torch", PATIENCE)
        terminal.hang_up()
        terminal.leave(PATIENCE)


def window_closed_while_suspended(folder: Path) -> None:
    script = f'{shlex.join(STEPWISE)} "$@"; echo "it stopped"; read'
    with in_a_terminal(folder, program=("bash", "-m", "-c", script, "stepwise")) as terminal:
        terminal.press("ctrl+z")
        terminal.until("it stopped", PATIENCE)
        terminal.hang_up()
        terminal.leave(PATIENCE)


def window_closed_with_hangups_ignored(folder: Path) -> None:
    script = f"trap '' HUP; exec {shlex.join(STEPWISE)} \"$@\""
    with in_a_terminal(folder, program=("sh", "-c", script, "stepwise")) as terminal:
        terminal.hang_up()
        terminal.leave(PATIENCE)


def plain_window_closed(folder: Path) -> None:
    terminal = Terminal(*arguments(folder, "--plain"), cwd=folder)
    terminal.until("loss", PATIENCE)
    terminal.hang_up()
    terminals.append(terminal)


def hung_up_by_signal(folder: Path) -> None:
    with in_a_terminal(folder) as terminal:
        os.kill(process_of(folder), signal.SIGHUP)
        assert terminal.leave(PATIENCE) == 0


def front_hung_up_by_signal(folder: Path) -> None:
    with in_a_terminal(folder) as terminal:
        os.kill(terminal.pid, signal.SIGHUP)
        assert terminal.leave(PATIENCE) == 0


def front_killed(folder: Path) -> None:
    with in_a_terminal(folder) as terminal:
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.leave(PATIENCE)


def vanished_without_a_signal(folder: Path) -> None:
    leader, follower = pty.openpty()
    front = subprocess.Popen(
        [*STEPWISE, *arguments(folder)],
        cwd=folder,
        env=os.environ | {"TERM": "xterm-256color"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    seen = b""
    while b"tok/s" not in seen:
        seen += os.read(leader, 65_536)
    os.close(leader)
    assert front.wait(PATIENCE) == 0


def tmux_session_killed(folder: Path) -> None:
    tmux = ["tmux", "-L", f"hangups-{os.getpid()}-{folder.name}", "-f", os.devnull]
    subprocess.run(
        [*tmux, "new-session", "-d", "-x", "120", "-y", "40", shlex.join([*STEPWISE, *arguments(folder)])],
        cwd=folder,
        check=True,
    )

    def shown() -> bool:
        done = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=False)
        return "tok/s" in done.stdout

    until(shown, PATIENCE)
    subprocess.run([*tmux, "kill-session"], check=True)


WAYS: tuple[Callable[[Path], None], ...] = (
    window_closed,
    window_closed_while_loading,
    window_closed_while_suspended,
    window_closed_with_hangups_ignored,
    plain_window_closed,
    hung_up_by_signal,
    front_hung_up_by_signal,
    front_killed,
    vanished_without_a_signal,
    tmux_session_killed,
)
terminals: list[Terminal] = []
"""Whose program is the run itself, and ends with it."""


class Steering:
    """A run, steered over its socket; what it tells is taken in order."""

    def __init__(self, run: Path) -> None:
        self._link = SocketLink(run, history=False)
        self._heard: deque[Event] = deque()

    def ask(self, line: str) -> int:
        """Send a command and wait until it is acknowledged as done; the step then."""
        command = control.parse(line, source="hangups")
        self._link.send(command)
        answer = self.hear(lambda e: isinstance(e, CommandAcknowledged) and e.id == command.id)
        assert isinstance(answer, CommandAcknowledged)
        assert answer.ok, answer.message
        return answer.at.step

    def hear(self, wanted: Callable[[Event], bool]) -> Event:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            while self._heard:
                if wanted(event := self._heard.popleft()):
                    return event
            self._heard.extend(self._link.drain())
            time.sleep(0.01)
        raise AssertionError("it was never told")


def let_go(folder: Path) -> int:
    """Wait until the process that trains has let go of its terminal; its pid."""
    until(lambda: runs.is_run(folder / NAME) and runs.row(folder / NAME).step > 0, PATIENCE)
    pid = process_of(folder)
    until(lambda: {os.readlink(f"/proc/{pid}/fd/{d}") for d in (0, 1, 2)} == {os.devnull}, PATIENCE)
    return pid


def reattach(folder: Path) -> float:
    """Steer the orphan by its socket and by an attached cockpit; the CPU seconds a second it takes paused."""
    pid = let_go(folder)
    steering = Steering(folder / NAME)
    steering.ask("pause")
    idle = cpu(pid, 2.0)
    with contextlib.closing(Terminal("attach", NAME, "--out", ".", cwd=folder)) as attached:
        attached.until("PAUSED", PATIENCE)
        attached.press("space")
        attached.until("TRAINING", PATIENCE)
        attached.press("d")
        assert attached.leave(PATIENCE) == 0
    assert process_of(folder) == pid, "another process trains it"
    steering.ask("stop")
    until(lambda: runs.row(folder / NAME).state == "interrupted", PATIENCE)
    return idle


def cpu(pid: int, seconds: float) -> float:
    """CPU seconds that a process takes in a second."""
    process = psutil.Process(pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)


def paused(steering: Steering, pid: int) -> float:
    """CPU seconds a second."""
    steering.ask("pause")
    return cpu(pid, 5.0)


def training(steering: Steering, pid: int) -> float:
    """CPU milliseconds a step."""
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    first = steering.ask(f"run {STEPS}")
    last = steering.hear(lambda e: isinstance(e, StateChanged) and e.state == "paused").at.step
    return 1000 * (sum(process.cpu_times()[:2]) - before) / (last - first)


def plain(folder: Path) -> int:
    """Begin a run whose lines go to a file; its pid."""
    with (folder / "lines").open("w") as lines:
        run = subprocess.Popen(
            [*STEPWISE, *arguments(folder, "--plain")],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
        )
    until(lambda: runs.is_run(folder / NAME) and runs.row(folder / NAME).step > 0, PATIENCE)
    return run.pid


def compare(folder: Path) -> dict[str, dict[str, list[float]]]:
    """The orphan of a closed window beside a run with `--plain`: both are there, and are measured in turn."""
    pids = {}
    for name in ("orphan", "plain"):
        here = folder / f"costs-{name}"
        here.mkdir()
        if name == "plain":
            pids[name] = plain(here)
        else:
            window_closed(here)
            pids[name] = let_go(here)
        Steering(here / NAME).ask("pause")
    found: dict[str, dict[str, list[float]]] = {name: {} for name in pids}
    for _ in range(PAIRS):
        for name, pid in pids.items():
            steering = Steering(folder / f"costs-{name}" / NAME)
            found[name].setdefault("paused_cpu_per_second", []).append(round(paused(steering, pid), 4))
            found[name].setdefault("cpu_ms_per_step", []).append(round(training(steering, pid), 2))
    for name in pids:
        kill(folder / f"costs-{name}" / NAME)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--json", type=written, default=None, help="write the result here")
    options = parser.parse_args()
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    base = Path(tempfile.mkdtemp(prefix="hangups-"))
    os.environ["XDG_STATE_HOME"] = str(base)
    ways = [way for way in WAYS if way is not tmux_session_killed or shutil.which("tmux")]
    compared = compare(base)
    print(json.dumps(compared), flush=True)
    failed: list[str] = []
    idle: list[float] = []

    def lose(name: str, way: Callable[[Path], None]) -> None:
        folder = base / name
        folder.mkdir()
        try:
            way(folder)
            idle.append(reattach(folder))
        except Exception as problem:
            traceback.print_exc()
            failed.append(f"{name}: {problem}".splitlines()[0])
        finally:
            kill(folder / NAME)
        print(f"{name}: {len(idle)} reattached, {len(failed)} failed so far", flush=True)

    with ThreadPoolExecutor(2) as pool:
        for number in range(options.rounds):
            for way in ways:
                pool.submit(lose, f"{way.__name__}-{number}", way)
    for terminal in terminals:
        terminal.close()
    result = {
        "hangups": options.rounds * len(ways),
        "reattached": len(idle),
        "failed": failed,
        "ways": [way.__name__ for way in ways],
        "costs": compared,
        "most_paused_cpu_per_second": round(max(idle, default=0.0), 4),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    shutil.rmtree(base, ignore_errors=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
