"""A small Table 1 of Coconut: its eight rows from scratch, on a small ProsQA and a short ProntoQA.

    nice -n 19 python benchmarks/table1.py --out docs/results

Each row and seed is a run of prosqa-small or prontoqa-short on one thread of the CPU, all rows of a
task with the same model, data, batch and number of steps. Finished runs under --runs are not done again and
unfinished ones are resumed, so the command may be stopped and started at will. The JSON and the table are
written anew after every run. `--rows`, `--tasks` and `--seeds` do a part of it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from trainer import Run, presets
from trainer import config as configuration
from trainer.analysis import published_coconut as published
from trainer.events import Evaluated, RunFinished
from trainer.record import journal

TASKS = {"prosqa": "prosqa-small", "prontoqa": "prontoqa-short"}
NAMES = {"prosqa": published.PROSQA, "prontoqa": published.PRONTOQA}
ROWS = {row.lower().replace("w/o ", "no-").replace(" ", "-"): row for row in published.FIGURES}
PAUSE: dict[str, Any] = {"method.name": "pause", "method.curriculum": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "prosqa": {},
    "prontoqa": {
        "optim.lr": 1e-3,
        "data.train": 60_000,
        "schedule.steps_per_token": 800,  # a stage
    },
}
"""On top of the presets. ProntoQA's runs begin with the model of prontoqa_start.py, which writes its CoT."""
CURRICULUM = (published.ICOT, published.COCONUT, published.NO_THOUGHT, published.PAUSE_AS_THOUGHT)
"""Rows that are spared the stage of ProntoQA that their start has learnt."""


class Cell(NamedTuple):
    """One run of the table. settings: on top of the preset, the same for all runs."""

    task: str
    row: str
    seed: int
    settings: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        return f"{self.task}-{self.row}-{self.seed}"

    @property
    def overrides(self) -> dict[str, Any]:
        row = ROWS[self.row]
        method = PAUSE if row == published.PAUSE else published.OVERRIDES.get(row, {})
        learnt = {"method.start_from": 1} if self.task == "prontoqa" and row in CURRICULUM else {}
        common = {"device": "cpu", "seed": self.seed, **SETTINGS[self.task]}
        return common | dict(self.settings) | method | learnt


def result(cell: Cell, runs: Path) -> dict[str, Any] | None:
    """What a run's journal says; None where it has not finished.

    test: accuracy on the test split at its end; tokens: generated there, mean. best: validation accuracy with
    no CoT left, at best.
    """
    events = list(journal.read(runs / cell.name))
    ends = [e for e in events if isinstance(e, RunFinished) and e.state == "finished"]
    if not ends:
        return None
    evaluated = [e for e in events if isinstance(e, Evaluated)]
    tested = [e for e in evaluated if e.split == "test"][-1]
    last = max(e.at.stage for e in evaluated)
    return {
        "task": cell.task,
        "row": ROWS[cell.row],
        "seed": cell.seed,
        "test": ends[-1].accuracy,
        "n": ends[-1].n,
        "tokens": tested.generated_tokens,
        "best": max(e.accuracy for e in evaluated if e.split == "valid" and e.at.stage == last),
        "steps": ends[-1].at.step,
        "seconds": round(ends[-1].seconds, 1),
    }


def make(job: tuple[Cell, Path]) -> dict[str, Any]:
    """A run's result, from its journal where it has finished, else by training it to its end."""
    cell, runs = job
    torch.set_num_threads(1)
    folder = runs / cell.name
    found = result(cell, runs) if folder.exists() else None
    if found is None:
        run = Run(presets.resolve(TASKS[cell.task], cell.overrides), folder, resume=folder.exists())
        run.start()
        run.wait()
        run.close()
        found = result(cell, runs)
    if found is None:
        raise RuntimeError(f"{folder}: the run ended before it was finished")
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The Markdown table of each task: each seed's test accuracy, medians, and the paper's figures."""
    lines = []
    for task, name in NAMES.items():
        own = [row for row in rows if row["task"] == task]
        seeds = sorted({row["seed"] for row in own})
        if not own:
            continue
        head = ["row", *(f"seed {seed}" for seed in seeds), "**median**", "best valid", "tokens", "steps"]
        head += ["seconds", "paper, GPT-2 Small"]
        lines += [f"### {name}, small", "", _line(head), _line("---" for _ in head)]
        for title in published.FIGURES:
            runs = {row["seed"]: row for row in own if row["row"] == title}
            if runs:
                lines.append(_line([title, *_cells(runs, seeds), _published(name, title)]))
        lines.append("")
    return "\n".join(lines)


def _cells(runs: dict[int, dict[str, Any]], seeds: list[int]) -> list[str]:
    def middle(key: str, form: str) -> str:
        return format(median(row[key] for row in runs.values()), form)

    return [
        *(f"{runs[seed]['test']:.3f}" if seed in runs else "" for seed in seeds),
        f"**{middle('test', '.3f')}**",
        middle("best", ".3f"),
        middle("tokens", ".1f"),
        middle("steps", ",.0f"),
        middle("seconds", ".0f"),
    ]


def _published(task: str, method: str) -> str:
    row = next(row for row in published.TABLE_1 if (row.task, row.method) == (task, method))
    return f"{row.accuracy:.3f} / {row.tokens}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(rows: list[dict[str, Any]], out: Path, command: str, settings: dict[str, Any]) -> None:
    order = list(published.FIGURES)
    rows.sort(key=lambda row: (row["task"], order.index(row["row"]), row["seed"]))
    head = [
        "# A small Table 1 of Coconut",
        "",
        f"`{command}`",
        "",
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, one thread a run, Python "
        f"{platform.python_version()}, torch {torch.__version__}. *seed*: accuracy on the test split at the "
        "end of a run, greedy exact match. *best valid*: validation accuracy at the last stage, at best. "
        "*tokens*: generated for a test example, thoughts among them. All but the seeds are medians. On top "
        f"of the presets: {', '.join(f'{key} = {value}' for key, value in settings.items()) or 'nothing'}.",
        "",
        table(rows),
    ]
    out.mkdir(parents=True, exist_ok=True)
    document = {"settings": settings, "runs": rows}
    (out / "table1.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "table1.md").write_text("\n".join(head))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for table1.json and table1.md")
    parser.add_argument("--runs", type=Path, default=Path("runs/table1"), help="folder of the runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="on top of the presets, for all"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    settings = dict(configuration.parse_assignment(text) for text in options.set)
    jobs = [
        (Cell(task, row, seed, tuple(settings.items())), options.runs)
        for seed in options.seeds
        for task in options.tasks
        for row in options.rows
    ]
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for found in pool.imap_unordered(make, jobs):
            rows.append(found)
            print(json.dumps(found), flush=True)
            write(rows, options.out, f"python {' '.join(sys.argv)}", settings)


if __name__ == "__main__":
    main()
