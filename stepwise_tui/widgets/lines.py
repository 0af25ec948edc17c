"""The cockpit's lines: pure functions of the history, a width and the terminal's signs.

Everything that a model wrote goes in as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from textual.content import Content

from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History, Tone, Turn
from stepwise_tui.search import search_lines
from stepwise_tui.text import DASH, accuracy, clean, clip, duration, loss, short, wrapped
from stepwise_tui.words import by, key_name
from trainer.config import GATED, LATENT, MethodConfig, ScheduleConfig
from trainer.events import DISK, AlarmRaised, ChatAnswered, QuizTaken, RunState, ShownExample, Thought

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
LEAST_SHOWN = 0.01
"""Probability of a thought's candidate that is worth its place."""
LATENT_WORDS = {"coconut": "thoughts", "pause": "pauses"}
"""What stands in the place of steps."""
FAINT = "$foreground-muted"
TIE = "\N{NO-BREAK SPACE}"
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


def _text(text: str, style: str = "") -> Content:
    return Content.styled(text, style) if style else Content(text)


def status_line(
    history: History, name: str, width: int, glyphs: Glyphs, machine: Content | None = None
) -> Content:
    """Which run, its state, how fast it goes, and on what. machine: how that is doing."""
    started = history.started
    style = STATE_STYLES["crashed"] if history.gone else STATE_STYLES[history.state]
    state = _text(f"{glyphs.state} {history.standing.upper()}", style)
    pieces = [
        Piece(_text(clip(clean(name), 24), "bold"), 1),
        Piece(state, 0),
        Piece(_text(f"step {history.at.step:,}"), 1),
    ]
    if started is not None:
        model = f"{started.model} {short(started.parameters)}{glyphs.between}{started.device}"
        pieces.insert(1, Piece(_text(clip(clean(model), 40), FAINT), 6))
    if history.metrics is not None and not history.ended and not history.gone:
        pieces.append(Piece(_text(f"{short(history.metrics.tokens_per_second)} tok/s"), 3))
        pieces.append(Piece(_text(f"loss {loss(history.metrics.loss)}"), 5))
        pieces.append(Piece(_text(f"epoch {history.metrics.epoch:.1f}", FAINT), 8))
    if machine is not None:
        pieces.append(Piece(machine, 4 if history.sampled.gpus else 7))
    remaining = seconds_to_none(history)
    if (end := _seconds_to_end(history)) is not None and history.state != "paused":
        pieces.append(Piece(_text(f"ends in {duration(end)}, not all gone", "$warning"), 2))
    elif remaining is not None and history.state != "paused":
        when = "within" if history.config.schedule.kind in GATED else "in"
        pieces.append(Piece(_text(f"all gone {when} {duration(remaining)}"), 2))
    return fit(pieces, width)


def seconds_to_next(history: History) -> float | None:
    """To the next removal, at the speed of the last steps."""
    return _seconds(history.steps_to_next, history)


def seconds_to_none(history: History) -> float | None:
    """Until the last token goes, if the pace stays."""
    return _seconds(history.steps_to_none, history)


def _seconds_to_end(history: History) -> float | None:
    """Until `[stop]` ends the run, where that is known to come before the last token goes."""
    steps, end = history.steps_to_none, history.steps_to_end
    if steps is None or end is None or not 0 < end < steps or history.config.schedule.kind in GATED:
        return None
    return _seconds(round(end), history)


def _seconds(steps: int | None, history: History) -> float | None:
    metrics = history.metrics
    if steps is None or metrics is None or metrics.steps_per_second <= 0:
        return None
    return steps / metrics.steps_per_second


