"""Questions put to a model as they are typed: for a model whose task nobody has named."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from trainer.data import layout
from trainer.data.layout import Line
from trainer.data.task import NotUnderstood, Problem, Remark
from trainer.events import Source
from trainer.methods.base import Examples

ASK = "Ask as its training examples do."


class Typed:
    """A `Task` without data: it has no splits, and nobody knows the right answers.

    numbered: with its data, a number would stand for a validation question.
    """

    name = "questions as they are typed"

    def __init__(self, *, numbered: bool = False) -> None:
        self._numbered = numbered
        self.remarks: list[Remark] = []
        self.sources: tuple[Source, ...] = ()

    def splits(
        self, sizes: Mapping[str, int], seed: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Examples]:
        raise ValueError(f"there are no data for {self.name}")

    def lines(self, split: str, sizes: Mapping[str, int], seed: int) -> list[Line]:
        raise ValueError(f"there are no data for {self.name}")

    def tokenizer(self) -> PreTrainedTokenizerFast:
        raise ValueError(f"there is no vocabulary for {self.name}")

    def example_text(self, examples: Examples, index: int, tokenizer: PreTrainedTokenizerBase) -> Line:
        return layout.decode_example(examples, index, tokenizer)

    def tidied(self, line: Line) -> Line:
        return line

    def understand(self, text: str) -> Problem:
        question = " ".join(text.split())
        if not question:
            raise NotUnderstood(f"There was no question. {ASK}")
        if self._numbered and question.isdecimal():
            raise NotUnderstood(
                f"A number stands for a validation question, and this model has none here. {ASK}"
            )
        return Problem(question=question, shown=question, expected="")

    def read_answer(self, answer: str) -> str:
        return answer

    def show_question(self, question: str) -> str:
        return question
