"""Examples of one's own: from files, or from anything else that gives `Contents`; questions are free text.

Where valid or test has no file, at most a tenth of the training file is cut off for it, by the seed; a
question that stands there several times is never on two sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from trainer.config import DataConfig
from trainer.data import files, held_out, kept, layout, sources
from trainer.data import tokenizer as vocabulary
from trainer.data.files import Contents, DataError
from trainer.data.layout import Line
from trainer.data.pairs import SPLITS
from trainer.data.task import NotUnderstood, Problem, Remark
from trainer.events import Source
from trainer.methods.base import Examples

BROKEN = 10  # more broken lines than one in so many are an error
SHOWN = 3  # broken lines that a notice names
MOST_WORDS = 5_000  # of a vocabulary of one's own: beyond, most words are too rare to be learnt
LONGEST_TEXT = 20_000  # characters; more is no question
EXAMPLE = 80  # characters of the question that is shown as an example, at most


@dataclass(frozen=True, slots=True)
class Chosen:
    """The examples of a split: places in what was read."""

    contents: Contents
    places: list[int]

    @property
    def lines(self) -> list[Line]:
        return [self.contents.lines[place] for place in self.places]


class TextTask:
    """A `Task` whose examples are read and not made.

    load: gives the contents of "train", and of "valid" and "test" where they are given. own_words: whether
    the model's vocabulary is the words of the examples; then blanks of any kind and number between two of
    them count as one. Raises `DataError` where the examples are read: by any method but `__init__`.
    """

    def __init__(self, name: str, load: Callable[[], dict[str, Contents]], *, own_words: bool) -> None:
        self.name = name
        self.remarks: list[Remark] = []
        self._load = load
        self._own_words = own_words
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._known: dict[str, tuple[Line, str]] = {}
        self._held_out: list[str] = []
        self._longest_question = self._longest = 0

    @cached_property
    def _contents(self) -> dict[str, Contents]:
        loaded = self._load()
        for contents in loaded.values():
            check(contents)
            contents.lines = [self.tidied(line) for line in contents.lines]
        return loaded

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        return tuple(sources.source(split, contents) for split, contents in self._contents.items())

    def splits(
        self, sizes: Mapping[str, int], seed: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Examples]:
        remarks = [Remark(text) for contents in self._contents.values() for text in _about(contents)]
        chosen = self._choose(sizes, seed, remarks)
        lines = {name: _without(split, str(tokenizer.eos_token), remarks) for name, split in chosen.items()}
        encoded = {name: kept.encode_lines(split, tokenizer) for name, split in lines.items()}
        self.remarks = remarks
        self._tokenizer = tokenizer
        self._known = {line.question: (line, name) for name in reversed(lines) for line in lines[name]}
        self._held_out = [line.question for line in lines.get("valid", [])]
        self._longest_question = max(int(examples.question_N.max()) for examples in encoded.values())
        self._longest = max(int(examples.length_N.max()) for examples in encoded.values())
        return encoded

    def lines(self, split: str, sizes: Mapping[str, int], seed: int) -> list[Line]:
        return self._choose(sizes, seed, [])[split].lines

    def _choose(self, sizes: Mapping[str, int], seed: int, remarks: list[Remark]) -> dict[str, Chosen]:
        """The splits of at most those sizes. remarks: gets what was cut, is left out, or stands twice."""
        given, train = self._contents, self._contents["train"]
        missing = {name: sizes[name] for name in SPLITS if name in sizes and name not in given}
        cut, rest = held_out.cut(train, missing, seed)
        chosen = {name: Chosen(train, places) for name, places in cut.items()}
        chosen |= {name: Chosen(given[name], list(range(len(given[name].lines)))) for name in given}
        chosen["train"] = Chosen(train, rest)
        if cut:
            parts = " and ".join(f"{len(places):,} for {name}" for name, places in cut.items())
            text = f"{train.file}: {parts} are cut from its {len(train.lines):,} examples, by the seed"
            remarks.append(Remark(text, "info"))
        for name in (name for name in SPLITS if name in chosen and name in sizes):
            split = chosen[name]
            if len(split.places) > sizes[name]:
                here, there = sizes[name], len(split.places)
                text = f"{name}: the first {here:,} of {there:,} examples are used (data.{name})"
                remarks.append(Remark(text, "info"))
            chosen[name] = Chosen(split.contents, split.places[: sizes[name]])
        for name in (name for name in ("valid", "test") if name in given and name in sizes):
            remarks += [Remark(text) for text in _remembered(name, chosen)]
        return {name: chosen[name] for name in SPLITS if name in sizes}

    def tokenizer(self) -> PreTrainedTokenizerFast:
        words = {
            word
            for contents in self._contents.values()
            for line in contents.lines
            if not has(line, vocabulary.EOS)
            for part in line
            for word in part.split()
        }
        if len(words) > MOST_WORDS:
            raise DataError(
                f"{self.name}: has {len(words):,} different words, and a vocabulary of its own holds at most "
                f"{MOST_WORDS:,}; use a pretrained model and its tokenizer: --set model.init=gpt2 "
                "--set model.vocab=full"
            )
        return vocabulary.build(sorted(words | {layout.SEPARATOR}))

    def example_text(self, examples: Examples, index: int, tokenizer: PreTrainedTokenizerBase) -> Line:
        return layout.decode_example(examples, index, tokenizer)

    def tidied(self, line: Line) -> Line:
        return one_blank(line) if self._own_words else line

    def understand(self, text: str) -> Problem:
        assert self._tokenizer is not None, "the splits come first"
        question = " ".join(text.split()) if self._own_words else layout.NEWLINES.sub(" ", text).strip()
        if not question:
            raise NotUnderstood(f"There was no question. {self._can()}")
        if len(question) > LONGEST_TEXT:
            raise NotUnderstood(f"That is too long for a question. {self._can()}")
        try:
            tokens = len(layout.encode_question(question, self._tokenizer))
        except ValueError as error:
            raise NotUnderstood(f"It cannot read this: {error}. {self._can()}") from None
        if tokens >= self._longest:
            raise NotUnderstood(
                f"That is {tokens:,} tokens, and no example it has learnt from is so long, with its answer. "
                f"{self._can()}"
            )
        note = ""
        if tokens > self._longest_question:
            note = f"longer than any question it was trained on ({self._longest_question} tokens)"
        if question not in self._known:
            return Problem(question=question, shown=question, expected="", note=note)
        line, split = self._known[question]
        return Problem(
            question=question,
            shown=question,
            expected=line.answer,
            note="a training example" if split == "train" else note,
            cot=line.cot,
        )

    def _can(self) -> str:
        questions = sorted(self._known, key=len)
        fits = [question for question in questions if len(question) <= EXAMPLE]
        return f"Ask, for example: {fits[len(fits) // 2] if fits else questions[0][:EXAMPLE] + '…'}"

    def read_answer(self, answer: str) -> str:
        return answer

    def show_question(self, question: str) -> str:
        return question


def read_files(data: DataConfig) -> dict[str, Contents]:
    """The contents of the files that a configuration names. Raises `DataError`."""
    named = {"train": data.train_file, "valid": data.valid_file, "test": data.test_file}
    return {name: files.read(Path(file).expanduser()) for name, file in named.items() if file is not None}


def check(contents: Contents) -> None:
    """Raises `DataError` where a file is not usable, with the first of its broken lines."""
    if is_usable(contents):
        return
    good, broken = len(contents.lines), contents.broken
    more = len(broken) - SHOWN
    problems = [f"{contents.file}: {len(broken):,} of {good + len(broken):,} lines are no examples"]
    problems += [str(line) for line in broken[:SHOWN]]
    raise DataError("\n".join(problems + ([f"and {more:,} more broken lines"] if more > 0 else [])))


def is_usable(contents: Contents) -> bool:
    """Whether there are examples, and at most one line in ten is broken."""
    return is_few(len(contents.broken), len(contents.lines))


def is_few(broken: int, good: int) -> bool:
    """Whether so many broken lines are left out beside so many good ones."""
    return good > 0 and broken * BROKEN <= good + broken


def one_blank(line: Line) -> Line:
    """The line with one blank between words, whatever stood there; the steps of its CoT stay apart."""
    question, cot, answer = line
    steps = (" ".join(step.split()) for step in cot.split("\n"))
    return Line(" ".join(question.split()), "\n".join(steps), " ".join(answer.split()))


def has(line: Line, eos: str) -> bool:
    """Whether the EOS stands in its text."""
    return any(eos in part for part in line)


def several_answers(lines: Sequence[Line]) -> int:
    """How many questions stand there with more than one answer."""
    first: dict[str, str] = {}
    return len(
        {line.question for line in lines if first.setdefault(line.question, line.answer) != line.answer}
    )


def _remembered(name: str, chosen: Mapping[str, Chosen]) -> Iterator[str]:
    """What a person should know of questions that are in this split and in the training data."""
    learnt = {line.question for line in chosen["train"].lines}
    asked = [line.question for line in chosen[name].lines]
    seen = sum(question in learnt for question in asked)
    if seen:
        what = f"{seen:,} of its {len(asked):,} questions are in the training data as well"
        yield f"{chosen[name].contents.file}: {what}; what is right in {name} may be remembered"


def _about(contents: Contents) -> Iterator[str]:
    """What a person should know of a file."""
    if contents.broken:
        few = "; ".join(f"line {line.line}: {line.reason}" for line in contents.broken[:SHOWN])
        total = len(contents.lines) + len(contents.broken)
        yield (
            f"{contents.file}: {len(contents.broken):,} of {total:,} lines are broken and left out: {few}"
            + ("; …" if len(contents.broken) > SHOWN else "")
        )
    if unsure := several_answers(contents.lines):
        yield f"{contents.file}: questions with several answers: {unsure:,}; one at most can be learnt"
    if contents.comma_answers:
        yield f"{contents.file}: {contents.comma_answers:,} answers lose their commas, as in the papers"
    if contents.marked_answers:
        what = f"{contents.marked_answers:,} answers have a further {layout.SEPARATOR} in them"
        yield f"{contents.file}: {what}; all after the first is the answer, as in the official code"


def _without(split: Chosen, eos: str, remarks: list[Remark]) -> list[Line]:
    """The lines of a split without the tokenizer's EOS in them. Raises `DataError` if none is left."""
    contents = split.contents
    ended = [place for place in split.places if has(contents.lines[place], eos)]
    if not ended:
        return split.lines
    where = ", ".join(str(contents.numbers[place]) for place in ended[:SHOWN])
    what = f"have {eos!r} in their text, the EOS of this tokenizer: line {where}"
    what = f"{contents.file}: {len(ended):,} examples {what}" + (", …" if len(ended) > SHOWN else "")
    if len(ended) == len(split.places):
        raise DataError(f"{what}; no other is left")
    remarks.append(Remark(f"{what}; they are left out"))
    return [line for line in split.lines if not has(line, eos)]
