"""The cockpit's lines: how a run stands, what is gone and goes next, what is pending, what an alarm asks for.

They are pure functions of the history, a width and the terminal's signs. What a model answers is in
`replies`. Everything from outside goes in as text, never as markup.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from textual.content import Content

from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History
from stepwise_tui.log import Tone
from stepwise_tui.text import DASH, accuracy, clean, clip, clip_start, duration, loss, short, wrapped
from stepwise_tui.words import by, key_name
from trainer.config import GATED, LATENT, ScheduleConfig
from trainer.events import DISK, AlarmRaised, RunState
from trainer.pacing import schedule

STATE_STYLES: dict[RunState, str] = {
    "starting": "bold $foreground-muted",
    "training": "bold $success",
    "paused": "bold $warning",
    "evaluating": "bold $accent",
    "finished": "bold $success",
    "interrupted": "bold $warning",
    "crashed": "bold $error",
}
SOON = 1.0
"""Seconds within which most of what is asked for is done."""
LATENT_WORDS = {"coconut": "thoughts", "pause": "pauses"}
"""What stands in the place of steps."""
FAINT = "$foreground-muted"
GONE = "$primary"
MESSAGE_STYLES: dict[Tone, str] = {
    "plain": FAINT,
    "faint": FAINT,
    "good": "$success",
    "warning": "bold $warning",
}


class Piece(NamedTuple):
    """Part of a line. rank: pieces of a higher rank go first when there is no room for all."""

    text: Content
    rank: int = 0


def fit(pieces: Sequence[Piece], width: int, gap: int = 3) -> Content:
    """The pieces side by side, without those for which there is no room."""
    kept = list(pieces)
    while len(kept) > 1 and sum(p.text.cell_length for p in kept) + gap * (len(kept) - 1) > width:
        worst = max(kept, key=lambda piece: piece.rank)
        kept.remove(worst)
    return Content(" " * gap).join([piece.text for piece in kept])


def styled(text: str, style: str = "") -> Content:
    return Content.styled(text, style) if style else Content(text)


def set_in(text: str, width: int, style: str) -> Content:
    """In as many lines as it takes, a little to the right."""
    return styled(wrapped(f"  {text}", width, 2), style)


def status_line(
    history: History, name: str, width: int, glyphs: Glyphs, machine: Content | None = None
) -> Content:
    """Which run, its state, how fast it goes, and on what. machine: how that is doing."""
    started = history.started
    style = STATE_STYLES["crashed"] if history.gone else STATE_STYLES[history.state]
    state = styled(f"{glyphs.state} {history.standing.upper()}", style)
    pieces = [
        Piece(styled(clip_start(clean(name), 24), "bold"), 1),
        Piece(state, 0),
        Piece(styled(f"step {history.at.step:,}"), 1),
    ]
    if started is not None:
        model = f"{started.model} {short(started.parameters)}{glyphs.between}{started.device}"
        pieces.insert(1, Piece(styled(clip(clean(model), 40), FAINT), 6))
    if history.again is not None and not history.ended:
        pieces.append(Piece(styled(f"made again, up to {history.again:,}", "$warning"), 1))
    elif history.metrics is not None and not history.ended and not history.gone:
        pieces.append(Piece(styled(f"{short(history.metrics.tokens_per_second)} tok/s"), 3))
        pieces.append(Piece(styled(f"loss {loss(history.metrics.loss)}"), 5))
        pieces.append(Piece(styled(f"epoch {history.metrics.epoch:.1f}", FAINT), 8))
    if machine is not None:
        pieces.append(Piece(machine, 4 if history.sampled.gpus else 7))
    if (remaining := seconds_to_none(history)) is not None and history.state != "paused":
        if (end := too_soon(history)) is None:
            pieces.append(Piece(styled(f"all gone {in_or_within(history)} {duration(remaining)}"), 2))
        else:
            ends = f"ends {in_or_within(history)} {duration(end)}, {perhaps(history)}not all gone"
            pieces.append(Piece(styled(ends, "$warning"), 2))
    return fit(pieces, width)


def seconds_to_next(history: History) -> float | None:
    """To the next removal, at the speed of the last steps."""
    return _seconds(history.steps_to_next, history)


def seconds_to_none(history: History) -> float | None:
    """Until the last token goes, if the pace stays."""
    return _seconds(history.steps_to_none, history)


def seconds_to_end(history: History) -> float | None:
    """Until `[stop]` ends the run at the latest, at the speed of the last steps."""
    left, trained = _seconds(history.steps_to_end, history), history.sampled.trained
    if left is None:
        return None
    if trained is not None:
        left = min(left, max(0.0, 3600 * history.config.stop.hours - trained))
    return left if math.isfinite(left) else None


def too_soon(history: History) -> float | None:
    """As `seconds_to_end`, where that is before the last token goes at the latest; None where it is not."""
    end, none = seconds_to_end(history), seconds_to_none(history)
    return end if end is not None and none is not None and 0 < end < none else None


def in_or_within(history: History) -> str:
    """How a time to come is told: where the schedule goes by what is learnt it is one at the latest."""
    return "within" if history.config.schedule.kind in GATED else "in"


def perhaps(history: History) -> str:
    """What stands before words that such a bound is the ground of."""
    return "perhaps " if history.config.schedule.kind in GATED else ""


def _seconds(steps: float | None, history: History) -> float | None:
    metrics = history.metrics
    if steps is None or metrics is None or metrics.steps_per_second <= 0:
        return None
    return steps / metrics.steps_per_second


def removal_line(history: History, width: int, glyphs: Glyphs) -> Content:
    """How much of the CoT is gone, and when the next token goes."""
    if history.started is None:
        return styled("the run is starting", FAINT)
    at = history.at
    if history.stages == 0:
        return styled("no curriculum: nothing is removed while this run trains", FAINT)
    pieces = [
        Piece(styled(f"{at.stage:,} / {history.stages:,}", "bold"), 0),
        Piece(_next_removal(history), 0),
        *_at_the_latest(history),
        Piece(styled(_pace(history), FAINT), 3),
        *([Piece(styled("watch auto", FAINT), 4)] if history.config.watch.mode == "auto" else []),
        Piece(styled(f"branch {at.branch}", FAINT if at.branch == 1 else ""), 2),
    ]
    method = history.config.method
    what = "removed " if method.name not in LATENT or method.no_thought else f"{LATENT_WORDS[method.name]} "
    rest = fit(pieces, width - len(what) - 26)
    room = max(8, width - len(what) - 2 - rest.cell_length)
    return Content.assemble(what, _bar(at.stage / history.stages, min(room, 64), glyphs), "  ", rest)


def _bar(share: float, width: int, glyphs: Glyphs) -> Content:
    full = round(share * width)
    return Content.assemble((glyphs.full * full, GONE), (glyphs.empty * (width - full), FAINT))


def _next_removal(history: History) -> Content:
    if history.at.stage >= history.stages:
        return styled("all gone", "bold $success")
    if history.ended:
        return styled("the run has ended", FAINT)
    if history.gone:
        return styled("nobody trains it" if history.gone.gone == "crashed" else "not reached", FAINT)
    if history.control.held:
        return styled("HELD", "bold $warning")
    if history.config.schedule.kind in GATED:
        probed = history.probed
        if probed is None:
            return styled("no probe yet", FAINT)
        if not probed.target:  # then it goes by time, which stands beside this
            return styled(f"none right before, now {accuracy(probed.mean)}")
        return styled(f"next at {accuracy(probed.target)}, now {accuracy(probed.mean)}")
    seconds = seconds_to_next(history)
    if seconds is None or history.state == "paused":
        return styled(f"next in {_steps(history)}", FAINT)
    return styled(f"next in {duration(seconds)}")


def _at_the_latest(history: History) -> list[Piece]:
    """When the next token goes though its stage is not learnt, where the schedule goes by that."""
    latest = seconds_to_next(history) if history.config.schedule.kind in GATED else None
    if latest is None:
        return []
    paused = history.state == "paused"
    return [Piece(styled(f"within {_steps(history)}" if paused else f"within {duration(latest)}"), 1)]


def _steps(history: History) -> str:
    """Until the next removal."""
    steps = history.steps_to_next
    return DASH if steps is None else f"{steps:,} step{'' if steps == 1 else 's'}"


def _pace(history: History) -> str:
    config, probed = history.config.schedule, history.probed
    if config.kind in GATED:
        at_once = f", {probed.at_once} at once" if probed and probed.at_once > 1 else ""
        return config.kind + at_once + (", careful" if probed and probed.careful else "")
    unit = "stage" if history.config.method.counted == "step" else "token"
    return _timed(config, unit) + (", careful" if history.careful else "")


def _timed(config: ScheduleConfig, unit: str) -> str:
    if config.steps is not None:
        return "steps by a table"
    if config.kind == "geometric":
        chunk = f"{config.removed_share:.0%} of the rest"
        if config.steps_per_token is not None:
            return f"{chunk} every {config.steps_per_token} steps"
        if config.epochs_per_stage is not None:
            return f"{chunk} every {config.epochs_per_stage:g} epochs"
        return f"{chunk}, {config.tokens_per_epoch:g} times an epoch"
    if config.steps_per_token is not None:
        return f"{config.kind} {config.steps_per_token} steps/{unit}"
    if config.epochs_per_stage is not None:
        return f"{config.kind} {config.epochs_per_stage:g} epochs/stage"
    return f"{config.kind} Δ{config.tokens_per_epoch:g}"


def _in_clauses(text: str, width: int) -> str:
    """`text` in lines that end between two clauses, where that takes no more of them."""
    lines: list[str] = []
    for clause in text.replace("; ", ";\n").split("\n"):
        if lines and len(lines[-1]) + 1 + len(clause) <= width:
            lines[-1] += f" {clause}"
        else:
            lines.append(f"  {clause}" if lines else clause)
    parted, plain = "\n".join(wrapped(line, width, 2) for line in lines), wrapped(text, width, 2)
    return parted if parted.count("\n") <= plain.count("\n") else plain


def _side_by_side(pieces: Sequence[Content], width: int, gap: str = "  ") -> Content:
    """The pieces in as few lines as hold them; a line ends between two of them."""
    lines: list[Content] = []
    for piece in pieces:
        if lines and lines[-1].cell_length + len(gap) + piece.cell_length <= width:
            lines[-1] = Content.assemble(lines[-1], gap, piece)
        else:
            lines.append(piece)
    return Content("\n").join(lines)


def pending(history: History, now: float) -> Content | None:
    """What was asked for and is not done yet, longest first; None where that is nothing.

    now: seconds since the epoch. What has waited for less than `SOON` is not worth a line.
    """
    waits = [(received, now - received.at.time) for received in history.pending.values()]
    parts = [
        f"{clip(clean(received.command), 40)}{by(clean(received.source))} (asked {duration(seconds)} ago)"
        for received, seconds in waits
        if seconds >= SOON
    ]
    control, at = history.control, history.at
    if control.stopping and not history.ended:
        parts.append("saving, then the end")
    if control.pause_at is not None and at.step < control.pause_at and not (history.ended or control.paused):
        parts.append(f"a pause at step {control.pause_at:,}")
    return Content.styled(f"pending: {', '.join(parts)}", "$warning") if parts else None


def alarm(history: History, width: int, glyphs: Glyphs, names: Mapping[str, str]) -> Content | None:
    """What happened, what happens if nothing is done, and the keys that answer it; None when all is well.

    names: how the key of each action is written.
    """
    raised, gone = history.alarm, history.gone
    if gone is not None and not history.ended:
        return set_in(f"{glyphs.alarm} {clean(gone.advice)}", width, "bold")
    if history.ended:
        return None
    plan = [set_in(f"auto: {clean(history.plan)}", width, "bold")] if history.plan else []
    if raised is None:
        return plan[0] if plan else None
    happens = f"; {_goes_on(history)}" if raised.goes_on else ""
    message = styled(_in_clauses(f"{glyphs.alarm} {clean(raised.message)}{happens}", width), "bold")
    keys = _side_by_side([_answer_by(*answer) for answer in _answers(history, raised, names)], width)
    return Content("\n").join([message, keys, *plan])


def _goes_on(history: History) -> str:
    """What the schedule does now if nobody does anything; that changes while an alarm stands."""
    if history.state == "paused":
        return "training is paused"
    at, kind = history.at, history.config.schedule.kind
    return schedule.goes_on(at.stage, history.stages, kind, held=history.control.held)


def _answers(history: History, raised: AlarmRaised, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Keys that answer an alarm, and what each does; "" where the remedy has none."""
    key, hold = clean(key_name(raised.key, names)) if raised.key else "", names["hold_or_release"]
    if key == hold and history.control.held:  # that is done, and the key would undo it
        yield names["change_setting"], "set a gentler pace"
    else:
        yield key, clean(raised.remedy)
    if raised.kind == DISK:
        return  # training waits by itself
    if history.at.stage < history.stages and not history.control.held and key != hold:
        yield hold, "hold the schedule"
    yield names["pause_or_resume"], "go on" if history.state == "paused" else "pause"
    yield names["restart"], "other seed"


def _answer_by(key: str, does: str) -> Content:
    return Content.assemble((f" {key} ", "bold reverse"), f" {does}") if key else Content(f"  {does}")
