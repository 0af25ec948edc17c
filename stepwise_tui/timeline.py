"""The rows of the timeline: what happened, and the checkpoints that are left of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from stepwise_tui.text import clean
from stepwise_tui.words import by, words
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    At,
    CheckpointSaved,
    CommandAcknowledged,
    Event,
    RolledBack,
    RunCrashed,
    RunFinished,
    RunStarted,
    StageEntered,
)
from trainer.record.digest import is_row

Kind = Literal["start", "stage", "save", "operator", "branch", "alarm", "end"]
KINDS: dict[type[Event], Kind] = {
    RunStarted: "start",
    StageEntered: "stage",
    CommandAcknowledged: "operator",
    RolledBack: "branch",
    AlarmRaised: "alarm",
    AlarmCleared: "alarm",
    RunFinished: "end",
    RunCrashed: "end",
}


@dataclass(frozen=True, slots=True)
class Happening:
    """A row of the timeline. checkpoint: what was saved there and is left, "" if nothing is."""

    at: At
    kind: Kind
    text: str
    checkpoint: str = ""


def happening(event: Event, names: Mapping[str, str]) -> Happening | None:
    """The row of an event, if it makes one that stays; that of a checkpoint goes when this goes.

    names: how the key of each action is written.
    """
    return Happening(event.at, KINDS[type(event)], _told(event, names)) if is_row(event) else None


def _told(event: Event, names: Mapping[str, str]) -> str:
    """As in the log; of a command first what it was, since its row has the step, and little room."""
    if not isinstance(event, CommandAcknowledged):
        return words(event, names) or ""
    refused = "" if event.ok else "refused: "
    return clean(f"{refused}{event.command}{by(event.source)}: {event.message}")


def with_saves(happenings: Iterable[Happening], saves: Iterable[CheckpointSaved]) -> list[Happening]:
    """All rows, oldest first: the checkpoints of entries beside their stages, others in rows of their own."""
    saves = list(saves)
    entries = {_place(e.at): e.checkpoint for e in saves if e.cause == "stage"}
    rows = [
        replace(row, checkpoint=entries.pop(_place(row.at), "")) if row.kind == "stage" else row
        for row in happenings
    ]
    own = [e for e in saves if e.cause != "stage" or e.checkpoint in entries.values()]
    rows += [Happening(e.at, "save", words(e) or "", e.checkpoint) for e in own]
    return sorted(rows, key=lambda row: row.at.time)


def _place(at: At) -> tuple[int, int, int]:
    return at.branch, at.step, at.stage
