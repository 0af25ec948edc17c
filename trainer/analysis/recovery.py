"""What each removal did to accuracy, and how long it took to come back. Pure, and light to import."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainer.analysis.compare import BEFORE_ALL, Place, live_line
from trainer.events import Cause, Evaluated, Event, RolledBack, StageEntered

TELLING = (StageEntered, Evaluated, RolledBack)
"""The kinds of events that count here."""
BACK = 0.95
"""Of the accuracy before a removal: from there on it counts as recovered."""


@dataclass(slots=True)
class Entry:
    """A stage of the live line of history.

    step: at which it was entered. before: the last accuracy before it that was not part of a dip, None where
    there was none. lowest, last: of the evaluations within it, None without any. recovered: steps from the
    entry to the first of them that was back at `BACK` of `before`; None where none was.
    """

    stage: int
    branch: int
    step: int
    text: str
    cause: Cause
    before: float | None
    lowest: float | None = None
    last: float | None = None
    recovered: int | None = None


def live_only(events: Iterable[Event]) -> list[StageEntered | Evaluated]:
    """Entries of stages and evaluations on the validation split along the live line of history, in its order.
    What was done again after a crash counts once, as it was done last."""
    events = list(events)
    limits = live_line(events)
    found: dict[tuple[float, ...], StageEntered | Evaluated] = {}
    for event in events:
        evaluated = isinstance(event, Evaluated) and event.split == "valid"
        if isinstance(event, StageEntered | Evaluated) and (evaluated or isinstance(event, StageEntered)):
            at = event.at
            if Place(at.step, at.scheduled) <= limits.get(at.branch, BEFORE_ALL):
                found[at.branch, at.step, at.scheduled, evaluated] = event
    return [found[key] for key in sorted(found)]


def entries(events: Iterable[Event]) -> list[Entry]:
    """The stages of the live line, in order. A roll back or a start within a stage of it goes on with it."""
    rows: list[Entry] = []
    healthy: float | None = None
    dipped = False
    for event in live_only(events):
        at = event.at
        if isinstance(event, StageEntered):
            if rows and rows[-1].stage == at.stage and event.cause in ("rollback", "start"):
                continue
            dipped = healthy is not None
            rows.append(Entry(at.stage, at.branch, at.step, event.text, event.cause, healthy))
            continue
        back = not dipped or healthy is None or event.accuracy >= BACK * healthy
        if rows:
            row = rows[-1]
            row.lowest = event.accuracy if row.lowest is None else min(row.lowest, event.accuracy)
            row.last = event.accuracy
            if dipped and back:
                row.recovered = at.step - row.step
        if back:
            healthy, dipped = event.accuracy, False
    return rows
