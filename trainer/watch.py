"""What endangers a run: a fold over its events that says when to raise an alarm, and when it is over.

*Dip*: answer accuracy that falls below `recovered` × what it was before a removal is a dip; a dip that lasts
`patience` evaluations is an alarm, raised once; accuracy back at that share clears it. A fall to zero at a
removal is the method at work, which is why it is given time.

*Not finite*: an update whose loss or gradient is not finite is left out. One may be an accident; `skipped` of
them, with no log interval without any between, are an alarm, and training waits for an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainer.config import WatchConfig
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    At,
    Evaluated,
    Event,
    Metrics,
    RolledBack,
    SettingChanged,
    StageEntered,
)

Alarm = AlarmRaised | AlarmCleared


@dataclass(frozen=True, slots=True)
class Watch:
    """healthy: the last accuracy that was not part of a dip, and the stage it was measured at.

    low: evaluations in the dip so far. entered: the first stage entered since `healthy` was measured, None
    when there was none; its entry has the weights of that measurement. skipped: updates left out since the
    last log interval without any, or since the alarm; since: step at which that began. dipped, broken:
    whether the alarm of a dip, of what is not finite, stands.
    """

    healthy: float = 0.0
    healthy_stage: int = 0
    low: int = 0
    entered: int | None = None
    dipped: bool = False
    skipped: int = 0
    since: int = 0
    broken: bool = False


def watch(state: Watch, event: Event, config: WatchConfig) -> tuple[Watch, list[Alarm]]:
    """The watch after `event`, and the alarms it raises or clears."""
    match event:
        case RolledBack():
            cleared = _cleared(state, "rolled back", event.at)
            return replace(state, low=0, dipped=False, skipped=0, broken=False), cleared
        case SettingChanged() if config.mode == "off" and state.dipped:
            return replace(state, dipped=False), [_over("dip", "the watch is off", event.at)]
        case StageEntered(cause="schedule" | "operator"):
            return replace(state, entered=event.at.stage if state.entered is None else state.entered), []
        case Evaluated(split="valid") if config.mode != "off":
            return _dip(state, event, config)
        case Metrics():
            return _not_finite(state, event, config)
    return state, []


def _dip(state: Watch, event: Evaluated, config: WatchConfig) -> tuple[Watch, list[Alarm]]:
    at = event.at
    if state.entered is None or event.accuracy >= config.recovered * state.healthy:
        over = [_over("dip", f"accuracy is back at {event.accuracy:.3f}", at)] if state.dipped else []
        return replace(
            state, healthy=event.accuracy, healthy_stage=at.stage, low=0, entered=None, dipped=False
        ), [*over]
    low = state.low + 1
    if low < config.patience or state.dipped:
        return replace(state, low=low), []
    # After an earlier roll back the run may not have come as far again.
    target = min(state.entered, at.stage)
    alarm = AlarmRaised(
        at=at,
        kind="dip",
        message=(
            f"accuracy {state.healthy:.2f} → {event.accuracy:.2f} since stage {state.healthy_stage}, "
            f"not back after {low} evaluations; the schedule goes on removing tokens"
        ),
        remedy=f"roll back to the entry of stage {target}",
        key="r",
        target=str(target),
    )
    return replace(state, low=low, dipped=True), [alarm]


def _not_finite(state: Watch, event: Metrics, config: WatchConfig) -> tuple[Watch, list[Alarm]]:
    at = event.at
    if not event.skipped:
        over = [_over("not finite", "loss and gradient are finite again", at)] if state.broken else []
        return replace(state, skipped=0, broken=False), [*over]
    skipped = state.skipped + event.skipped
    since = state.since if state.skipped else at.step - event.steps
    if skipped < config.skipped:
        return replace(state, skipped=skipped, since=since), []
    alarm = AlarmRaised(
        at=at,
        kind="not finite",
        message=(
            f"loss or gradient not finite: {skipped:,} updates left out since step {since:,}; the weights "
            "are those of before, and training waits"
        ),
        remedy=f"roll back to the entry of stage {at.stage}",
        key="r",
        target=str(at.stage),
        pauses=True,
    )
    return replace(state, skipped=0, broken=True), [alarm]


def _cleared(state: Watch, message: str, at: At) -> list[Alarm]:
    standing = {"dip": state.dipped, "not finite": state.broken}
    return [_over(kind, message, at) for kind, stands in standing.items() if stands]


def _over(kind: str, message: str, at: At) -> AlarmCleared:
    return AlarmCleared(at=at, kind=kind, message=message)
