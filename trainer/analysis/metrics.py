"""The numbers of a journal for other tools: CSV, or TensorBoard's own files.

One row per `Metrics` and `Evaluated` event, in the order of the journal, those of abandoned branches too.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from trainer.analysis.compare import BEFORE_ALL, Place, live_line
from trainer.events import NAMES, At, Evaluated, Metrics, RolledBack
from trainer.record import journal

CSV_FILE = "metrics.csv"
TENSORBOARD_FOLDER = "tensorboard"

Row = dict[str, Any]


class MetricsError(ValueError):
    """Numbers that cannot be written as asked; the message says what would help."""

    exit_code = 1


def rows(run: Path) -> list[Row]:
    """Each with the fields of its event, where the run stood, and `live`: whether that is history still.

    live is 0 where a roll back left it. `event` is "metrics" or "evaluated".
    """
    events = list(journal.read(run, journal.of(Metrics, Evaluated, RolledBack)))
    limits = live_line(events)
    found = []
    for event in events:
        if isinstance(event, (Metrics, Evaluated)):
            at = event.at
            row: Row = {"event": NAMES[type(event)], "seq": event.seq}
            row |= {f.name: getattr(at, f.name) for f in fields(At)}
            live = Place(at.step, at.scheduled) <= limits.get(at.branch, BEFORE_ALL)
            row |= {"live": int(live)}
            row |= {f.name: getattr(event, f.name) for f in fields(event) if f.name not in ("at", "seq")}
            found.append(row)
    return found


def write_csv(rows: Sequence[Row], folder: Path) -> None:
    """`metrics.csv` with a column for every field; empty where an event has none of that name."""
    columns = ["event", "seq", *(f.name for f in fields(At)), "live"]
    columns += [
        f.name for event in (Metrics, Evaluated) for f in fields(event) if f.name not in ("at", "seq")
    ]
    with (folder / CSV_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def writer_of_tensorboard() -> Any:
    """TensorBoard's writer. Raises `MetricsError` where its package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MetricsError(
            "--metrics tensorboard needs the package tensorboard: pip install tensorboard"
        ) from None
    return SummaryWriter


def write_tensorboard(rows: Sequence[Row], folder: Path) -> None:
    """A folder `tensorboard` with a run for each branch: `train/loss`, `valid/accuracy` and so on, by step.

    Raises `MetricsError` as `writer_of_tensorboard` does.
    """
    writers: dict[int, Any] = {}
    for row in rows:
        branch = row["branch"]
        if branch not in writers:
            path = folder / TENSORBOARD_FOLDER / f"branch-{branch}"
            writers[branch] = writer_of_tensorboard()(str(path))
        group = row.get("split", "train")
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in NOT_CHARTED:
                tag = f"{group}/{name}"
                writers[branch].add_scalar(tag, value, global_step=row["step"], walltime=row["time"])
    for writer in writers.values():
        writer.close()


NOT_CHARTED = ("seq", "step", "branch", "time", "live")
"""Numbers that say where a row belongs."""
