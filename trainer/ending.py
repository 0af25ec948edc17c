"""When a run is over: from how long it has trained, and from what evaluations said. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from trainer.config import StopConfig
from trainer.events import Evaluated, Event, RolledBack


@dataclass(frozen=True, slots=True)
class Standing:
    """How good a run has become with nothing left to remove.

    best: highest validation accuracy. held: evaluations in a row that reached `stop.accuracy`.
    """

    best: float = 0.0
    held: int = 0


def learn(standing: Standing, event: Event, config: StopConfig, stages: int) -> Standing:
    """The standing after `event` of a run with so many stages."""
    if isinstance(event, RolledBack):
        return Standing(standing.best)
    if not isinstance(event, Evaluated) or event.split != "valid":
        return standing
    if event.at.stage < stages:
        return Standing(standing.best)
    holds = config.accuracy is not None and event.accuracy >= config.accuracy
    return Standing(max(standing.best, event.accuracy), standing.held + 1 if holds else 0)


class Limit(NamedTuple):
    """What ended a run. key: of the configuration. reached: in words."""

    key: str
    reached: str


def limit(
    config: StopConfig, standing: Standing, *, step: int, epochs: float, seconds: float
) -> Limit | None:
    """What ends a run here; None while it goes on. seconds: of training."""
    if config.steps is not None and step >= config.steps:
        return Limit("stop.steps", f"{step:,} steps")
    if epochs >= config.epochs:
        return Limit("stop.epochs", f"{config.epochs:g} epochs")
    if seconds >= config.hours * 3600:
        return Limit("stop.hours", f"{config.hours:g} hours")
    if config.accuracy is not None and standing.held >= config.patience:
        held = f"accuracy held {config.accuracy:g} for {config.patience} evaluations"
        return Limit("stop.accuracy", held)
    return None
