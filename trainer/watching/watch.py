"""What endangers a run: a fold over its events that says when to raise an alarm, and when it is over.

*dip*: accuracy that stays below `watch.recovered` × what it was for too long (`Dips.overdue`).

*trend*: each recovery took longer than the one before, and the last most of the time that a stage is given.

*unlearnt*: tokens go, and nothing was ever right (`UNLEARNT`), so that no dip can be seen.

*spike*: loss or gradient norm that jumped though nothing was removed (`spikes`).

*not finite*: an update whose loss or gradient is not finite is left out. One may be an accident; `skipped` of
them, with no log interval without any between, are an alarm, and training waits for an answer.

Each is raised once and cleared when it is over. In mode `auto` the watch acts, too (`automaton`). Pure; what
it has seen lies in the checkpoint (`TrainState.watch`), and no roll back takes it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from trainer import config as configuration
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    At,
    DipMeasured,
    Evaluated,
    Event,
    Metrics,
    RolledBack,
    SettingChanged,
    StageEntered,
    WatchPlanned,
    built,
    plain,
)
from trainer.pacing import schedule
from trainer.watching import automaton, dips, spikes
from trainer.watching.automaton import Around, Automaton
from trainer.watching.dips import Dips
from trainer.watching.spikes import Spikes

Told = AlarmRaised | AlarmCleared | DipMeasured | WatchPlanned
SUSPECT = ("optim.", "method.", "schedule.")
"""Sections whose settings change what an update does."""
SUSPECT_STEPS = 200
"""A setting that was changed longer before is not named."""
MOST = 0.5
"""Of the time that a stage is given: a recovery that takes more, and longer each time, is a trend."""


UNLEARNT = 0.1
"""Of all examples: with fewer right at best, there is nothing yet that could be internalised."""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that updates depend on was changed."""

    key: str
    old: Any
    new: Any
    step: int


@dataclass(frozen=True, slots=True)
class Watch:
    """skipped: updates left out since the last log interval without any, or since the alarm; since: the step
    whose update was the first of these. changed: the last change of a setting that updates depend on, None
    before. blank: evaluations since the first removal, in a run that has learnt nothing. standing: kinds of
    the alarms that stand. plan: what it will do by itself, as it was told last.
    """

    dips: Dips = field(default_factory=Dips)
    spikes: Spikes = field(default_factory=Spikes)
    automaton: Automaton = field(default_factory=Automaton)
    skipped: int = 0
    since: int = 0
    changed: Change | None = None
    blank: int = 0
    standing: tuple[str, ...] = ()
    plan: str = ""

    @property
    def sound_step(self) -> int | None:
        """The last step whose weights are above suspicion; None while no update is left out.

        The update that ruined them came before the first that was left out, or with a setting's change.
        """
        if not (self.skipped or "not finite" in self.standing):
            return None
        suspect = self.suspect(self.since)
        return max(0, self.since - 1 if suspect is None else min(self.since - 1, suspect.step))

    def suspect(self, since: int) -> Change | None:
        """The setting whose change, shortly before step `since`, may be why updates went wrong there."""
        changed = self.changed
        return changed if changed is not None and 0 <= since - changed.step <= SUSPECT_STEPS else None

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        document: dict[str, Any] = plain(self)
        return document

    @classmethod
    def load(cls, document: dict[str, Any]) -> Watch:
        """The watch of a `state` that went through JSON."""
        return built(cls, document)


def watch(state: Watch, event: Event, around: Around) -> tuple[Watch, list[Told]]:
    """The watch after `event`, and what it tells: alarms, dips that were measured, what it will do."""
    after, told = _take(state, event, around)
    plan = ""
    if around.config.watch.mode == "auto" and not isinstance(event, RolledBack):
        plan = automaton.plan(after.automaton, after.dips, event.at, around)
    if plan != after.plan:
        told = [*told, WatchPlanned(at=event.at, plan=plan)]
    return replace(after, plan=plan), told


def _take(state: Watch, event: Event, around: Around) -> tuple[Watch, list[Told]]:
    match event:
        case StageEntered(cause="schedule" | "operator" | "watch"):
            entered, measured = dips.enter(state.dips, event)
            return replace(state, dips=entered, spikes=state.spikes.cleared()), [*measured]
        case RolledBack():
            at = event.at
            again = dips.return_to(state.dips, at.stage, at.step)
            changed = _still_so(state.changed, at, around)
            calm = state.spikes.cleared()
            cleared = replace(state, dips=again, spikes=calm, skipped=0, changed=changed, blank=0)
            return _clear(cleared, state.standing, "rolled back", at)
        case SettingChanged():
            return _change(state, event, around)
        case Evaluated(split="valid"):
            return _evaluated(state, event, around)
        case Metrics():
            after = replace(state, dips=dips.log(state.dips, event))
            if around.smoothing_began(event):
                after = replace(after, spikes=after.spikes.cleared())
            after, told = _not_finite(after, event, around)
            if "not finite" in after.standing:
                return after, told
            after, more = _spike(after, event, around)
            return after, [*told, *more]
    return state, []


