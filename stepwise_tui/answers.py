"""Held-out examples as one model or two answered them: what is right, digit by digit, and where they differ.

Pure: functions of the history and of what was answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stepwise_tui.history import History
from stepwise_tui.text import clean
from trainer.events import At, ShownExample

LIVE = ""
"""The current weights, among the ids of checkpoints."""
CURRENT = "current weights"
"""The same in events."""


class Answers(NamedTuple):
    """What some weights answered. at: where these stood. correct, n: of all; examples: the first of them.
    split: whose they are."""

    whose: str
    at: At
    examples: tuple[ShownExample, ...]
    correct: int
    n: int
    split: str = "valid"

    @property
    def name(self) -> str:
        return clean(self.whose) or "live"


class Pair(NamedTuple):
    """An example, number so much of the held-out ones, as one model or two answered it."""

    number: int
    answers: tuple[ShownExample, ...]

    @property
    def wrong(self) -> bool:
        """Whether any of them is."""
        return not all(shown.correct for shown in self.answers)

    @property
    def differs(self) -> bool:
        return len({shown.given for shown in self.answers}) > 1


class Cell(NamedTuple):
    """A token or a digit. gone: a removed token, of which `text` is the sign or what it was."""

    text: str
    wrong: bool = False
    gone: bool = False


def asked(history: History, whose: str) -> Answers | None:
    """What these weights answered when they were asked; None when they were not."""
    event = history.answered.get(whose or CURRENT)
    if event is None:
        return None
    saved = history.saves.get(whose)
    return Answers(whose, saved.at if saved else event.at, event.examples, event.correct, event.n)


def evaluated(history: History) -> Answers | None:
    """What the live weights answered at the last evaluation, as far as it was told."""
    shown, measured = history.shown, history.shown_of
    if measured is None or not shown:
        return None
    return Answers(LIVE, measured.at, shown, measured.correct, measured.n, measured.split)


def pairs(sides: Sequence[Answers]) -> list[Pair]:
    """The examples that all of them answered."""
    together = zip(*(side.examples for side in sides), strict=False)
    return [
        Pair(number, answers)
        for number, answers in enumerate(together, 1)
        if len({shown.question for shown in answers}) == 1
    ]


def by_place(examples: Sequence[ShownExample]) -> list[float]:
    """The share that is right of each digit of the answer, the last digit last; nothing where not all answers
    are numbers."""
    if not all(shown.answer.isdecimal() for shown in examples):
        return []
    places: list[list[bool]] = [[] for _ in range(max((len(s.answer) for s in examples), default=0))]
    for shown in examples:
        given = shown.given.rjust(len(shown.answer))
        for place in range(len(shown.answer)):
            places[place].append(shown.answer[-1 - place] == given[-1 - place])
    return [sum(right) / len(right) for right in reversed(places)]


def aligned(given: str, answer: str) -> tuple[list[str], list[str]]:
    """Both in pieces of which the like-placed belong together: digits, counted from the last, or words."""
    if answer.isdecimal() and (given.isdecimal() or not given):
        length = max(len(given), len(answer))
        return list(given.rjust(length)), list(answer.rjust(length))
    one, two = clean(given).split(), clean(answer).split()
    length = max(len(one), len(two), 1)
    return one + [""] * (length - len(one)), two + [""] * (length - len(two))


def table(pair: Pair, dot: str) -> tuple[list[Cell], list[list[Cell]]]:
    """The true CoT and answer, and below it what each model wrote, in columns that belong together.

    dot: stands where a token was removed. A "=" stands between CoT and answer.
    """
    first = pair.answers[0]
    thoughts = [_thought(shown, dot) for shown in pair.answers]
    length = max(len(first.cot), *map(len, thoughts))
    true = [Cell(clean(token) or " ") for token in first.cot] + [Cell("")] * (length - len(first.cot))
    for place in range(len(first.cot)):
        if all(place < len(row) and row[place].gone for row in thoughts):
            true[place] = true[place]._replace(gone=True)
    ends = [aligned(shown.given, shown.answer) for shown in pair.answers]
    longest = max((answer for _, answer in ends), key=len)
    numbers = first.answer.isdecimal()
    rows = []
    for thought, (given, answer) in zip(thoughts, ends, strict=True):
        said, wanted = (_filled(part, len(longest), front=numbers) for part in (given, answer))
        end = [Cell(x, wrong=x.strip() != y.strip()) for x, y in zip(said, wanted, strict=True)]
        rows.append([*thought, *[Cell("")] * (length - len(thought)), Cell("="), *end])
    return [*true, Cell("="), *map(Cell, longest)], rows


def _filled(parts: list[str], length: int, *, front: bool) -> list[str]:
    blanks = [""] * (length - len(parts))
    return blanks + parts if front else parts + blanks


def _thought(shown: ShownExample, dot: str) -> list[Cell]:
    """The CoT that was written, at the places of the tokens that it should have been."""
    removed, whole = shown.removed, len(shown.cot)
    offset, end = (removed, whole) if shown.side == "left" else (0, whole - removed)
    cells = [Cell(dot, gone=True)] * offset
    for place, token in enumerate(shown.spoken, offset):
        cells.append(Cell(clean(token) or " ", wrong=place >= end or shown.cot[place] != token))
    cells += [Cell("", wrong=True)] * (end - len(cells))
    return cells + [Cell(dot, gone=True)] * (whole - len(cells))
