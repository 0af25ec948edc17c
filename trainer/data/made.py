"""Text tasks whose examples are made by a seed, from words that are all known: ProntoQA and ProsQA.

Files of the same kind may be given instead, as the authors published them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from trainer.data import layout
from trainer.data import tokenizer as vocabulary
from trainer.data.files import Contents, DataError
from trainer.data.layout import Line
from trainer.data.pairs import SPLITS
from trainer.data.task import Problem, Remark
from trainer.data.text import Chosen, TextTask

MOST_REPEATS = 1_000  # examples in a row that were there before: then there are no others


class MadeTask(TextTask):
    """A `Task`.

    draw: examples without end, a function of a seed. words, marks: of its vocabulary; a mark is a token
    without a blank before it. load: contents of files that were given; nothing where there are none.
    """

    def __init__(
        self,
        name: str,
        draw: Callable[[int], Iterator[Line]],
        words: Sequence[str],
        marks: str,
        load: Callable[[], dict[str, Contents]],
        *,
        own_words: bool,
    ) -> None:
        super().__init__(name, load, own_words=own_words)
        self._draw = draw
        self._words, self._marks = words, marks

    def _choose(self, sizes: Mapping[str, int], seed: int, remarks: list[Remark]) -> dict[str, Chosen]:
        if self._contents:
            return super()._choose(sizes, seed, remarks)
        examples = different(self._draw(seed))
        chosen = {}
        for name in (name for name in SPLITS if name in sizes):
            contents = Contents(Path(name), "made", gzipped=False)
            contents.lines = [line for _, line in zip(range(sizes[name]), examples, strict=False)]
            if len(contents.lines) < sizes[name]:
                raise DataError(
                    f"{self.name}: {sum(sizes.values()):,} different examples were asked for, and there are "
                    f"hardly so many; lower data.{max(sizes, key=sizes.__getitem__)}"
                )
            contents.numbers = list(range(1, len(contents.lines) + 1))
            chosen[name] = Chosen(contents, list(range(len(contents.lines))))
        return chosen

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return vocabulary.build([*self._words, layout.SEPARATOR], self._marks)

    def understand(self, text: str) -> Problem:
        held_out = self._held_out
        if text.strip().isdecimal() and 1 <= int(text) <= len(held_out):
            text = held_out[int(text) - 1]
        return super().understand(text)

    def _can(self) -> str:
        held_out = f"1 to {len(self._held_out):,}"
        return f"Ask as its training examples do; a number, {held_out}, stands for a validation question"


def different(lines: Iterator[Line]) -> Iterator[Line]:
    """Those whose question was not there before, in order; it ends when hardly any is new."""
    known: set[str] = set()
    repeats = 0
    for line in lines:
        if line.question in known:
            repeats += 1
            if repeats == MOST_REPEATS:
                return
        else:
            repeats = 0
            known.add(line.question)
            yield line
