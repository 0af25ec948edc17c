"""What makes runs of Coconut differ, in words: for the tables and the legends of figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trainer.config import LATENT, MethodConfig


def in_words(method: MethodConfig, fields: Iterable[str]) -> list[str]:
    """These of `FIELDS` of a method that has thoughts, or pauses; nothing of another."""
    if method.name not in LATENT:
        return []
    return [text for name in fields if (text := FIELDS[name](method))]


def _each(method: MethodConfig) -> str:
    return "" if method.no_thought else f"c = {method.thoughts_per_step}"


def _most(method: MethodConfig) -> str:
    most = method.max_latent_stage
    if method.no_thought:
        return "all steps one by one" if most is None else f"all others go after {most}"
    what = "thoughts" if method.name == "coconut" else "pauses"
    return f"{what} for " + ("all steps" if most is None else f"{most} steps at most")


def _at_the_end(method: MethodConfig) -> str:
    if method.no_thought:
        return ""
    return "padded at the end" if method.pad_latent_to_max else "not padded at the end"


def _uniform(method: MethodConfig) -> str:
    return f"{method.uniform_prob:.0%} of examples at a random stage"


def _ended(method: MethodConfig) -> str:
    if method.no_thought:
        return ""
    fixed = method.latent_end == "fixed"
    return "the stage ends the thoughts" if fixed else "a classifier ends the thoughts"


FIELDS: dict[str, Callable[[MethodConfig], str]] = {
    "thoughts_per_step": _each,
    "max_latent_stage": _most,
    "pad_latent_to_max": _at_the_end,
    "uniform_prob": _uniform,
    "latent_end": _ended,
}
"""The settings of thoughts that make runs of one row differ."""
