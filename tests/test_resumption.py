"""Going on after a kill: what is done again, what is told again, and what is answered."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.control import Command, Control, parse
from trainer.events import (
    At,
    CommandAcknowledged,
    CommandReceived,
    Event,
    Metrics,
    RolledBack,
    SettingChanged,
    StageEntered,
    StateChanged,
)
from trainer.inbox import Inbox
from trainer.orders import Orders
from trainer.saving.resumption import Deed, Place, Plan, Retold, plan

ROOT = Path(__file__).resolve().parents[1]


def at(step: int, branch: int = 1) -> At:
    return At(step=step, branch=branch)


def received(line: str, id: str, step: int = 0) -> Event:
    return CommandReceived(at=at(step), id=id, command=line, source="test")


def answered(line: str, id: str, step: int, branch: int = 1, *, ok: bool = True) -> Event:
    return CommandAcknowledged(at=at(step, branch), id=id, command=line, source="test", ok=ok, message="")


def numbered(*events: Event) -> list[Event]:
    return [replace(event, seq=seq) for seq, event in enumerate(events, start=1)]


def deed(line: str, id: str, step: int, seq: int, *, answered: bool = True) -> Deed:
    return Deed(Place(1, step), parse(line, id=id, source="test"), seq, answered)


def test_acknowledged_commands_are_done_again_at_their_steps() -> None:
    events = numbered(
        received("hold", "a"), answered("hold", "a", 3),
        received("set optim.lr 1e-4", "b"), answered("set optim.lr 1e-4", "b", 7),
        received("advance 99", "c"), answered("advance 99", "c", 8, ok=False),
        received("pause", "d"), answered("pause", "d", 9),
    )  # fmt: skip
    assert plan(events, 2, "").script == (deed("set optim.lr 1e-4", "b", 7, 4),)
    assert plan(events, 0, "").script == (
        deed("hold", "a", 3, 2),
        deed("set optim.lr 1e-4", "b", 7, 4),
    )
    assert plan(events, len(events), "") == Plan()


def test_a_roll_back_is_done_again_where_it_was_asked_for_and_to_what_it_named() -> None:
    rolled = RolledBack(at=at(10, 2), checkpoint="b1-s000010-stage1", parent=1, from_branch=1, from_step=30)
    events = numbered(received("rollback", "a", 30), rolled, answered("rollback", "a", 10, 2))
    (again,) = plan(events, 0, "").script
    assert again.place == Place(1, 30)
    assert again.command.target == "b1-s000010-stage1"


def test_what_the_checkpoint_holds_already_is_not_done_twice() -> None:
    """The entry of a stage is saved before its `advance` is answered."""
    entered = StageEntered(at=at(5), text="", cause="operator")
    events = numbered(received("advance", "a"), entered, answered("advance", "a", 5))
    assert plan(events, 2, "a") == Plan()
    unanswered = plan(events[:2], 2, "a")
    assert unanswered.script == ()
    assert unanswered.done == parse("advance", id="a", source="test")


def test_a_command_that_was_begun_is_finished_and_one_that_was_not_is_refused() -> None:
    changed = SettingChanged(at=at(6), key="optim.lr", old=1.0, new=2.0)
    events = numbered(received("set optim.lr 2.0", "a"), received("advance", "b"), changed)
    assert plan(events, 0, "") == Plan(
        script=(deed("set optim.lr 2.0", "a", 6, 3, answered=False),),
        lost=(parse("advance", id="b", source="test"),),
    )
    assert plan(events[:2], 0, "").script == ()
    assert [c.id for c in plan(events[:2], 0, "").lost] == ["a", "b"]


def test_a_save_whose_checkpoint_is_all_that_is_left_of_it_was_done() -> None:
    events = numbered(received("save", "a"), received("advance", "b"))
    found = plan(events, 1, "a")
    assert found.done is not None and found.done.id == "a"
    assert [c.id for c in found.lost] == ["b"]


def test_a_checkpoint_made_while_all_is_done_again_holds_what_was_done_before_it() -> None:
    """The answer may be told after events that are still to be done again, or in a later process."""
    entered = StageEntered(at=at(5), text="", cause="operator")
    prompt = numbered(received("advance", "a"), entered, answered("advance", "a", 5))
    assert plan(prompt, 2, "") == Plan()
    metrics = SettingChanged(at=at(8), key="optim.lr", old=1.0, new=2.0)
    refused = answered("save", "b", 6, ok=False)
    late = numbered(received("advance", "a"), entered, metrics, refused, answered("advance", "a", 9))
    assert plan(late, 2, "") == Plan()
    assert plan(late, 1, "").script == (deed("advance", "a", 5, 2),)
    assert plan(late[:4], 1, "").script == (deed("advance", "a", 5, 2, answered=False),)
    assert plan(late[:4], 2, "").done == parse("advance", id="a", source="test")


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=30), st.integers(0, 30))
def test_each_event_is_passed_over_as_often_as_the_journal_has_it(
    entries: list[tuple[int, bool]], seq: int
) -> None:
    def event(step: int, stage: bool) -> Event:
        if stage:
            return StageEntered(at=at(step), text="", cause="schedule")
        return Metrics(
            at=at(step), loss=step, loss_answer=1.0, loss_cot=None, grad_norm=1.0, lr=1.0, steps=1,
            steps_per_second=1.0, tokens_per_second=1.0, epoch=0.0,
        )  # fmt: skip

    events = numbered(*(event(*entry) for entry in entries))
    told = Retold(events, seq)
    later = entries[seq:]
    for entry in later:
        assert told.ahead(Place(1, 0))
        assert told.has(event(*entry))
    assert not told.ahead(Place(1, 8))
    assert not any(told.has(event(*entry)) for entry in entries)
    assert told.seq == max(seq, len(events)) if later else told.seq == seq


def test_a_step_of_which_only_a_pause_is_told_is_done_again_before_that_pause() -> None:
    """What `run 9` led to was seen; a run taken up paused must not stand a step before it."""
    told = Retold(numbered(answered("run 9", "a", 12), StateChanged(at=at(21), state="paused")), 1)
    assert told.ahead(Place(1, 20))
    assert not told.ahead(Place(1, 21))
    assert not told.ahead(Place(2, 20))


class Repeating:
    """A run that does again what was before, and takes down how it answers. It is a worker and a record."""

    def __init__(self) -> None:
        self.control, self.ended, self.waits, self.at, self.trouble = Control(), False, "", at(3), None
        self.inbox = Inbox()
        self.orders = Orders(self, self.inbox, self)
        self.answers: dict[str, bool] = {}

    def serve(self, *lines: str) -> None:
        for line in lines:
            self.inbox.put(parse(line, id=line))
        self.orders.serve()

    def do(self, command: Command) -> tuple[bool, str]:
        self.control = replace(self.control, paused=command.name == "pause")
        return True, "done"

    def tell(self, event: Event, *, wait: bool = False) -> None:
        assert isinstance(event, CommandAcknowledged)
        self.answers[event.id] = event.ok

    def position(self, *, repeating: bool) -> int:
        return 0

    def settle(self) -> None: ...

    def passed(self, seq: int) -> None: ...

    def ahead(self, place: Place) -> bool:
        return place.step < 10


@pytest.mark.parametrize(
    "batches", [["pause", "rollback"], ["rollback", "pause"], ["pause rollback"], ["rollback pause"]]
)
def test_no_command_waits_for_the_end_of_a_repetition_that_is_paused(batches: list[str]) -> None:
    """Whichever comes first, and also where both come between the same two steps."""
    run = Repeating()
    for batch in batches:
        run.serve(*batch.split())
    assert run.answers == {"pause": True, "rollback": False}
    run.serve("resume", "save")
    assert run.answers == {"pause": True, "rollback": False, "resume": True}, "what is left waits for the end"
    run.at = at(10)
    run.serve()
    assert run.answers["save"]


@pytest.mark.slow
@pytest.mark.timeout(1_000)
def test_killed_again_and_again_it_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Real processes, killed at random instants; `benchmarks/kills.py` says what is compared."""
    command = [sys.executable, ROOT / "benchmarks/kills.py", "--kills", "6", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": 0 differences" in done.stdout.splitlines()[-1]
