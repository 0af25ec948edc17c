"""The signs the screen is drawn with, and their plain twins for terminals that have no others."""

from __future__ import annotations

import os
import sys
import unicodedata
from typing import NamedTuple


class Glyphs(NamedTuple):
    """full, empty: the removal bar. dot: a removed token. right, wrong: verdicts. down: there is more below.
    bars: from little to much. differs: two answers that are not the same. limb: a
    branch begins."""

    full: str
    empty: str
    dot: str
    right: str
    wrong: str
    state: str
    alarm: str
    between: str
    more: str
    times: str
    dash: str
    down: str
    bars: str
    differs: str
    limb: str
    braille: bool


UNICODE = Glyphs(
    "█", "░", "·", "✓", "✗", "●", "▲", " · ", "…", "×", "–", "↓", "▁▂▃▄▅▆▇█", "≠", "└", braille=True
)
NO_BRAILLE = UNICODE._replace(braille=False)
ASCII = Glyphs(
    "#", "-", ".", "ok", "wrong", "*", "!", " - ", "...", "x", "-", "v", "_.:-=+*#", "!", "+", braille=False
)


TWINS = str.maketrans(
    dict.fromkeys("─━▔▁═", "-") | dict.fromkeys("│┃┊║▏▎▍▌▐▕▊▉", "|") | dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛", "+")
    | dict.fromkeys("█▓▀▄▂▃▅▆▇", "#") | dict.fromkeys("░▒", "-") | dict.fromkeys("–—−", "-")
    | {"·": ".", "…": "~"}  # a full stop would make a whole word of one that is cut
    | {"×": "x", "→": ">", "←": "<", "↑": "^", "↓": "v", "λ": "l", "Δ": "D", "∝": "~", "°": "'", "✓": "+"}
    | {"✗": "x", "≠": "!", "●": "*", "◆": "s", "▲": "!", "▼": "v", "▶": ">", "’": "'", "“": '"', "”": '"'}
)  # fmt: skip


def plain(text: str) -> str:
    """In ASCII, as wide as before: the nearest sign for each other, a question mark where none is near."""
    if text.isascii():
        return text
    text = text.replace("≥ ", ">=").replace("≤ ", "<=").translate(TWINS)
    return "".join(sign if sign.isascii() else _nearest(sign) for sign in text)


def _nearest(sign: str) -> str:
    from rich.cells import cell_len

    letter = unicodedata.normalize("NFKD", sign)[:1]
    return (letter if letter.isascii() and letter.isprintable() else "?").ljust(cell_len(sign), "?")


def detect() -> Glyphs:
    """What this terminal can show. Without colours the curves are told apart by their signs instead."""
    encoding = getattr(sys.__stdout__, "encoding", None) or "ascii"
    if "utf" not in encoding.lower() or os.environ.get("TERM") == "linux":  # that console's fonts lack most
        return ASCII
    return UNICODE if colours() else NO_BRAILLE


def colours() -> bool:
    """Whether the person wants any (no-color.org: the variable set, and not empty)."""
    return not os.environ.get("NO_COLOR")
