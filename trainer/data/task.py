"""What a task supplies: splits as tensors, its own tokenizer, and the way between people's text and its own.

The loop and the cockpit know no task; they hold a `Task` and examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from trainer.data.layout import Line
from trainer.events import Source
from trainer.methods.base import Examples


class Problem(NamedTuple):
    """A question from the chat, understood.

    question: in the task's text ("2 1 * 4 3"). shown: as people write it ("12 × 34"). expected: the
    right answer as people write it, "" where nobody knows it. note: a caveat to show beside the answer, ""
    when there is none. cot: the whole CoT in the task's text, "" where nobody knows it.
    """

    question: str
    shown: str
    expected: str
    note: str = ""
    cot: str = ""


class Remark(NamedTuple):
    """What a person should know of the data. level: info for how they were taken, warning for a fault."""

    message: str
    level: Literal["info", "warning"] = "warning"


class NotUnderstood(ValueError):  # noqa: N818 (it is an answer more than an error)
    """A text from the chat that this model cannot be asked; the message says kindly what it can be."""


class Task(Protocol):
    """One kind of problem, with its text format."""

    name: str
    remarks: list[Remark]
    """What a person should know of the data; filled by `splits`."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the examples are read from; nothing where they are made. Raises `ValueError` as `splits`."""
        ...

    def splits(
        self, sizes: Mapping[str, int], seed: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Examples]:
        """The splits "valid", "test", "train" of those sizes, disjoint, a function of the seed alone.

        A split does not depend on the size of one that comes after it in that order. Where examples are
        read from files, the splits are at most so large. Raises `ValueError` when examples are to be made
        and there are not that many, or when files cannot be used.
        """
        ...

    def lines(self, split: str, sizes: Mapping[str, int], seed: int) -> list[Line]:
        """The examples of one of these splits as text."""
        ...

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The task's own small vocabulary."""
        ...

    def example_text(self, examples: Examples, index: int, tokenizer: PreTrainedTokenizerBase) -> Line:
        """One row as text."""
        ...

    def tidied(self, line: Line) -> Line:
        """An example of a file as this task's own are read."""
        ...

    def understand(self, text: str) -> Problem:
        """What a person asked, once there are splits. Raises `NotUnderstood`."""
        ...

    def read_answer(self, answer: str) -> str:
        """An answer in the task's text as people write it; unchanged where it is malformed."""
        ...

    def show_question(self, question: str) -> str:
        """A question in the task's text as people write it; unchanged where it is malformed."""
        ...
