"""Passes of a model that is fed its own last hidden states: continuous thoughts, with a cache (Coconut).

The input of thought i is the last hidden state, after the final norm, at the place before it: so n thoughts
take n + 1 passes. What comes before the first goes through the model once, each thought but the last is a
pass of one column, and the last goes together with all that follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from trainer.methods.base import Model
from trainer.methods.cross_entropy import plain_head


class Seen(NamedTuple):
    """What passes gave. hidden_BTD: last hidden states. logits_BTV: only of a head that is not plain."""

    hidden_BTD: Tensor
    logits_BTV: Tensor | None


def read_rows(
    model: Model,
    input_ids_BT: Tensor,
    mask_BT: Tensor | None,
    position_ids_BT: Tensor | None,
    thoughts_B: Tensor,
    column: int,
    most: int,
) -> Seen:
    """All columns of rows whose first thoughts stand in `column`; row i has `thoughts_B[i]` of them.

    most: of any row, at least. mask_BT: of real tokens, where rows are padded on the left. The gradient
    flows back through the thoughts and the cache.
    """
    embeddings_BTD = model.get_input_embeddings()(input_ids_BT)
    plain = plain_head(model) is not None
    cache = DynamicCache(config=model.config) if most else None
    width = input_ids_BT.shape[1]
    bounds = [0, *(column + number for number in range(most)), width]
    hidden: list[Tensor] = []
    logits: list[Tensor] = []
    for number, (start, end) in enumerate(pairwise(bounds)):
        columns_BCD = embeddings_BTD[:, start:end]
        if number:
            thought_B11 = (thoughts_B >= number)[:, None, None]
            last_B1D = hidden[-1][:, -1:].to(columns_BCD.dtype)
            first_B1D = torch.where(thought_B11, last_B1D, columns_BCD[:, :1])
            columns_BCD = torch.cat([first_B1D, columns_BCD[:, 1:]], 1)
        seen = _pass(
            model,
            plain,
            inputs_embeds=columns_BCD,
            attention_mask=None if mask_BT is None else mask_BT[:, :end],
            position_ids=None if position_ids_BT is None else position_ids_BT[:, start:end],
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden.append(seen.hidden_BTD)
        if seen.logits_BTV is not None:
            logits.append(seen.logits_BTV)
    return Seen(torch.cat(hidden, 1), torch.cat(logits, 1) if logits else None)


class Thinker(NamedTuple):
    """How questions are thought about before they are answered.

    most: thoughts. end_id: the token that follows the last. ends: the ids of "end" and "on", whose rows of
    the head say after each thought whether it was the last; None where `most` says it. on_thought sees the
    logits of each thought of row 0, as if it were to be spoken.
    """

    most: int
    end_id: int
    ends: tuple[int, int] | None = None
    on_thought: Callable[[Tensor], None] | None = None

    def think(
        self,
        model: Model,
        input_ids_BT: Tensor,
        mask_BT: Tensor,
        cache: DynamicCache,
        interrupted: Callable[[], bool],
    ) -> tuple[Tensor, Tensor]:
        """Read the questions and think, all into the cache: the mask of its columns, and how often each
        row thought. A row that has ended waits, behind its mask, for the others."""
        place_BT = mask_BT.cumsum(1).sub(1).clamp(min=0)
        head = model.get_output_embeddings()

        def read(columns: dict[str, Tensor], place_BC: Tensor) -> Tensor:
            hidden_BCD: Tensor = model.base_model(
                **columns,
                attention_mask=None if bool(mask_BT.all()) else mask_BT,
                position_ids=place_BC,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            return hidden_BCD[:, -1:]

        last_B1D = read({"input_ids": input_ids_BT}, place_BT)
        place_B1 = place_BT[:, -1:]
        thinks_B = torch.ones(len(input_ids_BT), dtype=torch.bool, device=model.device)
        count_B = torch.zeros_like(thinks_B, dtype=torch.long)
        for _ in range(self.most):
            if interrupted():
                break
            if self.ends is not None:
                end_BV, on_BV = (head(last_B1D)[:, 0, id] for id in self.ends)
                thinks_B = thinks_B & (end_BV <= on_BV)
                if not bool(thinks_B.any()):
                    break
            if self.on_thought is not None and bool(thinks_B[0]):
                self.on_thought(head(last_B1D[:1])[0, 0])
            count_B += thinks_B
            place_B1 = place_B1 + thinks_B[:, None]
            mask_BT = torch.cat([mask_BT, thinks_B[:, None].long()], 1)
            new_B1D = read({"inputs_embeds": last_B1D.to(model.dtype)}, place_B1)
            last_B1D = torch.where(thinks_B[:, None, None], new_B1D, last_B1D)
        return mask_BT, count_B


def _pass(model: Model, plain: bool, **given: Any) -> Seen:
    if plain:
        return Seen(model.base_model(**given).last_hidden_state, None)
    output = model(**given, output_hidden_states=True)
    return Seen(output.hidden_states[-1], output.logits)
