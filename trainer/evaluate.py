"""How good the model is: exact match as the papers have it, token accuracy, CoT spoken, time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from trainer.data.layout import separator_ids
from trainer.data.task import Task
from trainer.decode import token_texts
from trainer.events import ShownExample
from trainer.methods.base import Decoded, Examples, Method, Model

CHUNK = 250
"""Examples decoded at once: a stop waits for one chunk at most, and its cache fits beside the optimiser."""


class Result(NamedTuple):
    """An evaluation.

    accuracy: share of exact answers. token_accuracy: share of answer symbols that are right at their
    place. n: examples. cot_tokens: mean CoT tokens spoken per example. decoded: all that was written.
    """

    accuracy: float
    token_accuracy: float
    correct: int
    n: int
    cot_tokens: float
    seconds: float
    decoded: Decoded


def evaluate(
    method: Method,
    model: Model,
    examples: Examples,
    scheduled: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    chunk: int = CHUNK,
    interrupted: Callable[[], bool] = lambda: False,
) -> Result | None:
    """Greedy answers to `examples` (one at least) after `scheduled` removals, compared with the true ones.

    The answer is the text after ####, without commas (official code). `interrupted` is asked between
    tokens and must stay true once it is; then there is no result.
    """
    assert len(examples)
    started = time.perf_counter()
    cot: list[list[int]] = []
    answers: list[list[int]] = []
    tokens: list[int] = []
    seconds = 0.0
    max_new_tokens = answer_room(examples)
    for start in range(0, len(examples), chunk):
        asked = questions(examples[start : start + chunk])
        part = method.generate(
            model, asked, scheduled, max_new_tokens=max_new_tokens, interrupted=interrupted
        )
        if interrupted():
            return None
        cot += part.cot
        answers += part.answer
        tokens += part.tokens
        seconds += part.seconds
    true = true_answers(examples, tokenizer)
    pairs = list(zip(answers, true, strict=True))
    correct = sum(answer_text(given, tokenizer) == answer_text(answer, tokenizer) for given, answer in pairs)
    right = sum(x == y for given, answer in pairs for x, y in zip(given, answer, strict=False))
    return Result(
        accuracy=correct / len(examples),
        token_accuracy=right / sum(map(len, true)),
        correct=correct,
        n=len(examples),
        cot_tokens=sum(map(len, cot)) / len(examples),
        seconds=time.perf_counter() - started,
        decoded=Decoded(cot, answers, tokens, seconds),
    )


def answer_room(examples: Examples) -> int:
    """New tokens that suffice for CoT, answer and both EOS of every example."""
    return int((examples.length_N - examples.question_N).max())


def questions(examples: Examples) -> list[list[int]]:
    """The ids of each question, its EOS last."""
    lengths = examples.question_N.tolist()
    return [row[:length] for row, length in zip(examples.ids_NT.tolist(), lengths, strict=True)]


def true_answers(examples: Examples, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The ids of each answer, without #### and the blank and EOS at its end."""
    separator = len(separator_ids(tokenizer))
    starts = (examples.question_N + examples.cot_N + 1 + separator).tolist()
    ends = (examples.length_N - 2).tolist()
    return [row[i:j] for row, i, j in zip(examples.ids_NT.tolist(), starts, ends, strict=True)]


def answer_text(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that is compared: no commas, no blanks at the ends."""
    return str(tokenizer.decode(ids)).replace(",", "").strip()


def shown_examples(
    task: Task,
    method: Method,
    examples: Examples,
    decoded: Decoded,
    scheduled: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    side: Literal["left", "right"] = "left",
) -> tuple[ShownExample, ...]:
    """Examples with what the model wrote to them, as the screen shows them.

    decoded: for these examples, and maybe for more that come after. side: where the method removes.
    """
    shown = []
    for index in range(len(examples)):
        line = task.example_text(examples, index, tokenizer)
        start, cot = int(examples.question_N[index]), int(examples.cot_N[index])
        given = answer_text(decoded.answer[index], tokenizer)
        shown.append(
            ShownExample(
                question=task.show_question(line.question),
                answer=task.read_answer(line.answer),
                given=task.read_answer(given),
                correct=given == line.answer.replace(",", ""),
                cot=token_texts(examples.ids_NT[index, start : start + cot].tolist(), tokenizer),
                removed=min(method.removed(scheduled), cot),
                spoken=token_texts(decoded.cot[index], tokenizer),
                side=side,
            )
        )
    return tuple(shown)
