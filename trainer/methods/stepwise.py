"""Stepwise internalisation (ICoT-SI), with explicit CoT and no CoT as its two ends.

Loss: min −log P(answer, remaining CoT | question), the mean over all labels after the question's EOS.
After s removals an example with an m-token CoT loses min(s + o, m) of them, o its random offset: the
first ones (`side = "left"`) or the last ones. Source: paper, section 3; official code for the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.config import MethodConfig
from trainer.decode import greedy
from trainer.methods.base import Batch, Decoded, Examples, Losses, Model
from trainer.schedule import offset_distribution

IGNORED = -100


class Stepwise:
    """One token of CoT less at each stage. Explicit CoT and no CoT have one stage: all, or none, of it.

    separator_id: the token after which the answer begins. Raises ValueError where positions are to move
    with the tokens and the data do not allow it.
    """

    def __init__(
        self, config: MethodConfig, tokenizer: PreTrainedTokenizerBase, train: Examples, separator_id: int
    ) -> None:
        self.longest_cot = longest_cot = int(train.cot_N.max())
        self.moved_positions = _moved_positions(train) if config.move_positions else None
        self.stages = longest_cot if config.name == "stepwise" else 0
        self.always_removed = longest_cot if config.name == "no_cot" else 0
        self.side: Literal["left", "right"] = config.side
        self.eos_id: int = tokenizer.eos_token_id
        self.separator_id = separator_id
        self.configure(config)

    def configure(self, config: MethodConfig) -> None:
        """Take up the settings that may change while a run trains."""
        self.offsets = torch.tensor(offset_distribution(config.smoothing))
        self.smooth = config.name == "stepwise"
        self.reset_optimizer = config.reset_optimizer

    def stage(self, scheduled: int) -> int:
        return min(scheduled, self.stages)

    def removed(self, scheduled: int) -> int:
        return min(self.stage(scheduled) + self.always_removed, self.longest_cot)

    def describe(self, stage: int) -> str:
        if self.stages == 0:
            return "no CoT" if self.always_removed else "explicit CoT"
        if stage == self.stages:
            return f"all {self.stages} CoT tokens removed"
        return f"{stage} of {self.stages} CoT tokens removed"

    def resets(self, previous_cot_free: bool) -> bool:
        return self.reset_optimizer and not previous_cot_free

    def enter(self, model: Model, before: int, after: int) -> None:
        if self.moved_positions is not None:
            move_positions(model, self.moved_positions, after - before)

    def rows(self, examples: Examples, scheduled: int, generator: torch.Generator | None) -> Batch:
        removals_B = torch.full((len(examples),), self.removed(scheduled))
        if generator is not None and self.smooth:
            removals_B += torch.multinomial(self.offsets, len(examples), True, generator=generator)
        return remove(examples, removals_B, self.side, self.eos_id, width_removed=self.removed(scheduled))

    def loss(self, model: Model, batch: Batch) -> Losses:
        length = batch.input_ids_BT.shape[1]
        keep = torch.arange(batch.first, length - 1, device=batch.input_ids_BT.device)
        output = model(input_ids=batch.input_ids_BT, logits_to_keep=keep, use_cache=False)
        losses_BL = F.cross_entropy(
            output.logits.float().flatten(0, 1),
            batch.labels_BL.flatten(),
            ignore_index=IGNORED,
            reduction="none",
        ).view_as(batch.labels_BL)
        labelled_BL = batch.labels_BL != IGNORED
        answer_sum = (losses_BL * batch.answer_BL).sum()
        cot_sum = losses_BL.sum() - answer_sum
        answer_count = (labelled_BL & batch.answer_BL).sum()
        cot_count = labelled_BL.sum() - answer_count
        mean = (answer_sum + cot_sum) / (answer_count + cot_count)
        return Losses(mean, answer_sum.detach(), answer_count, cot_sum.detach(), cot_count)

    def generate(
        self,
        model: Model,
        questions: Sequence[Sequence[int]],
        scheduled: int,
        *,
        max_new_tokens: int,
        on_token: Callable[[int], None] | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Decoded:
        return greedy(
            model,
            questions,
            eos_id=self.eos_id,
            separator_id=self.separator_id,
            pad_id=self.eos_id,
            max_new_tokens=max_new_tokens,
            on_token=on_token,
            interrupted=interrupted,
        )


def _moved_positions(train: Examples) -> slice:
    """The positions from the question's EOS to the end of a row."""
    first = int(train.question_N.min()) - 1
    if first != int(train.question_N.max()) - 1:
        raise ValueError("method.move_positions needs questions of one length; these differ")
    return slice(first, int(train.length_N.max()))


def move_positions(model: Model, rows: slice, by: int) -> None:
    """Let the learned positions move with the tokens when `by` more are removed on the left.

    The paper's keep-position variant shifts position ids by the number removed, from the first EOS on.
    Rotating those rows of the position table does the same to every token of the stage and leaves
    position ids 0, 1, 2 … alone, so decoding, and anyone who loads the checkpoint, need know nothing of
    it. Only a random offset still moves what follows it. The rows turned out are turned in again when
    tokens are given back.
    """
    with torch.no_grad():
        table = model.base_model.wpe.weight
        table[rows] = table[rows].roll(-by, 0)


def remove(
    examples: Examples,
    removals_B: Tensor,
    side: Literal["left", "right"],
    pad_id: int,
    *,
    width_removed: int = 0,
) -> Batch:
    """Delete `removals_B` CoT tokens (at most all) of each row and make the batch of what is left.

    Left deletes right after the question's EOS, right deletes right before the CoT's EOS. Tensor
    operations only, without a look at any value on the device. Rows are padded to one width per stage:
    the longest row after `width_removed` removals, which an offset only shortens.

    removals_B: on the CPU. Shapes: B rows, T tokens, L = T − 1 − first labels.
    """
    removed_B = torch.minimum(removals_B, examples.cot_N)
    length_B = examples.length_N - removed_B
    width = int((examples.length_N - examples.cot_N.clamp(max=width_removed)).max())
    cut_B = examples.question_N + (0 if side == "left" else examples.cot_N - removed_B)

    column_T = torch.arange(width)
    source_BT = column_T + removed_B[:, None] * (column_T >= cut_B[:, None])
    real_BT = column_T < length_B[:, None]
    device = examples.ids_NT.device
    source_BT = source_BT.clamp(max=examples.ids_NT.shape[1] - 1).to(device)
    ids_BT = examples.ids_NT.gather(1, source_BT).long()
    input_ids_BT = torch.where(real_BT.to(device), ids_BT, pad_id)

    first = int(examples.question_N.min()) - 1
    target_T = column_T[first + 1 :]
    labelled_BL = real_BT[:, first + 1 :] & (target_T >= examples.question_N[:, None])
    labels_BL = torch.where(labelled_BL.to(device), input_ids_BT[:, first + 1 :], IGNORED)
    answer_BL = target_T >= (examples.question_N + examples.cot_N - removed_B)[:, None]
    cot_free = bool((removed_B == examples.cot_N).all())
    return Batch(input_ids_BT, labels_BL, answer_BL.to(device), first, int(length_B.sum()), cot_free)
