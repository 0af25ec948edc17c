"""Coconut: continuous thoughts in the place of reasoning steps; pause tokens there; nothing there.

    question <eos> <|start-latent|> <|latent|>×k·c <|end-latent|> remaining steps <eos> #### answer <eos>

At stage k the first k steps of a CoT are gone and k·c thoughts stand for them, also where there are fewer
steps. Beyond `max_latent_stage` all steps are gone, and the thoughts stay as many. The input at a thought is
the last hidden state before it (`thinking`); the loss is on what follows the thoughts. Source: "Training
Large Language Models to Reason in a Continuous Latent Space" (arXiv 2412.06769), section 3, and its code. The
layout is that of all methods here (`trainer.data.layout`), with EOS for Coconut's line breaks.

Ablations (section 4): `pause` puts a token's own embedding there, `no_thought` nothing, not even the markers;
without `curriculum` the last stage is there from the start.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.config import MethodConfig
from trainer.methods import losses, tokens
from trainer.methods.base import Batch, Decoded, Examples, Losses, Model
from trainer.methods.cross_entropy import IGNORED, plain_head
from trainer.methods.decode import greedy
from trainer.methods.thinking import Seen, Thinker, read_rows

NEEDED = ("inputs_embeds", "past_key_values")
"""What a model must take to be fed its own thoughts."""


@dataclass(frozen=True, slots=True)
class LatentBatch(Batch):
    """Rows with their first thoughts in one column: padded on the left up to it, on the right at the end.

    mask_BT: of real tokens, None where nothing is padded on the left. thoughts_B: continuous thoughts of
    each row. column: of the first. most: thoughts of any row, at most.
    """

    mask_BT: Tensor | None
    thoughts_B: Tensor
    column: int
    most: int


class Coconut:
    """A step of the CoT less at each stage, and thoughts for it. Pauses, or nothing, in their place.

    train: what the number of steps is taken from; may be empty where nothing is trained. separator_id: the
    token after which the answer begins.
    """

    answers_both_ways = False

    def __init__(
        self, config: MethodConfig, tokenizer: PreTrainedTokenizerBase, train: Examples, separator_id: int
    ) -> None:
        self.longest = int(train.steps.max()) if len(train) else 0
        self.last = config.max_latent_stage or self.longest
        self._all_gone = self.last if self.last >= self.longest else self.last + 1
        self._curriculum = config.curriculum
        self.stages = self._all_gone if config.curriculum else 0
        self.start = min(config.start_from, self.stages)
        self.per_step = 0 if config.no_thought else config.thoughts_per_step
        self._pad_to_max = config.pad_latent_to_max
        self.what: Literal["thoughts", "pauses"] = "pauses" if config.name == "pause" else "thoughts"
        self.eos_id: int = tokenizer.eos_token_id
        self.separator_id = separator_id
        ids = [tokenizer.get_vocab()[token] for token in tokens.added(config)]
        self.start_id: int | None = None
        self.end_id: int | None = None
        self.thought_id: int | None = None
        if ids:
            self.start_id, self.end_id, self.thought_id = ids
        self.feeds_back = config.name == "coconut" and not config.no_thought
        self.has_classifier = config.latent_end == "classifier"
        self.thinks = not config.no_thought
        self.one_pass = not self.feeds_back
        self.configure(config)

    def configure(self, config: MethodConfig) -> None:
        self._uniform_prob = config.uniform_prob
        self._reset_optimizer = config.reset_optimizer

    def stage(self, scheduled: int) -> int:
        return min(scheduled, self.stages)

    def removed(self, scheduled: int) -> int:
        stage = self._level(scheduled)
        return self.longest if stage == self._all_gone else stage

    def gone(self, examples: Examples, scheduled: int) -> Tensor:
        return self._gone(examples, torch.full((len(examples),), self._level(scheduled)))

    def describe(self, stage: int) -> str:
        gone, thoughts = self.removed(stage), self.thoughts(stage)
        some = f"all {gone}" if gone == self.longest else f"{gone} of {self.longest}"
        text = f"{some} steps are {self.what if self.per_step else 'gone'}"
        return text if thoughts in (0, gone) else f"{text} ({thoughts} {self.what})"

    def resets(self, previous_cot_free: bool) -> bool:
        return self._reset_optimizer

    def check(self, model: Model) -> None:
        if not self.feeds_back:
            return
        takes = inspect.signature(model.base_model.forward).parameters
        missing = [name for name in NEEDED if name not in takes]
        if missing:
            raise ValueError(
                f"a {model.config.model_type} model takes no {' and no '.join(missing)}, so it cannot be fed "
                'its own thoughts; method.name = "pause" or "stepwise" can teach it'
            )

    def enter(self, model: Model, before: int, after: int) -> None:
        pass

    def positions(self, examples: Examples) -> int:
        longest = 0
        for level in range(self._all_gone + 1):
            dropped_N = self._gone(examples, torch.full((len(examples),), level))
            own = min(level, self.last) * self.per_step + self._markers
            longest = max(longest, int((examples.length_N - dropped_N).max()) + own)
        return longest

    def rows(
        self,
        examples: Examples,
        scheduled: int,
        generator: torch.Generator | None,
        *,
        pretraining: bool = False,
    ) -> LatentBatch:
        level_B = torch.full((len(examples),), self._level(scheduled))
        if generator is not None and self._uniform_prob:
            elsewhere_B = torch.rand(len(examples), generator=generator) < self._uniform_prob
            share_B = torch.rand(len(examples), generator=generator)
            level_B = torch.where(elsewhere_B, (share_B * (examples.steps + 1)).long(), level_B)
        return self._put(examples, self._gone(examples, level_B), self._thoughts(examples, level_B))

    def loss(self, model: Model, batch: Batch, labels: Tensor | None = None) -> Losses:
        assert isinstance(batch, LatentBatch)
        seen = _read(model, batch)
        head_VD = plain_head(model)
        labelled = slice(batch.first, -1)
        if seen.logits_BTV is None:
            assert head_VD is not None
            result = losses.of_hidden(seen.hidden_BTD[:, labelled], head_VD, batch, labels)
        else:
            result = losses.of_logits(seen.logits_BTV[:, labelled], batch, labels)
        if not self.has_classifier:
            return result
        count = (batch.labels_BL != IGNORED).sum() if labels is None else labels
        return result._replace(mean=result.mean + self._ending(model, batch, seen.hidden_BTD) / count)

    def right(self, model: Model, batch: Batch) -> Tensor:
        assert isinstance(batch, LatentBatch)
        seen, labelled = _read(model, batch), slice(batch.first, -1)
        if seen.logits_BTV is None:
            logits_BLV = model.get_output_embeddings()(seen.hidden_BTD[:, labelled])
        else:
            logits_BLV = seen.logits_BTV[:, labelled]
        right_BL: Tensor = logits_BLV.max(-1).indices == batch.labels_BL
        return right_BL | (batch.labels_BL == IGNORED)

    def foretell(self, model: Model, examples: Examples, scheduled: int) -> None:
        """Thoughts take their passes one after the other, also where the truth is known: none is saved."""

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
        """As many thoughts as the stage has, also where the CoT has fewer steps: nobody knows while decoding.

        With the classifier at most as many; none more than asked for where `thoughts` says how many.
        """
        assert not explicit and (self.thinks or thoughts is None)
        most = self.thoughts(scheduled) if thoughts is None else thoughts
        asked, thinker = [self.prompt(question, most)[0] for question in questions], None
        if self.feeds_back:
            assert self.start_id is not None and self.end_id is not None and self.thought_id is not None
            ends = (self.end_id, self.thought_id) if self.has_classifier and thoughts is None else None
            asked = [[*question, self.start_id] for question in questions]
            thinker = Thinker(most, self.end_id, ends, on_thought)
        return greedy(
            model,
            asked,
            eos_id=self.eos_id,
            separator_id=self.separator_id,
            pad_id=self.eos_id,
            max_new_tokens=max_new_tokens,
            thinker=thinker,
            on_token=on_token,
            interrupted=interrupted,
        )

    def prompt(self, question: Sequence[int], most: int) -> tuple[list[int], int]:
        """A question's ids with so many thoughts, or pauses, between the markers; how many are fed back."""
        if self.start_id is None or self.end_id is None or self.thought_id is None:
            return list(question), 0
        ids = [*question, self.start_id, *[self.thought_id] * most, self.end_id]
        return ids, most if self.feeds_back else 0

    def thoughts(self, scheduled: int) -> int:
        """Thoughts, or pauses, before an answer at that stage; with the classifier at most."""
        return min(self._level(scheduled), self.last) * self.per_step

    def trained(self, scheduled: int) -> range:
        """For how many steps thoughts have stood in training, up to that stage."""
        if self._uniform_prob:
            return range(self.last + 1)
        most = min(self._level(scheduled), self.last)
        return range(min(self.start, most) if self._curriculum else most, most + 1)

    @property
    def _markers(self) -> int:
        return 0 if self.start_id is None else 2

    def _level(self, scheduled: int) -> int:
        """The stage that examples are at: the last from the start where there is no curriculum."""
        return self.stage(scheduled) if self._curriculum else self._all_gone

    def _gone(self, examples: Examples, level_N: Tensor) -> Tensor:
        """CoT tokens that are gone of each example at its stage."""
        return torch.where(level_N > self.last, examples.cot_N, examples.first_steps(level_N))

    def _thoughts(self, examples: Examples, level_N: Tensor) -> Tensor:
        """How many thoughts each example has at its stage, in training."""
        steps_N = examples.steps
        if self.has_classifier:
            return level_N.clamp(max=self.last).minimum(steps_N) * self.per_step
        most_N = torch.full_like(level_N, self.last) if self._pad_to_max else steps_N.clamp(max=self.last)
        return torch.where(level_N > self.last, most_N, level_N) * self.per_step

    def _put(self, examples: Examples, dropped_B: Tensor, thoughts_B: Tensor) -> LatentBatch:
        """Rows without their first `dropped_B` CoT tokens and with `thoughts_B` thoughts between the markers.

        Shapes: B rows, T columns, L = T − 1 − first labels. In `place_BT` a row counts its own tokens.
        """
        marker = self._markers // 2
        question_B, own_B = examples.question_N, thoughts_B + 2 * marker
        shift_B = torch.zeros_like(question_B)
        if self.feeds_back:
            shift_B = question_B.max() - question_B
        length_B = examples.length_N - dropped_B + own_B
        width = int((shift_B + length_B).max())
        place_BT = torch.arange(width) - shift_B[:, None]
        begin_B1, after_B1 = question_B[:, None], (question_B + own_B)[:, None]
        source_BT = torch.where(place_BT >= after_B1, place_BT - (own_B - dropped_B)[:, None], place_BT)
        ids_BT = examples.ids_NT.gather(1, source_BT.clamp(0, examples.ids_NT.shape[1] - 1)).long()
        if self.start_id is not None and self.end_id is not None and self.thought_id is not None:
            ids_BT = torch.where((place_BT >= begin_B1) & (place_BT < after_B1), self.thought_id, ids_BT)
            ids_BT = torch.where(place_BT == begin_B1, self.start_id, ids_BT)
            ids_BT = torch.where(place_BT == after_B1 - 1, self.end_id, ids_BT)
        real_BT = (place_BT >= 0) & (place_BT < length_B[:, None])
        input_ids_BT = torch.where(real_BT, ids_BT, self.eos_id)
        first = int((shift_B + question_B + own_B).min()) - 1
        target_BL = place_BT[:, first + 1 :]
        labelled_BL = real_BT[:, first + 1 :] & (target_BL >= after_B1)
        padded = bool(shift_B.any())
        return LatentBatch(
            input_ids_BT=input_ids_BT,
            position_ids_BT=torch.where(real_BT, place_BT, 0) if padded else None,
            labels_BL=torch.where(labelled_BL, input_ids_BT[:, first + 1 :], IGNORED),
            answer_BL=target_BL >= after_B1 + (examples.cot_N - dropped_B)[:, None],
            first=first,
            length_B=length_B,
            cot_free=bool((dropped_B == examples.cot_N).all()),
            mask_BT=(place_BT >= 0).long() if padded else None,
            thoughts_B=thoughts_B if self.feeds_back else torch.zeros_like(thoughts_B),
            column=int(question_B.max()) + marker,
            most=int(thoughts_B.max()) if self.feeds_back else 0,
        )

    def _ending(self, model: Model, batch: LatentBatch, hidden_BTD: Tensor) -> Tensor:
        """−log P of going on before each thought, and of ending after the last: a sum over all of them."""
        assert self.end_id is not None and self.thought_id is not None
        before = batch.column - 1
        hidden_BND = hidden_BTD[:, before : before + batch.most + 1]
        rows_2D = model.get_output_embeddings().weight[[self.end_id, self.thought_id]]
        logits_BN2 = (hidden_BND @ rows_2D.t().to(hidden_BND.dtype)).float()
        number_N = torch.arange(hidden_BND.shape[1], device=hidden_BND.device)
        goes_on_BN = (number_N < batch.thoughts_B[:, None]).long()
        losses_BN = F.cross_entropy(logits_BN2.transpose(1, 2), goes_on_BN, reduction="none")
        return (losses_BN * (number_N <= batch.thoughts_B[:, None])).sum()


def _read(model: Model, batch: LatentBatch) -> Seen:
    return read_rows(
        model,
        batch.input_ids_BT,
        batch.mask_BT,
        batch.position_ids_BT,
        batch.thoughts_B,
        batch.column,
        batch.most,
    )
