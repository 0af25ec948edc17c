"""Each event as a sentence: the one place where what happened is put into words for people."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stepwise_tui.text import DASH, accuracy, clean, loss, short, size
from trainer.config import shown
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    ChatAnswered,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    DipMeasured,
    Evaluated,
    Event,
    Metrics,
    Notice,
    QuizTaken,
    RolledBack,
    RunCrashed,
    RunFinished,
    RunStarted,
    SettingChanged,
    StageEntered,
    StepsRepeated,
    WatchPlanned,
)

ANSWERS = {"r": "roll_back", "space": "pause_or_resume", "h": "hold_or_release", "s": "save"}
"""The actions that the trainer means by a key."""

CHECKPOINT = r"b\d+-s\d+[\w-]*"
"""The ids of checkpoints."""

BY_CAUSE = {
    "schedule": "by schedule",
    "operator": "by the operator",
    "watch": "by the watch",
    "rollback": "by roll back",
    "start": "at the start",
}


def words(event: Event, names: Mapping[str, str] | None = None) -> str | None:
    """The event in one line without anything a terminal would obey; None where there is nothing to say.

    names: how a person writes the key of each action, where they chose others.
    """
    text = _words(event, names or {})
    return None if text is None else clean(text)


def outcome(event: CommandAcknowledged) -> str:
    """What came of a command, for the person who gave it: what, and at which step.

    A checkpoint that is named beside its step has no room at 80 columns; the log names it.
    """
    what = event.command.split()[0] if event.ok else event.command
    message = re.sub(rf"(step [\d,]+) \({CHECKPOINT}\)", r"\1", event.message)
    return clean(f"{what}: {with_step(message, event.at.step)}")


def with_step(message: str, step: int) -> str:
    """A message of that step, which is added where it does not say so."""
    where = f"step {step:,}"
    return message if re.search(rf"\b{where}\b", message) else f"{message} (at {where})"


def _words(event: Event, names: Mapping[str, str]) -> str | None:
    match event:
        case RunStarted():
            return _started(event)
        case Metrics():
            skipped = f"  {event.skipped} steps skipped, not finite" if event.skipped else ""
            if event.left_out:
                skipped += f"  {event.left_out} batches left out, longer than data.max_len_train"
            return (
                f"loss {loss(event.loss)} (answer {loss(event.loss_answer)}, CoT {loss(event.loss_cot)})"
                f"  {short(event.tokens_per_second)} tok/s{skipped}"
            )
        case StepsRepeated():
            return f"made again, up to step {event.upto:,}"
        case Evaluated():
            doubt = f"; all decoded, since {event.disagreed} came out otherwise" if event.disagreed else ""
            return f"{event.split} accuracy {accuracy(event.accuracy)} ({event.correct}/{event.n}){doubt}"
        case StageEntered():
            reset = ", optimiser reset" if event.optimizer_reset else ""
            why = f": {event.why}" if event.why else ""
            return f"{event.text}, {BY_CAUSE[event.cause]}{reset}{why}"
        case RolledBack():
            kept = " with the present weights" if event.keep_weights else ""
            return (
                f"rolled back to {event.checkpoint}{kept}; branch {event.from_branch} ends at step "
                f"{event.from_step:,}"
            )
        case CheckpointSaved():
            return f"saved {event.checkpoint} ({event.cause}, {size(event.bytes)})"
        case SettingChanged():
            return f"{event.key} {shown(event.old)} → {shown(event.new)}"
        case CommandReceived():
            return f"requested{by(event.source)}: {event.command}"
        case CommandAcknowledged():
            outcome = "done" if event.ok else "refused"
            return f"{outcome} at step {event.at.step:,}{by(event.source)}: {event.command}: {event.message}"
        case DipMeasured():
            back = "not back when it was left" if event.steps is None else f"back after {event.steps:,} steps"
            return f"stage {event.of}: accuracy {accuracy(event.before)} → {accuracy(event.lowest)}, {back}"
        case WatchPlanned():
            return f"the watch {event.plan}" if event.plan else None
        case AlarmRaised():
            key = f"[{key_name(event.key, names)}] " if event.key else ""
            return f"ALARM: {event.told}; {key}{event.remedy}"
        case AlarmCleared():
            return f"alarm over: {event.message}"
        case ChatAnswered():
            return _turn(event)
        case QuizTaken():
            return f"quiz: {event.correct} of {event.n} right ({accuracy(event.correct / max(1, event.n))})"
        case Notice():
            return event.message if event.level == "info" else f"{event.level}: {event.message}"
        case RunCrashed():
            return f"CRASHED: {event.error}; the last checkpoint is {event.checkpoint or 'none'}"
        case RunFinished():
            return _finished(event)
        case _:
            return None


def key_name(key: str, names: Mapping[str, str]) -> str:
    """How a person writes a key that the trainer names. names: of the keys of actions, as they chose them."""
    return names.get(ANSWERS.get(key, ""), key)


def by(source: str) -> str:
    """Who asked, where it was not the cockpit."""
    return "" if source == "cockpit" else f" by {source}"


def _started(event: RunStarted) -> str:
    going_on = f", going on from {event.checkpoint}" if event.checkpoint else ""
    return (
        f"{event.name}: {event.task}, {event.method}, {event.model} with {short(event.parameters)} parameters"
        f" on {event.device}; {event.train_examples:,} examples, {event.stages} stages{going_on}"
    )


def _turn(event: ChatAnswered) -> str:
    if not event.understood:
        return f"asked {event.asked}: {event.note}"
    verdict = {True: "right", False: f"wrong, {event.expected} is right", None: ""}[event.correct]
    details = ", ".join(part for part in (verdict, f"{event.milliseconds:.0f} ms", event.note) if part)
    return f"asked {event.question} = {event.answer or DASH} ({details})"


def _finished(event: RunFinished) -> str:
    text = f"{event.state}: {event.reason}; checkpoint {event.checkpoint}"
    if event.accuracy is None:
        return text
    correct = round(event.accuracy * event.n)
    return f"{text}; test accuracy {accuracy(event.accuracy)} ({correct}/{event.n})"
