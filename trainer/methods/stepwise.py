"""Stepwise internalisation (ICoT-SI), with explicit CoT and no CoT as its two ends.

Loss: min −log P(answer, remaining CoT | question), the mean over all labels after the question's EOS.
After s removals an example with an m-token CoT loses min(s + o, m) of them, o its random offset: the
first ones (`side = "left"`) or the last ones. Source: paper, section 3; official code for the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer.config import MethodConfig
from trainer.methods import losses, tokens
from trainer.methods.base import Batch, Decoded, Examples, Losses, Model
from trainer.methods.cross_entropy import IGNORED, lead, plain_head
from trainer.methods.decode import greedy, split_answer
from trainer.pacing.schedule import offset_distribution


class Stepwise:
    """One token of CoT less at each stage. Explicit CoT and no CoT have one stage: all, or none, of it.

    With `unit = "step"` a stage is a step of the CoT less, and all that is counted in tokens of it below is
    counted in steps. train: what longest_cot and the lengths are taken from; may be empty where nothing is
    removed.
    separator_id: the token after which the answer begins. Raises ValueError where positions are to be
    kept or moved and the data do not allow it.
    """

    one_pass = True
    thinks = False

    def __init__(
        self, config: MethodConfig, tokenizer: PreTrainedTokenizerBase, train: Examples, separator_id: int
    ) -> None:
        self.by_step = config.unit == "step"
        lengths_N = train.steps if self.by_step else train.cot_N
        self.longest_cot = longest_cot = int(lengths_N.max()) if len(train) else 0
        self.moved_positions = _moved_positions(train) if config.move_positions else None
        self.keep_positions = config.keep_positions
        if config.keep_positions:
            _check_kept_positions(train)
        last = min(longest_cot, config.stop_at or config.remove_all_beyond or longest_cot)
        self.stages = last if config.name == "stepwise" else 0
        self.start = min(config.start_from, self.stages)
        self.most_removed = last if config.stop_at else longest_cot
        self.always_removed = longest_cot if config.name == "no_cot" else 0
        self.side: Literal["left", "right"] = config.side
        self.eos_id: int = tokenizer.eos_token_id
        self.separator_id = separator_id
        ids = {token: tokenizer.get_vocab()[token] for token in tokens.added(config)}
        self.filler_id = ids.get(tokens.FILLER)
        self.direct_id, self.explicit_id = ids.get(tokens.DIRECT), ids.get(tokens.EXPLICIT)
        self.answers_both_ways = self.direct_id is not None
        self.explicit_share = config.explicit_share
        self.configure(config)

    def configure(self, config: MethodConfig) -> None:
        """Take up the settings that may change while a run trains."""
        self.offsets = torch.tensor(offset_distribution(config.smoothing))
        self.smooth = config.name == "stepwise"
        self.reset_optimizer = config.reset_optimizer

    def stage(self, scheduled: int) -> int:
        return min(scheduled, self.stages)

    def removed(self, scheduled: int) -> int:
        stage = self.stage(scheduled)
        if stage == self.stages and stage:
            return self.most_removed
        return stage + self.always_removed

    def gone(self, examples: Examples, scheduled: int) -> Tensor:
        removed_N = torch.full((len(examples),), self.removed(scheduled))
        return examples.first_steps(removed_N) if self.by_step else removed_N.minimum(examples.cot_N)

    def describe(self, stage: int) -> str:
        if self.stages == 0:
            return "no CoT" if self.always_removed else "explicit CoT"
        removed, what = self.removed(stage), "steps" if self.by_step else "CoT tokens"
        if removed == self.longest_cot:
            return f"all {removed} {what} removed"
        return f"{removed} of {self.longest_cot} {what} removed"

    def resets(self, previous_cot_free: bool) -> bool:
        return self.reset_optimizer and not previous_cot_free

    def check(self, model: Model) -> None:
        if self.moved_positions is not None and not hasattr(model.base_model, "wpe"):
            raise ValueError(
                "method.move_positions needs a model with learned positions, as GPT-2 has; this is a "
                f"{model.config.model_type}"
            )

    def enter(self, model: Model, before: int, after: int) -> None:
        if self.moved_positions is not None:
            move_positions(model, self.moved_positions, after - before)

    def positions(self, examples: Examples) -> int:
        length_N = examples.length_N
        if self.filler_id is not None:
            length_N = length_N + (self.removed(self.stages) - examples.cot_N).clamp(min=0)
        return int(length_N.max()) + self.answers_both_ways

    def rows(
        self,
        examples: Examples,
        scheduled: int,
        generator: torch.Generator | None,
        *,
        pretraining: bool = False,
    ) -> Batch:
        planned_B = torch.full((len(examples),), self.removed(scheduled))
        removals_B = planned_B
        if generator is not None and self.smooth and not pretraining:
            offsets_B = torch.multinomial(self.offsets, len(examples), True, generator=generator)
            removals_B = removals_B + offsets_B
        if self.by_step:
            planned_B, removals_B = examples.first_steps(planned_B), examples.first_steps(removals_B)
        if self.direct_id is not None and self.explicit_id is not None:
            explicit_B = torch.zeros(len(examples), dtype=torch.bool)
            if generator is not None:
                explicit_B = torch.rand(len(examples), generator=generator) < self.explicit_share
            planned_B = torch.where(explicit_B, 0, planned_B)
            removals_B = torch.where(explicit_B, 0, removals_B)
            examples = with_control(examples, torch.where(explicit_B, self.explicit_id, self.direct_id))
        return remove(
            examples,
            removals_B,
            self.side,
            self.eos_id,
            planned_B=planned_B,
            filler_id=self.filler_id,
            keep_positions=self.keep_positions,
        )

    def loss(self, model: Model, batch: Batch, labels: Tensor | None = None) -> Losses:
        head_VD = plain_head(model)
        if head_VD is None:
            return losses.of_logits(_logits(model, batch), batch, labels)
        return losses.of_hidden(_hidden(model, batch), head_VD, batch, labels)

    def right(self, model: Model, batch: Batch) -> Tensor:
        likeliest_BL = _logits(model, batch).max(-1).indices
        return (likeliest_BL == batch.labels_BL) | (batch.labels_BL == IGNORED)

    def foretell(self, model: Model, examples: Examples, scheduled: int) -> tuple[Tensor, Decoded] | None:
        head_VD = plain_head(model)
        if head_VD is None:
            return None
        batch = self.rows(examples, scheduled, None)
        rows = [[id for id in row if id != IGNORED] for row in batch.labels_BL.tolist()]
        parts = [split_answer(row, self.eos_id, self.separator_id) for row in rows]
        batch = batch.to(model.device)
        hidden_ND = _hidden(model, batch).flatten(0, 1)
        ahead_N = lead(hidden_ND, head_VD, batch.labels_BL.flatten())
        sure_B = ahead_N.view_as(batch.labels_BL).all(1)
        return sure_B, Decoded([c for c, _ in parts], [a for _, a in parts], [len(row) for row in rows], 0.0)

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
        assert self.answers_both_ways or not explicit
        assert thoughts is None
        removed = 0 if explicit else self.removed(scheduled)
        asked = [list(question) for question in questions]
        if self.direct_id is not None and self.explicit_id is not None:
            control = self.explicit_id if explicit else self.direct_id
            asked = [[*question[:-1], control, question[-1]] for question in asked]
        if self.filler_id is not None:
            asked = [[*question, *[self.filler_id] * removed] for question in asked]
        return greedy(
            model,
            asked,
            eos_id=self.eos_id,
            separator_id=self.separator_id,
            pad_id=self.eos_id,
            max_new_tokens=max_new_tokens,
            # Kept positions jump at the token before the first removed one: the question's EOS, or the
            # last CoT token that is left.
            jump=removed if self.keep_positions else 0,
            jump_after=self.longest_cot - removed if self.side == "right" else 0,
            on_token=on_token,
            interrupted=interrupted,
        )


def _given(batch: Batch) -> dict[str, Any]:
    positions = {} if batch.position_ids_BT is None else {"position_ids": batch.position_ids_BT}
    return {"input_ids": batch.input_ids_BT, "use_cache": False, **positions}


def _hidden(model: Model, batch: Batch) -> Tensor:
    """The last hidden states at the labels only, B×L×D."""
    hidden_BTD: Tensor = model.base_model(**_given(batch)).last_hidden_state
    return hidden_BTD[:, batch.first : -1]


def _logits(model: Model, batch: Batch) -> Tensor:
    """At the labels only, B×L×V."""
    keep = torch.arange(batch.first, batch.input_ids_BT.shape[1] - 1, device=batch.labels_BL.device)
    logits_BLV: Tensor = model(logits_to_keep=keep, **_given(batch)).logits
    return logits_BLV


def _check_kept_positions(train: Examples) -> None:
    """While decoding nobody knows how long the CoT would have been, unless all are of one length."""
    if int(train.cot_N.min()) != int(train.cot_N.max()):
        raise ValueError(
            "method.keep_positions needs CoTs of one length, since decoding must know how many tokens are "
            f"gone; these have {int(train.cot_N.min())} to {int(train.cot_N.max())} tokens"
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


def with_control(examples: Examples, control_B: Tensor) -> Examples:
    """Each row with a token of its own before the EOS of its question, that of `control_B`."""
    ids_BT = examples.ids_NT
    column_T = torch.arange(ids_BT.shape[1] + 1)
    place_B1 = examples.question_N[:, None] - 1
    source_BT = (column_T - (column_T > place_B1).long()).clamp(max=ids_BT.shape[1] - 1)
    moved_BT = ids_BT.gather(1, source_BT).long()
    marked_BT = torch.where(column_T == place_B1, control_B[:, None], moved_BT)
    return replace(
        examples, ids_NT=marked_BT, question_N=examples.question_N + 1, length_N=examples.length_N + 1
    )


def remove(
    examples: Examples,
    removals_B: Tensor,
    side: Literal["left", "right"],
    pad_id: int,
    *,
    planned_B: Tensor | None = None,
    filler_id: int | None = None,
    keep_positions: bool = False,
) -> Batch:
    """Delete `removals_B` CoT tokens (at most all) of each row and make the batch of what is left.

    Left deletes right after the question's EOS, right deletes right before the CoT's EOS. Rows are
    padded to one width per stage: the longest row after `planned_B` removals, which an offset only shortens.

    filler_id: stands, on the left, where each removed token was; a CoT shorter than planned gets as many
    as a long one, since nobody knows its length while decoding. keep_positions: position ids stay as if
    nothing had been removed; they jump at the token before the first removed one (official code).

    planned_B: none when not given. Shapes: B rows, T tokens, L = T − 1 − first labels.
    """
    if planned_B is None:
        planned_B = torch.zeros_like(removals_B)
    removed_B = torch.minimum(removals_B, examples.cot_N)
    no_fillers_B = torch.zeros_like(removed_B)
    fillers_B = no_fillers_B if filler_id is None else torch.maximum(removed_B, planned_B)
    planned_fillers_B = no_fillers_B if filler_id is None else planned_B
    length_B = examples.length_N - removed_B + fillers_B
    width = int((examples.length_N - torch.minimum(planned_B, examples.cot_N) + planned_fillers_B).max())
    # An offset turns CoT tokens into fillers and leaves the length; where there is no CoT left, too.
    cut_B1 = (examples.question_N + (0 if side == "left" else examples.cot_N - removed_B))[:, None]
    end_B1 = cut_B1 + fillers_B[:, None]

    column_T = torch.arange(width)
    source_BT = column_T + (removed_B - fillers_B)[:, None] * (column_T >= end_B1)
    real_BT = column_T < length_B[:, None]
    source_BT = source_BT.clamp(0, examples.ids_NT.shape[1] - 1)
    ids_BT = examples.ids_NT.gather(1, source_BT).long()
    if filler_id is not None:
        ids_BT = torch.where((column_T >= cut_B1) & (column_T < end_B1), filler_id, ids_BT)
    input_ids_BT = torch.where(real_BT, ids_BT, pad_id)

    first = int((examples.question_N + planned_fillers_B).min()) - 1
    target_T = column_T[first + 1 :]
    after_question_B = examples.question_N + fillers_B
    labelled_BL = real_BT[:, first + 1 :] & (target_T >= after_question_B[:, None])
    labels_BL = torch.where(labelled_BL, input_ids_BT[:, first + 1 :], IGNORED)
    answer_BL = target_T >= (after_question_B + examples.cot_N - removed_B)[:, None]
    position_ids_BT = None
    if keep_positions:
        kept_BT = column_T + removed_B[:, None] * (column_T >= cut_B1 - 1)
        position_ids_BT = kept_BT.clamp(max=examples.ids_NT.shape[1] - 1)
    return Batch(
        input_ids_BT,
        position_ids_BT,
        labels_BL,
        answer_BL,
        first,
        length_B,
        cot_free=bool((removed_B == examples.cot_N).all()),
    )
