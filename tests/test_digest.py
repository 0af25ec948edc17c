"""What late comers are told, against what those know who heard it all."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks import long_journal
from stepwise_tui import history as histories
from stepwise_tui.charts.curves import chart
from stepwise_tui.charts.quantities import QUANTITIES
from stepwise_tui.charts.view import Span, View
from stepwise_tui.history import History, apply, replay
from tests.scripted import SCRIPTED
from trainer.events import (
    EVENTS,
    AlarmCleared,
    AlarmRaised,
    At,
    ChatAnswered,
    CheckpointRemoved,
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
    QuizTaken,
    RolledBack,
    RunCrashed,
    RunFinished,
    RunStarted,
    SettingChanged,
    StageEntered,
    StateChanged,
    WatchPlanned,
    decode,
    encode,
)
from trainer.record import digest, thinning
from trainer.record.digest import Digest

STAGES = 4
VIEWS = (
    View(),
    View("removed", logs=frozenset({"loss", "gradient"})),
    View("time", smoothing="off"),
    View(window="recent", smoothing="strong"),
    View(window="stage", cursor=7),
    View(span=Span(5.0, 25.0, follows=True)),
)
VALUES = (0.5, 0.25, 0.75, 9.0, 0.5, float("nan"), float("inf"))
STATES = ("training", "paused", "evaluating", "crashed", "finished")
COMMANDS = (
    "pause",
    "resume",
    "hold",
    "release",
    "run 5",
    "save",
    "stop",
    "advance",
    "quiz 5",
    "ask 1*1",
    "ask 2*2",
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds so narrow that a short story meets them all."""
    monkeypatch.setattr(thinning, "LIMIT", 8)
    monkeypatch.setattr(thinning, "RECENT", 6)
    for module in (digest, histories):
        monkeypatch.setattr(module, "LINES", 6)
        monkeypatch.setattr(module, "TURNS", 3)