def _still_so(changed: Change | None, at: At, around: Around) -> Change | None:
    """The change after a roll back, which takes no setting back; None where somebody did."""
    if changed is None or configuration.get(around.config, changed.key) != changed.new:
        return None
    return replace(changed, step=min(changed.step, at.step))


def _change(state: Watch, event: SettingChanged, around: Around) -> tuple[Watch, list[Told]]:
    at = event.at
    if event.key.startswith(SUSPECT) and state.sound_step is None:
        before, change = state.changed, Change(event.key, event.old, event.new, at.step)
        taken_back = before is not None and (before.key, before.old) == (change.key, change.new)
        state = replace(state, changed=None if taken_back else change)
    if event.key == "watch.mode":
        state = replace(state, automaton=replace(state.automaton, wanted=(), stands_down=0))
    if event.key == "watch.mode" and around.config.watch.mode == "off":
        return _clear(state, ("dip", "trend", "unlearnt", "spike"), "the watch is off", at)
    return state, []


def _evaluated(state: Watch, event: Evaluated, around: Around) -> tuple[Watch, list[Told]]:
    config, at = around.config.watch, event.at
    seen, measured = dips.measure(state.dips, event, config)
    blank = state.blank + 1 if at.stage and seen.healthy < UNLEARNT else 0
    state = replace(state, dips=seen, blank=blank)
    told: list[Told] = [*measured]
    if config.mode == "off":
        return state, told
    state, unlearnt = _unlearnt(state, event, around)
    told += unlearnt
    if not seen.low:
        state, cleared = _clear(state, ("dip",), f"accuracy is back at {event.accuracy:.3f}", at)
        told += cleared
    elif seen.overdue(at.stage, around.stages, config.patience) and "dip" not in state.standing:
        state = replace(state, standing=(*state.standing, "dip"))
        told.append(_dip(seen, event, around))
    if measured:
        state, trend = _trend(state, at, around)
        told += trend
    if config.mode == "auto":
        acting = automaton.consider(state.automaton, seen, event, around)
        state = replace(state, automaton=acting)
    return state, told


def _dip(seen: Dips, event: Evaluated, around: Around) -> AlarmRaised:
    at = event.at
    # After an earlier roll back the run may not have come as far again.
    target = at.stage if seen.entered is None else min(seen.entered, at.stage)
    since = f"since stage {seen.healthy_stage}" if seen.entered is not None else "though nothing was removed"
    return AlarmRaised(
        at=at,
        kind="dip",
        message=(
            f"accuracy {seen.healthy:.2f} → {event.accuracy:.2f} {since}, not back after {seen.low} "
            "evaluations"
        ),
        remedy=f"roll back to the entry of stage {target}",
        key="r",
        target=str(target),
        goes_on=around.goes_on(at),
    )


def _unlearnt(state: Watch, event: Evaluated, around: Around) -> tuple[Watch, list[Told]]:
    at = event.at
    if not state.blank:
        return _clear(state, ("unlearnt",), f"accuracy is at {event.accuracy:.3f}", at)
    if state.blank < around.config.watch.patience or "unlearnt" in state.standing:
        return state, []
    alarm = AlarmRaised(
        at=at,
        kind="unlearnt",
        message=(
            f"nothing was learnt by stage {at.stage} of {around.stages}, accuracy {state.dips.healthy:.2f} "
            "at best, and parts of the CoT are gone"
        ),
        remedy="roll back to stage 0, where the CoT is whole",
        key="r",
        target="0",
        goes_on=around.goes_on(at),
    )
    return replace(state, standing=(*state.standing, "unlearnt")), [alarm]


def _trend(state: Watch, at: At, around: Around) -> tuple[Watch, list[Told]]:
    took, given = state.dips.took, schedule.pace(around.config.schedule, around.steps_per_epoch).steps[0]
    if not (state.dips.slower and took[-1] > MOST * given):
        return _clear(state, ("trend",), "the last recovery was no slower", at)
    if "trend" in state.standing or at.stage >= around.stages:
        return state, []
    alarm = AlarmRaised(
        at=at,
        kind="trend",
        message=(
            f"each recovery is slower than the last: {', '.join(f'{steps:,}' for steps in took)} steps "
            f"of the {given:,} that a stage has"
        ),
        remedy="hold the schedule, and set a gentler pace",
        key="h",
        goes_on=around.goes_on(at),
    )
    return replace(state, standing=(*state.standing, "trend")), [alarm]


