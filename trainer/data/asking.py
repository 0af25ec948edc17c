"""What a person types in the chat of a multiplication model, understood or kindly refused."""

from __future__ import annotations

import re
from itertools import cycle, islice
from typing import NamedTuple

from trainer.data.task import NotUnderstood

LONGEST_TEXT = 400  # characters; more is no question
SIGN = r"(?:\*|x|×|·|⋅|times|multiplied\s+by)"
QUESTION = re.compile(
    rf"(?:what\s+is|what's|what’s|how\s+much\s+is|calculate|compute)?\s*"
    rf"([0-9]+)\s*{SIGN}\s*([0-9]+)\s*=?\s*[?.!]?",
    re.IGNORECASE,
)
NEGATIVE = re.compile(rf"(?:^|{SIGN}|\s)\s*[-−–]\s*[0-9]", re.IGNORECASE)
DECIMAL = re.compile(r"[0-9][.,][0-9]")

WORDS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Asked(NamedTuple):
    """Two factors as people write them, without leading zeros, and a caveat ("" when there is none)."""

    a: str
    b: str
    note: str


def understand(text: str, digits_a: int, digits_b: int) -> Asked:
    """The factors a person asks for. Raises `NotUnderstood` with an example of what can be asked."""
    text = text.strip()
    can = (
        f"This model multiplies {_factors(digits_a, digits_b)}. "
        f"Ask, for example: {example(digits_a, digits_b)}"
    )
    if not text:
        raise NotUnderstood(f"There was no question. {can}")
    if len(text) > LONGEST_TEXT:
        raise NotUnderstood(f"That is too long for a question. {can}")
    match = QUESTION.fullmatch(text)
    if match is None:
        if NEGATIVE.search(text):
            raise NotUnderstood(f"It has never seen a negative number. {can}")
        if DECIMAL.search(text):
            raise NotUnderstood(f"It knows whole numbers without points or commas only. {can}")
        raise NotUnderstood(f"That is not a question it can read. {can}")
    a, b = (digits.lstrip("0") or "0" for digits in match.groups())
    for factor, width in ((a, digits_a), (b, digits_b)):
        if len(factor) > width:
            raise NotUnderstood(
                f"One factor has {len(factor)} digits, and there is room for {width} only: positions beyond "
                f"were never trained. {can}"
            )
    return Asked(a, b, _note(a, b, digits_a, digits_b))


def example(digits_a: int, digits_b: int) -> str:
    """A question this model can be asked: "12 * 34"."""
    digits = "".join(islice(cycle("123456789"), digits_a + digits_b))
    return f"{digits[:digits_a]} * {digits[digits_a:]}"


def _note(a: str, b: str, digits_a: int, digits_b: int) -> str:
    """The caveat for factors that no training example has: too few digits, padded with zeros."""
    outside: dict[int, list[str]] = {}
    for factor, width in ((a, digits_a), (b, digits_b)):
        if len(factor) < width or factor == "0":
            outside.setdefault(width, []).append(factor.zfill(width))
    notes = []
    for width, factors in outside.items():
        are = "is" if len(factors) == 1 else "are"
        notes.append(
            f"{' and '.join(factors)} {are} outside the trained range: this model has only seen "
            f"{_numbers(width)} from {10 ** (width - 1)} to {10**width - 1}"
            + (" there" if digits_a != digits_b else "")
        )
    return "; ".join(notes)


def _factors(digits_a: int, digits_b: int) -> str:
    if digits_a == digits_b:
        return f"two {_numbers(digits_a)}"
    return f"a {_words(digits_a)}-digit number by a {_words(digits_b)}-digit one"


def _numbers(digits: int) -> str:
    return f"{_words(digits)}-digit numbers"


def _words(digits: int) -> str:
    return WORDS[digits] if digits < len(WORDS) else str(digits)