class Teller:
    """Tells a story that could be a run's, by chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.time, self.step, self.branch, self.branches, self.scheduled = 1.0, 0, 1, 1, 0
        self.tips = {1: (0, 0)}
        self.ids = 0
        self.open: list[CommandReceived] = []
        self.saved: list[tuple[str, int, int, int]] = []

    @property
    def at(self) -> At:
        stage = min(self.scheduled, STAGES)
        return At(self.step, self.branch, stage, self.scheduled, stage, self.time)

    def tell(self, doings: list[str]) -> Iterator[Event]:
        yield self.started()
        for doing in doings:
            self.time += 1.0
            yield from getattr(self, doing)()

    def value(self) -> float:
        return self.chance.choice(VALUES)

    def started(self) -> RunStarted:
        return RunStarted(at=self.at, name="a", stages=STAGES, steps_per_epoch=100)

    def train(self) -> Iterator[Event]:
        self.step += self.chance.choice([1, 1, 2, 7])
        cot = None if self.scheduled >= STAGES else self.value()
        skipped = self.chance.choice([0, 0, 0, 1])
        yield Metrics(
            at=self.at, loss=self.value(), loss_answer=self.value(), loss_cot=cot, grad_norm=self.value(),
            lr=0.1, steps=1, steps_per_second=10.0, tokens_per_second=self.value(), epoch=0.1,
            skipped=skipped,
        )  # fmt: skip

    def evaluate(self) -> Iterator[Event]:
        accuracy = self.chance.choice([0.0, 0.25, 0.5, 1.0])
        split = self.chance.choice(["valid", "valid", "valid", "test"])
        yield Evaluated(
            at=self.at, split=split, accuracy=accuracy, token_accuracy=1 - accuracy, correct=1, n=4,
            cot_tokens=1.0, seconds=0.1,
        )  # fmt: skip
        yield ExamplesShown(at=self.at, examples=())

    def probe(self) -> Iterator[Event]:
        accuracy = self.chance.random()
        yield Probed(
            at=self.at, accuracy=accuracy, n=4, mean=accuracy, target=0.9, at_once=1, careful=0, seconds=0.1
        )

    def remove(self) -> Iterator[Event]:
        self.scheduled += 1
        if self.scheduled <= STAGES:
            yield StageEntered(at=self.at, text=f"{self.scheduled} removed", cause="schedule")
            yield from self.save("stage")

    def save(self, cause: str = "") -> Iterator[Event]:
        cause = cause or self.chance.choice(["time", "manual", "stop", "final"])
        id = f"b{self.branch}-{self.step}-{min(self.scheduled, STAGES)}-{cause}"
        self.saved = [s for s in self.saved if s[0] != id] + [(id, self.branch, self.step, self.scheduled)]
        yield CheckpointSaved(at=self.at, checkpoint=id, cause=cause, seconds=0.1, bytes=10)  # type: ignore[arg-type]

    def forget(self) -> Iterator[Event]:
        if self.saved:
            id = self.saved.pop(self.chance.randrange(len(self.saved)))[0]
            yield CheckpointRemoved(at=self.at, checkpoint=id)

    def ask(self) -> Iterator[Event]:
        self.ids += 1
        asking = sum(digest.is_question(received) for received in self.open)
        command = self.chance.choice(COMMANDS if asking < 2 else COMMANDS[:-3])
        received = CommandReceived(at=self.at, id=f"c{self.ids}", command=command, source="test")
        self.open.append(received)
        yield received

    def answer(self) -> Iterator[Event]:
        if not self.open:
            return
        received = self.open.pop(0)
        ok = self.chance.random() < 0.8
        if received.command.startswith("ask ") and ok:
            yield ChatAnswered(at=self.at, id=received.id, asked="1*1", question="1 × 1", answer="1")
        if received.command.startswith("quiz ") and ok:
            yield QuizTaken(
                at=self.at, id=received.id, n=5, correct=3, cot_tokens=1.0, saved=1.0, milliseconds=1.0
            )
        yield CommandAcknowledged(
            at=self.at, id=received.id, command=received.command, source="test", ok=ok, message="well"
        )

    def roll_back(self) -> Iterator[Event]:
        if not self.saved:
            return
        id, parent, step, scheduled = self.chance.choice(self.saved)
        before, from_step = self.branch, self.step
        self.branches += 1
        self.branch, self.step, self.scheduled = self.branches, step, scheduled
        yield RolledBack(
            at=self.at, checkpoint=id, parent=parent, from_branch=before, from_step=from_step,
            keep_weights=self.chance.random() < 0.2,
        )  # fmt: skip
        yield StageEntered(at=self.at, text="again", cause="rollback")

    def resume(self) -> Iterator[Event]:
        """A process takes the run up at an earlier place of its branch, and does it again in silence."""
        now = self.step, self.scheduled
        past = [s for s in self.saved if s[1] == self.branch]
        if past:
            _, _, self.step, self.scheduled = self.chance.choice(past)
        yield self.started()
        if self.chance.random() < 0.5:
            yield Notice(at=self.at, message="done again")
        self.step, self.scheduled = now

    def state(self) -> Iterator[Event]:
        yield StateChanged(at=self.at, state=self.chance.choice(STATES))  # type: ignore[arg-type]

    def notice(self) -> Iterator[Event]:
        yield Notice(at=self.at, message=f"notice {self.time}")

    def change(self) -> Iterator[Event]:
        key = self.chance.choice(["optim.lr", "eval.every"])
        yield SettingChanged(at=self.at, key=key, old=1, new=self.chance.randrange(1, 9))

    def alarm(self) -> Iterator[Event]:
        kind = self.chance.choice(["dip", "gradient"])
        if self.chance.random() < 0.6:
            yield AlarmRaised(at=self.at, kind=kind, message="oh", remedy="roll back", key="r")
        else:
            yield AlarmCleared(at=self.at, kind=kind, message="good")

    def watch(self) -> Iterator[Event]:
        if self.chance.random() < 0.5:
            yield WatchPlanned(at=self.at, plan=f"waits {self.time}")
        else:
            yield DipMeasured(at=self.at, of=1, entered=0, before=1.0, lowest=0.5, steps=self.step)

    def end(self) -> Iterator[Event]:
        if self.chance.random() < 0.5:
            yield RunCrashed(at=self.at, error="no", traceback="a\nb", checkpoint="")
        else:
            yield RunFinished(
                at=self.at, reason="r", state="finished", accuracy=1.0, n=4, seconds=1.0, checkpoint="c"
            )


DOINGS = [
    *["train"] * 6, "evaluate", "probe", "remove", "remove", "save", "forget", "forget", "ask", "answer",
    "answer", "roll_back", "resume", "state", "notice", "change", "alarm", "watch", "end",
]  # fmt: skip


def digested(events: list[Event]) -> list[Event]:
    kept = Digest()
    for event in events:
        kept.add(encode(event).encode() + b"\n")
    return [decode(line) for line in kept.lines()]


def numbered(events: Iterator[Event]) -> list[Event]:
    return [replace(event, seq=seq) for seq, event in enumerate(events, 1)]


def known(history: History) -> dict[str, Any]:
    """All that a screen shows, by name."""
    shown: dict[str, Any] = {
        "before": (history.log_total, history.chat_total),
        "log": list(history.log),
        "chat": list(history.chat),
    }
    for name in ("timeline", "at", "state", "config", "control", "pending", "probed", "counted_from"):
        shown[name] = getattr(history, name)
    told = ("started", "evaluated", "shown", "shown_of", "alarm", "plan", "finished", "crashed", "lineage")
    for name in ("steps_to_next", *told):
        shown[name] = getattr(history, name)
    shown["metrics"] = repr(history.metrics)  # nan is not equal to itself
    for view in VIEWS:
        for quantity in QUANTITIES:
            drawn = chart(quantity, history, (60, 16), view).text
            shown[f"{quantity.title} in {view}"] = drawn.plain, drawn.spans
    return shown


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(DOINGS), max_size=120), st.integers(0, 1 << 30), st.data())
def test_who_comes_late_sees_what_those_see_who_were_there(
    doings: list[str], seed: int, data: st.DataObject
) -> None:
    events = numbered(Teller(seed).tell(doings))
    come = data.draw(st.integers(0, len(events)))
    heard, late = replay(events, SCRIPTED), replay(digested(events[:come]), SCRIPTED)
    for event in events[come:]:
        apply(late, event)
    there, here = known(heard), known(late)
    for name, value in there.items():
        assert here[name] == value, name


@settings(max_examples=15, deadline=None)
@example(1585362, 100)
@example(5440, 214)
@example(1873, 128)
@given(st.integers(0, 1 << 30), st.integers(100, 400))
def test_a_long_story_too_and_a_digest_of_its_digest(seed: int, length: int) -> None:
    doings = random.Random(seed).choices(DOINGS, k=length)
    events = numbered(Teller(seed).tell(doings))
    once = digested(events)
    assert known(replay(once, SCRIPTED)) == known(replay(events, SCRIPTED))
    assert [encode(e) for e in digested(once[:-1])[:-1]] == [encode(e) for e in once[:-1]]


def test_each_event_makes_as_many_lines_as_it_is_said_to() -> None:
    events = numbered(Teller(3).tell(DOINGS * 40))
    for event in events:
        history = replay([event], SCRIPTED)
        assert history.log_total == digest.said(event), event
    assert {type(event) for event in events} >= {kind for kind in EVENTS.values() if not kind.transient}


def test_a_digest_does_not_grow_with_the_run() -> None:
    sizes = []
    kept = Digest()
    for event in long_journal.events(12_000):
        kept.add(encode(event).encode())
        if event.seq in (3_000, 6_000, 12_000):
            sizes.append(len(kept.lines()))
    structure = 2 * long_journal.STAGES
    assert max(sizes) < structure + 600, sizes


def test_ordinary_metrics_are_read_without_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all lines of a long journal are these, and to decode one takes many times as long."""
    kept = Digest()
    ordinary = [e for e in long_journal.events(300) if isinstance(e, Metrics) and not e.skipped]
    assert len(ordinary) > 100

    def refuse(line: bytes) -> Event:
        raise AssertionError(line)

    monkeypatch.setattr(digest, "decode", refuse)
    for event in ordinary:
        kept.add(encode(event).encode())
    assert kept.seq == ordinary[-1].seq and len(kept.lines()) > 1


def test_what_is_no_event_is_passed_over() -> None:
    kept = Digest()
    for line in (b"", b"\n", b"\xff\xfe", b"{}", b'{"seq":1,"event":"no_such","step":1}', b"[" * 10_000):
        kept.add(line)
    assert len(kept.lines()) == 1
