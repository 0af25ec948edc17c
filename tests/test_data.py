from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small_pretrained import reference
from trainer.config import build
from trainer.data import load_task, pairs
from trainer.data.layout import encode_lines, format_line, parse_line
from trainer.data.multiplication import Cot, Multiplication, encode_pairs, render
from trainer.data.pairs import split_pairs
from trainer.methods.base import Examples

PUBLISHED = [
    "5 6 3 2 * 7 4 3 4||5 5 5 6 1 + 0 0 6 4 9 0 ( 5 5 1 1 1 1 ) + 0 0 5 9 0 7 0 ( 5 5 6 0 2 8 0 )"
    " + 0 0 0 0 6 4 9 0 #### 5 5 6 0 8 2 0 1",
    "6 9 1 5 * 6 4 4 7||6 7 1 1 3 + 0 4 8 7 0 2 ( 6 1 0 9 3 2 ) + 0 0 4 8 7 0 2 ( 6 1 4 7 1 3 2 )"
    " + 0 0 0 2 7 3 6 3 #### 6 1 4 9 8 6 8 3",
]
TOKENIZER = Multiplication(2).tokenizer()


def factors(line: str) -> tuple[str, str]:
    """The factors of a published line as people write them."""
    a, b = parse_line(line).question.split(" * ")
    return a.replace(" ", "")[::-1], b.replace(" ", "")[::-1]


def digits(factor: str) -> torch.Tensor:
    return torch.tensor([[int(d) for d in reversed(factor)]], dtype=torch.uint8)


