"""How a run goes on after its process ended, at whatever instant: read from journal and checkpoint, pure.

A run is one line in time: steps, and commands between them. A checkpoint is a place on that line, marked by
the events that came before it (`TrainState.seq`). To go on, the newest good checkpoint is loaded and what the
journal tells of the time after it is done again: the same steps, since all randomness comes from counters,
and the same commands between the same steps. What was told then is not told twice (`Retold`); what got lost
with the process is told now. So no event is missing or doubled, and on a CPU every weight is what it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from trainer.control import Command, parse
from trainer.events import (
    DISK,
    AlarmCleared,
    AlarmRaised,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    DipMeasured,
    Evaluated,
    Event,
    ExamplesShown,
    Metrics,
    Notice,
    Probed,
    RolledBack,
    SettingChanged,
    StageEntered,
    WatchPlanned,
)
from trainer.watching.automaton import SOURCE

DONE_AGAIN = ("advance", "rollback", "set", "hold", "release", "save", "evaluate")
"""Commands that are carried out again. Pauses end with their process; a question changes nothing."""

RETOLD = (
    Metrics,
    Evaluated,
    Probed,
    ExamplesShown,
    StageEntered,
    DipMeasured,
    AlarmRaised,
    AlarmCleared,
    WatchPlanned,
    SettingChanged,
    RolledBack,
)
"""Events that doing it again makes again, besides the notices of steps and the watch's own commands."""


class Place(NamedTuple):
    """A point between two steps."""

    branch: int
    step: int


