"""Where the steps of a CoT end: in text, in files, in tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.small_pretrained import FAMILIES, published_gpt2_tokenizer
from trainer.data import files
from trainer.data import tokenizer as vocabulary
from trainer.data.layout import Line, encode_lines, make_line, steps
from trainer.data.multiplication import Multiplication, render
from trainer.data.text import one_blank
from trainer.methods.base import Examples


@pytest.mark.parametrize(
    ("cot", "found"),
    [
        ("<<1+1=2>> <<2*3=6>>", ["<<1+1=2>>", "<<2*3=6>>"]),
        ("<<1+1=2>><<2*3=6>>", ["<<1+1=2>>", "<<2*3=6>>"]),
        ("Tom is a wumpus. Every wumpus is a rompus.", ["Tom is a wumpus.", "Every wumpus is a rompus."]),
        ("two sentences. in one\nand a step", ["two sentences. in one", "and a step"]),
        ("1 + 2", ["1 + 2"]),
        ("", [""]),
    ],
)
def test_the_steps_of_a_cot(cot: str, found: list[str]) -> None:
    assert steps(cot) == found


def test_steps_of_a_json_file_stay_apart_also_where_blanks_are_made_one(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    file.write_text(json.dumps([{"question": "q", "steps": ["a  b. c", " ", "d\ne"], "answer": "x"}]))
    [line] = files.read(file).lines
    assert steps(line.cot) == ["a  b. c", "d e"]
    assert one_blank(line).cot == "a b. c\nd e"


def counted(lines: list[Line], examples: Examples, tokenizer: object) -> None:
    """Each step's tokens, decoded, are that step."""
    for index, line in enumerate(lines):
        parts = steps(line.cot)
        assert int(examples.steps[index]) == len(parts)
        start, before = int(examples.question_N[index]), 0
        for number, part in enumerate(parts):
            end = int(examples[index : index + 1].first_steps(torch.tensor([number + 1])))
            ids = examples.ids_NT[index, start + before : start + end].tolist()
            assert tokenizer.decode(ids).strip() == part.strip()  # type: ignore[attr-defined]
            before = end
        assert before == int(examples.cot_N[index])


WORDS = ["12", "+", "(3", "a.", "wumpus", "é", "7"]


@given(st.lists(st.lists(st.lists(st.sampled_from(WORDS), min_size=1), min_size=1, max_size=4), min_size=1))
def test_tokens_of_each_step_of_a_small_vocabulary(cots: list[list[list[str]]]) -> None:
    tokenizer = vocabulary.build([*WORDS, "q", "####"])
    lines = [make_line("q", "\n".join(" ".join(step) for step in cot), "7") for cot in cots]
    counted(lines, encode_lines(lines, tokenizer), tokenizer)


LINES = [
    make_line("1 2 * 3 4", "<<12+3=15>> <<15*2=30>> <<7=7>>", "30"),
    make_line("q", "Every wumpus is a rompus. Tom is a wumpus.", "yes"),
    make_line("q", "", "no"),
]


def test_tokens_of_each_step_of_gpt2() -> None:
    tokenizer = published_gpt2_tokenizer()
    counted(LINES, encode_lines(LINES, tokenizer), tokenizer)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_step_of_multiplication_is_a_number_that_is_added(family: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    FAMILIES[family](tmp_path)
    sizes = {"train": 50, "valid": 1, "test": 1}
    for tokenizer in (Multiplication(3).tokenizer(), AutoTokenizer.from_pretrained(tmp_path)):
        train = Multiplication(3).splits(sizes, 0, tokenizer)["train"]
        lines = [Multiplication(3).example_text(train, index, tokenizer) for index in range(2)]
        wanted = [line._replace(cot=line.cot.replace(" + ", "\n+ ")) for line in lines]
        assert [steps(line.cot)[1][0] for line in wanted] == ["+", "+"]
        assert bool((train.steps == 3).all())
        if family == "gpt2" or len(tokenizer) < 18:
            counted(wanted, train, tokenizer)
    assert "\n" not in render("12", "34").cot
