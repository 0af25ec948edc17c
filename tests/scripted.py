"""A run that was never trained: a believable stream of events, and a link that plays it to a screen.

The numbers follow what a small model does: the loss falls, jumps at each removal, and accuracy dips and
recovers. Everything is a function of the arguments, times included.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stepwise_tui.link import Link
from trainer.config import Config, build
from trainer.control import Command
from trainer.events import (
    AlarmRaised,
    At,
    ChatAnswered,
    ChatToken,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    Evaluated,
    Event,
    ExamplesAnswered,
    ExamplesShown,
    Metrics,
    Notice,
    RolledBack,
    RunCrashed,
    RunFinished,
    RunStarted,
    ShownExample,
    StageEntered,
    StateChanged,
)

BORN = 1_780_000_000.0
STAGES = 9
PRETRAIN, PER_TOKEN = 400, 200
COT = ("8", "4", "0", "+", "0", "6", "3", "0", "")

SCRIPTED = build(
    {
        "title": "a run that was never trained",
        "data": {"digits": 2, "train": 7_100, "valid": 500, "test": 500},
        "model": {"init": "scratch", "vocab": "task", "layers": 2, "heads": 4, "width": 128},
        "schedule": {"pretrain_steps": PRETRAIN, "steps_per_token": PER_TOKEN},
    }
)


class Script:
    """Writes events one after another, and keeps track of where the run stands."""

    def __init__(self, *, lost: bool = False) -> None:
        self.events: list[Event] = []
        self.step, self.branch, self.stage = 0, 1, 0
        self.entered = 0
        self.lost = lost
        self.saves: list[str] = []
        self.random = random.Random(0)

    @property
    def at(self) -> At:
        time = BORN + 0.15 * len(self.events)
        return At(self.step, self.branch, min(self.stage, STAGES), self.stage, min(self.stage, STAGES), time)

    def say(self, event: Event) -> Event:
        self.events.append(event)
        return event

    def start(self) -> Script:
        self.say(
            RunStarted(
                at=self.at,
                name="brisk-otter",
                title=SCRIPTED.title,
                method="stepwise",
                task="multiplication",
                model="scratch",
                device="cpu",
                parameters=403_000,
                train_examples=7_100,
                stages=STAGES,
                steps_per_epoch=111,
            )
        )
        self.say(Notice(at=self.at, message="a checkpoint at every stage and every 60 s"))
        self.enter(0, "start")
        self.say(StateChanged(at=self.at, state="training"))
        return self

    def enter(self, stage: int, cause: str = "schedule") -> None:
        self.stage, self.entered = stage, self.step
        text = f"{stage} of {STAGES} CoT tokens removed" if stage < STAGES else "all 9 CoT tokens removed"
        self.say(StageEntered(at=self.at, text=text, cause=cause, optimizer_reset=stage > 0))  # type: ignore[arg-type]
        self.save("stage")

    def save(self, cause: str) -> str:
        id = f"b{self.branch}-{self.step:06d}"
        self.saves.append(id)
        self.say(CheckpointSaved(at=self.at, checkpoint=id, cause=cause, seconds=0.1, bytes=1_630_000))  # type: ignore[arg-type]
        return id

    def train_to(self, step: int) -> Script:
        while self.step < step:
            due = self.step >= PRETRAIN and self.step - max(self.entered, PRETRAIN) >= PER_TOKEN
            if due:
                if self.stage < STAGES:
                    self.enter(self.stage + 1)
                else:
                    self.stage, self.entered = self.stage + 1, self.step
            self.step += 10
            self.say(self._metrics())
            if self.step % 50 == 0:
                self.evaluate()
        return self

    def _dip(self) -> float:
        """How badly the last removal hurts now: 1 fresh, towards 0 recovered."""
        if self.stage == 0:
            return math.exp(-self.step / 120)
        since = self.step - self.entered
        hurt = 0.35 + 0.65 * min(self.stage, STAGES) / STAGES
        if self.lost and self.stage >= 4:
            return min(1.0, 0.6 + 0.1 * (self.stage - 3))
        return hurt * math.exp(-since / 60)

    def _metrics(self) -> Metrics:
        dip, noise = self._dip(), self.random.gauss(0, 0.02)
        answer = max(0.002, 1.7 * dip + 0.01 + noise * (0.2 + dip))
        cot = None if self.stage >= STAGES else max(0.001, 0.6 * dip + abs(noise) / 3)
        loss = answer if cot is None else 0.5 * (answer + cot)
        return Metrics(
            at=self.at,
            loss=loss,
            loss_answer=answer,
            loss_cot=cot,
            grad_norm=0.8,
            lr=2e-3,
            steps=10,
            steps_per_second=16.6,
            tokens_per_second=21_300.0,
            epoch=self.step / 111,
        )

    def evaluate(self) -> None:
        accuracy = min(1.0, max(0.0, 1 - 1.15 * self._dip() + self.random.gauss(0, 0.008)))
        correct = round(500 * accuracy)
        self.say(
            Evaluated(
                at=self.at,
                split="valid",
                accuracy=correct / 500,
                token_accuracy=min(1.0, 0.6 + 0.4 * accuracy),
                correct=correct,
                n=500,
                cot_tokens=float(STAGES - min(self.stage, STAGES)),
                seconds=0.2,
            )
        )
        self.say(ExamplesShown(at=self.at, examples=examples(min(self.stage, STAGES), accuracy)))

    def answered(self, checkpoint: str = "", *, accuracy: float = 0.9, stage: int | None = None) -> Script:
        """The held-out examples, answered to be looked at: by a checkpoint, "" for the live weights."""
        stage = min(self.stage, STAGES) if stage is None else stage
        shown = tuple(one if one.correct else misspoken(one) for one in examples(stage, accuracy))
        self.say(
            ExamplesAnswered(
                at=self.at,
                id=f"x{len(self.events)}",
                n=500,
                correct=round(500 * accuracy),
                cot_tokens=float(STAGES - stage),
                seconds=0.3,
                examples=shown,
                checkpoint=checkpoint or "current weights",
            )
        )
        return self

    def command(self, text: str, message: str, *, ok: bool = True, id: str = "") -> None:
        id = id or f"c{len(self.events)}"
        self.say(CommandReceived(at=self.at, id=id, command=text, source="cockpit"))
        self.say(
            CommandAcknowledged(at=self.at, id=id, command=text, source="cockpit", ok=ok, message=message)
        )

    def pause(self) -> Script:
        self.command("pause", f"paused at step {self.step:,}")
        self.say(StateChanged(at=self.at, state="paused"))
        return self

    def alarm(self) -> Script:
        self.say(
            AlarmRaised(
                at=self.at,
                kind="dip",
                message="accuracy .97 → .03 since stage 3, not back after 6 evaluations",
                remedy="roll back to stage 3",
                key="r",
                target="3",
                goes_on="the schedule goes on removing tokens",
            )
        )
        return self

    def roll_back(self, stage: int, step: int) -> Script:
        from_branch, from_step = self.branch, self.step
        self.branch, self.step = self.branch + 1, step
        self.stage, self.entered, self.lost = stage, step, False
        self.say(
            RolledBack(
                at=self.at,
                checkpoint=f"b1-{step:06d}",
                parent=1,
                from_branch=from_branch,
                from_step=from_step,
            )
        )
        text = f"{stage} of {STAGES} CoT tokens removed"
        self.say(StageEntered(at=self.at, text=text, cause="rollback", optimizer_reset=True))
        return self

    def chat(self) -> Script:
        left = COT[min(self.stage, STAGES) :]
        self.say(CommandReceived(at=self.at, id="q1", command="ask 12*34", source="cockpit"))
        for token in left:
            self.say(ChatToken(at=self.at, id="q1", text=f" {token}", part="cot"))
        self.say(answer("q1", "12*34", self.at, question="12 × 34", cot=left, answer="408", correct=True))
        self.say(CommandReceived(at=self.at, id="q2", command="ask 97 x 86", source="cockpit"))
        self.say(
            answer(
                "q2", "97 x 86", self.at, question="97 × 86", cot=left, answer="8352", correct=False,
                expected="8342",
            )
        )  # fmt: skip
        self.say(CommandReceived(at=self.at, id="q3", command="ask 123*45", source="cockpit"))
        note = "123 has 3 digits; this model was trained on 2×2"
        self.say(
            answer(
                "q3", "123*45", self.at, question="123 × 45", cot=left, answer="4535", correct=False,
                expected="5535", note=note,
            )
        )  # fmt: skip
        self.say(CommandReceived(at=self.at, id="q4", command="ask how are you?", source="cockpit"))
        note = "This model multiplies two numbers; try 12*34."
        self.say(ChatAnswered(at=self.at, id="q4", asked="how are you?", understood=False, note=note))
        for id in ("q1", "q2", "q3", "q4"):
            self.say(
                CommandAcknowledged(
                    at=self.at, id=id, command="ask it", source="cockpit", ok=True, message=""
                )
            )
        return self

    def finish(self) -> Script:
        saved = self.save("final")
        self.say(
            RunFinished(
                at=self.at,
                reason="accuracy held 0.98 for 3 evaluations (stop.accuracy)",
                limit="stop.accuracy",
                state="finished",
                accuracy=0.994,
                n=500,
                seconds=214.0,
                checkpoint=saved,
            )
        )
        self.say(StateChanged(at=self.at, state="finished"))
        return self

    def crash(self) -> Script:
        self.say(
            RunCrashed(
                at=self.at,
                error="OutOfMemoryError: the device ran out of memory; a smaller optim.batch would fit",
                traceback='Traceback (most recent call last):\n  File "loop.py", line 148, in run\n'
                "    self._train_step()\nOutOfMemoryError: [red]not markup[/red]",
                checkpoint="b1-001000",
            )
        )
        self.say(StateChanged(at=self.at, state="crashed"))
        return self


def answer(
    id: str,
    asked: str,
    at: At,
    *,
    question: str,
    cot: tuple[str, ...],
    answer: str,
    correct: bool,
    expected: str = "",
    note: str = "",
) -> ChatAnswered:
    return ChatAnswered(
        at=at,
        id=id,
        asked=asked,
        question=question,
        cot=cot,
        answer=answer,
        correct=correct,
        expected=expected or answer,
        note=note,
        tokens=len(cot) + 6,
        milliseconds=38.4,
    )


def examples(removed: int, accuracy: float) -> tuple[ShownExample, ...]:
    """Eight held-out examples, of which the share `accuracy` is right."""
    pairs = [(12, 34), (97, 86), (55, 11), (40, 73), (68, 29), (31, 99), (77, 77), (10, 10)]
    shown = []
    for index, (a, b) in enumerate(pairs):
        right = (index + 0.5) / len(pairs) < accuracy
        cot = tuple(cot_of(a, b))
        shown.append(
            ShownExample(
                question=f"{a} × {b}",
                answer=str(a * b),
                given=str(a * b) if right else str(a * b + 10),
                correct=right,
                cot=cot,
                removed=removed,
                spoken=cot[removed:],
            )
        )
    return tuple(shown)


def misspoken(shown: ShownExample) -> ShownExample:
    """The same with a slip in the middle of what is spoken of its CoT."""
    middle = len(shown.spoken) // 2
    spoken = [*shown.spoken]
    spoken[middle : middle + 1] = ["9"] if spoken else []
    return replace(shown, spoken=tuple(spoken))


def cot_of(a: int, b: int) -> Iterator[str]:
    """The published chain of thought of a 2×2 product, units first, and its last blank."""
    units, tens = b % 10, b // 10
    yield from f"{a * units:03d}"[::-1]
    yield "+"
    yield from f"{a * tens * 10:04d}"[::-1]
    yield ""


class ScriptedLink(Link):
    """A link to a scripted run: plays its events, and takes down what was asked."""

    def __init__(self, events: list[Event], folder: Path = Path("runs/brisk-otter")) -> None:
        self.name = "brisk-otter"
        self.folder = folder
        self.config: Config = SCRIPTED
        self.owner = self.local = True
        self.sent: list[Command] = []
        self.coming: deque[Event] = deque(events)

    def drain(self) -> list[Event]:
        events = list(self.coming)
        self.coming.clear()
        return events

    def send(self, command: Command) -> None:
        self.sent.append(command)


def training(step: int = 1_340) -> Script:
    """In the middle of training, all well."""
    return Script().start().train_to(step)


def lost() -> Script:
    """A run that does not recover, and the alarm about it."""
    return Script(lost=True).start().train_to(1_500).alarm()


def saved() -> Script:
    """The lost run after a roll back, recovered."""
    return lost().roll_back(3, 1_000).train_to(1_700)


def finished() -> Script:
    """A run that has come to its end, with a conversation."""
    return Script().start().train_to(2_900).chat().finish()


def endless() -> Script:
    """A long run of a large model: a long name, thousands of stages, large numbers."""
    script = Script().start()
    started = script.events[0]
    assert isinstance(started, RunStarted)
    script.events[0] = replace(
        started,
        model="some-organisation/a-large-model-7b",
        device="cuda",
        parameters=7_241_732_096,
        stages=2_500,
    )
    at = At(123_456_780, 12, 1_204, 1_204, 1_204, BORN + 3e6)
    metrics = script._metrics()
    long = "98765432109876543210"
    script.events += [
        StageEntered(at=at, text="1,204 of 2,500 CoT tokens removed", cause="schedule", optimizer_reset=True),
        replace(metrics, at=at, loss=3.4e7, loss_answer=float("nan"), loss_cot=1.2e7, grad_norm=9e12),
        Evaluated(
            at=at, split="valid", accuracy=0.00012, token_accuracy=0.1, correct=12, n=100_000,
            cot_tokens=1296.0, seconds=900.0,
        ),
        ExamplesShown(
            at=at,
            examples=(
                ShownExample(
                    question=f"{long} × {long}", answer=long * 2, given=long + "0" * 20, correct=False,
                    cot=tuple("0123456789" * 250), removed=1_204, spoken=tuple("0123456789" * 130),
                ),
            ),
        ),
        CheckpointSaved(
            at=at, checkpoint="b12-s123456780-stage1204-manual", cause="manual", seconds=95.0,
            bytes=108 * 10**9,
        ),
    ]  # fmt: skip
    return script
