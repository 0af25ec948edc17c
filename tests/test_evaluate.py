from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from tests import small_pretrained
from trainer import methods
from trainer.answering.evaluate import answer_room, evaluate, questions, shown_examples, true_answers
from trainer.config import MethodConfig, build
from trainer.data.layout import separator_id
from trainer.data.multiplication import Multiplication
from trainer.methods.base import Decoded, Examples
from trainer.methods.decode import split_answer
from trainer.methods.stepwise import Stepwise
from trainer.models.model import build_model

TASK = Multiplication(2)
TOKENIZER = TASK.tokenizer()
EXAMPLES = TASK.splits({"valid": 10}, 0, TOKENIZER)["valid"]


@dataclass
class Script(Stepwise):
    """A method whose model writes given texts, whatever it is asked."""

    texts: list[str]
    tokenizer: PreTrainedTokenizerBase = TOKENIZER
    config: MethodConfig = field(default_factory=MethodConfig)
    asked: list[list[int]] = field(default_factory=list)
    explicit: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.config, self.tokenizer, EXAMPLES, separator_id(self.tokenizer))

    def generate(
        self,
        model: Any,
        questions: Sequence[Sequence[int]],
        scheduled: int,
        *,
        max_new_tokens: int,
        explicit: bool = False,
        on_token: Callable[[int], None] | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Decoded:
        first = len(self.asked)
        self.explicit.append(explicit)
        self.asked += [list(question) for question in questions]
        rows = [self.tokenizer.encode(text) for text in self.texts[first : len(self.asked)]]
        assert max(map(len, rows)) <= max_new_tokens
        parts = [split_answer(row, self.eos_id, self.separator_id) for row in rows]
        return Decoded([c for c, _ in parts], [a for _, a in parts], [len(row) for row in rows], 0.5)


def true_texts(tokenizer: PreTrainedTokenizerBase = TOKENIZER, examples: Examples = EXAMPLES) -> list[str]:
    """What a perfect model writes after each question."""
    lines = [TASK.example_text(examples, i, tokenizer) for i in range(len(examples))]
    eos = tokenizer.eos_token
    return [f" {line.cot} {eos} #### {line.answer} {eos}" for line in lines]


def test_a_perfect_model() -> None:
    method = Script(true_texts())
    result = evaluate(method, None, EXAMPLES, 0, TOKENIZER, chunk=4)
    assert result is not None
    assert (result.accuracy, result.token_accuracy, result.correct, result.n) == (1.0, 1.0, 10, 10)
    assert result.cot_tokens == 9  # the blank before the EOS is one of them
    assert method.asked == questions(EXAMPLES)
    assert len(result.decoded.answer) == 10 and result.decoded.seconds == 1.5


def test_each_thing_is_counted() -> None:
    texts = true_texts()
    cot, answer = texts[0].split("<|endoftext|>")[:2]
    wrong = " 1" if answer.split()[-1] != "1" else " 2"
    texts[0] = f"{cot}<|endoftext|>{answer.rstrip()[:-2]}{wrong} <|endoftext|>"  # last digit wrong
    texts[1] = " <|endoftext|>"  # no answer at all
    texts[2] = " <|endoftext|>" + texts[2].split("<|endoftext|>")[1] + "<|endoftext|>"  # no CoT but its blank
    texts[3] = texts[3].replace(" ####", "")  # the right digits, but not after ####
    result = evaluate(Script(texts), None, EXAMPLES, 0, TOKENIZER)
    assert result is not None
    assert result.correct == 7 and result.accuracy == 0.7
    assert result.token_accuracy == (7 * 4 + 3) / 40
    # a text without #### counts as CoT whole: 9, the answer's 4 and its blank
    assert result.cot_tokens == (7 * 9 + 1 + 1 + 14) / 10


def test_a_longer_answer_is_wrong_and_commas_do_not_count() -> None:
    texts = true_texts()
    texts[0] = texts[0].replace(" <|endoftext|> ####", " <|endoftext|> #### 0").removesuffix(" <|endoftext|>")
    result = evaluate(Script(texts), None, EXAMPLES, 0, TOKENIZER)
    assert result is not None and result.correct == 9


@pytest.mark.parametrize("side", ["left", "right"])
def test_cot_is_compared_with_what_is_left_of_it(side: Literal["left", "right"]) -> None:
    """Ten examples with three of nine tokens gone, and one more where one token is not what it should be."""
    eos = TOKENIZER.eos_token
    texts = []
    for text in true_texts():
        cot, answer = text.split(eos)[:2]
        tokens = TOKENIZER.encode(cot)
        left = tokens[3:] if side == "left" else tokens[:-3]
        texts.append(f"{TOKENIZER.decode(left)}{eos}{answer}{eos}")
    whole = texts[0]
    texts[0] = f" +{whole}"
    method = Script(texts, config=MethodConfig(side=side))
    result = evaluate(method, None, EXAMPLES, 3, TOKENIZER)
    assert result is not None
    assert (result.cot_match, result.accuracy) == (0.9, 1.0)
    assert result.cot_tokens == (9 * 6 + 7) / 10
    assert result.generated_tokens == (9 * (6 + 8) + 15) / 10
    for scheduled in (0, 2, 4):
        other = evaluate(Script(texts, config=MethodConfig(side=side)), None, EXAMPLES, scheduled, TOKENIZER)
        assert other is not None and other.cot_match is not None and other.cot_match < 0.5
    gone = evaluate(Script(texts, config=MethodConfig(side=side)), None, EXAMPLES, 9, TOKENIZER)
    assert gone is not None and gone.cot_match is None


def test_all_of_the_cot_is_wanted_of_an_explicit_answer() -> None:
    method = Script(true_texts())
    result = evaluate(method, None, EXAMPLES, 5, TOKENIZER, explicit=True)
    assert result is not None and result.cot_match == 1.0
    assert method.explicit == [True]
    result = evaluate(Script(true_texts()), None, EXAMPLES, 5, TOKENIZER)
    assert result is not None and result.cot_match == 0.0


def test_an_interrupted_evaluation_has_no_result() -> None:
    method = Script(true_texts())
    result = evaluate(
        method, None, EXAMPLES, 0, TOKENIZER, chunk=4, interrupted=lambda: len(method.asked) >= 8
    )
    assert result is None
    assert len(method.asked) == 8


@pytest.fixture(params=["task", "made here", "published"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedTokenizerBase:
    if request.param == "task":
        return TOKENIZER
    if request.param == "made here":
        return small_pretrained.gpt2_tokenizer(tmp_path)
    return small_pretrained.published_gpt2_tokenizer()


def test_any_tokenizer_is_measured_alike(tokenizer: PreTrainedTokenizerBase) -> None:
    examples = TASK.splits({"valid": 10}, 0, tokenizer)["valid"]
    texts = true_texts(tokenizer, examples)
    assert texts == true_texts()
    result = evaluate(Script(texts, tokenizer), None, examples, 0, tokenizer)
    assert result is not None
    assert (result.accuracy, result.token_accuracy, result.cot_tokens) == (1.0, 1.0, 9)
    answers = [TASK.example_text(examples, i, tokenizer).answer for i in range(10)]
    assert [str(tokenizer.decode(ids)).strip() for ids in true_answers(examples, tokenizer)] == answers


def test_the_chunk_does_not_matter_to_a_real_model() -> None:
    config = build({"model": {"init": "scratch", "vocab": "task", "layers": 1, "heads": 2, "width": 16}})
    torch.manual_seed(3)
    model = build_model(config, TOKENIZER, 24)
    method = methods.build(MethodConfig(), TOKENIZER, EXAMPLES, separator_id(TOKENIZER))
    results = [evaluate(method, model, EXAMPLES, 0, TOKENIZER, chunk=chunk) for chunk in (1, 3, 10)]
    assert all(r is not None for r in results)
    written = [(r.decoded.cot, r.decoded.answer, r.decoded.tokens) for r in results if r is not None]
    assert written[0] == written[1] == written[2]
    assert max(written[0][2]) <= answer_room(EXAMPLES) == 9 + 1 + 1 + 4 + 2


def test_examples_as_the_screen_shows_them() -> None:
    texts = true_texts()
    texts[1] = " 1 2 <|endoftext|> #### 5 4 3 0 <|endoftext|>"
    method = Script(texts)
    result = evaluate(method, None, EXAMPLES, 7, TOKENIZER)
    assert result is not None
    right, wrong = shown_examples(TASK, method, EXAMPLES[:2], result.decoded, 7, TOKENIZER, side="right")
    a, b = right.question.split(" × ")
    assert right.answer == right.given == str(int(a) * int(b))
    assert right.correct and right.removed == 7 and right.side == "right"
    assert right.cot == right.spoken and len(right.cot) == 9 and right.cot[-1] == " "
    assert (wrong.given, wrong.correct, wrong.spoken) == ("345", False, ("1", "2", " "))
    late = shown_examples(TASK, method, EXAMPLES[:1], result.decoded, 500, TOKENIZER)
    assert late[0].removed == 9
