"""The lines of the log: what an event reads as there, and in which tone.

Functions of events alone. What the tones look like, and where a line breaks, is `widgets.log`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from stepwise_tui.text import accuracy, clean
from stepwise_tui.words import words
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    DipMeasured,
    Evaluated,
    Event,
    Metrics,
    Notice,
    RolledBack,
    RunCrashed,
    RunFinished,
    StageEntered,
)
from trainer.record.digest import said

Tone = Literal["plain", "faint", "stage", "operator", "good", "warning", "error"]

NOTICE_TONES: dict[str, Tone] = {"info": "faint", "warning": "warning", "error": "error"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the operator log. time: seconds since the epoch."""

    time: float
    text: str
    tone: Tone


def log_lines(event: Event, names: Mapping[str, str], evaluated: Evaluated | None) -> Iterator[LogLine]:
    """What the log gains by an event, nothing for most.

    names: how the key of each action is written. evaluated: the last evaluation before it.
    """
    if not said(event):
        return
    text = words(event, names) or ""
    if isinstance(event, StageEntered) and evaluated is not None:
        text += f"; accuracy was {accuracy(evaluated.accuracy)}"
    yield LogLine(event.at.time, text, _tone(event))
    if isinstance(event, RunCrashed):
        for line in event.traceback.splitlines():
            yield LogLine(event.at.time, clean(line), "faint")


def _tone(event: Event) -> Tone:
    """How an event stands in the log."""
    match event:
        case CommandReceived() | CheckpointSaved():
            return "faint"
        case CommandAcknowledged():
            return "operator" if event.ok else "warning"
        case RolledBack():
            return "operator"
        case StageEntered():
            return "stage"
        case Notice():
            return NOTICE_TONES[event.level]
        case Metrics():
            return "warning"
        case AlarmRaised() | RunCrashed():
            return "error"
        case DipMeasured():
            return "warning" if event.steps is None else "faint"
        case AlarmCleared() | RunFinished() | Evaluated():
            return "good"
        case _:
            return "plain"