@dataclass(frozen=True, slots=True)
class Deed:
    """A command to carry out again at its place.

    seq: the event that tells what it did, or that it was done. answered: whether it got its answer.
    """

    place: Place
    command: Command
    seq: int
    answered: bool = True

    def is_due(self, place: Place) -> bool:
        return self.place.branch == place.branch and self.place.step <= place.step


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do after loading a checkpoint.

    script: commands to carry out again, in order. done: a command whose effect is in the checkpoint, but
    whose answer is not in the journal. lost: commands that were received, and that nobody began. own:
    commands that the watch gave, by id; it gives them again.
    """

    script: tuple[Deed, ...] = ()
    done: Command | None = None
    lost: tuple[Command, ...] = ()
    own: Mapping[str, Command] = field(default_factory=dict)


def plan(events: Sequence[Event], seq: int, during: str) -> Plan:
    """What follows a checkpoint taken after `seq` events in the course of command `during` ("": of none).

    A command is done where its effect is told. Its answer may have come much later: when all that was lost
    with the process it was given to had been done again.
    """
    received = {e.id: e for e in events if isinstance(e, CommandReceived) and e.source != SOURCE}
    answers = {e.id: e for e in events if isinstance(e, CommandAcknowledged)}
    waiting = [_command(e) for id, e in received.items() if id not in answers]
    # Commands are carried out one after the other, so only the first unanswered one can have begun.
    effects = _effects(events, waiting[:1])
    done = [e for e in answers.values() if e.ok and e.id != during]
    deeds = [_deed(_command(e), effects.get(e.id, e), answered=True) for e in done]
    begun = [_deed(c, effects[c.id], answered=False) for c in waiting[:1] if c.id in effects]
    own = {d.command.id: d.command for d in deeds if d.command.source == SOURCE}
    script = [
        d
        for d in (*deeds, *begun)
        if d.command.name in DONE_AGAIN and d.seq > seq and d.command.id not in own
    ]
    script.sort(key=lambda deed: deed.seq)
    ended = next((d.command for d in begun if d.seq <= seq), None)
    if not begun and waiting and waiting[0].id == during:  # all that it did is the checkpoint itself
        ended, waiting = waiting[0], waiting[1:]
    return Plan(tuple(script), ended, tuple(waiting[len(begun) :]), own)


def _command(event: CommandReceived | CommandAcknowledged) -> Command:
    return parse(event.command, id=event.id, source=event.source)


def _deed(command: Command, event: Event, *, answered: bool) -> Deed:
    """The command, to be done again where `event` says that it was done."""
    if isinstance(event, RolledBack):
        # By name: what "the stage before" means depends on what retention has kept since.
        command = replace(command, target=event.checkpoint)
        return Deed(Place(event.from_branch, event.from_step), command, event.seq, answered)
    return Deed(Place(event.at.branch, event.at.step), command, event.seq, answered)


def _effects(events: Iterable[Event], waiting: Iterable[Command]) -> dict[str, Event]:
    """What the journal tells of what commands did, by their ids; not all do something that is told.

    waiting: unanswered ones.
    """
    effects: dict[str, Event] = {}
    told: list[Event] = []

    def find(command: Command) -> None:
        effect = next((event for event in told if _is_effect(command, event)), None)
        if effect is not None:
            effects[command.id] = effect

    for event in events:
        if not isinstance(event, CommandAcknowledged):
            told.append(event)
        elif event.ok and (command := _command(event)).name in DONE_AGAIN:
            find(command)
            if command.source != SOURCE:
                told.clear()
            elif command.id in effects:
                told.remove(effects[command.id])
    for command in waiting:
        find(command)
    return effects


def _is_effect(command: Command, event: Event) -> bool:
    match command.name, event:
        case (
            ("rollback", RolledBack())
            | ("advance", StageEntered(cause="operator" | "watch"))
            | ("evaluate", Evaluated(cause="operator"))
            | ("set", SettingChanged())
            | ("save", CheckpointSaved(cause="manual"))
        ):
            return True
    return False


class Retold:
    """What the journal has from the time that is done again. Each event is passed over once."""

    def __init__(self, events: Iterable[Event] = (), seq: int = 0) -> None:
        self.seq = seq
        """The place on the run's line: the last event that was passed over."""
        self._waiting: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        self._reached: dict[int, int] = defaultdict(int)
        for event in events:
            if event.seq <= seq:
                continue
            at = event.at
            self._reached[at.branch] = max(self._reached[at.branch], at.step)
            if _is_retold(event):
                self._waiting[_key(event)].append(event.seq)

    def has(self, event: Event) -> bool:
        """Whether the journal has this event already; it is then crossed out."""
        if not _is_retold(event) or not (waiting := self._waiting.get(_key(event))):
            return False
        self.passed(waiting.pop(0))
        if not waiting:
            del self._waiting[_key(event)]
        return True

    def tip(self, branch: int) -> int:
        """The step of a branch that the journal tells of last."""
        return self._reached.get(branch, 0)

    def passed(self, seq: int) -> None:
        """What event `seq` tells of has been done again."""
        self.seq = max(self.seq, seq)

    def ahead(self, place: Place) -> bool:
        """Whether the journal tells more of this branch, here or further on.

        It may tell of a step only that training was paused there: that is where a pause belongs.
        """
        if place.step < self.tip(place.branch):
            return True
        return any(key[1] == place.branch and key[2] >= place.step for key in self._waiting)


def _is_retold(event: Event) -> bool:
    """Whether doing the same steps again tells it again. What a process says of itself is not of these."""
    if isinstance(event, AlarmRaised | AlarmCleared) and event.kind == DISK:
        return False
    if isinstance(event, CommandReceived | CommandAcknowledged):
        return event.source == SOURCE
    return event.of_step if isinstance(event, Notice) else isinstance(event, RETOLD)


def _key(event: Event) -> tuple[Any, ...]:
    """What tells two events of one kind apart; the figures in them may be a clock's."""
    at = event.at
    names = ("cause", "split", "key", "kind", "checkpoint", "of", "plan", "id")
    own = tuple(str(getattr(event, name, "")) for name in names)
    message = event.message if isinstance(event, Notice) else ""
    return type(event), at.branch, at.step, at.stage, *own, message
