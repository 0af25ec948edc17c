"""Held-out examples put beside each other, token by token and digit by digit."""

from __future__ import annotations

from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from stepwise_tui import answers
from stepwise_tui.answers import Answers, Pair, aligned, by_place, pairs, table
from stepwise_tui.glyphs import ASCII, UNICODE
from stepwise_tui.history import replay
from stepwise_tui.widgets import answers as drawn
from stepwise_tui.widgets import replies
from tests import scripted
from trainer.events import At, Evaluated, ExamplesShown, ShownExample

TOKENS = st.lists(st.sampled_from(["1", "2", "+", "", "<<3*4=12>>"]), max_size=9).map(tuple)


@st.composite
def examples(draw: st.DrawFn) -> ShownExample:
    cot = draw(TOKENS)
    answer = draw(st.sampled_from(["8342", "7", "is a wumpus"]))
    given = draw(st.sampled_from([answer, "8352", "123456", "", "is a yumpus"]))
    side: Literal["left", "right"] = draw(st.sampled_from(["left", "right"]))
    return ShownExample(
        question=draw(st.sampled_from(["12 × 34", "how many? " * 9])), answer=answer, given=given,
        correct=given == answer, cot=cot, removed=draw(st.integers(0, len(cot))), spoken=draw(TOKENS),
        side=side,
    )  # fmt: skip


def one(
    given: str, *, spoken: tuple[str, ...] = ("0", "6"), removed: int = 2, side: str = "left"
) -> ShownExample:
    return ShownExample(
        question="97 × 86", answer="8342", given=given, correct=given == "8342", cot=("2", "8", "0", "6"),
        removed=removed, spoken=spoken, side=side,  # type: ignore[arg-type]
    )  # fmt: skip


def some(whose: str, *shown: ShownExample) -> Answers:
    return Answers(whose, At(), shown, sum(s.correct for s in shown), len(shown))


def test_digits_are_compared_from_the_last() -> None:
    assert aligned("52", "8342") == ([" ", " ", "5", "2"], ["8", "3", "4", "2"])
    assert aligned("two", "8342") == (["two"], ["8342"])
    assert aligned("a b", "a c d") == (["a", "b", ""], ["a", "c", "d"])


def test_each_place_has_its_share() -> None:
    assert by_place([one("8342"), one("8352"), one("42"), one("")]) == [0.5, 0.5, 0.5, 0.75]
    assert by_place([scripted.examples(0, 1.0)[0]]) == [1.0, 1.0, 1.0]
    assert by_place([]) == []


@settings(deadline=None)
@given(examples())
def test_what_is_marked_wrong_is_just_what_is_not_as_it_should_be(shown: ShownExample) -> None:
    true, (row,) = table(Pair(1, (shown,)), "·")
    assert len(true) == len(row)
    kept = shown.cot[shown.removed :] if shown.side == "left" else shown.cot[: len(shown.cot) - shown.removed]
    equals = max(place for place, cell in enumerate(true) if cell.text == "=")
    assert any(cell.wrong for cell in row[:equals]) != (shown.spoken == kept)
    assert any(cell.wrong for cell in row[equals:]) != (shown.given == shown.answer)
    assert sum(cell.gone for cell in row) <= shown.removed


@settings(deadline=None)
@given(st.lists(st.tuples(examples(), examples()), max_size=4), st.integers(53, 200), st.booleans())
def test_rows_fit_whatever_was_answered(
    both: list[tuple[ShownExample, ShownExample]], width: int, two: bool
) -> None:
    for glyphs in (UNICODE, ASCII):
        every = [Pair(number, answers if two else answers[:1]) for number, answers in enumerate(both, 1)]
        names = ["live", "b1-s001000-stage3"] if two else ["live"]
        columns = drawn.layout(every, names, width, glyphs)
        for pair in every:
            assert drawn.row(pair, columns, glyphs).cell_length <= width
            closer = drawn.closer(pair, names, width, glyphs).plain
            assert max(map(len, closer.split("\n"))) <= width


def test_a_row_says_without_colour_which_digit_is_wrong_and_what_it_should_be() -> None:
    (pair,) = pairs([some("", one("8352"))])
    text = drawn.row(pair, drawn.layout([pair], ["live"], 73, UNICODE), UNICODE).plain
    assert text.split() == ["✗", "97", "×", "86", "8352", "--4-", "··", "0", "6"]


