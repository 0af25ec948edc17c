"""What the cockpit costs the trainer, and what the trainer costs the cockpit.

    python benchmarks/cockpit_cost.py --pairs 5 --seconds 60 --json docs/results/cockpit_cost.json

mult2x2, the smallest model there is a preset for, with both cores at its disposal: in turn with `--plain`,
its lines going nowhere, and with the cockpit in a pseudo-terminal of 200×60, which shows every panel; in
pairs whose order changes. The speed is told by the journal's metrics events. Then keys are pressed
while it trains: the time from a key to the answer to it on the terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arguments import positive, written
from tests.terminal import STEPWISE, Terminal, until
from tests.tiny import kill
from trainer.events import Metrics
from trainer.record import journal

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, ROWS = 200, 60
NAME = "run"
SKIPPED = 5
"""Metrics events at the start that are not counted."""
SETTINGS = ("--set", "stop.accuracy=none", "--set", "stop.steps=1000000", "--set", "eval.every=1000000")
"""It neither ends nor evaluates meanwhile, so that nothing but steps is timed."""
ACKNOWLEDGED_MS = 100.0


class Window(Terminal):
    """A terminal that nobody looks at: what is drawn is read, and not laid out."""

    def take(self, data: bytes) -> None:
        self.raw += data


def arguments(*more: str) -> list[str]:
    return ["run", "preset", "mult2x2", "--out", ".", "--name", NAME, *SETTINGS, *more]


def metrics(folder: Path) -> list[Metrics]:
    return [e for e in journal.read(folder / NAME) if isinstance(e, Metrics)]


def begun(folder: Path) -> bool:
    return (folder / NAME / "journal.jsonl").exists() and len(metrics(folder)) > SKIPPED


def rate(folder: Path, steps: int | None = None) -> tuple[float, int]:
    """Steps per second, and over how many steps."""
    told = metrics(folder)[SKIPPED:]
    if steps is not None:
        told = [e for e in told if e.at.step <= told[0].at.step + steps]
    first, last = told[0].at, told[-1].at
    return (last.step - first.step) / (last.time - first.time), last.step - first.step


def plain(seconds: float) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = subprocess.Popen(
            [*STEPWISE, *arguments("--plain")], cwd=folder, env=surroundings(), stdout=subprocess.DEVNULL
        )
        try:
            until(lambda: begun(folder), 120)
            time.sleep(seconds)
        finally:
            kill(folder / NAME)
            process.wait()
        return rate(folder)[0]


def surroundings() -> dict[str, str]:
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": python_path}


@contextlib.contextmanager
def cockpit(folder: Path) -> Any:
    os.environ.update(surroundings())
    threads = os.environ.pop("OMP_NUM_THREADS", None)
    program = ("env", *(["-u", "OMP_NUM_THREADS"] if threads is None else []), *STEPWISE)
    with contextlib.closing(
        Window(*arguments(), cwd=folder, columns=COLUMNS, rows=ROWS, program=program)
    ) as window:
        try:
            while not begun(folder):
                window.read(0.5)
            yield window
        finally:
            kill(folder / NAME)


def watched(seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name, cockpit(Path(name)) as window:
        before, end = len(window.raw), time.monotonic() + seconds
        while time.monotonic() < end:
            window.read(0.5)
        drawn = len(window.raw) - before
        return {"rate": rate(Path(name))[0], "bytes_per_minute": drawn * 60 / seconds}


def key_presses(count: int) -> list[float]:
    """Milliseconds from a key to its answer on the terminal."""
    rng = random.Random(0)
    delays = []
    with tempfile.TemporaryDirectory() as name, cockpit(Path(name)) as window:
        for number in range(count):
            end = time.monotonic() + rng.uniform(0.4, 1.2)
            while time.monotonic() < end:
                window.read(0.05)
            wanted = b"release" if number % 2 else b"hold"
            before, pressed = len(window.raw), time.monotonic()
            os.write(window._master, b"h")
            while wanted not in window.raw[before:]:
                assert time.monotonic() < pressed + 30, "the key was not answered"
                window.read(0.001)
            delays.append((time.monotonic() - pressed) * 1e3)
            end = time.monotonic() + 1.0  # until the acknowledgement of the trainer is drawn as well
            while time.monotonic() < end:
                window.read(0.05)
    return delays


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=positive, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, in each process")
    parser.add_argument("--keys", type=positive, default=60, help="keys pressed")
    parser.add_argument("--json", type=written, default=None, help="write the result here")
    options = parser.parse_args()
    pairs: list[dict[str, float]] = []
    for number in range(options.pairs):
        pair: dict[str, float] = {}
        for kind in ("plain", "watched")[:: -1 if number % 2 else 1]:
            if kind == "plain":
                pair["plain"] = plain(options.seconds)
            else:
                pair |= watched(options.seconds)
        pair["share"] = pair["rate"] / pair["plain"]
        pairs.append(pair)
        print(
            f"plain {pair['plain']:.2f}, with the cockpit {pair['rate']:.2f} steps/s: {pair['share']:.1%}; "
            f"{pair['bytes_per_minute'] / 1e3:,.0f} kB a minute; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    delays = sorted(key_presses(options.keys))
    result: dict[str, Any] = {
        "pairs": pairs, "median_share": statistics.median(p["share"] for p in pairs) if pairs else None,
        "key_ms": {
            "median": statistics.median(delays),
            "p95": delays[int(0.95 * (len(delays) - 1))],
            "most": delays[-1],
        },
        "columns": COLUMNS, "rows": ROWS, "cores": os.cpu_count(), "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in ("median_share", "key_ms")}))
    return result["key_ms"]["p95"] > ACKNOWLEDGED_MS


if __name__ == "__main__":
    sys.exit(main())
