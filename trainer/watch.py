"""Dips, recoveries, divergence: a fold over the events of a run that says when to raise an alarm.

For now one rule. Answer accuracy that falls below `recovered` × what it was before a removal is a dip; a
dip that lasts `patience` evaluations is an alarm, raised once; accuracy back at that share clears it. A
fall to zero at a removal is the method at work, which is why it is given time.
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
    RolledBack,
    SettingChanged,
    StageEntered,
)


@dataclass(frozen=True, slots=True)
class Watch:
    """healthy: the last accuracy that was not part of a dip, and the stage it was measured at.

    low: evaluations in the dip so far. entered: the first stage entered since `healthy` was measured, None
    when there was none; its entry has the weights of that measurement.
    """

    healthy: float = 0.0
    healthy_stage: int = 0
    low: int = 0
    entered: int | None = None
    alarmed: bool = False


def watch(state: Watch, event: Event, config: WatchConfig) -> tuple[Watch, AlarmRaised | AlarmCleared | None]:
    """The watch after `event`, and the alarm it raises or clears."""
    if isinstance(event, RolledBack):
        cleared = _cleared("rolled back", event.at) if state.alarmed else None
        return replace(state, low=0, alarmed=False), cleared
    if isinstance(event, SettingChanged) and config.mode == "off" and state.alarmed:
        return replace(state, alarmed=False), _cleared("the watch is off", event.at)
    if isinstance(event, StageEntered) and event.cause in ("schedule", "operator"):
        return replace(state, entered=event.at.stage if state.entered is None else state.entered), None
    if not isinstance(event, Evaluated) or event.split != "valid" or config.mode == "off":
        return state, None
    if state.entered is None or event.accuracy >= config.recovered * state.healthy:
        cleared = _cleared(f"accuracy is back at {event.accuracy:.3f}", event.at) if state.alarmed else None
        return Watch(event.accuracy, event.at.stage), cleared
    low = state.low + 1
    if low < config.patience or state.alarmed:
        return replace(state, low=low), None
    # After an earlier roll back the run may not have come as far again.
    target = min(state.entered, event.at.stage)
    alarm = AlarmRaised(
        at=event.at,
        kind="dip",
        message=(
            f"accuracy {state.healthy:.2f} → {event.accuracy:.2f} since stage {state.healthy_stage}, "
            f"not back after {low} evaluations; the schedule goes on removing tokens"
        ),
        remedy=f"roll back to the entry of stage {target}",
        key="r",
        target=str(target),
    )
    return replace(state, low=low, alarmed=True), alarm


def _cleared(message: str, at: At) -> AlarmCleared:
    return AlarmCleared(at=at, kind="dip", message=message)