def test_columns_of_long_texts_share_the_width_and_none_has_half_a_name() -> None:
    spoken = ("Every", "felpus", "is", "a", "fom", ".") * 2
    shown = ShownExample(
        question="Every felpus is a fom. " * 20 + "Is Davis a brimpus?", answer="Davis is a fompus.",
        given="Davis is a brimpus.", correct=False, cot=("-",) * 5 + spoken, removed=5, spoken=spoken,
    )  # fmt: skip
    sides = [some("", shown)]
    for width, cot_column in ((73, "CoT"), (193, "CoT: removed, spoken")):
        columns = drawn.layout(pairs(sides), ["live"], width, UNICODE)
        head = drawn.head(sides, columns, UNICODE).plain
        assert head.rstrip().endswith(f"  {cot_column}") and "…" not in head
        assert columns.question >= 12 and columns.thought >= 12
    row = drawn.row(*pairs(sides), columns, UNICODE).plain
    assert row.endswith(f"····· {' '.join(spoken)}")


def test_closer_the_mark_stands_under_the_slip() -> None:
    (pair,) = pairs([some("", one("8352", spoken=("0", "5"))), some("b1-s000100-stage1", one("8342"))])
    lines = drawn.closer(pair, ["live", "b1-s000100-stage1"], 73, UNICODE).plain.split("\n")
    assert lines == [
        "1. 97 × 86",
        "true               2 8 0 6 = 8 3 4 2",
        "live               · · 0 5 = 8 3 5 2 ✗",
        "                         ^       ^",
        "b1-s000100-stage1  · · 0 6 = 8 3 4 2 ✓",
    ]


def test_what_is_removed_on_the_right_stands_on_the_right() -> None:
    (pair,) = pairs([some("", one("8342", spoken=("2", "8"), side="right"))])
    assert drawn.closer(pair, ["live"], 73, UNICODE).plain.split("\n")[2] == "live  2 8 · · = 8 3 4 2 ✓"


def test_a_cot_that_is_longer_than_the_screen_goes_on_below() -> None:
    cot = tuple("0123456789" * 30)
    shown = ShownExample(
        question="q",
        answer="1",
        given="1",
        correct=True,
        cot=cot,
        removed=0,
        spoken=(*cot[:150], "x", *cot[151:]),
    )
    lines = drawn.closer(Pair(1, (shown,)), ["live"], 60, UNICODE).plain.split("\n")
    assert max(map(len, lines)) <= 60
    assert "".join(lines).count("^") == 1
    place = next(number for number, line in enumerate(lines) if "^" in line)
    assert lines[place - 1][lines[place].index("^")] == "x"


def test_only_the_same_question_is_compared() -> None:
    sides = some("", one("1"), one("2")), some("b", one("1"))
    assert [pair.differs for pair in pairs(sides)] == [False]
    other = ShownExample(question="1 × 1", answer="1", given="1", correct=True, cot=(), removed=0, spoken=())
    assert pairs([some("", one("1")), some("b", other)]) == []


def test_the_answers_of_an_evaluation_come_with_its_score() -> None:
    history = replay(scripted.training().events)
    found = answers.evaluated(history)
    assert found is not None and history.evaluated is not None
    assert (found.correct, found.n, len(found.examples)) == (history.evaluated.correct, 500, 8)


def test_at_the_end_the_score_is_of_all_that_was_measured_and_not_of_the_few_that_are_shown() -> None:
    script = scripted.training(step=1_350)
    last = Evaluated(
        at=script.at, split="test", accuracy=0.575, token_accuracy=0.7, correct=23, n=40, cot_tokens=5.0,
        seconds=0.2,
    )  # fmt: skip
    script.say(last)
    script.say(ExamplesShown(at=script.at, examples=scripted.examples(4, 0.375)))
    for events in ([*script.events], script.finish().events):
        found = answers.evaluated(replay(events))
        assert found is not None and (found.correct, found.n) == (23, 40)
    tally = drawn.tally([found], pairs([found]), UNICODE)
    assert tally == "8 of 40 shown, 5 of these wrong"
    assert "(23/40 test)" in drawn.standing(found, 76, UNICODE).plain
    line = replies.example_line(replay(script.events), 120, UNICODE).plain
    assert line.endswith(".575 23/40 test"), "the example beside it is a test example"
