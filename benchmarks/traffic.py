"""How many bytes a minute the cockpit sends to its terminal while a tiny run trains.

    PYTHONPATH=. python benchmarks/traffic.py --json docs/results/traffic.json

A run of the smallest size trains in one process; `stepwise attach` shows it on a real pseudo-terminal. After
the first screen is there and has settled, what the cockpit writes is counted for so many seconds. `--frugal`
and other options of attach are passed on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arguments import positive, written
from tests.terminal import Terminal
from tests.tiny import endless, kill
from trainer import runs

SIZES = ((80, 24), (120, 40), (200, 60))
SETTLED = 12.0
"""Seconds before the counting: the hint and the first message go away meanwhile, or do not come any more."""


class Row(NamedTuple):
    """What one cockpit wrote. steps: that the run made meanwhile."""

    columns: int
    rows: int
    options: str
    seconds: float
    bytes: int
    steps: int

    @property
    def per_minute(self) -> float:
        return self.bytes / self.seconds * 60


def measure(run: Path, columns: int, rows: int, options: list[str], seconds: float) -> Row:
    terminal = Terminal("attach", str(run), *options, cwd=run.parent, columns=columns, rows=rows)
    try:
        terminal.until("TRAINING", 120)
        terminal.read(SETTLED)
        before, step, started = len(terminal.raw), _step(run), time.monotonic()
        while time.monotonic() - started < seconds:
            terminal.read(0.5)
        took = time.monotonic() - started
        sent = len(terminal.raw) - before
        print(terminal.text, file=sys.stderr)
        return Row(columns, rows, " ".join(options), took, sent, _step(run) - step)
    finally:
        terminal.close()


def _step(run: Path) -> int:
    return int(json.loads((run / "status.json").read_text())["step"])


def report(rows: list[Row], command: str) -> str:
    lines = [
        "| size | options | seconds | steps of the run | kB | kB a minute |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.columns}×{r.rows} | {r.options or '–'} | {r.seconds:.0f} | {r.steps:,} | {r.bytes / 1e3:.0f} "
        f"| **{r.per_minute / 1e3:.0f}** |"
        for r in rows
    ]
    machine = f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores"
    return "\n".join([f"`{command}`", "", f"{machine}.", "", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", nargs=2, type=int, action="append", metavar=("COLUMNS", "ROWS"))
    parser.add_argument("--with", nargs="*", dest="options", default=[], help="options of attach, without --")
    parser.add_argument("--log-every", type=positive, default=10, help="steps between two metrics events")
    parser.add_argument("--json", type=written)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="traffic"))
    file = endless(folder, log__every=options.log_every, eval__every=500)
    run = folder / "run"
    command = [
        sys.executable,
        "-m",
        "stepwise_tui",
        "run",
        "config",
        file,
        "--out",
        str(folder),
        "--name",
        "run",
    ]
    host = subprocess.Popen([*command, "--plain"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while runs.lives(run) is None or not _trains(run):
            time.sleep(0.2)
        passed = [f"--{option}" for option in options.options]
        rows = [measure(run, *size, passed, options.seconds) for size in options.size or SIZES]
    finally:
        kill(run)
        host.wait()
        shutil.rmtree(folder, ignore_errors=True)
    print(report(rows, "python " + " ".join(sys.argv)))
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")


def _trains(run: Path) -> bool:
    return (run / "status.json").exists() and _step(run) > 0


if __name__ == "__main__":
    main()
