"""A real run of a tiny model in this process, steered by commands; the fixture `driven` starts such."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file

from trainer.config import Config
from trainer.control import parse
from trainer.events import DISK, AlarmCleared, AlarmRaised, CommandAcknowledged, Event, RunCrashed
from trainer.run import Run

T = TypeVar("T", bound=Event)
FOREVER = {"stop__steps": 1_000_000, "stop__epochs": 1e9}


class Driven:
    """A run and everything it said. Not two at once in a process: they would share torch's generator."""

    may_crash = False

    def __init__(self, config: Config, folder: Path, **options: bool) -> None:
        self.run = Run(config, folder, **options)
        self.events: list[Event] = []
        self._news = threading.Condition()
        self.run.start(on_event=self._hear)

    def _hear(self, event: Event) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def until(self, kind: type[T], where: Callable[[T], bool] = lambda event: True) -> T:
        """The first event of a kind that satisfies `where`, waiting for it."""

        def found() -> T | RunCrashed | None:
            wanted = (e for e in self.events if isinstance(e, kind) and where(e))
            crashed = (e for e in self.events if isinstance(e, RunCrashed) and not self.may_crash)
            return next(wanted, None) or next(crashed, None)

        with self._news:
            assert self._news.wait_for(found, timeout=120), f"no {kind.__name__}"
            event = found()
        assert isinstance(event, kind), event
        return event

    def do(self, line: str) -> CommandAcknowledged:
        """Give a command and wait for its acknowledgement."""
        command = parse(line, source="test")
        self.run.submit(command)
        return self.until(CommandAcknowledged, lambda e: e.id == command.id)

    def all(self, kind: type[T]) -> list[T]:
        return [e for e in self.events if isinstance(e, kind)]


def of_the_disk(alarm: AlarmRaised | AlarmCleared) -> bool:
    """A run that forgets to learn has alarms of its own."""
    return alarm.kind == DISK


def weights(folder: Path, id: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / id / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
