"""Tasks whose examples are read from files: how they are split, what is told of them, what can be asked."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from tests.small_pretrained import gpt2_tokenizer, published_gpt2_tokenizer, reference
from trainer.config import build
from trainer.data import NotUnderstood, Task, load_task
from trainer.data.files import DataError, read
from trainer.data.layout import Line, format_line
from trainer.data.tokenizer import EOS

SIZES = {"train": 1_000, "valid": 100, "test": 100}


def text_task(folder: Path, *, vocab: str = "task", **named: list[Line] | Path) -> Task:
    """A task with these training, validation and test lines."""
    data: dict[str, Any] = {"task": "text"}
    for split, source in named.items():
        file = source if isinstance(source, Path) else folder / f"{split}.txt"
        if not isinstance(source, Path):
            file.write_text("".join(f"{format_line(line)}\n" for line in source), encoding="utf-8")
        data[f"{split}_file"] = str(file)
    init = "scratch" if vocab == "task" else "gpt2"
    return load_task(build({"data": data, "model": {"init": init, "vocab": vocab}}))


def sums(n: int, start: int = 0) -> list[Line]:
    return [Line(f"{i} + 1 ?", f"{i} and 1", str(i + 1)) for i in range(start, start + n)]


def split_lines(task: Task, sizes: dict[str, int] = SIZES, seed: int = 0) -> dict[str, list[Line]]:
    """The splits as text, which must be what `lines` says they are."""
    tokenizer = task.tokenizer()
    splits = task.splits(sizes, seed, tokenizer)
    found = {
        name: [task.example_text(examples, i, tokenizer) for i in range(len(examples))]
        for name, examples in splits.items()
    }
    read = {name: task.lines(name, sizes, seed) for name in sizes}
    assert found == {name: list(map(in_one_line, lines)) for name, lines in read.items()}
    return found


def in_one_line(line: Line) -> Line:
    return line._replace(cot=line.cot.replace("\n", " "))


# Published files


def test_the_published_files_of_gsm8k_as_a_task() -> None:
    folder = reference("STEPWISE_GSM8K_DATA", "gsm8k")
    data = {"task": "gsm8k", "train_file": str(folder / "train.txt"), "valid_file": str(folder / "valid.txt")}
    task = load_task(build({"data": data}))
    tokenizer = published_gpt2_tokenizer()
    splits = task.splits({"train": 500, "valid": 500}, 0, tokenizer)
    valid = read(folder / "valid.txt").lines
    assert [task.example_text(splits["valid"], i, tokenizer) for i in range(500)] == valid
    assert int(splits["valid"].cot_N.median()) == 22  # Table 1 has 21; and the blank after it
    assert [r.message for r in task.remarks] == [
        f"{folder / 'valid.txt'}: 4 answers lose their commas, as in the papers",
        "train: the first 500 of 6,973 examples are used (data.train)",
    ]


def test_the_published_file_of_prosqa_as_a_task() -> None:
    file = reference("STEPWISE_PROSQA_DATA", "prosqa") / "valid.json"
    splits = split_lines(text_task(file.parent, train=file))
    assert {name: len(lines) for name, lines in splits.items()} == {"valid": 30, "test": 30, "train": 240}


# Splits


def test_a_question_with_several_answers_is_told(tmp_path: Path) -> None:
    task = text_task(tmp_path, train=[*sums(20), Line("3 + 1 ?", "", "4"), Line("4 + 1 ?", "", "9")])
    split_lines(task)
    assert any("questions with several answers: 1;" in remark.message for remark in task.remarks)


def test_given_files_are_the_splits(tmp_path: Path) -> None:
    train, valid, test = sums(20), sums(5, 100), sums(4, 200)
    task = text_task(tmp_path, train=train, valid=valid, test=test)
    assert split_lines(task) == {"train": train, "valid": valid, "test": test}
    assert [r.message for r in task.remarks] == []


def test_missing_splits_are_cut_off_by_the_seed(tmp_path: Path) -> None:
    lines = sums(50)
    task = text_task(tmp_path, train=lines)
    splits = split_lines(task)
    assert {name: len(split) for name, split in splits.items()} == {"train": 40, "valid": 5, "test": 5}
    assert sorted(chain.from_iterable(splits.values())) == sorted(lines)
    assert splits["train"] == [line for line in lines if line in splits["train"]]
    assert [r.message for r in task.remarks] == [
        f"{tmp_path / 'train.txt'}: 5 for valid and 5 for test are cut from its 50 examples, by the seed"
    ]
    assert split_lines(text_task(tmp_path, train=lines)) == splits
    assert split_lines(task, seed=1) != splits
    fewer = split_lines(task, {"train": 10, "valid": 5, "test": 2})
    assert fewer["valid"] == splits["valid"] and fewer["test"] == splits["test"][:2]
    assert task.remarks[-1].message == "train: the first 10 of 43 examples are used (data.train)"


def test_only_what_is_missing_is_cut_off(tmp_path: Path) -> None:
    splits = split_lines(text_task(tmp_path, train=sums(20), valid=sums(3, 100)))
    assert splits["valid"] == sums(3, 100)
    assert (len(splits["train"]), len(splits["test"])) == (18, 2)


@given(st.lists(st.integers(0, 6), min_size=3, max_size=40), st.integers(0, 5))
def test_a_question_is_never_on_two_sides(
    tmp_path_factory: pytest.TempPathFactory, which: list[int], seed: int
) -> None:
    lines = [Line(f"q {i}", f"way {n}", "1") for n, i in enumerate(which)]
    task = text_task(tmp_path_factory.getbasetemp(), train=lines)
    if len(set(which)) < 3:
        with pytest.raises(DataError, match=r"different questions?, too few to cut valid and test from"):
            split_lines(task)
        return
    splits = split_lines(task, seed=seed)
    questions = {name: {line.question for line in split} for name, split in splits.items()}
    assert all(questions.values())
    assert sorted(chain.from_iterable(splits.values())) == sorted(lines)
    assert len(set.union(*questions.values())) == sum(map(len, questions.values()))


def test_questions_in_training_and_validation_are_counted(tmp_path: Path) -> None:
    task = text_task(tmp_path, train=sums(20), valid=sums(5, 18), test=sums(5, 30))
    assert len(split_lines(task)["valid"]) == 5
    [notice] = [r.message for r in task.remarks]
    assert notice.startswith(
        f"{tmp_path / 'valid.txt'}: 2 of its 5 questions are in the training data as well"
    )


def test_examples_without_cot_train_and_count(tmp_path: Path) -> None:
    lines = [Line(f"{i} ?", "", "1") for i in range(30)]
    task = text_task(tmp_path, train=lines)
    examples = task.splits(SIZES, 0, task.tokenizer())["train"]
    assert len(examples) == 24
    assert set(examples.cot_N.tolist()) == {2}


# What is wrong with them


def test_a_few_broken_lines_are_told_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    rows = [format_line(line) for line in sums(50)]
    for i in (7, 17, 27, 37):
        rows.insert(i, f"broken {i}")
    file.write_text("\n".join(rows))
    task = text_task(tmp_path, train=file)
    assert sum(map(len, split_lines(task).values())) == 50
    assert task.remarks[0].message.startswith(
        f"{file}: 4 of 54 lines are broken and left out: line 8: 'broken 7': '||' between question and CoT "
        "is missing; line 18: "
    )
    assert task.remarks[0].message.count("line ") == 3 and task.remarks[0].message.endswith("; …")


def test_many_broken_lines_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("\n".join([*(format_line(line) for line in sums(44)), *("broken",) * 5]))
    with pytest.raises(DataError) as caught:
        split_lines(text_task(tmp_path, train=file))
    told = str(caught.value).splitlines()
    assert told[0] == f"{file}: 5 of 49 lines are no examples"
    assert told[1].startswith(f"{file}, line 45: 'broken': '||'")
    assert told[-1] == "and 2 more broken lines"
    with pytest.raises(DataError, match=r"valid\.txt: 1 of 1 lines are no examples"):
        (tmp_path / "valid.txt").write_text("nothing\n")
        split_lines(text_task(tmp_path, train=sums(9), valid=tmp_path / "valid.txt"))


def test_examples_with_the_eos_in_them_are_told_and_left_out(tmp_path: Path) -> None:
    lines = sums(30)
    lines[4] = Line("4 + 1 ?", f"4 {EOS} 1", "5")
    for vocab, tokenizer in (("task", None), ("full", gpt2_tokenizer(tmp_path / "gpt2"))):
        task = text_task(tmp_path, train=lines, valid=sums(3, 50), test=sums(3, 60), vocab=vocab)
        splits = task.splits(SIZES, 0, tokenizer or task.tokenizer())
        assert len(splits["train"]) == 29
        assert [r.message for r in task.remarks] == [
            f"{tmp_path / 'train.txt'}: 1 examples have '{EOS}' in their text, the EOS of this tokenizer: "
            "line 5; they are left out"
        ]


def test_too_many_words_for_a_vocabulary_of_ones_own(tmp_path: Path) -> None:
    lines = [Line(f"word{i} ?", f"more{i}", "1") for i in range(3_000)]
    with pytest.raises(
        DataError, match=r"6,002 different words.*--set model.init=gpt2 --set model.vocab=full"
    ):
        text_task(tmp_path, train=lines).tokenizer()


def test_white_space_of_any_kind_parts_the_words_of_a_vocabulary(tmp_path: Path) -> None:
    rows = [Line(f"{i}\t+  1 ?", "a\u00a0b\u2028c", "1") for i in range(9)]
    lines = list(chain.from_iterable(split_lines(text_task(tmp_path, train=rows)).values()))
    assert sorted(lines) == [Line(f"{i} + 1 ?", "a b c", "1") for i in range(9)]


# Questions


@pytest.fixture(params=["task", "full"])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> Task:
    task = text_task(tmp_path, train=sums(20), valid=sums(5, 30), test=sums(5, 40), vocab=request.param)
    tokenizer: PreTrainedTokenizerBase = (
        task.tokenizer() if request.param == "task" else gpt2_tokenizer(tmp_path / "gpt2")
    )
    task.splits(SIZES, 0, tokenizer)
    return task


def test_a_known_question_has_its_answer(asked: Task) -> None:
    problem = asked.understand("  31 + 1 ? \n")
    assert (problem.question, problem.shown, problem.expected, problem.note) == ("31 + 1 ?",) * 2 + ("32", "")
    assert asked.understand("3 + 1 ?").note == "a training example"


def test_another_question_has_none(asked: Task) -> None:
    problem = asked.understand("3 + 32 ?")
    assert (problem.expected, problem.note) == ("", "")
    assert asked.understand("1 + 1 + 1 ?").note.startswith("longer than any question it was trained on")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "There was no question"),
        (" \n\t", "There was no question"),
        ("x" * 30_000, "too long"),
        ("1 + " * 60, "no example it has learnt from is so long"),
        (f"1 {EOS} 2", "is the EOS of this tokenizer"),
    ],
)
def test_what_cannot_be_asked_gets_an_example(asked: Task, text: str, reason: str) -> None:
    with pytest.raises(NotUnderstood, match=reason) as caught:
        asked.understand(text)
    assert "Ask, for example: " in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_word_that_is_not_in_the_vocabulary_is_named(tmp_path: Path) -> None:
    task = text_task(tmp_path, train=sums(20))
    task.splits(SIZES, 0, task.tokenizer())
    with pytest.raises(NotUnderstood, match="'pears' in '3 pears' is not in the vocabulary"):
        task.understand("3 pears")


def test_answers_and_questions_are_shown_as_they_are(asked: Task) -> None:
    assert asked.read_answer("Paris and Rome") == "Paris and Rome"
    assert asked.show_question("Where?") == "Where?"
