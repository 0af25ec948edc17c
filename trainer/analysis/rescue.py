"""A lost run: what its journal says of where it went wrong, and the commands that take it up again. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainer import config as configuration
from trainer.config import Config
from trainer.events import At, DipMeasured, Evaluated, Event, RunStarted, SettingChanged
from trainer.pacing import schedule
from trainer.record.lineage import CheckpointRef, Lineage, replay
from trainer.watching.automaton import Around
from trainer.watching.watch import Watch, watch

SLOWER = 2
"""So many times as long as before a stage is given at least."""
ROOM = 1.5
"""And so many times what the slowest recovery took."""
HELD = 2
"""So many times what stages are given may pass, since dips are held until they are over."""


class NotLostError(ValueError):
    """Nothing is to be rescued, or can be; the message says why."""


@dataclass(frozen=True)
class Rescue:
    """evidence: sentences. back: the checkpoint to go on from. commands: what is asked of the run."""

    evidence: tuple[str, ...]
    back: CheckpointRef
    commands: tuple[str, ...]


def rescue(events: Iterable[Event], config: Config, there: Sequence[CheckpointRef], run: str) -> Rescue:
    """How to bring a run back. config: as it began. there: the checkpoints that it still has. run: as
    commands name it.

    Raises `NotLostError` where it is not lost, or nothing is left to return to.
    """
    events = list(events)
    lineage = Lineage(tuple(there), replay(events).forks)
    started = next((e for e in reversed(events) if isinstance(e, RunStarted)), None)
    stages, an_epoch = (started.stages, started.steps_per_epoch) if started is not None else (0, 1)
    state, at, took = Watch(), At(), []
    last: Evaluated | None = None
    for event in events:
        if isinstance(event, SettingChanged):
            config = configuration.changed(config, event.key, event.new)
        state, told = watch(state, event, Around(config, lineage, False, stages, an_epoch))
        took += [dip for dip in told if isinstance(dip, DipMeasured) and dip.steps is not None]
        if isinstance(event, Evaluated) and event.split == "valid":
            last = event
        at = event.at if event.at.time else at
    if "not finite" in state.standing:
        return _ruined(state, config, lineage, at, run)
    dips = state.dips
    if last is None or dips.low < config.watch.patience:
        known = "it was never evaluated" if last is None else f"accuracy is {last.accuracy:.2f}"
        was = f", of {dips.healthy:.2f} before" if last is not None else ""
        raise NotLostError(
            f"it is not lost: {known}{was}. `stepwise resume {run} --paused` opens it where it "
            "stopped; `rollback` there returns to any stage"
        )
    first = at.stage if dips.entered is None else dips.entered
    back = _there(lineage.entry(at.branch, first), first, run)
    evidence = [
        f"accuracy was {dips.healthy:.2f} at stage {dips.healthy_stage}; it is {last.accuracy:.2f} at step "
        f"{last.at.step:,}, stage {last.at.stage}, after {dips.low}+ evaluations below "
        f"{config.watch.recovered * dips.wanted:.2f}",
        f"the last stage that was entered in health is stage {first}; {back.id} is its entry"
        if back.stage == first
        else f"the entry of stage {first} is not kept; {back.id} is the nearest before it",
    ]
    if took:
        times = ", ".join(f"stage {dip.of} {dip.steps:,}" for dip in took[-5:])
        evidence.append(f"steps that recoveries took: {times}")
    given = schedule.pace(config.schedule, an_epoch).steps[0]
    slowest = max((dip.steps or 0 for dip in took), default=0)
    commands = [f"rollback {back.id}"]
    wanted, slower = max(SLOWER * given, math.ceil(ROOM * slowest)), 1.0
    if config.schedule.kind in ("linear", "geometric"):
        commands.append(f"set schedule.steps_per_token {wanted}")
        evidence.append(f"a stage had {given:,} steps; it is given {wanted:,}")
        slower = wanted / given
    if config.watch.mode != "auto":
        commands.append("set watch.mode auto")
        evidence.append("the watch is left to act: it holds each dip until it is over")
    if end := _later_end(config, back.step, HELD * slower, an_epoch):
        key, before, after = end
        commands.append(f"set {key} {after}")
        evidence.append(f"so all takes longer: {key} {before:,g} → {after:,}")
    return Rescue(tuple(evidence), back, tuple(commands))


def _later_end(config: Config, step: int, slower: float, an_epoch: int) -> tuple[str, float, int] | None:
    """The limit that ends the run first, what it is, and what gives `slower` × the steps from `step` on."""
    steps, epochs = config.stop.steps or math.inf, config.stop.epochs
    if math.isinf(min(steps, epochs)):
        return None
    if steps <= epochs * an_epoch:
        return "stop.steps", steps, math.ceil(step + slower * (steps - step))
    begun = step / an_epoch
    return "stop.epochs", epochs, math.ceil(begun + slower * (epochs - begun))


def _ruined(state: Watch, config: Config, lineage: Lineage, at: At, run: str) -> Rescue:
    step, suspect = state.sound_step, state.suspect(state.since)
    assert step is not None
    back = _there(lineage.before(at.branch, step), at.stage, run)
    key, value = ("optim.lr", config.optim.lr / 2) if suspect is None else (suspect.key, suspect.old)
    why = (
        "no setting was changed shortly before: the learning rate is halved"
        if suspect is None
        else f"{suspect.key} {suspect.old} → {suspect.new} at step {suspect.step:,} is taken back"
    )
    evidence = (
        f"loss or gradient were not finite from step {state.since:,} on; {back.id} is from before",
        why,
    )
    return Rescue(evidence, back, (f"rollback {back.id}", f"set {key} {configuration.shown(value)}"))


def _there(found: CheckpointRef | None, stage: int, run: str) -> CheckpointRef:
    if found is None:
        raise NotLostError(
            f"no checkpoint of stage {stage} or before is left to return to; "
            f"`stepwise restart {run}` begins anew with another seed"
        )
    return found
