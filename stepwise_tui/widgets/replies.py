"""What a model was asked and what it answered, in lines: a held-out example, a turn of the chat.

Pure functions, as in `lines`. Everything that a model wrote goes in as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History, Turn
from stepwise_tui.search import search_lines
from stepwise_tui.text import accuracy, clean, clip, clip_alike, clip_question, wrapped
from stepwise_tui.widgets.lines import FAINT, GONE, set_in, styled
from trainer.config import MethodConfig
from trainer.events import ChatAnswered, QuizTaken, ShownExample, Thought

LEAST_SHOWN = 0.01
"""Probability of a thought's candidate that is worth its place."""
TIE = "\N{NO-BREAK SPACE}"


def example_line(history: History, width: int, glyphs: Glyphs) -> Content:
    """The heart of the method: one held-out example, what is gone of its CoT, and the model's answer."""
    if not history.shown:
        return styled(none_yet(history), FAINT)
    score = _score(history)
    room = max(20, width - score.cell_length - 2)
    line = example(history.shown[0], room, glyphs)
    if line.cell_length + score.cell_length + 2 > width:
        return line
    return Content.assemble(line, " " * (width - line.cell_length - score.cell_length), score)


def none_yet(history: History) -> str:
    """When the first held-out example comes."""
    every = history.config.eval.every
    due = (history.at.step // every + 1) * every
    return f"a held-out example comes with the evaluation at step {due:,}"


def _score(history: History) -> Content:
    """Of the evaluation that the example is of; at a run's end that is one of the test examples."""
    measured = history.shown_of
    if measured is None:
        return Content("")
    return Content.assemble(
        (f"{accuracy(measured.accuracy)} ", f"bold {_grade(measured.accuracy)}"),
        (f"{measured.correct:,}/{measured.n:,}{' test' if measured.split == 'test' else ''}", FAINT),
    )


def example(shown: ShownExample, width: int, glyphs: Glyphs) -> Content:
    """One example in at most `width` cells: question, removed part as dots, spoken CoT, answer, verdict."""
    question = clip_question(clean(shown.question), max(12, width // 3)).replace("×", glyphs.times)
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
        parts.append(styled(word, "underline $error" if wrong else ""))
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
    given, answer = clip_alike((clean(given), clean(answer)), room)
    given = given or glyphs.dash
    if correct is None:
        return styled(given, "bold")
    if correct:
        return Content.assemble((f"{given} ", "bold"), (glyphs.right, "bold $success"))
    return Content.assemble((f"{given} ", "bold"), (glyphs.wrong, "bold $error"), (f" {answer}", FAINT))


def turn(asked: Turn, method: MethodConfig, width: int, glyphs: Glyphs, *, again: bool = False) -> Content:
    """One turn of the chat, in a few lines. again: the question stands above already."""
    question = [] if again else [Content.assemble(("> ", "bold $accent"), (asked.asked, "bold"))]
    return Content("\n").join([*question, *_reply(asked, method, width, glyphs)])


def _reply(asked: Turn, method: MethodConfig, width: int, glyphs: Glyphs) -> list[Content]:
    if asked.refused:
        return [set_in(asked.refused, width, "$warning")]
    answered = asked.answered
    if answered is None:
        whom = f"asking {asked.checkpoint}" if asked.checkpoint else "asking"
        said = f"{asked.cot.strip()} = {asked.answer.strip()}" if asked.cot or asked.answer else whom
        return [styled(f"  {said} {glyphs.more}", FAINT)]
    if isinstance(answered, QuizTaken):
        return _score_of(answered, width, glyphs)
    if not answered.understood:
        return [set_in(clean(answered.note), width, "$warning")]
    return _answer(answered, method, width, glyphs)


def _score_of(quiz: QuizTaken, width: int, glyphs: Glyphs) -> list[Content]:
    """How many were right, what that took, and some that were not."""
    share = quiz.correct / max(1, quiz.n)
    score = styled(f"  {quiz.correct} of {quiz.n} right, {accuracy(share)}", f"bold {_grade(share)}")
    facts = [
        f"{quiz.cot_tokens:.3g} CoT tokens each",
        *([f"{quiz.saved:.3g} saved"] if quiz.saved > 0 else []),
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
    lines += [styled(clip(f"  {line}", width), FAINT) for line in search]
    spoken = f"{len(answered.cot)} CoT token{'' if len(answered.cot) == 1 else 's'}"
    saved = [f"{answered.saved} saved"] if answered.saved else []
    facts = [spoken, *saved, f"{answered.milliseconds:.0f} ms", _weights(answered)]
    lines.append(_facts(facts, width, glyphs))
    if answered.note:
        lines.append(set_in(clean(answered.note), width, "$warning"))
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


def _facts(facts: Sequence[str], width: int, glyphs: Glyphs) -> Content:
    """Side by side; a line ends between two of them."""
    tied = glyphs.between.join(fact.replace(" ", TIE) for fact in facts)
    lines = wrapped(f"  {tied}", width, 2).replace(f"{glyphs.between.rstrip()}\n", "\n")
    return styled(lines.replace(TIE, " "), FAINT)


def _weights(answered: ChatAnswered | QuizTaken) -> str:
    if answered.checkpoint == "current weights":
        return f"step {answered.at.step:,}, stage {answered.at.stage}"
    return clean(answered.checkpoint)
