"""Numbers, times and foreign text as people read them, without a screen."""

from __future__ import annotations

import itertools
import math
import textwrap
import time
import unicodedata
from collections.abc import Sequence

DASH = "–"


def accuracy(value: float | None) -> str:
    """.954, 1.000, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:.3f}".removeprefix("0")


def loss(value: float | None) -> str:
    """0.123, or 1.5e+12 where that says little; a dash where there is none; nan and inf as they are."""
    if value is None:
        return DASH
    return f"{value:.2g}" if abs(value) >= 1e5 or 0 < abs(value) < 5e-4 else f"{value:.3f}"


def figure(value: float) -> str:
    """Three figures of any number; a dash for what is none, as the CoT's loss when all CoT is gone."""
    return DASH if math.isnan(value) else f"{value:.3g}"


def short(value: float) -> str:
    """A quantity in at most four figures: 950, 1.2k, 412k, 3.4M."""
    if not math.isfinite(value):
        return DASH
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.1f}{unit}" if abs(scaled) < 10 else f"{scaled:.0f}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """12s, 3m07s, 2h31m, 3d04h; a dash for what is not finite."""
    if not math.isfinite(seconds):
        return DASH
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def clock(seconds: float) -> str:
    """The time of day of a moment, here."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def size(amount: int) -> str:
    """Bytes: 1.6 MB."""
    value = float(amount)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def clean(text: str) -> str:
    """Text of a model or an error on one line, without anything that a terminal would obey.

    Control and format characters (escape sequences, changes of direction) become �, white space a blank.
    """
    return "".join(
        " " if character.isspace() else "�" if _is_obeyed(character) else character for character in text
    )


FORBIDDEN = ("Cc", "Cf", "Co", "Cs")
JOINERS = "\u200c\u200d"
"""Of the format characters those that words are written with: Persian, Hindi, and emoji of several."""


def _is_obeyed(character: str) -> bool:
    return unicodedata.category(character) in FORBIDDEN and character not in JOINERS


def clean_lines(text: str) -> str:
    """As `clean`, of each line."""
    return "\n".join(map(clean, text.split("\n")))


def wrapped(text: str, width: int, indent: int = 0) -> str:
    """`text` in lines of at most `width`, all but the first set in by `indent`; the first is as it comes."""
    width = max(width, indent + 10)
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_on_hyphens=False)


def columns(text: str) -> int:
    """What it takes of a line; a wide character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _beginning(text: str, width: int) -> str:
    """As much of it as fits."""
    fits = itertools.takewhile(lambda taken: taken <= width, itertools.accumulate(map(columns, text)))
    return text[: sum(1 for _ in fits)]


def _end(text: str, width: int) -> str:
    return _beginning(text[::-1], width)[::-1]


def clip(text: str, width: int) -> str:
    """`text` in at most `width` columns, an ellipsis at the end where something was cut."""
    return text if columns(text) <= width else _beginning(text, width - 1) + "…"


def clip_start(text: str, width: int) -> str:
    """As `clip`; its end stays, in which the names of a sweep's runs differ."""
    return text if columns(text) <= width else "…" + _end(text, width - 1)


def clip_middle(text: str, width: int) -> str:
    """As `clip`; its beginning and its end stay."""
    half = max(1, width // 2)
    return text if columns(text) <= width else clip(text, half) + _end(text, width - half)


def clip_apart(names: Sequence[str], width: int) -> list[str]:
    """Names in at most `width` columns that still differ where they did; uncut where they would not."""
    for cut in (clip_start, clip, clip_middle):
        short = [cut(name, width) for name in names]
        if len(set(short)) == len(set(names)):
            return short
    return list(names)


def clip_alike(answers: Sequence[str], width: int) -> list[str]:
    """Each as `clip`; words that all of them begin with go first, since they differ in those after."""
    split = [answer.split(" ") for answer in answers]
    shared = itertools.takewhile(lambda words: len(set(words)) == 1, zip(*split, strict=False))
    most = min(sum(1 for _ in shared), min(map(len, split)) - 1)
    cut = list(answers)
    for left_out in range(1, most + 1):
        if max(map(columns, cut)) <= width:
            break
        cut = ["…" + " ".join(words[left_out:]) for words in split]
    return [clip(answer, width) for answer in cut]


def clip_question(text: str, width: int) -> str:
    """As `clip`; of a question in words its end stays, where it says what is asked."""
    if columns(text) <= width or not any(map(str.isalpha, text)):
        return clip(text, width)
    start = len(text) - len(_end(text, width - 1))
    blank = text.find(" ", start - 1)  # from a word's beginning, where there is one
    return "…" + text[start if blank < 0 else blank + 1 :]


def next_command(state: str) -> str:
    """The command that makes the most of a run that has ended so."""
    return "chat" if state == "finished" else "resume"
