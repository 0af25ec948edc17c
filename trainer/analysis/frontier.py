"""What shortening the CoT buys and costs: accuracy against speed, stage by stage (paper, Figure 2a).

Which checkpoints are worth measuring, and which results are worth having; `measure` does the measuring.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from trainer.analysis.compare import Place, live_line
from trainer.events import Event, StageEntered
from trainer.files import replace_text
from trainer.record import lineage

FILE = "frontier.json"
"""In the run's folder: what was measured last, for `paper`."""


class Candidate(NamedTuple):
    """A checkpoint worth measuring. stage: the one that its weights were last trained at."""

    id: str
    step: int
    stage: int


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint, measured.

    stage: the one that its weights were last trained at; removed: CoT tokens, or steps, that are gone there.
    cot_tokens: spoken, mean per example. speed: throughput at batch 1, relative to a model of the same size
    without CoT. dominated: another is as good in both and better in one. seconds: for an example at batch 1.
    """

    checkpoint: str
    step: int
    stage: int
    removed: int
    cot_tokens: float
    accuracy: float
    n: int
    speed: float
    dominated: bool = False
    seconds: float | None = None


class Kept(NamedTuple):
    """How fast a checkpoint was, as in `Point`, and the day it was measured on."""

    speed: float
    seconds: float | None
    date: str


def candidates(events: Iterable[Event]) -> list[Candidate]:
    """The last checkpoint of each stage on the live line of history, of those that are still there.

    The entry of a stage is saved before its first step: it holds what the stage before it has learnt. The
    entry of the first stage holds nothing learnt and is no candidate.
    """
    events = list(events)
    limits = live_line(events)
    entered = [
        (event.at.step, event.at.stage)
        for event in events
        if isinstance(event, StageEntered)
        and event.at.branch in limits
        and Place(event.at.step, event.at.scheduled) <= limits[event.at.branch]
    ]
    past = lineage.replay(events).past(max(limits))
    found: dict[int, Candidate] = {}
    for ref in past:
        trained = [stage for step, stage in entered if step < ref.step]
        if trained and (ref.is_entry or ref is past[-1]):
            found[trained[-1]] = Candidate(ref.id, ref.step, trained[-1])
    return sorted(found.values(), key=lambda candidate: candidate.stage)


def marked(points: Sequence[Point]) -> list[Point]:
    """The same points, each with the verdict whether another dominates it."""
    return [replace(p, dominated=any(dominates(other, p) for other in points)) for p in points]


def dominates(one: Point, other: Point) -> bool:
    """Whether nobody would choose `other`: `one` is as fast and as accurate, and more of either."""
    as_good = one.speed >= other.speed and one.accuracy >= other.accuracy
    return as_good and (one.speed > other.speed or one.accuracy > other.accuracy)


def keep(run: Path, points: Sequence[Point]) -> None:
    """Leave what was measured, with its time, in the run's folder. Raises OSError."""
    measured = datetime.now(UTC).isoformat(timespec="seconds")
    document = {"measured": measured, "points": [asdict(point) for point in points]}
    replace_text(run / FILE, json.dumps(document, indent=1) + "\n", durable=False)


def kept(run: Path, checkpoint: str) -> Kept | None:
    """The speed of a checkpoint; None where it was not measured, or is not readable."""
    try:
        document = json.loads((run / FILE).read_text(encoding="utf-8"))
        [point] = [point for point in document["points"] if point["checkpoint"] == checkpoint]
        seconds = point.get("seconds")
        return Kept(
            float(point["speed"]), None if seconds is None else float(seconds), str(document["measured"])[:10]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
