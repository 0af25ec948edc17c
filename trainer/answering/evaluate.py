"""How good the model is: exact match as the papers have it, token accuracy, CoT spoken, time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from trainer.answering.foretelling import shortened
from trainer.data.layout import separator_ids
from trainer.data.task import Task
from trainer.events import At, Cause, Evaluated, ShownExample, Split
from trainer.methods.base import Decoded, Examples, Method, Model
from trainer.methods.decode import token_texts

CHUNK = 250
"""Examples decoded at once: a stop waits for one chunk at most, and its cache fits beside the optimiser."""


class Result(NamedTuple):
    """An evaluation.

    accuracy: share of exact answers. token_accuracy: share of answer symbols that are right at their place.
    n: examples. cot_tokens, generated_tokens: written per example, mean; the CoT's alone, and all with
    thoughts, ####, answer and both EOS. thoughts: of these, mean. cot_match: share of examples whose CoT is,
    token by token, what is left of the true one; None where nothing is. decoded: all that was written.
    """

    accuracy: float
    token_accuracy: float
    correct: int
    n: int
    cot_tokens: float
    cot_match: float | None
    generated_tokens: float
    thoughts: float
    seconds: float
    decoded: Decoded


def evaluate(
    method: Method,
    model: Model,
    examples: Examples,
    scheduled: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    explicit: bool = False,
    shortcut: bool = False,
    chunk: int = CHUNK,
    interrupted: Callable[[], bool] = lambda: False,
) -> Result | None:
    """Greedy answers to `examples` (one at least) after `scheduled` removals, compared with the true ones.

    The answer is the text after ####, without commas (official code). explicit: ask for all of the CoT, of
    a model that answers both ways. shortcut: see `answers`. `interrupted` is asked between tokens and must
    stay true once it is; then there is no result.
    """
    started = time.perf_counter()
    given = answers(
        method,
        model,
        examples,
        scheduled,
        answer_room(examples),
        explicit=explicit,
        shortcut=shortcut,
        chunk=chunk,
        interrupted=interrupted,
    )
    if given is None:
        return None
    return score(method, examples, given, scheduled, tokenizer, started, explicit=explicit)


def answers(
    method: Method,
    model: Model,
    examples: Examples,
    scheduled: int,
    room: int,
    *,
    explicit: bool = False,
    shortcut: bool = False,
    chunk: int = CHUNK,
    interrupted: Callable[[], bool] = lambda: False,
) -> Decoded | None:
    """What a model writes to each example, in at most `room` tokens; None when interrupted.

    shortcut: most are thought to be right, and are not decoded where one pass surely tells that they are.
    """
    if shortcut and not explicit:

        def decode(some: Examples) -> Decoded | None:
            return answers(method, model, some, scheduled, room, chunk=chunk, interrupted=interrupted)

        return shortened(method, model, examples, scheduled, decode, interrupted)
    parts = []
    for start in range(0, len(examples), chunk):
        parts.append(
            method.generate(
                model,
                questions(examples[start : start + chunk]),
                scheduled,
                max_new_tokens=room,
                explicit=explicit,
                interrupted=interrupted,
            )
        )
        if interrupted():
            return None
    return Decoded.joined(parts)


def score(
    method: Method,
    examples: Examples,
    given: Decoded,
    scheduled: int,
    tokenizer: PreTrainedTokenizerBase,
    started: float,
    *,
    explicit: bool = False,
) -> Result:
    """What was written, compared with what is true. started: when the evaluation was, by `perf_counter`."""
    assert len(examples)
    left = true_cot(examples) if explicit else remaining_cot(method, examples, scheduled)
    true = true_answers(examples, tokenizer)
    pairs = list(zip(given.answer, true, strict=True))
    correct = sum(
        spoken == answer or answer_text(spoken, tokenizer) == answer_text(answer, tokenizer)
        for spoken, answer in pairs
    )
    right = sum(x == y for spoken, answer in pairs for x, y in zip(spoken, answer, strict=False))
    matching = sum(spoken == wanted for spoken, wanted in zip(given.cot, left, strict=True))
    return Result(
        accuracy=correct / len(examples),
        token_accuracy=right / sum(map(len, true)),
        correct=correct,
        n=len(examples),
        cot_tokens=sum(map(len, given.cot)) / len(examples),
        cot_match=matching / len(examples) if any(map(len, left)) else None,
        generated_tokens=sum(given.tokens) / len(examples),
        thoughts=given.thoughts / len(examples),
        seconds=time.perf_counter() - started,
        decoded=given,
    )


def told(result: Result, at: At, split: Split, cause: Cause) -> Evaluated:
    """The event that tells it."""
    return Evaluated(
        at=at,
        split=split,
        accuracy=result.accuracy,
        token_accuracy=result.token_accuracy,
        correct=result.correct,
        n=result.n,
        cot_tokens=result.cot_tokens,
        seconds=result.seconds,
        cause=cause,
        cot_match=result.cot_match,
        generated_tokens=result.generated_tokens,
        foretold=result.decoded.foretold,
        disagreed=result.decoded.disagreed,
    )


def answer_room(examples: Examples) -> int:
    """New tokens that suffice for CoT, answer and both EOS of every example."""
    return int((examples.length_N - examples.question_N).max())


def questions(examples: Examples) -> list[list[int]]:
    """The ids of each question, its EOS last."""
    lengths = examples.question_N.tolist()
    return [row[:length] for row, length in zip(examples.ids_NT.tolist(), lengths, strict=True)]


def true_cot(examples: Examples) -> list[list[int]]:
    """The ids of each CoT, whole, without its EOS."""
    starts, lengths = examples.question_N.tolist(), examples.cot_N.tolist()
    rows = examples.ids_NT.tolist()
    return [row[start : start + length] for row, start, length in zip(rows, starts, lengths, strict=True)]


def remaining_cot(method: Method, examples: Examples, scheduled: int) -> list[list[int]]:
    """The ids of what training asks of each CoT after `scheduled` removals."""
    batch = method.rows(examples, scheduled, None)
    labels_BL = batch.labels_BL.cpu()
    wanted_BL = (labels_BL >= 0) & ~batch.answer_BL.cpu()
    return [row[wanted].tolist() for row, wanted in zip(labels_BL, wanted_BL, strict=True)]


def true_answers(examples: Examples, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The ids of each answer, without #### before it, and the EOS and most often a blank after it."""

    @cache
    def blank(id: int) -> bool:
        return not str(tokenizer.decode([id])).strip()

    separator = len(separator_ids(tokenizer))
    starts = (examples.question_N + examples.cot_N + 1 + separator).tolist()
    ends = (examples.length_N - 1).tolist()
    answers = [row[i:j] for row, i, j in zip(examples.ids_NT.tolist(), starts, ends, strict=True)]
    return [answer[:-1] if blank(answer[-1]) else answer for answer in answers]


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
    shown, gone = [], method.gone(examples, scheduled).tolist()
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
                removed=gone[index],
                spoken=token_texts(decoded.cot[index], tokenizer),
                side=side,
            )
        )
    return tuple(shown)
