"""The commands of a run, served between two steps: those that arrive, and those that are done again.

After a kill the steps since the last checkpoint are done again, and the commands of that time between the
same steps (`resumption`). What arrives meanwhile belongs after them and waits, except what changes no weight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from trainer.control import HARMLESS, Command, Control
from trainer.events import At, CommandReceived, Event, Notice
from trainer.files import Trouble
from trainer.inbox import Answer, Inbox, acknowledgement
from trainer.saving.resumption import Deed, Place, Plan

AT_ONCE = ("stop", "pause", "resume", *HARMLESS)
"""Commands that are served also while what was done before is done again: they change no weight."""


TOO_EARLY = "what was done before the interruption is being done again, and that is paused; resume it first"
"""Why a command is refused that would wait for the end of a repetition that is paused."""


class Record(Protocol):
    """What the run tells, and what it has told already."""

    def tell(self, event: Event, *, wait: bool = False) -> None:
        """Hand an event on. wait: return when it is on the disk."""
        ...

    @property
    def trouble(self) -> Trouble | None:
        """Why nothing that is told can be written at the moment, or None."""
        ...

    def position(self, *, repeating: bool) -> int:
        """How much of the journal came before the loop's place."""
        ...

    def settle(self) -> None:
        """Return when all that was told is on the disk. Raises OSError while the disk refuses."""
        ...

    def passed(self, seq: int) -> None:
        """What event `seq` tells of has been done again."""
        ...

    def ahead(self, place: Place) -> bool:
        """Whether the journal tells already of what comes here."""
        ...


class Worker(Protocol):
    """Who carries the commands out: the loop."""

    control: Control
    ended: bool
    waits: str

    @property
    def at(self) -> At:
        """Where the run stands."""
        ...

    def do(self, command: Command) -> tuple[bool, str]:
        """Decide and carry out; whether it was done, and a sentence."""
        ...


class Orders:
    """What a run has been asked to do. `serve` it between two steps."""

    def __init__(self, worker: Worker, inbox: Inbox, record: Record) -> None:
        self._worker = worker
        self._inbox = inbox
        self._record = record
        self._script: deque[Deed] = deque()
        self._own: Mapping[str, Command] = {}
        self._later: list[Command] = []
        self.afterwards = Control()
        """What holds, of pauses, when all that is told already has been done again."""
        self.unanswered: list[tuple[Command, bool, str]] = []
        """Commands of before the process ended that get their answers when all has been done again."""

    def take_up(self, plan: Plan, afterwards: Control) -> None:
        """Go on with what was asked for before the process ended. afterwards: what the operator held then."""
        self._script.extend(plan.script)
        self._own = plan.own
        self.afterwards = afterwards
        if plan.done is not None:
            self.unanswered.append((plan.done, True, "done; the run was interrupted before it could say so"))
        lost = "the run was interrupted before it came to this"
        self.unanswered += [(command, False, lost) for command in plan.lost]

    @property
    def repeating(self) -> bool:
        """Whether what the journal tells already is being done again."""
        return not self._worker.ended and (bool(self._script) or self._record.ahead(self._place))

    @property
    def _place(self) -> Place:
        at = self._worker.at
        return Place(at.branch, at.step)

    def serve(self, *, at_the_end: bool = False) -> None:
        """Carry out what is due here, again or for the first time.

        at_the_end: the run had come to its end, and nothing but that is left to be done again: it waits.
        """
        while self._script and self._script[0].is_due(self._place) and not self._worker.waits:
            self._repeat(self._script.popleft())
        arrived = self._inbox.take()
        if self.repeating and not at_the_end:
            self._later += [c for c in arrived if c.name not in AT_ONCE]
            arrived = [c for c in arrived if c.name in AT_ONCE]
        else:
            self._catch_up()
            arrived = [*self._later, *arrived]
            self._later.clear()
        for command in arrived:
            if self._inbox.answer(command.id) is None:
                self._obey(command)
        if self.repeating and self._worker.control.paused:
            self._refuse_the_later()

    def carry_out(self, command: Command, reason: str) -> None:
        """A command of the run's own, done and answered like anybody's, and told why.

        Who gives it gives it again when the steps are done again, with the same id; it is then done as it was
        before, and what was told of it is not told twice.
        """
        command = self._own.get(command.id, command)
        self._record.tell(
            CommandReceived(at=self._worker.at, id=command.id, command=command.text, source=command.source)
        )
        try:
            ok, message = self._worker.do(command)
        except Exception as error:
            self._acknowledge(command, False, f"failed: {type(error).__name__}: {error}")
            raise
        self._acknowledge(command, ok, f"{message} ({reason})")

    def _refuse_the_later(self) -> None:
        """Their place is after what is being done again; while that is paused they would wait for ever."""
        later, self._later = self._later, []
        for command in later:
            self._acknowledge(command, False, TOO_EARLY)

    def give_up(self) -> None:
        """The run is over: nothing is done again any more, and what waits for that is refused."""
        self._script.clear()
        self.unanswered += [(c, False, "the run was stopped before it came to this") for c in self._later]
        self._later.clear()

    def _catch_up(self) -> None:
        """All is done again: what was open is answered, and a pause that was asked for holds from here."""
        for command, ok, message in self.unanswered:
            self._acknowledge(command, ok, message)
        self.unanswered.clear()
        later, self.afterwards = self.afterwards, Control()
        if later.paused or later.pause_at is not None:
            reached = later.pause_at is not None and later.pause_at <= self._place.step
            pause_at = None if reached else later.pause_at
            worker = self._worker
            worker.control = replace(worker.control, paused=later.paused or reached, pause_at=pause_at)

    def _repeat(self, deed: Deed) -> None:
        ok, message = self._worker.do(deed.command)
        self._record.passed(deed.seq)
        if not deed.answered:
            self.unanswered.append((deed.command, ok, message))
        elif not ok:
            text = f"{deed.command.text}: done before the interruption, and not possible again: {message}"
            self._record.tell(Notice(at=self._worker.at, level="error", message=text))
            if deed.command.name == "rollback":
                self._script.clear()  # what followed was done on a branch that there is not now

    def _obey(self, command: Command) -> None:
        try:
            ok, message = self._worker.do(command)
        except Exception as error:
            self._acknowledge(command, False, f"failed: {type(error).__name__}: {error}")
            raise  # what it left half-done is not trained on; the answer stands first
        self._acknowledge(command, ok, message)

    def _acknowledge(self, command: Command, ok: bool, message: str) -> None:
        at = self._worker.at
        answer = Answer(ok, message, at.step)
        self._inbox.answered(command.id, answer)
        self._record.tell(acknowledgement(command, at, answer), wait=True)
