"""The paper's speed: throughput at batch 1, relative to a model of the same size that answers at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from trainer.answering.evaluate import answer_room, questions
from trainer.methods.base import Examples, Method, Model
from trainer.methods.decode import greedy

NO_TOKEN = -1
ONE_BY_ONE = 20
"""Examples that the speed at batch 1 is measured on, where that takes time of its own."""


class Timing(NamedTuple):
    """Seconds for each of a few examples, one at a time: as the model answers, and as no CoT would."""

    own: list[float]
    no_cot: list[float]

    @property
    def per_second(self) -> float:
        """Examples per second at batch 1."""
        return len(self.own) / sum(self.own)

    @property
    def relative(self) -> float:
        """The median over the examples of how much faster than no CoT the model is; 1 is as fast."""
        return statistics.median(no_cot / own for own, no_cot in zip(self.own, self.no_cot, strict=True))


def one_at_a_time(
    method: Method, model: Model, examples: Examples, scheduled: int, *, explicit: bool = False
) -> Timing:
    """Time the answers to `examples` (one at least) after `scheduled` removals, at batch 1.

    What a no-CoT model would take is measured on the same weights: they are made to write exactly as many
    tokens as the answer without CoT has (EOS, ####, answer, EOS), whichever these turn out to be, since
    time does not depend on the values of weights. Both are timed on every example, in alternating order,
    so that a machine that grows busy or warm slows both; the first example comes once more before that,
    unmeasured. What a method adds to the question (fillers, a control token) counts as its own time.
    """
    timing = Timing([], [])
    for number, index in enumerate((0, *range(len(examples)))):
        one = examples[index : index + 1]
        asked = questions(one)
        answer = partial(
            method.generate, model, asked, scheduled, max_new_tokens=answer_room(one), explicit=explicit
        )
        write = partial(
            greedy,
            model,
            asked,
            eos_id=NO_TOKEN,
            separator_id=NO_TOKEN,
            pad_id=NO_TOKEN,
            max_new_tokens=int(one.length_N - one.question_N - one.cot_N),
        )
        if number % 2:
            own, no_cot = _seconds(answer), _seconds(write)
        else:
            no_cot, own = _seconds(write), _seconds(answer)
        if number:
            timing.own.append(own)
            timing.no_cot.append(no_cot)
    return timing


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
