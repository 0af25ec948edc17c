"""The signs the screen is drawn with, and their plain twins for terminals that have no others."""

from __future__ import annotations

import os
import sys
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


def detect() -> Glyphs:
    """What this terminal can show. Without colours the curves are told apart by their signs instead."""
    encoding = getattr(sys.__stdout__, "encoding", None) or "ascii"
    if "utf" not in encoding.lower() or os.environ.get("TERM") == "linux":  # that console's fonts lack most
        return ASCII
    return UNICODE if colours() else NO_BRAILLE


def colours() -> bool:
    """Whether the person wants any (no-color.org: the variable set, and not empty)."""
    return not os.environ.get("NO_COLOR")
