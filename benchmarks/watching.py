"""How the watch judges the recorded runs (benchmarks/calibrate.py): what it flags, how early, and what it
should not.

    python benchmarks/watching.py                 the half to tune on
    python benchmarks/watching.py --held-out      the other one; docs/results/watch.md has it

*Lost*: the last three evaluations are on average below half of the best three before the first removal
(before step 75 where there is none), and none of the last 150 steps was above it; or training stopped, since
nothing was finite any more. One that is below that half at its very end alone is unclear, and counts as
neither. All others are healthy. *The point of no return* of a lost run: its last evaluation that was above
that half. The steps after it are wasted; one that stopped would have stood to the end of its configuration. A
lost run is flagged in time where an alarm was raised before half of these were over.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.calibrate import CASES, KEPT, PATIENCE, SPOKEN, configure
from trainer import config as configuration
from trainer.config import Config
from trainer.events import AlarmRaised, At, Evaluated, Event, Metrics, SettingChanged, StageEntered
from trainer.record.lineage import Lineage
from trainer.watching.automaton import Around
from trainer.watching.watch import Watch, watch

LOST = 0.5
AT_LEAST = 150
STAGES = 13
"""Of the examples, where all goes."""
Outcome = Literal["lost", "healthy", "unclear"]
NOWHERE = Path("a/b/c/d/e")


@dataclass(frozen=True)
class Judged:
    """One run. before, end: accuracy before removals, and at last. back: the point of no return."""

    case: str
    seed: int
    before: float
    end: float
    outcome: Outcome
    back: int
    steps: int
    alarms: tuple[tuple[int, str], ...]

    @property
    def flagged(self) -> int | None:
        """The step of the first alarm."""
        return self.alarms[0][0] if self.alarms else None

    @property
    def share(self) -> float | None:
        """Of the wasted steps, how much was over at the first alarm; below 0: it came before."""
        return None if self.flagged is None else (self.flagged - self.back) / max(1, self.steps - self.back)


def events(row: dict[str, Any]) -> Iterator[Event]:
    """What was recorded, in the order in which a run tells it: at a step, the entry of a stage comes last."""
    told: list[tuple[int, int, Event]] = []
    for step, stage, loss, answer, norm, steps, skipped in row["metrics"]:
        at = At(step=step, stage=stage, scheduled=stage)
        numbers = {"loss": float(loss), "loss_answer": float(answer), "grad_norm": float(norm)}
        told.append((step, 0, Metrics(
            at=at, **numbers, loss_cot=None, lr=0.0, steps=steps, steps_per_second=0.0, tokens_per_second=0.0,
            epoch=0.0, skipped=skipped,
        )))  # fmt: skip
    for step, stage, right, n in row["evaluations"]:
        at, share = At(step=step, stage=stage, scheduled=stage), right / n
        told.append((step, 1, Evaluated(
            at=at, split="valid", accuracy=share, token_accuracy=share, correct=right, n=n, cot_tokens=0.0,
            seconds=0.0,
        )))  # fmt: skip
    for step, stage, cause, reset in row["stages"]:
        at = At(step=step, stage=stage, scheduled=stage)
        told.append((step, 2, StageEntered(at=at, text="", cause=cause, optimizer_reset=reset)))
    for step, key, old, new in row["settings"]:
        told.append((step, 3, SettingChanged(at=At(step=step), key=key, old=float(old), new=float(new))))
    return (event for _, _, event in sorted(told, key=lambda each: each[:2]))


def settings(row: dict[str, Any], changes: dict[str, Any]) -> Config:
    case = next(case for case in CASES if case.name == row["case"])
    config = configure(case, row["seed"], NOWHERE, **{"watch.mode": "suggest", "watch.patience": PATIENCE})
    for key, value in changes.items():
        config = configuration.changed(config, key, value)
    return config


def judge(row: dict[str, Any], changes: dict[str, Any]) -> Judged:
    config = settings(row, changes)
    state, alarms = Watch(), []
    around = Around(config, Lineage(), False, config.method.stop_at or STAGES, 1)
    last = 0
    for event in events(row):
        state, told = watch(state, event, around)
        last = max(last, event.at.step)
        alarms += [(one.at.step, one.kind) for one in told if isinstance(one, AlarmRaised)]
    measured = [(step, right / n) for step, _, right, n in row["evaluations"]]
    first = next((step for step, stage, *_ in row["stages"] if stage), SPOKEN)
    spoken = sorted(accuracy for step, accuracy in measured if step <= first)[-3:]
    before = sum(spoken) / len(spoken)
    end = sum(accuracy for _, accuracy in measured[-3:]) / 3
    back = max((step for step, accuracy in measured if accuracy >= LOST * before), default=0)
    outcome: Outcome = "healthy"
    if row["stopped"] or end < LOST * before:
        outcome = "lost" if row["stopped"] or last - back >= AT_LEAST else "unclear"
    steps = config.stop.steps if row["stopped"] and config.stop.steps else last
    return Judged(row["case"], row["seed"], before, end, outcome, back, steps, tuple(alarms))


def rows(source: Path) -> list[dict[str, Any]]:
    """The recorded runs: of the file that is kept, or of a folder in which they are being recorded."""
    if source.is_dir():
        found = [json.loads(file.read_text()) for file in sorted(source.glob("*.json"))]
    else:
        found = json.loads(gzip.decompress(source.read_bytes()))
    return [
        row | {"stages_in_all": max((stage for _, stage, *_ in row["stages"]), default=0)} for row in found
    ]


def summary(judged: Sequence[Judged]) -> str:
    lost, healthy = ([j for j in judged if j.outcome == which] for which in ("lost", "healthy"))
    flagged = [j for j in lost if j.flagged is not None]
    timely = [j for j in flagged if j.share is not None and j.share <= 0.5]
    false = sum(len(j.alarms) for j in healthy)
    early = median(j.back - j.flagged for j in flagged if j.flagged is not None) if flagged else float("nan")
    return (
        f"{len(lost)} lost, {len(flagged)} flagged, {len(timely)} before half of the wasted steps; first "
        f"alarm a median of {-early:.0f} steps after the point of no return; {len(healthy)} healthy, {false} "
        f"false alarms in {sum(bool(j.alarms) for j in healthy)} of them; "
        f"{len(judged) - len(lost) - len(healthy)} unclear"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=KEPT)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    half = "held out" if options.held_out else "tuned"
    changes = dict(map(configuration.parse_assignment, options.changes))
    judged = [judge(row, changes) for row in rows(options.source) if row["half"] == half]
    print("| case | seed | before | end | | no return | steps | wasted at the first alarm | alarms |")
    print("|---|---|---|---|---|---|---|---|---|")
    for j in sorted(judged, key=lambda j: (j.outcome, j.case, j.seed)):
        lost = j.outcome == "lost"
        cells = [
            j.case,
            j.seed,
            f"{j.before:.2f}",
            f"{j.end:.2f}",
            j.outcome,
            j.back if lost else "–",
            j.steps,
        ]
        cells.append(f"{j.share:.0%}" if j.share is not None and lost else "–")
        cells.append(", ".join(f"{kind} {step}" for step, kind in j.alarms) or "–")
        print(f"| {' | '.join(map(str, cells))} |")
    print()
    print(summary(judged))


if __name__ == "__main__":
    main()
