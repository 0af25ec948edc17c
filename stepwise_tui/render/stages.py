"""One example stage by stage, and the distribution of offsets, as comments beneath a preset."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from stepwise_tui.glyphs import Glyphs
from stepwise_tui.text import clip, wrapped
from trainer.analysis import stages
from trainer.analysis.stages import Example
from trainer.config import LATENT, Config, MethodConfig

NAME, BAR = 12, 40  # columns of the names, and of the longest bar
PARTS = " ▏▎▍▌▋▊▉"


def text(config: Config, example: Example | None, width: int, glyphs: Glyphs) -> str:
    """Both figures. They are comments, so that a preset that is copied with them is still a configuration."""
    lines = list(_offsets(config.method, glyphs))
    if example is not None:
        lines += _example(config.method, example, width - NAME, glyphs)
    return "".join(f"{line}\n" for line in lines)


def _offsets(method: MethodConfig, glyphs: Glyphs) -> Iterator[str]:
    if method.name != "stepwise":
        return
    yield "#"
    if math.isinf(method.smoothing):
        yield f"# Removal smoothing is off: no example loses more {method.unit}s than its stage says."
        return
    what = f"{method.unit}s"
    yield f"# Removal smoothing, λ = {method.smoothing:g}: {what} that an example loses beyond its stage's,"
    yield "# and how often:"
    for offset, probability in stages.offsets(method.smoothing):
        yield f"{_name(str(offset))}{_bar(probability, glyphs):<{BAR}} {probability:.3f}"


def _bar(share: float, glyphs: Glyphs) -> str:
    if not glyphs.braille:
        return glyphs.full * round(share * BAR)
    full, part = divmod(round(share * BAR * len(PARTS)), len(PARTS))
    return glyphs.full * full + PARTS[part].strip()


def _example(method: MethodConfig, example: Example, room: int, glyphs: Glyphs) -> Iterator[str]:
    fits = len(example.cot) <= room and len("".join(example.cot)) <= room
    yield "#"
    in_steps = method.counted == "step"
    of = "" if in_steps else " in GPT-2's tokens"
    yield f"# One example{of}, stage by stage; {_legend(method, glyphs.dot)}:"
    yield from _part("question", example.question, room)
    for stage in stages.stages(example.cot, method):
        share = 1 if fits or in_steps else room / len(example.cot)
        dots = glyphs.dot * round(stage.put * share)
        yield _name(str(stage.removed)) + _cot(dots, "".join(stage.kept), method.side, room)
    yield from _part("answer", example.answer, room)
    if not fits and not in_steps:
        yield "# (It does not fit: the removed tokens are drawn to scale, the others are cut.)"


def _legend(method: MethodConfig, dot: str) -> str:
    if method.name == "explicit_cot":
        return "nothing is removed"
    if method.no_thought:
        return "nothing stands where steps are gone"
    if method.name in LATENT:
        return f"{dot} is a {'thought' if method.name == 'coconut' else 'pause'}"
    if method.counted == "step":
        return f"{dot} is a step that is removed"
    return f"{dot} is a filler" if method.fillers else f"{dot} is removed"


def _part(name: str, part: str, room: int) -> Iterator[str]:
    first, *more = wrapped(part, room).splitlines()
    yield _name(name) + first
    yield from (_name("") + line for line in more)


def _name(name: str) -> str:
    return f"#  {name:<{NAME - 3}}"


def _cot(dots: str, kept: str, side: Literal["left", "right"], room: int) -> str:
    """Dots and what is left, cut at the end where nothing is removed."""
    if side == "left":
        return clip(f"{dots}{kept}".strip(), room)
    return clip(f"{kept.strip()} {dots}"[::-1], room)[::-1]
