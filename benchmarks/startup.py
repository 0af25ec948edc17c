"""How long until something happens, in pairs: ours, then what it is measured against, again and again.

    python benchmarks/startup.py --pairs 15 --out docs/results

`stepwise --help` against a two-command Typer program; the time from the command to the first training
step against `python -c "import torch, transformers"`. Both through the same interpreter.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from trainer.events import Metrics
from trainer.record import journal

TWO_COMMANDS = """
import typer
app = typer.Typer()
@app.command()
def run(name: str) -> None:
    "Run a thing."
@app.command()
def resume(name: str) -> None:
    "Resume a thing."
app()
"""
STEPWISE = [sys.executable, "-m", "stepwise_tui"]
ONE_STEP = ["--set", "stop.steps=1", "--set", "log.every=1"]


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def help_of(script: Path) -> float:
    return seconds([sys.executable, str(script), "--help"])


def to_first_step(out: Path) -> float:
    """From starting the command to the time stamp of the first step in its journal."""
    folder = out / "first"
    shutil.rmtree(folder, ignore_errors=True)
    started = time.time()
    subprocess.run(
        [*STEPWISE, "run", "preset", "mult2x2", "--plain", "--out", str(out), "--name", "first", *ONE_STEP],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return next(e.at.time for e in journal.read(folder) if isinstance(e, Metrics)) - started


def pairs(n: int, ours: Callable[[], float], theirs: Callable[[], float]) -> list[tuple[float, float]]:
    ours(), theirs()  # the first of each warms the file cache
    return [(ours(), theirs()) for _ in range(n)]


def row(name: str, limit: float, measured: list[tuple[float, float]]) -> str:
    ratios = sorted(a / b for a, b in measured)
    ours, theirs = (median(column) for column in zip(*measured, strict=True))
    return (
        f"| {name} | {ours:.2f} s | {theirs:.2f} s | **{median(ratios):.2f}** "
        f"({ratios[0]:.2f}–{ratios[-1]:.2f}) | ≤ {limit} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "two_commands.py"
        script.write_text(TWO_COMMANDS)
        helps = pairs(options.pairs, lambda: seconds([*STEPWISE, "--help"]), lambda: help_of(script))
        imports = [sys.executable, "-c", "import torch, transformers"]
        starts = pairs(options.pairs, lambda: to_first_step(Path(folder)), lambda: seconds(imports))
    text = "\n".join(
        [
            "# Start-up",
            "",
            f"`python benchmarks/startup.py --pairs {options.pairs}`",
            "",
            f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, "
            f"Python {platform.python_version()}. {options.pairs} pairs, one after the other; medians, and "
            "the spread of the ratio.",
            "",
            "| | ours | beside it | ratio | goal |",
            "|---|---|---|---|---|",
            row("`stepwise --help` : two-command Typer program", 1.5, helps),
            row("command to first training step : `import torch, transformers`", 2, starts),
            "",
        ]
    )
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "startup.md").write_text(text)


if __name__ == "__main__":
    main()