def pair_set(split: tuple[torch.Tensor, torch.Tensor]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    a, b = split
    return {(tuple(x), tuple(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)}


@pytest.mark.parametrize("line", PUBLISHED)
def test_a_published_line_comes_out_exactly(line: str) -> None:
    assert format_line(render(*factors(line))) == line


@pytest.mark.parametrize("k", [4, 5, 7, 9, 11])
def test_the_published_files_come_out_exactly_both_ways(k: int) -> None:
    file = reference("STEPWISE_MULT_DATA", "mult") / f"valid-{k}x{k}.txt"
    lines = file.read_text().splitlines()
    assert [format_line(render(*factors(line))) for line in lines] == lines
    a, b = (torch.cat([digits(pair[i]) for pair in map(factors, lines)]) for i in (0, 1))
    task = Multiplication(k)
    examples = encode_pairs(a, b, TOKENIZER)
    assert [format_line(task.example_text(examples, i, TOKENIZER)) for i in range(len(lines))] == lines


def test_the_figure_of_the_paper_padded_as_released() -> None:
    assert format_line(render("12", "34")) == "2 1 * 4 3||8 4 0 + 0 6 3 0 #### 8 0 4 0"


def test_factors_of_different_lengths() -> None:
    assert format_line(render("123", "45")) == "3 2 1 * 5 4||5 1 6 0 + 0 2 9 4 0 #### 5 3 5 5 0"
    assert format_line(render("12", "345")) == (
        "2 1 * 5 4 3||0 6 0 + 0 8 4 0 ( 0 4 5 0 ) + 0 0 6 3 0 #### 0 4 1 4 0"
    )


numbers = st.text("0123456789", min_size=1, max_size=24)


@given(numbers, numbers, st.sampled_from(["schoolbook", "tree"]))
@settings(deadline=None)
def test_tensors_give_what_the_obvious_way_gives(a: str, b: str, cot: Cot) -> None:
    fast, slow = (
        encode_pairs(digits(a), digits(b), TOKENIZER, cot),
        encode_lines([render(a, b, cot)], TOKENIZER),
    )
    assert fast.ids_NT.dtype == torch.uint8
    assert fast.ids_NT.tolist() == slow.ids_NT.tolist()
    for name in ("question_N", "cot_N", "length_N"):
        assert getattr(fast, name).tolist() == getattr(slow, name).tolist()


@given(numbers, numbers)
def test_every_level_of_the_tree_adds_up_to_the_product(a: str, b: str) -> None:
    line = render(a, b, "tree")
    first, *brackets = line.cot.split(" ( ")
    levels = [bracket.removesuffix(" )").split(" + ") for bracket in (first, *brackets)]
    for level in levels:
        assert sum(int("".join(number.split())[::-1]) for number in level) == int(a) * int(b)
    assert [len(level) for level in levels] == tree_sizes(len(b))
    assert int("".join(line.answer.split())[::-1]) == int(a) * int(b)
    assert render(a, b).question == line.question and render(a, b).answer == line.answer


def tree_sizes(leaves: int) -> list[int]:
    """5 → [5, 3, 2]: the levels that are written; the one after is the answer."""
    return [leaves] if leaves <= 2 else [leaves, *tree_sizes(-(-leaves // 2))]


@given(st.integers(1, 12), st.integers(1, 12), st.data())
@settings(max_examples=30, deadline=None)
def test_all_rows_of_a_tree_are_equally_long(m: int, n: int, data: st.DataObject) -> None:
    factors = [data.draw(st.integers(0, 10**width - 1)) for width in (m, n)]
    lines = [render(str(a).zfill(m), str(b).zfill(n), "tree") for a, b in (factors, (0, 0))]
    assert len(set(map(len, map(format_line, lines)))) == 1


def test_the_tree_of_the_docstring() -> None:
    assert format_line(render("2365", "4347", "tree")) == (
        "5 6 3 2 * 7 4 3 4||5 5 5 6 1 + 0 0 6 4 9 0 + 0 0 5 9 0 7 0 + 0 0 0 0 6 4 9 0 "
        "( 5 5 1 1 1 1 + 0 0 5 9 6 1 0 1 ) #### 5 5 6 0 8 2 0 1"
    )
    assert render("12", "345", "tree").cot == "0 6 0 + 0 8 4 0 + 0 0 6 3 0 ( 0 4 5 0 + 0 0 6 3 0 )"


def test_the_longest_factors_do_not_overflow() -> None:
    nines = "9" * 64
    answer = Multiplication(64).read_answer(render(nines, nines).answer)
    assert int(answer) == (10**64 - 1) ** 2
    fast = encode_pairs(digits(nines), digits(nines), TOKENIZER)
    assert fast.ids_NT.tolist() == encode_lines([render(nines, nines)], TOKENIZER).ids_NT.tolist()


def test_many_chunks_of_rows_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = split_pairs(3, 2, {"train": 1_000}, seed=1)["train"]
    whole = encode_pairs(a, b, TOKENIZER)
    monkeypatch.setattr("trainer.data.multiplication.CHUNK", 300)
    assert torch.equal(encode_pairs(a, b, TOKENIZER).ids_NT, whole.ids_NT)


# enumerated with twins, enumerated without, drawn, and with keys of more than 63 bits
SHAPES = [(2, 2), (3, 3), (3, 2), (5, 5), (12, 12)]


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_splits_are_unique_disjoint_and_of_the_asked_sizes(m: int, n: int) -> None:
    sizes = {"train": 4_000, "valid": 301, "test": 250}
    splits = split_pairs(m, n, sizes, seed=3)
    sets = {name: pair_set(split) for name, split in splits.items()}
    assert {name: len(s) for name, s in sets.items()} == sizes
    assert len(set.union(*sets.values())) == sum(sizes.values())
    for a, b in splits.values():
        assert (a.shape[1], b.shape[1]) == (m, n)
        assert a[:, -1].min() >= 1 and b[:, -1].min() >= 1
        assert max(a.max(), b.max()) == 9


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_splits_depend_on_the_seed_alone(m: int, n: int) -> None:
    def held_out(train: int, seed: int) -> list[torch.Tensor]:
        splits = split_pairs(m, n, {"train": train, "valid": 100, "test": 51}, seed)
        return [*splits["valid"], *splits["test"]]

    few = held_out(10, seed=0)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    for other in (held_out(5_000, seed=0), held_out(0, seed=0)):
        assert all(map(torch.equal, few, other))
    assert torch.equal(torch.get_rng_state(), before)
    assert not all(map(torch.equal, few, held_out(10, seed=1)))


def test_a_larger_draw_begins_as_a_smaller_one() -> None:
    # 4×4 meets repeats, and this crosses several blocks
    few = split_pairs(4, 4, {"train": 1_000}, seed=0)["train"]
    many = split_pairs(4, 4, {"train": 150_000}, seed=0)["train"]
    assert all(torch.equal(x, y[:1_000]) for x, y in zip(few, many, strict=True))
    assert len(pair_set(many)) == 150_000


@pytest.mark.parametrize("k", [1, 2, 3])
@given(st.data())
@settings(max_examples=15, deadline=None)
def test_twins_stay_together_in_small_tasks(k: int, data: st.DataObject) -> None:
    available = pairs.count(k, k)
    valid = data.draw(st.integers(0, min(available // 3, 600)))
    test = data.draw(st.integers(0, min(available // 3, 600)))
    train = data.draw(st.integers(0, min(available - valid - test, 2_000)))
    sizes = {"valid": valid, "test": test, "train": train}
    splits = split_pairs(k, k, sizes, seed=data.draw(st.integers(0, 50)))
    for name, split in splits.items():
        found = pair_set(split)
        assert found == {(b, a) for a, b in found}
        assert len(split[0]) == len(found)
        assert sizes[name] - len(found) in (0, 1)


def test_everything_can_be_asked_for() -> None:
    splits = split_pairs(2, 2, {"train": 7_100, "valid": 501, "test": 499}, seed=0)
    assert [len(a) for a, _ in splits.values()] == [501, 499, 7_100]
    splits = split_pairs(3, 2, {"train": 81_000}, seed=0)
    assert len(pair_set(splits["train"])) == 81_000


@pytest.mark.parametrize(("k", "there"), [(1, "81"), (2, "8,100"), (3, "810,000")])
def test_asking_for_more_than_there_is(k: int, there: str) -> None:
    with pytest.raises(ValueError, match=rf"1,000,000 examples were asked for .* only {there} pairs"):
        split_pairs(k, k, {"train": 999_800, "valid": 100, "test": 100}, seed=0)


@given(st.integers(0, 2**32), st.integers(1, 45))
@settings(max_examples=30, deadline=None)
def test_repeats_are_found_however_many_digits_a_row_has(seed: int, width: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    rows = torch.randint(10, (40, width), dtype=torch.uint8, generator=chance)
    rows = rows[torch.randint(40, (120,), generator=chance)]
    expected = list(dict.fromkeys(map(tuple, rows.tolist())))
    unique = rows[pairs._first_occurrences(pairs._ranks(rows))]
    assert list(map(tuple, unique.tolist())) == expected


def test_the_task_of_a_configuration() -> None:
    task = load_task(build({"data": {"digits": 3, "digits_b": 2}}))
    assert task.name == "3×2 multiplication"
    examples = task.splits({"valid": 30}, 0, TOKENIZER)["valid"]
    assert isinstance(examples, Examples) and len(examples) == 30
    for i in islice(range(30), 5):
        line = task.example_text(examples, i, TOKENIZER)
        a, b = task.show_question(line.question).split(" × ")
        assert line == render(a, b)
        assert int(task.read_answer(line.answer)) == int(a) * int(b)
    assert len(task.splits({"valid": 0}, 0, TOKENIZER)["valid"]) == 0
