"""The signs the screen is drawn with, and their plain twins for terminals that have no others."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple


class Glyphs(NamedTuple):
    """full, empty: the removal bar. dot: a removed token. right, wrong: verdicts. colours: may be used."""

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
    braille: bool


UNICODE = Glyphs("█", "░", "·", "✓", "✗", "●", "▲", " · ", "…", "×", "–", braille=True)
NO_BRAILLE = UNICODE._replace(braille=False)
ASCII = Glyphs("#", "-", ".", "ok", "wrong", "*", "!", " - ", "...", "x", "-", braille=False)


def detect() -> Glyphs:
    """What this terminal can show. Without colours the curves are told apart by their signs instead."""
    encoding = getattr(sys.__stdout__, "encoding", None) or "ascii"
    if "utf" not in encoding.lower():
        return ASCII
    return NO_BRAILLE if os.environ.get("NO_COLOR") else UNICODE
