"""What an adaptive schedule saves: a preset by several schedules over several seeds, from journals alone.

    python benchmarks/adaptive.py --seeds 0 1 2 --schedules linear adaptive --json docs/results/adaptive.json

Each is a run of the command line, as a user starts it, on one thread; `--at-once` of them at a time, since
only steps and tokens are compared, not seconds. A run ends by its preset's [stop]. Tokens are those trained
on, padding not counted; those of probes are counted, too, at a third, as a pass forward alone costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arguments import positive, written
from trainer import config
from trainer.events import Evaluated, Metrics, Probed, RunFinished, StageEntered
from trainer.record import journal

SCHEDULES: dict[str, tuple[str, ...]] = {
    "linear": (),
    "linear, half the time": ("schedule.steps_per_token=500",),
    "linear, a quarter": ("schedule.steps_per_token=250",),
    "adaptive, a quarter": ("schedule.kind=adaptive", "schedule.steps_per_token=250"),
    "geometric": ("schedule.kind=geometric",),
    "gated": ("schedule.kind=gated",),
    "adaptive": ("schedule.kind=adaptive",),
}
"""What differs from a preset; half the time and a quarter are of the 1,000 steps a token of `mult2x2`."""


@dataclass(frozen=True)
class Outcome:
    """One run. none: step at which all was removed. steps, tokens: trained in all, in thousands the latter.
    test: accuracy on the test split at the end. lowest: on validation, after the first removal."""

    schedule: str
    seed: int
    none: int | None
    steps: int
    tokens: float
    test: float
    lowest: float
    reason: str


def outcome(folder: Path, schedule: str, seed: int) -> Outcome:
    events = list(journal.read(folder))
    end = next(e for e in events if isinstance(e, RunFinished))
    stages = max(e.at.stage for e in events)
    metrics = [e for e in events if isinstance(e, Metrics)]
    row = [e.tokens_per_second / e.steps_per_second for e in metrics]
    tokens = sum(each * e.steps for each, e in zip(row, metrics, strict=True))
    batch = config.build(config.load(folder / "config.toml")).optim.batch
    probed = sum(e.n for e in events if isinstance(e, Probed)) / batch * median(row) / 3
    assert end.accuracy is not None
    return Outcome(
        schedule,
        seed,
        next((e.at.step for e in events if isinstance(e, StageEntered) and e.at.stage == stages), None),
        end.at.step,
        round((tokens + probed) / 1e3),
        end.accuracy,
        min(e.accuracy for e in events if isinstance(e, Evaluated) and e.split == "valid" and e.at.stage),
        end.reason,
    )


def train(preset: str, schedule: str, seed: int, out: Path, more: list[str]) -> Outcome:
    name = f"{schedule.replace(' ', '-').replace(',', '')}-{seed}"
    command = [sys.executable, "-m", "stepwise_tui", "run", "preset", preset, "--plain"]
    command += ["--seed", str(seed), "--out", str(out), "--name", name]
    for setting in (*SCHEDULES[schedule], *more):
        command += ["--set", setting]
    done = (out / name / "journal.jsonl").exists()
    if not done:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    result = outcome(out / name, schedule, seed)
    print(json.dumps(asdict(result)), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="mult2x2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=["linear", "adaptive"])
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--at-once", type=positive, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="where the runs go; a temporary folder")
    parser.add_argument("--json", type=written, default=None, help="write the result here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.at_once) as pool:
        out = options.folder or Path(folder)
        wanted = [(schedule, seed) for seed in options.seeds for schedule in options.schedules]
        waiting = [
            pool.submit(train, options.preset, schedule, seed, out, options.more) for schedule, seed in wanted
        ]
        results = [one.result() for one in waiting]
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    print("| schedule | seed | all gone at step | steps | tokens (thousand) | test | lowest |")
    print("|---|---|---|---|---|---|---|")
    for r in sorted(results, key=lambda r: (options.schedules.index(r.schedule), r.seed)):
        gone = "–" if r.none is None else f"{r.none:,}"
        print(
            f"| {r.schedule} | {r.seed} | {gone} | {r.steps:,} | {r.tokens:,.0f} | {r.test:.3f} | "
            f"{r.lowest:.2f} |"
        )


if __name__ == "__main__":
    main()
