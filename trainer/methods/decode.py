"""Greedy generation with a key-value cache, many questions at once; for evaluation and for the chat.

The official code samples in its evaluation since 2025-01; we decode greedily, so accuracy is a function
of the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from trainer.methods.base import Decoded, Model
from trainer.methods.thinking import Thinker

ENDS = 2  # a whole answer has two EOS: the CoT's and its own


def greedy(
    model: Model,
    questions: Sequence[Sequence[int]],
    *,
    eos_id: int,
    separator_id: int,
    pad_id: int,
    max_new_tokens: int,
    jump: int = 0,
    jump_after: int = 0,
    thinker: Thinker | None = None,
    on_token: Callable[[int], None] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Decoded:
    """What the model writes to each question, by the likeliest token each time.

    questions: token ids, each ending with its EOS; they may differ in length. It ends when every row has
    its two EOS, after `max_new_tokens`, where the model's positions end, or when `interrupted`, with
    what is there by then. Position ids jump by `jump` at the token `jump_after` places after the last of
    the question. thinker: thinks before it writes. on_token sees each token of row 0. The model's mode
    (training or not) is as before afterwards, and no random number is drawn.
    """
    started = time.perf_counter()
    if not questions:
        return Decoded([], [], [], 0.0)
    input_ids_BT, mask_BT = _left_padded(questions, pad_id, model.device)
    room: int = model.config.max_position_embeddings - jump - input_ids_BT.shape[1]
    cache = DynamicCache(config=model.config)
    written: list[Tensor] = []
    ends_B = torch.zeros(len(questions), dtype=torch.long, device=model.device)
    thoughts_B = torch.zeros_like(ends_B)
    with inference(model):
        if thinker is not None:
            thinker = thinker._replace(most=max(0, min(thinker.most, room - 1)))
            mask_BT, thoughts_B = thinker.think(model, input_ids_BT, mask_BT, cache, interrupted)
            room -= 1 + thinker.most
            input_ids_BT = torch.full_like(input_ids_BT[:, :1], thinker.end_id)
            mask_BT = torch.cat([mask_BT, torch.ones_like(input_ids_BT)], 1)
        steps = min(max_new_tokens, room)
        place_BT = mask_BT.cumsum(1).sub(1).clamp(min=0)[:, -input_ids_BT.shape[1] :]
        jump_B1 = place_BT[:, -1:] + jump_after
        padded = not bool(mask_BT.all())
        for _ in range(steps):
            if interrupted():
                break
            logits_BLV = model(
                input_ids=input_ids_BT,
                attention_mask=mask_BT
                if padded or jump
                else None,  # without one, attention takes its fast path
                position_ids=place_BT + jump * (place_BT >= jump_B1),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            next_B = torch.where(ends_B < ENDS, logits_BLV[:, -1].max(-1).indices, pad_id)
            if on_token is not None and int(ends_B[0]) < ENDS:
                on_token(int(next_B[0]))
            written.append(next_B)
            ends_B += (next_B == eos_id) & (ends_B < ENDS)
            if bool((ends_B == ENDS).all()):
                break
            input_ids_BT, place_BT = next_B[:, None], place_BT[:, -1:] + 1
            mask_BT = torch.cat([mask_BT, torch.ones_like(input_ids_BT)], dim=1)
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in questions]
    rows = [_until_second_end(row, eos_id) for row in rows]
    parts = [split_answer(row, eos_id, separator_id) for row in rows]
    return Decoded(
        cot=[cot for cot, _ in parts],
        answer=[answer for _, answer in parts],
        tokens=[len(row) + thoughts for row, thoughts in zip(rows, thoughts_B.tolist(), strict=True)],
        seconds=time.perf_counter() - started,
        thoughts=int(thoughts_B.sum()),
    )


def split_answer(ids: Sequence[int], eos_id: int, separator_id: int) -> tuple[list[int], list[int]]:
    """CoT and answer of what a model wrote, however malformed.

    The answer is what follows the first #### up to the next EOS; without one there is none, as in the
    paper, and all that was written counts as CoT.
    """
    if separator_id not in ids:
        return [id for id in ids if id != eos_id], []
    at = ids.index(separator_id)
    return _until(ids[:at], eos_id), _until(ids[at + 1 :], eos_id)


def token_texts(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Each token as text without its leading blank; a token that is all blank stays one."""
    return tuple(str(tokenizer.decode([id])).strip() or " " for id in ids)


def _left_padded(
    questions: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Questions flush right, so that all rows write at the same column, and the mask of real tokens."""
    width = max(map(len, questions))
    ids_BT = torch.tensor([[pad_id] * (width - len(q)) + list(q) for q in questions], device=device)
    padding_B = torch.tensor([width - len(q) for q in questions], device=device)
    return ids_BT, (torch.arange(width, device=device) >= padding_B[:, None]).long()


@contextmanager
def inference(model: Model) -> Iterator[None]:
    """No dropout and no gradients; the model's mode is as before afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _until(ids: Sequence[int], stop: int) -> list[int]:
    return list(ids[: ids.index(stop)] if stop in ids else ids)


def _until_second_end(row: list[int], eos_id: int) -> list[int]:
    """A row without what was padded after it ended."""
    ends = [place for place, id in enumerate(row) if id == eos_id]
    return row[: ends[ENDS - 1] + 1] if len(ends) >= ENDS else row
