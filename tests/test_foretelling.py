"""What one pass over the true rows tells is what decoding writes, or it is decoded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.test_decode import EOS, SEPARATOR, TASK, model_of, questions
from trainer import methods
from trainer.answering.evaluate import answers
from trainer.answering.foretelling import AUDITED
from trainer.config import MethodConfig
from trainer.methods.base import Decoded, Examples
from trainer.methods.decode import greedy, inference
from trainer.methods.stepwise import Stepwise

TOKENIZER = TASK.tokenizer()
ROOM = 12
"""All rows are as long as decoding may write."""


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of("scratch")


@pytest.fixture(scope="module")
def examples(model: Any) -> Examples:
    """Questions whose truth is what the model writes to them; of every third, another."""
    asked = questions(120, same_length=False)
    rows = written(model, asked)
    for number in range(0, len(rows), 3):
        place = number % ROOM
        rows[number][place] = (rows[number][place] + 1) % SEPARATOR
    ids = [question + row for question, row in zip(asked, rows, strict=True)]
    length = torch.tensor([len(row) for row in ids])
    padded = torch.tensor([row + [EOS] * (int(length.max()) - len(row)) for row in ids])
    return Examples(padded, torch.tensor([len(q) for q in asked]), torch.full_like(length, 4), length)


@pytest.fixture
def method(examples: Examples) -> Stepwise:
    made = methods.build(MethodConfig(name="explicit_cot"), TOKENIZER, examples, SEPARATOR)
    assert isinstance(made, Stepwise)
    return made


def written(model: Any, asked: list[list[int]]) -> list[list[int]]:
    """What the model writes, token by token, with its EOS."""
    with patch("trainer.methods.decode.split_answer", lambda row, *_: (list(row), [])):
        return greedy(model, asked, eos_id=EOS, separator_id=SEPARATOR, pad_id=EOS, max_new_tokens=ROOM).cot


def same(one: Decoded | None, other: Decoded | None) -> bool:
    assert one is not None and other is not None
    return (one.cot, one.answer, one.tokens) == (other.cot, other.answer, other.tokens)


@pytest.mark.parametrize("lowered", [False, True])
def test_the_answers_are_those_of_decoding(
    model: Any, examples: Examples, method: Stepwise, lowered: bool
) -> None:
    asked = 0
    generate = Stepwise.generate

    def counted(self: Stepwise, model: Any, questions: Any, *given: Any, **options: Any) -> Decoded:
        nonlocal asked
        asked += len(questions)
        return generate(self, model, questions, *given, **options)

    with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
        decoded = answers(method, model, examples, 0, ROOM)
        with patch.object(Stepwise, "generate", counted):
            short = answers(method, model, examples, 0, ROOM, shortcut=True)
    assert same(short, decoded)
    assert short is not None and short.disagreed == 0
    assert asked == len(examples) - short.foretold
    # Two thirds are right; of near ties bf16 has more than fp32.
    assert short.foretold > len(examples) * (0.2 if lowered else 0.5)


def test_nothing_is_believed_where_the_audit_finds_a_difference(
    model: Any, examples: Examples, method: Stepwise
) -> None:
    with inference(model):
        right = method.foretell(model, examples, 0)
    assert right is not None
    audited = int(right[0].nonzero()[AUDITED])  # the second of those that are audited
    generate = Stepwise.generate

    def otherwise(self: Stepwise, model: Any, questions: Any, *given: Any, **options: Any) -> Decoded:
        done = generate(self, model, questions, *given, **options)
        length = int(examples.question_N[audited])
        changed = examples.ids_NT[audited, :length].tolist()
        cot = [[1] if q == changed else cot for q, cot in zip(questions, done.cot, strict=True)]
        return replace(done, cot=cot)

    with patch.object(Stepwise, "generate", otherwise):
        short = answers(method, model, examples, 0, ROOM, shortcut=True)
        decoded = answers(method, model, examples, 0, ROOM)
    assert same(short, decoded)
    assert short is not None and (short.foretold, short.disagreed) == (0, 1)


def test_near_ties_are_decoded(model: Any, examples: Examples, method: Stepwise) -> None:
    with patch.dict("trainer.methods.cross_entropy.CLEAR", {torch.float32: 10.0}):
        short = answers(method, model, examples, 0, ROOM, shortcut=True)
    assert short is not None and short.foretold == 0
    assert same(short, answers(method, model, examples, 0, ROOM))


def test_a_stop_interrupts_it(model: Any, examples: Examples, method: Stepwise) -> None:
    assert answers(method, model, examples, 0, ROOM, shortcut=True, interrupted=lambda: True) is None
