"""What `stepwise eval` measures."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.events import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Greedy decoding, exact match. The fields are the keys of `--json`; None where nobody can tell.

    token_accuracy: share of answer symbols that are right at their place. cot_match: share of examples whose
    CoT is exactly what is left of the true one at this stage; None where nothing is. cot_tokens,
    generated_tokens: written per example, mean; of the CoT alone, and in all, with thoughts. thoughts: of
    these, mean; None without any. examples_per_second: many at once; examples_per_second_batch1: one at a
    time, on the first few; speed: the latter relative to a no-CoT model of the same size
    (`speed.one_at_a_time`). split: None with `--data`. stage: None where a model's training is not known.
    few_shot: examples in the prompt, None without a prompt; cot: whether they show their CoT; unread: texts
    without ####, which count as wrong; empty: those of them that are no text at all.
    """

    accuracy: float
    token_accuracy: float | None = None
    cot_match: float | None = None
    cot_tokens: float | None = None
    generated_tokens: float | None = None
    thoughts: float | None = None
    examples_per_second: float | None = None
    examples_per_second_batch1: float
    speed: float | None = None
    n: int
    split: Split | None
    checkpoint: str
    stage: int | None = None
    few_shot: int | None = None
    cot: bool | None = None
    unread: int | None = None
    empty: int | None = None
