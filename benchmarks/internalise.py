"""What does internalisation buy at this size? A preset over several seeds, beside the same model without CoT.

    python benchmarks/internalise.py --preset mult2x2 --seeds 0 1 2 3 4 --out docs/results

Each seed is a run of the command line, as a user starts it. Its control has no CoT from the start, the
same model, data and batch, for twice as many steps; half-way it is measured on as many steps as the run
had, and at the end on twice as many. One run at a time, so that the seconds mean something.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from trainer.events import Evaluated, RunFinished, StageEntered
from trainer.record import journal


def train(preset: str, seed: int, out: Path, name: str, *overrides: str) -> Path:
    """One run, to its end; its folder."""
    command = [sys.executable, "-m", "stepwise_tui", "run", "preset", preset, "--plain"]
    command += ["--seed", str(seed), "--out", str(out), "--name", name]
    for override in overrides:
        command += ["--set", override]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out / name


def story(folder: Path) -> dict[str, Any]:
    """What a run's journal says of the dip and the recovery."""
    events = list(journal.read(folder))
    stages = max(e.at.stage for e in events)
    valid = [e for e in events if isinstance(e, Evaluated) and e.split == "valid"]
    explicit = [e.accuracy for e in valid if e.at.stage == 0]
    complete = [e for e in valid if e.at.stage == stages]
    lowest = min((e for e in valid if e.at.stage > 0), key=lambda e: e.accuracy)
    first = next(e.at.time for e in events if isinstance(e, StageEntered))
    back = next((e for e in complete if e.accuracy >= 0.95), None)
    end = next(e for e in events if isinstance(e, RunFinished))
    return {
        "explicit": max(explicit, default=None),
        "lowest": lowest.accuracy,
        "lowest_stage": lowest.at.stage,
        "steps": end.at.step,
        "seconds": round(end.seconds, 1),
        "seconds_to_95": round(back.at.time - first, 1) if back else None,
        "test": end.accuracy,
        "test_n": end.n,
        "reason": end.reason,
    }


def control(folder: Path, steps: int) -> dict[str, Any]:
    """Accuracy without CoT: validation at `steps`, and the test split at the end."""
    events = list(journal.read(folder))
    valid = [e for e in events if isinstance(e, Evaluated) and e.split == "valid"]
    half = [e for e in valid if e.at.step <= steps]
    end = next(e for e in events if isinstance(e, RunFinished))
    return {
        "same_steps_valid": max(e.accuracy for e in half[-3:]),
        "twice_steps_test": end.accuracy,
        "twice_steps_best_valid": max(e.accuracy for e in valid),
        "seconds": round(end.seconds, 1),
    }


def table(preset: str, rows: list[dict[str, Any]], command: str) -> str:
    lines = [
        f"# {preset}: internalisation against no CoT",
        "",
        f"`{command}`",
        "",
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}. One run at a time. Accuracy is "
        "greedy exact match; *test* is the held-out test split, looked at once, at the end.",
        "",
        "| seed | explicit CoT (valid) | lowest (valid, stage) | **no CoT left (test)** | steps | seconds | "
        "seconds to .95 | control, same steps (valid) | control, twice the steps (test) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['seed']} | {row['explicit']:.3f} | {row['lowest']:.3f} (stage {row['lowest_stage']}) | "
        f"**{row['test']:.3f}** | {row['steps']:,} | {row['seconds']:.0f} | "
        f"{row['seconds_to_95'] or '–'} | {row['control']['same_steps_valid']:.3f} | "
        f"{row['control']['twice_steps_test']:.3f} |"
        for row in rows
    ]
    tests = [row["test"] for row in rows]
    lines += [
        "",
        f"{sum(t >= 0.95 for t in tests)} of {len(tests)} seeds reach .95; median {median(tests):.3f}, "
        f"lowest {min(tests):.3f}; seconds of training: median {median(r['seconds'] for r in rows):.0f}, "
        f"most {max(r['seconds'] for r in rows):.0f}. The control after twice the steps: median "
        f"{median(r['control']['twice_steps_test'] for r in rows):.3f}, "
        f"best {max(r['control']['twice_steps_test'] for r in rows):.3f}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", default="mult2x2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args()
    seeds = " ".join(map(str, options.seeds))
    command = f"python benchmarks/internalise.py --preset {options.preset} --seeds {seeds}"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for seed in options.seeds:
            row = {"seed": seed} | story(train(options.preset, seed, out, f"steps{seed}"))
            print(json.dumps(row), flush=True)
            rows.append(row)
        for row in rows:
            twice = 2 * row["steps"]
            overrides = ("method.name=no_cot", f"stop.steps={twice}", "stop.accuracy=none")
            row["control"] = control(
                train(options.preset, row["seed"], out, f"control{row['seed']}", *overrides), row["steps"]
            )
            print(json.dumps(row), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.preset}.json").write_text(json.dumps(rows, indent=1) + "\n")
    (options.out / f"{options.preset}.md").write_text(table(options.preset, rows, command))


if __name__ == "__main__":
    main()