def removal_line(history: History, width: int, glyphs: Glyphs) -> Content:
    """How much of the CoT is gone, and when the next token goes."""
    if history.started is None:
        return _text("the run is starting", FAINT)
    at = history.at
    if history.stages == 0:
        return _text("no curriculum: nothing is removed while this run trains", FAINT)
    pieces = [
        Piece(_text(f"{at.stage:,} / {history.stages:,}", "bold"), 0),
        Piece(_next_removal(history), 0),
        *_at_the_latest(history),
        Piece(_text(_pace(history), FAINT), 3),
        *([Piece(_text("watch auto", FAINT), 4)] if history.config.watch.mode == "auto" else []),
        Piece(_text(f"branch {at.branch}", FAINT if at.branch == 1 else ""), 2),
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
        return _text("all gone", "bold $success")
    if history.ended:
        return _text("the run has ended", FAINT)
    if history.gone:
        return _text("nobody trains it" if history.gone.gone == "crashed" else "not reached", FAINT)
    if history.control.held:
        return _text("HELD", "bold $warning")
    if history.config.schedule.kind in GATED:
        probed = history.probed
        if probed is None:
            return _text("no probe yet", FAINT)
        if not probed.target:  # then it goes by time, which stands beside this
            return _text(f"none right before, now {accuracy(probed.mean)}")
        return _text(f"next at {accuracy(probed.target)}, now {accuracy(probed.mean)}")
    seconds = seconds_to_next(history)
    if seconds is None or history.state == "paused":
        return _text(f"next in {_steps(history)}", FAINT)
    return _text(f"next in {duration(seconds)}")


def _at_the_latest(history: History) -> list[Piece]:
    """When the next token goes though its stage is not learnt, where the schedule goes by that."""
    latest = seconds_to_next(history) if history.config.schedule.kind in GATED else None
    if latest is None:
        return []
    paused = history.state == "paused"
    return [Piece(_text(f"within {_steps(history)}" if paused else f"within {duration(latest)}"), 1)]


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


def example_line(history: History, width: int, glyphs: Glyphs) -> Content:
    """The heart of the method: one held-out example, what is gone of its CoT, and the model's answer."""
    if not history.shown:
        every = history.config.eval.every
        due = (history.at.step // every + 1) * every
        return _text(f"a held-out example comes with the evaluation at step {due:,}", FAINT)
    score = _score(history, glyphs)
    room = max(20, width - score.cell_length - 2)
    line = example(history.shown[0], room, glyphs)
    if line.cell_length + score.cell_length + 2 > width:
        return line
    return Content.assemble(line, " " * (width - line.cell_length - score.cell_length), score)


def _score(history: History, glyphs: Glyphs) -> Content:
    measured = history.evaluated
    if measured is None:
        return Content("")
    return Content.assemble(
        (f"{accuracy(measured.accuracy)} ", f"bold {_grade(measured.accuracy)}"),
        (f"{measured.correct:,}/{measured.n:,}", FAINT),
    )


def example(shown: ShownExample, width: int, glyphs: Glyphs) -> Content:
    """One example in at most `width` cells: question, removed part as dots, spoken CoT, answer, verdict."""
    question = clip(clean(shown.question).replace("×", glyphs.times), max(12, width // 3))
    head = Content.assemble((question, "bold"), (" =  ", FAINT))
    verdict = _verdict(shown.given, shown.answer, shown.correct, glyphs, max(8, width // 6))
    room = width - head.cell_length - verdict.cell_length - 5
    return Content.assemble(head, thought_of(shown, room, glyphs), ("  =  ", FAINT), verdict)


def thought_of(shown: ShownExample, width: int, glyphs: Glyphs) -> Content:
    """The CoT of an example: what is gone, and what was spoken."""
    whole, removed = len(shown.cot), min(shown.removed, len(shown.cot))
    kept = shown.cot[removed:] if shown.side == "left" else shown.cot[: whole - removed]
    return thoughts(removed, shown.spoken, width, glyphs, shown.side, kept)


def thoughts(
    removed: int,
    spoken: Sequence[str],
    width: int,
    glyphs: Glyphs,
    side: str = "left",
    expected: Sequence[str] | None = None,
) -> Content:
    """The CoT: a dot for each removed token, the spoken ones as written, a wrong one marked.

    expected: what should have been spoken; None where nobody knows.
    """
    width = max(width, 6)
    words = _spoken([clean(word) for word in spoken], expected)
    tail = words.cell_length + 1 if words.cell_length else 0
    dots = _dots(removed, max(width - tail, min(width // 2, 12)), glyphs)
    pad = " " if dots and words.cell_length else ""
    room = width - len(dots) - len(pad)
    if room <= 0:
        pad, words = "", Content("")
    elif words.cell_length > room:
        words = words[: max(0, room - len(glyphs.more))] + Content.styled(glyphs.more[:room], FAINT)
    gone = Content.styled(dots, f"bold {GONE}")
    return Content.assemble(gone, pad, words) if side == "left" else Content.assemble(words, pad, gone)


def _spoken(words: Sequence[str], expected: Sequence[str] | None) -> Content:
    parts = []
    for index, word in enumerate(words):
        wrong = expected is not None and (index >= len(expected) or expected[index] != word)
        parts.append(_text(word, "underline $error" if wrong else ""))
    return Content(" ").join(parts).rstrip()


def _dots(removed: int, width: int, glyphs: Glyphs) -> str:
    """As many dots as tokens; where they are too many, their number among them."""
    if removed <= width:
        return glyphs.dot * removed
    number = f" {removed} "
    around = max(1, (width - len(number)) // 2)
    return glyphs.dot * around + number + glyphs.dot * around


def _verdict(given: str, answer: str, correct: bool | None, glyphs: Glyphs, room: int = 40) -> Content:
    """room: cells for each of both answers."""
    given = clip(clean(given), room) or glyphs.dash
    if correct is None:
        return _text(given, "bold")
    if correct:
        return Content.assemble((f"{given} ", "bold"), (glyphs.right, "bold $success"))
    return Content.assemble(
        (f"{given} ", "bold"), (glyphs.wrong, "bold $error"), (f" {clip(clean(answer), room)}", FAINT)
    )


def turn(asked: Turn, method: MethodConfig, width: int, glyphs: Glyphs, *, again: bool = False) -> Content:
    """One turn of the chat, in a few lines. again: the question stands above already."""
    question = [] if again else [Content.assemble(("> ", "bold $accent"), (asked.asked, "bold"))]
    return Content("\n").join([*question, *_reply(asked, method, width, glyphs)])


def _reply(asked: Turn, method: MethodConfig, width: int, glyphs: Glyphs) -> list[Content]:
    if asked.refused:
        return [_set_in(asked.refused, width, "$warning")]
    answered = asked.answered
    if answered is None:
        whom = f"asking {asked.checkpoint}" if asked.checkpoint else "asking"
        said = f"{asked.cot.strip()} = {asked.answer.strip()}" if asked.cot or asked.answer else whom
        return [_text(f"  {said} {glyphs.more}", FAINT)]
    if isinstance(answered, QuizTaken):
        return _score_of(answered, width, glyphs)
    if not answered.understood:
        return [_set_in(clean(answered.note), width, "$warning")]
    return _answer(answered, method, width, glyphs)


def _score_of(quiz: QuizTaken, width: int, glyphs: Glyphs) -> list[Content]:
    """How many were right, what that took, and some that were not."""
    share = quiz.correct / max(1, quiz.n)
    score = _text(f"  {quiz.correct} of {quiz.n} right, {accuracy(share)}", f"bold {_grade(share)}")
    facts = [
        f"{quiz.cot_tokens:.3g} CoT tokens each",
        f"{quiz.saved:.3g} saved",
        f"{quiz.milliseconds:.3g} ms each",
        _weights(quiz),
    ]
    wrong = [Content.assemble("  ", example(shown, width - 2, glyphs)) for shown in quiz.wrong]
    return [score, *wrong, _facts(facts, width, glyphs)]


def _grade(share: float) -> str:
    return "$success" if share >= 0.9 else "$error" if share < 0.5 else "$warning"


def _answer(answered: ChatAnswered, method: MethodConfig, width: int, glyphs: Glyphs) -> list[Content]:
    """The answer on one line where it fits, else below its CoT."""
    question = clean(answered.question).replace("×", glyphs.times)
    verdict = _verdict(answered.answer, f"{answered.expected} is right", answered.correct, glyphs)
    removed = answered.at.removed if answered.cot_removed is None else answered.cot_removed
    thought = thoughts(removed, answered.cot, width - 2, glyphs, method.side)
    head = Content.assemble((f"  {question} =  ", FAINT), thought)
    tail = Content.assemble(("  =  ", FAINT), verdict)
    if head.cell_length + tail.cell_length <= width:
        lines = [Content.assemble(head, tail)]
    else:
        lines = [Content.assemble("  ", thought), tail]
    lines += [_thought(number, one, width) for number, one in enumerate(answered.thoughts, 1)]
    search = search_lines(answered, method.thoughts_per_step, glyphs, width - 2)
    lines += [_text(clip(f"  {line}", width), FAINT) for line in search]
    spoken = f"{len(answered.cot)} CoT token{'' if len(answered.cot) == 1 else 's'}"
    saved = [f"{answered.saved} saved"] if answered.saved else []
    facts = [spoken, *saved, f"{answered.milliseconds:.0f} ms", _weights(answered)]
    lines.append(_facts(facts, width, glyphs))
    if answered.note:
        lines.append(_set_in(clean(answered.note), width, "$warning"))
    return lines


def _thought(number: int, thought: Thought, width: int) -> Content:
    """A thought in a line: what it would say, as many candidates as fit, without the hardly likely ones."""
    line = Content.styled(f"  {number:>2} ", FAINT)
    for place, candidate in enumerate(thought.candidates):
        told = clip(clean(candidate.text).strip() or "blank", 16)
        gap, style = ("  ", "") if place else ("", "bold")
        piece = Content.assemble(gap, (told, style), (f" {accuracy(candidate.probability)}", FAINT))
        if place and (candidate.probability < LEAST_SHOWN or line.cell_length + piece.cell_length > width):
            break
        line = Content.assemble(line, piece)
    return line


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


def _set_in(text: str, width: int, style: str) -> Content:
    return _text(wrapped(f"  {text}", width, 2), style)


def _facts(facts: Sequence[str], width: int, glyphs: Glyphs) -> Content:
    """Side by side; a line ends between two of them."""
    tied = glyphs.between.join(fact.replace(" ", TIE) for fact in facts)
    lines = wrapped(f"  {tied}", width, 2).replace(f"{glyphs.between.rstrip()}\n", "\n")
    return _text(lines.replace(TIE, " "), FAINT)


def _weights(answered: ChatAnswered | QuizTaken) -> str:
    if answered.checkpoint == "current weights":
        return f"step {answered.at.step:,}, stage {answered.at.stage}"
    return clean(answered.checkpoint)


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
        return _set_in(f"{glyphs.alarm} {clean(gone.advice)}", width, "bold")
    if history.ended:
        return None
    plan = [_set_in(f"auto: {clean(history.plan)}", width, "bold")] if history.plan else []
    if raised is None:
        return plan[0] if plan else None
    message = _text(_in_clauses(f"{glyphs.alarm} {clean(raised.message)}", width), "bold")
    keys = _side_by_side([_answer_by(*answer) for answer in _answers(history, raised, names)], width)
    return Content("\n").join([message, keys, *plan])


def _answers(history: History, raised: AlarmRaised, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Keys that answer an alarm, and what each does; "" where the remedy has none."""
    yield clean(key_name(raised.key, names)) if raised.key else "", clean(raised.remedy)
    if raised.kind == DISK:
        return  # training waits by itself
    if history.at.stage < history.stages:  # else there is nothing to hold
        yield names["hold_or_release"], f"{'release' if history.control.held else 'hold'} the schedule"
    yield names["pause_or_resume"], "go on" if history.state == "paused" else "pause"
    yield names["restart"], "other seed"


def _answer_by(key: str, does: str) -> Content:
    return Content.assemble((f" {key} ", "bold reverse"), f" {does}") if key else Content(f"  {does}")
