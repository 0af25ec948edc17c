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
from trainer.lineage import Lineage

Alarm = AlarmRaised | AlarmCleared
SUSPECT = ("optim.", "method.", "schedule.")
"""Sections whose settings change what an update does."""
SUSPECT_STEPS = 200
"""A setting that was changed longer before is not named."""


@dataclass(frozen=True, slots=True)
class Watch:
    """healthy: the last accuracy that was not part of a dip, and the stage it was measured at.

    low: evaluations in the dip so far. entered: the first stage entered since `healthy` was measured, None
    when there was none; its entry has the weights of that measurement. skipped: updates left out since the
    last log interval without any, or since the alarm; since: the step whose update was the first of these.
    dipped, broken: whether the alarm of a dip, of what is not finite, stands. changed: the last change of a
    setting that updates depend on, None before.
    """

    healthy: float = 0.0
    healthy_stage: int = 0
    low: int = 0
    entered: int | None = None
    dipped: bool = False
    skipped: int = 0
    since: int = 0
    broken: bool = False
    changed: SettingChanged | None = None

    @property
    def sound_step(self) -> int | None:
        """The last step whose weights are above suspicion; None while no update is left out.

        The update that ruined them came before the first that was left out, or with a setting's change.
        """
        if not (self.skipped or self.broken):
            return None
        before = self.since - 1 if self.suspect is None else min(self.since - 1, self.suspect.at.step)
        return max(0, before)

    @property
    def suspect(self) -> SettingChanged | None:
        """The setting whose change, shortly before, may be why updates are left out."""
        changed = self.changed
        recent = changed is not None and 0 <= self.since - changed.at.step <= SUSPECT_STEPS
        return changed if recent else None


def watch(state: Watch, event: Event, config: WatchConfig, lineage: Lineage) -> tuple[Watch, list[Alarm]]:
    """The watch after `event`, and the alarms it raises or clears.

    lineage: what a roll back may return to.
    """
    if isinstance(event, SettingChanged) and event.key.startswith(SUSPECT) and state.sound_step is None:
        state = replace(state, changed=event)
    match event:
        case RolledBack():
            cleared = _cleared(state, "rolled back", event.at)
            return replace(state, low=0, dipped=False, skipped=0, broken=False, changed=None), cleared
        case SettingChanged() if config.mode == "off" and state.dipped:
            return replace(state, dipped=False), [_over("dip", "the watch is off", event.at)]
        case StageEntered(cause="schedule" | "operator"):
            return replace(state, entered=event.at.stage if state.entered is None else state.entered), []
        case Evaluated(split="valid") if config.mode != "off":
            return _dip(state, event, config)
        case Metrics():
            return _not_finite(state, event, config, lineage)
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


def _not_finite(
    state: Watch, event: Metrics, config: WatchConfig, lineage: Lineage
) -> tuple[Watch, list[Alarm]]:
    at = event.at
    if not event.skipped:
        over = [_over("not finite", "loss and gradient are finite again", at)] if state.broken else []
        return replace(state, skipped=0, broken=False), [*over]
    skipped = state.skipped + event.skipped
    began = at.step - event.steps + (event.before_skipped or 0)
    state = replace(state, skipped=skipped, since=state.since if state.skipped or state.broken else began)
    if skipped < config.skipped:
        return state, []
    sound = None if state.sound_step is None else lineage.before(at.branch, state.sound_step)
    suspect = state.suspect
    why = (
        ""
        if suspect is None
        else f"; {suspect.key} {suspect.old} → {suspect.new} at step {suspect.at.step:,}"
    )
    alarm = AlarmRaised(
        at=at,
        kind="not finite",
        message=(
            f"loss or gradient not finite: {skipped:,} updates left out since step {state.since:,}{why}; "
            "training waits"
        ),
        remedy=f"roll back to {sound.id}, from before" if sound else f"roll back to stage {at.stage}",
        key="r",
        target=sound.id if sound else str(at.stage),
        pauses=True,
    )
    return replace(state, skipped=0, broken=True), [alarm]


def _cleared(state: Watch, message: str, at: At) -> list[Alarm]:
    standing = {"dip": state.dipped, "not finite": state.broken}
    return [_over(kind, message, at) for kind, stands in standing.items() if stands]


def _over(kind: str, message: str, at: At) -> AlarmCleared:
    return AlarmCleared(at=at, kind=kind, message=message)
