"""Does `mult2x2-breaks` break, how soon is it told, and does the tutorial's remedy save it?

    python benchmarks/breaks.py --seeds 0 1 2 --out docs/results

Each seed: train to the alarm; train on, lost, for 1,000 steps more; then do what the tutorial says: hold the
schedule, roll back to the stage that the alarm names, and give it time, here 1,500 steps.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from trainer import presets
from trainer.control import parse
from trainer.events import AlarmRaised, CommandAcknowledged, Evaluated, Event, RunCrashed
from trainer.run import Run

LOST_STEPS, SAVED_STEPS = 1_000, 1_500
T = TypeVar("T", bound=Event)


class Operator:
    """Sits before a run as a person would: waits for what is told, and gives commands."""

    def __init__(self, run: Run) -> None:
        self.run = run
        run.start()
        self._news = run.subscribe()
        self._coming: deque[Event] = deque()
        self.seen: list[Event] = []

    def until(self, kind: type[T], where: Callable[[T], bool]) -> T:
        while True:
            self._coming.extend(self._news.drain())
            while self._coming:
                event = self._coming.popleft()
                self.seen.append(event)
                assert not isinstance(event, RunCrashed), event.error
                if isinstance(event, kind) and where(event):
                    return event
            time.sleep(0.05)

    def do(self, line: str) -> CommandAcknowledged:
        command = parse(line, source="benchmark")
        self.run.submit(command)
        return self.until(CommandAcknowledged, lambda e: e.id == command.id)

    def accuracies(self, branch: int, after: int) -> list[Evaluated]:
        return [
            e for e in self.seen if isinstance(e, Evaluated) and e.at.branch == branch and e.at.step > after
        ]


def story(seed: int, folder: Path) -> str:
    """One row of the table."""
    operator = Operator(Run(presets.resolve("mult2x2-breaks", {"seed": seed, "stop.steps": 100_000}), folder))
    alarm = operator.until(AlarmRaised, lambda e: True)
    before = max(e.accuracy for e in operator.accuracies(1, 0) if e.at.stage == 0)
    seconds = alarm.at.time - operator.seen[0].at.time
    lost_at = alarm.at.step + LOST_STEPS
    operator.until(Evaluated, lambda e: e.at.step >= lost_at)
    lost = max(e.accuracy for e in operator.accuracies(1, alarm.at.step))
    operator.do("hold")
    back = operator.do(f"rollback {alarm.target}")
    operator.until(Evaluated, lambda e: e.at.branch == 2 and e.at.step >= back.at.step + SAVED_STEPS)
    saved = operator.accuracies(2, back.at.step)
    recovered = next((e for e in saved if e.accuracy >= 0.9), None)
    operator.run.close()
    took = f"{recovered.at.step - back.at.step} steps" if recovered else "not"
    cells = [seed, f"{before:.3f}", f"{alarm.at.step:,}", f"{seconds:.0f}", f"{lost:.3f}", alarm.target, took]
    return f"| {' | '.join(map(str, cells))} | {max(e.accuracy for e in saved):.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            rows.append(story(seed, Path(folder) / str(seed)))
            print(rows[-1], flush=True)
    text = "\n".join(
        [
            "# mult2x2-breaks: lost, and saved by the tutorial's remedy",
            "",
            f"`python benchmarks/breaks.py --seeds {' '.join(map(str, options.seeds))}`",
            "",
            f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, "
            f"Python {platform.python_version()}, torch {torch.__version__}. Validation accuracy.",
            "",
            "| seed | explicit CoT, best | alarm at step | seconds to the alarm | best in the "
            f"{LOST_STEPS:,} steps after it | rolled back to stage | back at .9 after | best in "
            f"{SAVED_STEPS:,} steps there, held |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "mult2x2-breaks.md").write_text(text)


if __name__ == "__main__":
    main()
