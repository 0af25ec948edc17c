from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.asking import example
from trainer.data.multiplication import Multiplication
from trainer.data.task import NotUnderstood

TWO = Multiplication(2)


@pytest.mark.parametrize(
    "text",
    [
        "12*34",
        "12 * 34",
        "  12*34  ",
        "12x34",
        "12 X 34",
        "12×34",
        "12 · 34",
        "12 times 34",
        "what is 12 times 34?",
        "What's 12*34 ?",
        "how much is 12 × 34",
        "12*34=",
        "12 * 34 = ?",
        "012 * 0034",
    ],
)
def test_a_question_as_people_write_it(text: str) -> None:
    problem = TWO.understand(text)
    assert problem.question == "2 1 * 4 3"
    assert problem.shown == "12 × 34"
    assert problem.expected == "408"
    assert problem.note == ""


def test_short_factors_are_padded_and_labelled() -> None:
    problem = TWO.understand("3*12")
    assert (problem.question, problem.shown, problem.expected) == ("3 0 * 2 1", "3 × 12", "36")
    assert problem.note == (
        "03 is outside the trained range: this model has only seen two-digit numbers from 10 to 99"
    )
    assert TWO.understand("3*0").note.startswith("03 and 00 are outside")
    assert TWO.understand("0*0").expected == "0"
    assert Multiplication(1).understand("0*7").note.endswith("one-digit numbers from 1 to 9")


def test_factors_of_different_lengths_have_their_own_ranges() -> None:
    task = Multiplication(3, 2)
    assert task.understand("123*45").expected == "5535"
    assert "three-digit numbers from 100 to 999" in task.understand("12*45").note
    with pytest.raises(NotUnderstood, match="a three-digit number by a two-digit one"):
        task.understand("12*345")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "There was no question"),
        ("   \t", "There was no question"),
        ("9" * 10_000, "too long"),
        ("9" * 10_000 + "*3", "too long"),
        ("123*45", "One factor has 3 digits, and there is room for 2 only"),
        ("-12*34", "negative"),
        ("12 * -34", "negative"),
        ("1.5*3", "whole numbers"),
        ("1,234*5", "whole numbers"),
        ("１２*３４", "not a question"),
        ("١٢*٣٤", "not a question"),
        ("12+34", "not a question"),
        ("12*34*56", "not a question"),
        ("12", "not a question"),
        ("12**34", "not a question"),
        ("hello", "not a question"),
        ("[bold red]12*34[/]", "not a question"),
        ("\x1b[31m12*34\x1b[0m", "not a question"),
        ("12\x00*34", "not a question"),
    ],
)
def test_nonsense_gets_a_friendly_answer_with_an_example(text: str, reason: str) -> None:
    with pytest.raises(NotUnderstood, match=reason) as caught:
        TWO.understand(text)
    message = str(caught.value)
    assert "This model multiplies two two-digit numbers. Ask, for example: 12 * 34" in message
    assert len(message) < 250 and message.isprintable()


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        TWO.understand(text)
    except NotUnderstood as refusal:
        assert text not in str(refusal) or len(text) < 10


@given(st.integers(1, 64), st.integers(1, 64))
def test_the_example_can_be_asked(m: int, n: int) -> None:
    task = Multiplication(m, n)
    problem = task.understand(example(m, n))
    assert problem.note == ""


@given(st.integers(0, 99), st.integers(0, 99))
def test_what_is_expected_is_the_product(a: int, b: int) -> None:
    assert TWO.understand(f"{a}*{b}").expected == str(a * b)


@pytest.mark.parametrize(
    ("answer", "read"),
    [("8 0 4 0", "408"), ("0 0 0 0", "0"), ("8 0 4", "408"), ("", ""), ("8 + 4", "8 + 4"), ("####", "####")],
)
def test_answers_are_read_where_they_can_be(answer: str, read: str) -> None:
    assert TWO.read_answer(answer) == read


def test_a_malformed_question_is_shown_as_it_is() -> None:
    assert TWO.show_question("2 1 * 4 3") == "12 × 34"
    assert TWO.show_question("2 1 4 3") == "2 1 4 3"
    assert TWO.show_question("* 4") == "* 4"
