"""A small Table 2: what each part of stepwise internalisation is worth on 2×2 and 3×3 multiplication.

    nice -n 19 python benchmarks/table2.py --out docs/results

Each size, variant and seed is a run of the command line on one thread of the CPU. All runs of a size have
the same model, data and batch, and at most the same number of steps, so at most as many examples: a run
ends early only when validation accuracy has held .98 with no CoT left to remove. Finished runs under --runs
are not done again and unfinished ones are resumed, so the command may be stopped and started at will. The
JSON and the table are written anew after every run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from internalise import train

from trainer.events import Evaluated, Metrics, RunFinished, RunStarted
from trainer.record import journal

BATCH, LR = 16, 1e-3


class Size(NamedTuple):
    """What the runs of one size share, on top of a preset.

    cot: removable tokens. pretrain: steps of explicit CoT before the first goes. pace: steps per token.
    after: steps once the last has gone.
    """

    preset: str
    cot: int
    pretrain: int
    pace: int
    after: int
    smoothing: float

    @property
    def steps(self) -> int:
        """The most steps that any run of this size has."""
        return self.pretrain + self.cot * self.pace + self.after

    def described(self, name: str) -> str:
        return (
            f"{name.replace('x', '×')}: {self.pretrain:,} steps of explicit CoT, then one of {self.cot} "
            f"tokens every {self.pace:,} steps, λ = {self.smoothing:g}, at most {self.steps:,} steps."
        )


SIZES = {
    "2x2": Size("mult2x2", cot=9, pretrain=2_400, pace=1_000, after=4_600, smoothing=1.0),
    "3x3": Size("mult3x3", cot=25, pretrain=2_500, pace=100, after=300, smoothing=4.0),
}


class Variant(NamedTuple):
    """A row of the table. changes: what it has besides the settings that all have. speedup: of the pace."""

    title: str
    changes: tuple[str, ...] = ()
    speedup: int = 1


VARIANTS = {
    "explicit-cot": Variant("explicit CoT", ("method.name=explicit_cot", "method.keep_positions=false")),
    "no-cot": Variant("no CoT", ("method.name=no_cot", "method.keep_positions=false")),
    "full": Variant("ICoT-SI, positions kept"),
    "no-smoothing": Variant("– without smoothing (λ = ∞)", ("method.smoothing=inf",)),
    "no-reset": Variant("– without optimiser reset", ("method.reset_optimizer=false",)),
    "right": Variant("– from the right", ("method.side=right",)),
    "twice-pace": Variant("– at twice the pace", speedup=2),
    "moving": Variant("– positions not kept", ("method.keep_positions=false",)),
}


class Cell(NamedTuple):
    """One run of the table."""

    size: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.size}-{self.variant}-{self.seed}"

    @property
    def overrides(self) -> list[str]:
        size, variant = SIZES[self.size], VARIANTS[self.variant]
        return [
            "device=cpu",
            "method.move_positions=false",
            "method.keep_positions=true",
            f"schedule.pretrain_steps={size.pretrain}",
            f"schedule.steps_per_token={size.pace // variant.speedup}",
            f"optim.batch={BATCH}",
            f"optim.lr={LR}",
            f"method.smoothing={size.smoothing}",
            f"stop.steps={size.steps}",
            "eval.every=100",
            "eval.examples=250",
            *variant.changes,
        ]


def result(cell: Cell, runs: Path) -> dict[str, Any] | None:
    """What a run's journal says; None where it has not finished.

    test: accuracy on the test split at the end. Of validation accuracy, best and at_once: with all CoT gone,
    the best and the first (at most 100 steps after the last removal); mean: over the time from the first
    removal to the last; lasted: the most tokens removed at which it still reached .9, None if it never did.
    """
    events = list(journal.read(runs / cell.name))
    ends = [e for e in events if isinstance(e, RunFinished) and e.state == "finished"]
    if not ends:
        return None
    stages = next(e.stages for e in events if isinstance(e, RunStarted))
    valid = [e for e in events if isinstance(e, Evaluated) and e.split == "valid"]
    complete = [e.accuracy for e in valid if e.at.stage == stages]
    curriculum = [e.accuracy for e in valid if 0 < e.at.stage < stages]
    metrics = [e for e in events if isinstance(e, Metrics)]
    return {
        **cell._asdict(),
        "test": ends[-1].accuracy,
        "best": max(complete, default=None),
        "at_once": complete[0] if stages and complete else None,
        "mean": round(mean(curriculum), 4) if curriculum else None,
        "lasted": max((e.at.removed for e in valid if e.accuracy >= 0.9), default=None) if stages else None,
        "steps": ends[-1].at.step,
        "examples": ends[-1].at.step * BATCH,
        "tokens": round(sum(e.tokens_per_second / e.steps_per_second * e.steps for e in metrics)),
        "seconds": round(ends[-1].seconds, 1),
        "reason": ends[-1].reason,
    }


def make(cell: Cell, runs: Path) -> dict[str, Any]:
    """A run's result, from its journal where it has finished, else by training it to its end."""
    found = result(cell, runs)
    if found is not None:
        return found
    folder = runs / cell.name
    if folder.exists():
        command = [sys.executable, "-m", "stepwise_tui", "resume", str(folder), "--plain"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    else:
        train(SIZES[cell.size].preset, cell.seed, runs, cell.name, *cell.overrides)
    found = result(cell, runs)
    if found is None:
        raise RuntimeError(f"{folder}: the run ended before it was finished")
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The Markdown table of each size: each seed's test accuracy, and medians of the rest."""
    lines = []
    seeds = sorted({row["seed"] for row in rows})
    for name, size in SIZES.items():
        if not any(row["size"] == name for row in rows):
            continue
        head = ["variant", *(f"seed {seed}" for seed in seeds), "**median**", "best, none left"]
        head += [
            "as the last goes",
            "while they go",
            f".9 up to, of {size.cot}",
            "steps",
            "examples",
            "seconds",
        ]
        lines += [f"### {name.replace('x', '×')}", "", _line(head), _line("---" for _ in head)]
        for key, variant in VARIANTS.items():
            own = {row["seed"]: row for row in rows if (row["size"], row["variant"]) == (name, key)}
            if own:
                lines.append(_line([variant.title, *_cells(own, seeds)]))
        lines.append("")
    return "\n".join(lines)


def _cells(own: dict[int, dict[str, Any]], seeds: list[int]) -> list[str]:
    def several(key: str) -> list[float]:
        return [row[key] for row in own.values() if row[key] is not None]

    def middle(key: str, form: str) -> str:
        return format(median(several(key)), form) if several(key) else "–"

    lasted = ", ".join("–" if row["lasted"] is None else str(row["lasted"]) for row in own.values())
    return [
        *(f"{own[seed]['test']:.3f}" if seed in own else "" for seed in seeds),
        f"**{middle('test', '.3f')}**",
        middle("best", ".3f"),
        middle("at_once", ".3f"),
        middle("mean", ".3f"),
        lasted if any(row["lasted"] is not None for row in own.values()) else "–",
        middle("steps", ",.0f"),
        middle("examples", ",.0f"),
        middle("seconds", ".0f"),
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def report(rows: list[dict[str, Any]], command: str) -> str:
    lines = [
        "# A small Table 2",
        "",
        f"`{command}`",
        "",
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, one thread a run, "
        f"Python {platform.python_version()}, torch {torch.__version__}. *seed*: a run's accuracy on the "
        "test split at its end, greedy exact match. The rest are medians over the seeds: validation "
        "accuracy with no CoT left (best), at most 100 steps after the last token went, and on average from "
        "the first removal to the last; the most tokens removed at which it still reached .9 (each seed); "
        "steps, examples seen and seconds of training.",
        "",
        f"All runs: 2 layers, 4 heads, width 64, from scratch, batch {BATCH}, learning rate {LR}. "
        + " ".join(size.described(name) for name, size in SIZES.items()),
        "",
        table(rows),
    ]
    return "\n".join(lines)


def write(rows: list[dict[str, Any]], out: Path, command: str) -> None:
    order = (list(SIZES), list(VARIANTS))
    rows.sort(key=lambda r: (order[0].index(r["size"]), order[1].index(r["variant"]), r["seed"]))
    shared = {"batch": BATCH, "lr": LR}
    settings = {name: shared | size._asdict() | {"steps": size.steps} for name, size in SIZES.items()}
    out.mkdir(parents=True, exist_ok=True)
    (out / "table2.json").write_text(json.dumps({"settings": settings, "runs": rows}, indent=1) + "\n")
    (out / "table2.md").write_text(report(rows, command))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for table2.json and table2.md")
    parser.add_argument("--runs", type=Path, default=Path("runs/table2"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    cells = [Cell(*key) for key in _product(options)]
    command = f"python benchmarks/table2.py --out docs/results --seeds {options.seeds}"
    rows: list[dict[str, Any]] = []
    failed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for future in as_completed([pool.submit(make, cell, options.runs) for cell in cells]):
            try:
                rows.append(future.result())
            except (subprocess.CalledProcessError, RuntimeError) as error:
                failed += 1
                print(error, file=sys.stderr, flush=True)
                continue
            print(json.dumps(rows[-1]), flush=True)
            write(rows, options.out, command)
    sys.exit(1 if failed else 0)


def _product(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """A whole table of one seed first, then the next."""
    return [(z, v, s) for s in range(options.seeds) for z in options.sizes for v in options.only]


if __name__ == "__main__":
    main()