def _spike(state: Watch, event: Metrics, around: Around) -> tuple[Watch, list[Told]]:
    at = event.at
    seen = spikes.look(state.spikes, event)
    state = replace(state, spikes=seen)
    if around.config.watch.mode == "off":
        return state, []
    if seen.quiet:
        return _clear(state, ("spike",), "loss and gradient stand out no more", at)
    if seen.jumped is None or "spike" in state.standing:
        return state, []
    name, window = seen.jumped
    suspect = state.suspect(window.since + event.steps - 1)  # the last update of the first interval
    why = "" if suspect is None else f" ({_changed(suspect)})"
    last = _number(window.last)
    if window.values:
        what = f"{name} {_number(window.middle)} → {last} since step {window.since:,}"
        why = why or " (nothing was removed)"
    else:
        what = f"{name} {last} since step {window.since:,}, {_number(seen.highest)} at most before"
    sound = window.since if suspect is None else min(window.since, suspect.step)
    if around.config.watch.mode == "auto" and seen.blown_up:
        change = _cure(suspect, around)
        acting = automaton.ruined(state.automaton, sound, change, f"{what}{why}", at, around)
        state = replace(state, automaton=acting)
    target = _entry_before(sound, at, around)
    alarm = AlarmRaised(
        at=at,
        kind="spike",
        message=f"{what}{why}, {window.over} log intervals",
        remedy=f"roll back to {target}, from before{_with_it_taken_back(suspect)}",
        key="r",
        target=target,
        undo=_undo(suspect),
        goes_on=around.goes_on(at),
    )
    return replace(state, standing=(*state.standing, "spike")), [alarm]


def _not_finite(state: Watch, event: Metrics, around: Around) -> tuple[Watch, list[Told]]:
    at, auto = event.at, around.config.watch.mode == "auto"
    if not event.skipped:
        return _clear(replace(state, skipped=0), ("not finite",), "loss and gradient are finite again", at)
    skipped = state.skipped + event.skipped
    began = at.step - event.steps + (event.before_skipped or 0)
    stands = "not finite" in state.standing
    state = replace(state, skipped=skipped, since=state.since if state.skipped or stands else began)
    if skipped < around.config.watch.skipped:
        return state, []
    suspect, step = state.suspect(state.since), state.sound_step
    assert step is not None
    sound = around.lineage.before(at.branch, step)
    why = f"{skipped:,} updates left out since step {state.since:,}"
    why += "" if suspect is None else f"; {_changed(suspect)}"
    if auto:
        change = _cure(suspect, around)
        acting = automaton.ruined(state.automaton, step, change, f"not finite: {why}", at, around)
        auto, state = acting is not state.automaton, replace(state, automaton=acting)
    to = f"{sound.id}, from before" if sound else f"stage {at.stage}"
    alarm = AlarmRaised(
        at=at,
        kind="not finite",
        message=f"loss or gradient not finite: {why}" + ("" if auto else "; training waits"),
        remedy=f"roll back to {to}{_with_it_taken_back(suspect)}",
        key="r",
        target=sound.id if sound else str(at.stage),
        undo=_undo(suspect),
        pauses=not auto,
    )
    standing = state.standing if stands else (*state.standing, "not finite")
    return replace(state, skipped=0, standing=standing), [alarm]


def _changed(suspect: Change) -> str:
    return (
        f"{suspect.key} {configuration.shown(suspect.old)} → {configuration.shown(suspect.new)} "
        f"at step {suspect.step:,}"
    )


def _cure(suspect: Change | None, around: Around) -> tuple[str, Any]:
    """The setting to change where updates blow up, and its value: what it was, or half the learning rate."""
    return ("optim.lr", around.config.optim.lr / 2) if suspect is None else (suspect.key, suspect.old)


def _with_it_taken_back(suspect: Change | None) -> str:
    return "" if suspect is None else f", with {suspect.key} {configuration.shown(suspect.old)}"


def _undo(suspect: Change | None) -> str:
    return "" if suspect is None else f"set {suspect.key} {configuration.shown(suspect.old)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _entry_before(step: int, at: At, around: Around) -> str:
    """The last checkpoint with weights of `step` or before, else the stage's own entry."""
    found = around.lineage.before(at.branch, step)
    return found.id if found else str(at.stage)


def _clear(state: Watch, kinds: tuple[str, ...], message: str, at: At) -> tuple[Watch, list[Told]]:
    over = [kind for kind in state.standing if kind in kinds]
    left = tuple(kind for kind in state.standing if kind not in kinds)
    return replace(state, standing=left), [AlarmCleared(at=at, kind=kind, message=message) for kind in over]
