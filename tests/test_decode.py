from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import small_pretrained
from trainer.config import build
from trainer.data.multiplication import Multiplication
from trainer.methods.decode import greedy, split_answer, token_texts
from trainer.models.model import build_model, build_tokenizer

EOS, SEPARATOR, BLANK = 16, 14, 15
TASK = Multiplication(2)


def model_of(init: str) -> Any:
    """A model that writes varied text: random weights, well apart, so that no two tokens tie."""
    config = build({"model": {"init": init, "vocab": "task", "layers": 2, "heads": 2, "width": 16}})
    torch.manual_seed(0)
    model = build_model(config, build_tokenizer(config, TASK), positions=64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.4
    return model


@pytest.fixture(scope="module", params=["scratch", "llama"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("llama")
    return model_of("scratch" if request.param == "scratch" else str(small_pretrained.llama(folder)))


def decode(model: Any, questions: list[list[int]], max_new_tokens: int = 30, **options: Any) -> Any:
    return greedy(
        model,
        questions,
        eos_id=EOS,
        separator_id=SEPARATOR,
        pad_id=EOS,
        max_new_tokens=max_new_tokens,
        **options,
    )


def one_by_one(model: Any, question: list[int], max_new_tokens: int = 30) -> list[int]:
    """The obvious way: the whole row again for each token, without cache, padding or batch."""
    model.eval()
    row, ends = list(question), 0
    with torch.no_grad():
        while len(row) < len(question) + max_new_tokens and ends < 2:
            row.append(int(model(torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
            ends += row[-1] == EOS
    return row[len(question) :]


def questions(count: int, *, same_length: bool) -> list[list[int]]:
    chance = torch.Generator().manual_seed(5)
    lengths = [6] * count if same_length else [2 + i % 7 for i in range(count)]
    return [[*torch.randint(14, (n,), generator=chance).tolist(), BLANK, EOS] for n in lengths]


@pytest.mark.parametrize("same_length", [True, False])
def test_a_batch_writes_what_each_row_writes_alone(model: Any, same_length: bool) -> None:
    check_batch(model, same_length=same_length)


@pytest.mark.parametrize("family", [family for family in small_pretrained.FAMILIES if family != "gpt2"])
def test_so_does_every_architecture_with_questions_of_mixed_lengths(family: str, tmp_path: Path) -> None:
    """Rotary positions, a window that attention looks back, heads that share keys."""
    check_batch(model_of(str(small_pretrained.FAMILIES[family](tmp_path))), same_length=False)


def check_batch(model: Any, *, same_length: bool) -> None:
    """A batch, each row alone, and the obvious way write the same."""
    asked = questions(40, same_length=same_length)
    decoded = decode(model, asked)
    rows = [one_by_one(model, question) for question in asked]
    assert [(c, a) for c, a in zip(decoded.cot, decoded.answer, strict=True)] == [
        split_answer(row, EOS, SEPARATOR) for row in rows
    ]
    assert decoded.tokens == [len(row) for row in rows]
    assert len({tuple(row) for row in rows}) > 10, (
        "the models must write different rows for this to test much"
    )
    alone = [decode(model, [question]) for question in asked]
    assert [d.cot[0] for d in alone] == decoded.cot
    assert [d.answer[0] for d in alone] == decoded.answer


def test_mode_and_random_numbers_are_as_before(model: Any) -> None:
    for training in (True, False):
        model.train(training)
        before = torch.get_rng_state()
        decode(model, questions(2, same_length=True))
        assert all(module.training == training for module in model.modules())
        assert torch.equal(torch.get_rng_state(), before)


def test_tokens_of_the_first_row_are_told_as_they_come(model: Any) -> None:
    asked = questions(5, same_length=False)
    told: list[int] = []
    decode(model, asked, on_token=told.append)
    assert told == one_by_one(model, asked[0])


def test_it_stops_when_asked_to(model: Any) -> None:
    asked = questions(3, same_length=True)
    told: list[int] = []
    decoded = decode(model, asked, on_token=told.append, interrupted=lambda: len(told) == 2)
    assert told == one_by_one(model, asked[0])[:2]
    assert max(decoded.tokens) <= 2
    assert decode(model, asked, interrupted=lambda: True).tokens == [0, 0, 0]


def test_it_ends_where_positions_end(model: Any) -> None:
    positions = model.config.max_position_embeddings
    long = [[1] * (positions - 2) + [EOS]]
    assert decode(model, long).tokens[0] <= 1
    assert decode(model, [[1] * (positions - 1) + [EOS]]).tokens == [0]


def test_no_questions_no_answers(model: Any) -> None:
    assert decode(model, []).answer == []


def test_it_stops_after_two_ends() -> None:
    model = model_of("scratch")
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight[EOS] = 1.0
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    handle = model.register_forward_hook(count)
    decoded = decode(model, questions(3, same_length=True))
    handle.remove()
    assert (decoded.tokens, decoded.cot, decoded.answer) == ([2, 2, 2], [[], [], []], [[], [], []])
    assert calls == 2


@pytest.mark.parametrize(
    ("written", "cot", "answer"),
    [
        ([8, 4, BLANK, EOS, SEPARATOR, 8, 0, BLANK, EOS], [8, 4, BLANK], [8, 0, BLANK]),
        ([EOS, SEPARATOR, 8, 0, EOS], [], [8, 0]),
        ([EOS, SEPARATOR, 8, 0], [], [8, 0]),
        ([8, 4, SEPARATOR, 8, 0, EOS, 3, EOS], [8, 4], [8, 0]),
        ([EOS, SEPARATOR, 1, SEPARATOR, 2, EOS], [], [1, SEPARATOR, 2]),
        ([8, EOS, SEPARATOR, EOS], [8], []),
        ([8, 4, EOS, 8, 0, EOS], [8, 4, 8, 0], []),
        ([8, 4], [8, 4], []),
        ([], [], []),
    ],
)
def test_cot_and_answer_of_whatever_was_written(
    written: list[int], cot: list[int], answer: list[int]
) -> None:
    assert split_answer(written, EOS, SEPARATOR) == (cot, answer)


@given(st.lists(st.integers(0, 16), max_size=30))
def test_any_text_can_be_split(written: list[int]) -> None:
    cot, answer = split_answer(written, EOS, SEPARATOR)
    assert EOS not in cot and EOS not in answer


def test_tokens_as_text() -> None:
    assert token_texts([8, 10, SEPARATOR, BLANK, EOS], TASK.tokenizer()) == (
        "8",
        "*",
        "####",
        " ",
        "<|endoftext|>",
    )
