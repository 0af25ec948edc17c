"""What a configuration does to one example, stage by stage, and how it smooths (paper, Figures 1 and 2b)."""

from __future__ import annotations

from typing import NamedTuple

from trainer.config import LATENT, Config, MethodConfig
from trainer.pacing.schedule import offset_distribution

RAREST = 0.0005
"""Offsets less probable than this are not listed."""
SHOWN_STAGES, SHOWN_OFFSETS = 6, 8


class Example(NamedTuple):
    """One example as text. cot: what goes at a time, each with the blank it begins with: tokens of GPT-2's
    vocabulary, or whole steps."""

    question: str
    cot: tuple[str, ...]
    answer: str


class Stage(NamedTuple):
    """The CoT after so many removals. kept: the tokens or steps that are left. put: signs for what is gone:
    one for each, or the thoughts or pauses in their place."""

    removed: int
    kept: tuple[str, ...]
    put: int


class Offset(NamedTuple):
    """probability: of this many tokens more than the schedule calls for."""

    offset: int
    probability: float


ROBE = Example(
    "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it "
    "take?",
    (" <<", "2", "/", "2", "=", "1", ">>", " <<", "2", "+", "1", "=", "3", ">>", " "),
    "3",
)
"""A test problem of GSM8K (Cobbe et al. 2021), its CoT as ICoT-SI writes it."""
IN_STEPS = {
    "gsm8k": ROBE._replace(cot=(" <<2/2=1>>", " <<2+1=3>>")),
    "prosqa": Example(
        "Every felpus is a gerpus. Tom is a felpus. Every jelpus is a rorpus. Max is a jelpus. Every "
        "gerpus is an impus. Is Tom an impus or rorpus?",
        (" Tom is a felpus.", " Every felpus is a gerpus.", " Every gerpus is an impus."),
        "Tom is an impus.",
    ),
    "prontoqa": Example(
        "Each impus is a yumpus. Yumpuses are not shy. Each gorpus is shy. Sam is an impus. True or "
        "false: Sam is shy.",
        (" Sam is an impus. Each impus is a yumpus.", " Sam is a yumpus. Yumpuses are not shy.",
         " Sam is not shy."),
        "False",
    ),
}  # fmt: skip
"""The same step by step, and shorter ones than the tasks of Coconut have."""


def example(config: Config) -> Example | None:
    """An example of the configuration's task, without any of its data; None where only the data have one."""
    if config.method.counted == "step":
        return IN_STEPS.get(config.data.task)
    if config.data.task == "gsm8k":
        return ROBE
    if config.data.task != "multiplication":
        return None
    from trainer.data.asking import example as factors
    from trainer.data.multiplication import render

    digits, digits_b = config.data.digits, config.data.digits_b or config.data.digits
    a, _, b = factors(digits, digits_b).partition(" * ")
    line = render(a, b, config.data.cot)
    return Example(line.question, (*(f" {symbol}" for symbol in line.cot.split()), " "), line.answer)


def stages(cot: tuple[str, ...], method: MethodConfig) -> list[Stage]:
    """A handful of stages from the first to the last; one where there is no curriculum."""
    if method.name in LATENT:
        return _with_thoughts(cot, method)
    return [Stage(removed, _kept(cot, removed, method), removed) for removed in _removals(len(cot), method)]


def _with_thoughts(cot: tuple[str, ...], method: MethodConfig) -> list[Stage]:
    """As the rows of training are: beyond `max_latent_stage` all steps go at once (Coconut)."""
    last = method.max_latent_stage or len(cot)
    end = last if last >= len(cot) else last + 1
    found = []
    for level in range(method.start_from if method.curriculum else end, end + 1):
        thoughts = min(level, last)
        if method.latent_end == "classifier" or (level > last and not method.pad_latent_to_max):
            thoughts = min(thoughts, len(cot))
        kept = cot[level:] if level <= last else ()
        found.append(Stage(level, kept, 0 if method.no_thought else thoughts * method.thoughts_per_step))
    return found


def _kept(cot: tuple[str, ...], removed: int, method: MethodConfig) -> tuple[str, ...]:
    return cot[removed:] if method.side == "left" else cot[: len(cot) - removed]


def _removals(length: int, method: MethodConfig) -> list[int]:
    if method.name != "stepwise":
        return [0 if method.name == "explicit_cot" else length]
    start, last = min(method.start_from, length), min(method.stop_at or length, length)
    beyond = method.remove_all_beyond
    if beyond is not None and beyond < length:
        return [*_spread(min(start, beyond - 1), beyond - 1, SHOWN_STAGES - 1), length]
    return _spread(start, last, SHOWN_STAGES)


def _spread(first: int, last: int, count: int) -> list[int]:
    """At most `count` whole numbers, evenly from `first` to `last`."""
    return sorted({first + round(i * (last - first) / (count - 1)) for i in range(count)})


def offsets(smoothing: float) -> list[Offset]:
    """The offsets of removal smoothing that are not rare, the least first."""
    rows = [Offset(o, p) for o, p in enumerate(offset_distribution(smoothing)) if p >= RAREST]
    return rows[:SHOWN_OFFSETS]
