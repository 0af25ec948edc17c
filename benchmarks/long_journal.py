"""A believable journal of any length, for measuring what reads one: a function of its arguments.

    python benchmarks/long_journal.py FOLDER --events 1000000

Stages, evaluations with examples every 500 steps, checkpoints that come and go, a chat, commands, alarms, and
roll backs now and then; nine lines of ten are metrics, as in a run with the defaults.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trainer import config as configuration
from trainer import runs
from trainer.config import Config, build
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    At,
    ChatAnswered,
    CheckpointRemoved,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    Evaluated,
    Event,
    ExamplesShown,
    Metrics,
    Notice,
    RolledBack,
    RunStarted,
    SettingChanged,
    ShownExample,
    StageEntered,
    StateChanged,
    encode,
)
from trainer.record import journal

STAGES = 149
LOG_EVERY, EVAL_EVERY, SAVE_EVERY = 10, 500, 2_000
SECONDS = 0.05
BORN = 1_780_000_000.0

CONFIG: Config = build(
    {
        "title": "a long run of which only the end is trained",
        "data": {"digits": 7, "train": 400, "valid": 20, "test": 20},
        "model": {"init": "scratch", "vocab": "task", "layers": 1, "heads": 2, "width": 16},
        "schedule": {"steps_per_token": 10_000},
        "optim": {"batch": 16},
        "log": {"every": LOG_EVERY},
        "eval": {"every": EVAL_EVERY},
        "stop": {"steps": 10**9, "epochs": 1e9},
    }
)
"""Its story is that of a large run, its model the smallest there is, so that the run can be taken up."""


def events(count: int, *, seed: int = 0) -> Iterator[Event]:
    """`count` events, numbered from 1."""
    story = _Story(count, seed)
    for seq, event in zip(range(1, count + 1), story.tell(), strict=False):
        yield replace(event, seq=seq)


class _Story:
    """Where the run stands while it is told. lost: the present stage will not recover."""

    def __init__(self, count: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.per_stage = max(EVAL_EVERY, count * LOG_EVERY // (STAGES + 10) // LOG_EVERY * LOG_EVERY)
        self.time, self.step, self.branch, self.branches = BORN, 0, 1, 1
        self.scheduled, self.entered = 0, 0
        self.lost = False
        self.entries: list[tuple[str, int, int, int]] = []
        self.timed: list[str] = []
        self.commands = 0

    @property
    def at(self) -> At:
        stage = min(self.scheduled, STAGES)
        return At(self.step, self.branch, stage, self.scheduled, stage, round(self.time, 6))

    def tell(self) -> Iterator[Event]:
        yield RunStarted(
            at=self.at, name="long", title=CONFIG.title, method="stepwise", task="7×7 multiplication",
            model="scratch", device="cpu", parameters=85_000_000, train_examples=808_000, stages=STAGES,
            steps_per_epoch=25_250, pid=1, host="nowhere",
        )  # fmt: skip
        yield Notice(at=self.at, message="saved at every stage and every 60 s")
        yield from self._enter("start")
        yield StateChanged(at=self.at, state="training")
        while True:
            if self.step - self.entered >= self.per_stage:
                self.scheduled += 1
                self.entered = self.step
                self.lost = self.chance.random() < 0.05
                if self.scheduled <= STAGES:
                    yield from self._enter("schedule")
            self.step += LOG_EVERY
            self.time += LOG_EVERY * SECONDS * self.chance.uniform(0.9, 1.2)
            yield self._metrics()
            if self.step % EVAL_EVERY == 0:
                yield from self._evaluation()
            if self.step % SAVE_EVERY == 0:
                yield from self._timed_save()
            if self.chance.random() < 0.0002:
                yield from self._command()
            if self.lost and self.step - self.entered == self.per_stage // 2 // LOG_EVERY * LOG_EVERY:
                yield from self._rescue()

    def _dip(self) -> float:
        if self.lost:
            return 0.9
        return 0.8 * math.exp(-(self.step - self.entered) / (0.1 * self.per_stage))

    def _metrics(self) -> Metrics:
        dip, noise = self._dip(), self.chance.gauss(0, 0.02)
        answer = max(0.002, 1.7 * dip + 0.01 + noise * (0.2 + dip))
        if self.chance.random() < 1e-5:
            answer = self.chance.choice([30.0, math.nan])
        cot = None if self.scheduled >= STAGES else max(0.001, 0.6 * dip + abs(noise) / 3)
        return Metrics(
            at=self.at,
            loss=answer if cot is None else 0.2 * answer + 0.8 * cot,
            loss_answer=answer,
            loss_cot=cot,
            grad_norm=0.8 + noise,
            lr=5e-5,
            steps=LOG_EVERY,
            steps_per_second=1 / SECONDS + noise,
            tokens_per_second=412_000.0 + 1e4 * noise,
            epoch=self.step / 25_250,
            skipped=LOG_EVERY if math.isnan(answer) else 0,
        )

    def _evaluation(self) -> Iterator[Event]:
        correct = round(1_000 * min(1.0, max(0.0, 1 - 1.15 * self._dip() + self.chance.gauss(0, 0.008))))
        left = max(0, STAGES - self.scheduled)
        yield StateChanged(at=self.at, state="evaluating")
        yield StateChanged(at=self.at, state="training")
        yield Evaluated(
            at=self.at, split="valid", accuracy=correct / 1_000, token_accuracy=0.6 + 0.0004 * correct,
            correct=correct, n=1_000, cot_tokens=float(left), seconds=1.5, cot_match=0.5,
            generated_tokens=left + 16.0,
        )  # fmt: skip
        yield ExamplesShown(at=self.at, examples=tuple(self._example(left) for _ in range(8)))

    def _example(self, left: int) -> ShownExample:
        cot = tuple(self.chance.choices("0123456789+", k=STAGES))
        return ShownExample(
            question="1234567 × 7654321", answer="9449772114007", given="9449772114007", correct=True,
            cot=cot, removed=STAGES - left, spoken=cot[STAGES - left :],
        )  # fmt: skip

    def _enter(self, cause: str) -> Iterator[Event]:
        stage = min(self.scheduled, STAGES)
        text = f"{stage} of {STAGES} CoT tokens removed"
        yield StageEntered(at=self.at, text=text, cause=cause, optimizer_reset=stage > 0)  # type: ignore[arg-type]
        id = f"b{self.branch}-s{self.step:06d}-stage{stage}"
        self.entries.append((id, self.step, self.scheduled, self.branch))
        yield CheckpointSaved(at=self.at, checkpoint=id, cause="stage", seconds=1.0, bytes=500_000_000)
        if len(self.entries) > 9 and self.entries[-9][2] % 10:
            yield CheckpointRemoved(at=self.at, checkpoint=self.entries.pop(-9)[0])

    def _timed_save(self) -> Iterator[Event]:
        id = f"b{self.branch}-s{self.step:06d}"
        yield CheckpointSaved(at=self.at, checkpoint=id, cause="time", seconds=1.0, bytes=1_500_000_000)
        self.timed.append(id)
        if len(self.timed) > 3:
            yield CheckpointRemoved(at=self.at, checkpoint=self.timed.pop(0))

    def _command(self) -> Iterator[Event]:
        if self.chance.random() < 0.5:
            yield from self._answered("ask 1234567 * 7654321", "1234567 × 7654321 = 9449772114007")
        else:
            lr = self.chance.choice([1e-5, 5e-5])
            yield SettingChanged(at=self.at, key="optim.lr", old=5e-5, new=lr)
            yield from self._answered(f"set optim.lr {lr}", f"optim.lr = {lr}")

    def _answered(self, command: str, message: str) -> Iterator[Event]:
        self.commands += 1
        id = f"c{self.commands}"
        yield CommandReceived(at=self.at, id=id, command=command, source="cockpit")
        if command.startswith("ask "):
            yield ChatAnswered(
                at=self.at, id=id, asked=command[4:], question="1234567 × 7654321", answer="9449772114007",
                correct=True, expected="9449772114007", tokens=40, milliseconds=84.0,
            )  # fmt: skip
        yield CommandAcknowledged(
            at=self.at, id=id, command=command, source="cockpit", ok=True, message=message
        )

    def _rescue(self) -> Iterator[Event]:
        """An alarm, and the roll back that answers it."""
        yield AlarmRaised(
            at=self.at, kind="dip", message=f"accuracy .97 → .03 since stage {self.scheduled}",
            remedy="roll back", key="r", target=str(self.scheduled - 1),
        )  # fmt: skip
        id, step, scheduled, parent = self.entries[-2] if len(self.entries) > 1 else self.entries[-1]
        from_branch, from_step = self.branch, self.step
        self.branches += 1
        self.branch, self.step, self.scheduled, self.entered = self.branches, step, scheduled, step
        self.lost = False
        yield RolledBack(
            at=self.at, checkpoint=id, parent=parent, from_branch=from_branch, from_step=from_step
        )
        yield AlarmCleared(at=self.at, kind="dip", message="rolled back")
        text = f"{min(scheduled, STAGES)} of {STAGES} CoT tokens removed"
        yield StageEntered(at=self.at, text=text, cause="rollback", optimizer_reset=True)
        yield from self._answered("rollback", f"back to stage {scheduled}")


def write(folder: Path, count: int) -> None:
    """A run's folder with a configuration and a journal of `count` events."""
    folder.mkdir(parents=True)
    (folder / runs.CONFIG_FILE).write_text(configuration.dumps(CONFIG), encoding="utf-8")
    with (folder / journal.FILE).open("w", encoding="utf-8") as file:
        file.writelines(encode(event) + "\n" for event in events(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    write(options.folder, options.events)


if __name__ == "__main__":
    main()
