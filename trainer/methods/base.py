"""The seam between the loop and the methods of the papers.

The loop knows stages, batches and losses; a method knows what they mean. Stepwise internalisation,
explicit CoT, no CoT, Coconut's continuous thoughts and pause tokens are here; distillation (whose stages are
phases) would supply the same things and leave the loop alone:

    stages              how many stages the data has
    rows                a batch at a stage
    loss                of the model on that batch, its parts apart
    generate            answers to questions at a stage
    removed, describe   a stage for charts and for people
    resets, enter       what happens on entering one, to the optimiser and to the model
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from trainer.config import MethodConfig

Model = Any  # a transformers PreTrainedModel; its own annotations are too loose to check against


@dataclass(frozen=True, slots=True)
class Examples:
    """A split, tokenised: row i is question, its EOS, CoT, its EOS, answer, its EOS, then padding.

    ids_NT: token ids, any integer dtype. question_N: length of the question with its EOS. cot_N: length of
    the CoT without its EOS. length_N: length of the row without padding. All of it stays on the CPU, where
    batches are made, so that nobody waits for the device.

    ends_NS: tokens of the CoT up to the end of its first step, of its second, …, the last as often as there
    are columns; it is cot_N. None: nobody knows where steps end, and the CoT is one.
    """

    ids_NT: Tensor
    question_N: Tensor
    cot_N: Tensor
    length_N: Tensor
    ends_NS: Tensor | None = None

    def __len__(self) -> int:
        return self.ids_NT.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Examples:
        """Rows by a slice or by indices."""
        ends_NS = None if self.ends_NS is None else self.ends_NS[index]
        return Examples(
            self.ids_NT[index], self.question_N[index], self.cot_N[index], self.length_N[index], ends_NS
        )

    @property
    def steps(self) -> Tensor:
        """How many steps each CoT has; one where nobody knows."""
        if self.ends_NS is None:
            return torch.ones_like(self.cot_N)
        return (self.ends_NS < self.cot_N[:, None]).sum(1) + 1

    def first_steps(self, steps_N: Tensor) -> Tensor:
        """Tokens of the first `steps_N` steps of each CoT; of all of it where it has no more."""
        ends_NS = self.cot_N[:, None] if self.ends_NS is None else self.ends_NS
        ends_NS = torch.cat([torch.zeros_like(ends_NS[:, :1]), ends_NS], 1)
        tokens_N1 = ends_NS.gather(1, steps_N.clamp(0, ends_NS.shape[1] - 1)[:, None])
        return tokens_N1[:, 0]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows ready for the model. Right-padded, so causal attention needs no mask.

    input_ids_BT. position_ids_BT: None where they count from 0. labels_BL: the token that position
    `first + j` must predict, −100 where none. answer_BL: which labels come after the CoT (its EOS, ####,
    answer, EOS). first: index of the earliest position that predicts a label. length_B: real tokens of each
    row, padding not counted; on the CPU. cot_free: no row has a CoT token left.
    """

    input_ids_BT: Tensor
    position_ids_BT: Tensor | None
    labels_BL: Tensor
    answer_BL: Tensor
    first: int
    length_B: Tensor
    cot_free: bool

    def to(self, device: torch.device) -> Batch:
        """What the model reads goes to the device, behind the host's back."""
        if device.type == "cpu":
            return self
        return self.each(lambda tensor: tensor.pin_memory().to(device, non_blocking=True))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What of it the device reads, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "length_B"}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with each of `tensors` changed."""
        changed: dict[str, Any] = {name: change(tensor) for name, tensor in self.tensors.items()}
        return replace(self, **changed)

    def split(self, parts: int) -> list[Batch]:
        """The same rows in so many batches of the same columns."""
        rows = torch.arange(len(self.length_B)).tensor_split(parts)
        return [replace(self.each(itemgetter(part)), length_B=self.length_B[part]) for part in rows]

    def share(self, rows: slice) -> Batch:
        """Some of its rows, of the same columns."""
        return replace(self.each(itemgetter(rows)), length_B=self.length_B[rows])

    @property
    def longest(self) -> int:
        """Real tokens of the longest row."""
        return int(self.length_B.max())

    @property
    def tokens(self) -> int:
        """Real tokens of all rows."""
        return int(self.length_B.sum())


class Losses(NamedTuple):
    """Scalars on the device. mean: what is minimised, nats per label. The rest are sums and counts."""

    mean: Tensor
    answer_sum: Tensor
    answer_count: Tensor
    cot_sum: Tensor
    cot_count: Tensor


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the model wrote to each question. cot, answer: token ids, without EOS and ####.

    tokens: how many were generated in all, a continuous thought counting as one; thoughts: of all rows.
    seconds: wall time of the whole call. foretold: rows that a pass over the true ones told, without decoding
    (`trainer.answering.foretelling`). disagreed: of those that were decoded all the same, how many came out
    otherwise.
    """

    cot: list[list[int]]
    answer: list[list[int]]
    tokens: list[int]
    seconds: float
    foretold: int = 0
    disagreed: int = 0
    thoughts: int = 0

    def rows(self, start: int, end: int) -> Decoded:
        """Some of the rows; no time is theirs."""
        return Decoded(self.cot[start:end], self.answer[start:end], self.tokens[start:end], 0.0)

    @classmethod
    def joined(cls, parts: Sequence[Decoded]) -> Decoded:
        """What was written in several parts, in one."""
        return cls(
            cot=[ids for part in parts for ids in part.cot],
            answer=[ids for part in parts for ids in part.answer],
            tokens=[count for part in parts for count in part.tokens],
            seconds=sum(part.seconds for part in parts),
            foretold=sum(part.foretold for part in parts),
            disagreed=sum(part.disagreed for part in parts),
            thoughts=sum(part.thoughts for part in parts),
        )


class Method(Protocol):
    """One way of teaching. Built from the configuration and the training data by `methods.build`."""

    stages: int
    """The stage at which nothing is left to remove; 0 when there is no curriculum."""

    start: int
    """Removals at the beginning."""

    answers_both_ways: bool
    """Whether it can be asked for its CoT or for the answer alone, by a control token."""

    thinks: bool
    """Whether it puts something in the place of steps whose number `generate` can be told."""

    one_pass: bool
    """Whether a batch is one pass through the model, as compiled and captured steps are."""

    def positions(self, examples: Examples) -> int:
        """Positions that the longest row of these takes, at whatever stage."""
        ...

    def rows(
        self,
        examples: Examples,
        scheduled: int,
        generator: torch.Generator | None,
        *,
        pretraining: bool = False,
    ) -> Batch:
        """A training batch after `scheduled` removals. Without a generator nothing is drawn at random.

        pretraining: explicit CoT is trained first, and no offset is drawn yet (official code).
        """
        ...

    def loss(self, model: Model, batch: Batch, labels: Tensor | None = None) -> Losses:
        """One forward pass. labels: what the sum is divided by; how many this batch has when not given."""
        ...

    def right(self, model: Model, batch: Batch) -> Tensor:
        """Whether each label (B×L) is the likeliest token at its place; true where there is none."""
        ...

    def foretell(self, model: Model, examples: Examples, scheduled: int) -> tuple[Tensor, Decoded] | None:
        """Of which examples (B) one pass surely tells what greedy decoding writes, namely what is true; and
        these rows, true for all of them. None where a pass cannot tell.
        """
        ...

    def generate(
        self,
        model: Model,
        questions: Sequence[Sequence[int]],
        scheduled: int,
        *,
        max_new_tokens: int,
        explicit: bool = False,
        thoughts: int | None = None,
        on_token: Callable[[int], None] | None = None,
        on_thought: Callable[[Tensor], None] | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Decoded:
        """Greedy answers. Each question's ids end with its EOS. on_token sees each token of row 0.

        explicit: ask for the whole CoT; only where `answers_both_ways`. thoughts: so many and not the
        stage's; only where it `thinks`. on_thought sees the logits (V) of each continuous thought of row 0.
        """
        ...

    def stage(self, scheduled: int) -> int:
        """The stage after `scheduled` removals: min(scheduled, stages)."""
        ...

    def removed(self, scheduled: int) -> int:
        """Of the longest CoT, what is gone after `scheduled` removals: tokens, or steps by steps."""
        ...

    def gone(self, examples: Examples, scheduled: int) -> Tensor:
        """CoT tokens of each example that are gone after `scheduled` removals."""
        ...

    def configure(self, config: MethodConfig) -> None:
        """Take up settings that changed while the run trains."""
        ...

    def describe(self, stage: int) -> str:
        """The stage in words."""
        ...

    def resets(self, previous_cot_free: bool) -> bool:
        """Whether the optimiser starts anew when the removals grow, after a batch that was so."""
        ...

    def check(self, model: Model) -> None:
        """Raises ValueError with a sentence where this model cannot be taught so."""
        ...

    def enter(self, model: Model, before: int, after: int) -> None:
        """Change the model as `removed` goes from `before` to `after`, up or down. Most do nothing."""
        ...
