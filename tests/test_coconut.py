"""Continuous thoughts: rows, passes with a cache against passes without, generation, training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.small_pretrained import FAMILIES
from trainer import methods
from trainer.config import MethodConfig
from trainer.cross_entropy import IGNORED
from trainer.data.layout import encode_lines, make_line, separator_id
from trainer.methods import tokens
from trainer.methods.base import Examples, Model
from trainer.methods.coconut import Coconut, LatentBatch
from trainer.model import quicken

LINES = [
    make_line("1 2 * 3 4", "1 + 2 = 3\n3 + 4\n5 * ( 6 )", "8 0 4 0"),
    make_line("1 * 3", "7 + 7\n8", "3"),
    make_line("9 9 * 3 4 * 5", "6 + 6", "1 2"),
    make_line("2 * 2 * 2", "2 + 2\n4 + 4\n8\n8 + 0", "8"),
]


class Made:
    """A tiny model of a family with the tokens of a method, and the examples."""

    def __init__(self, folder: Path, family: str, config: MethodConfig) -> None:
        FAMILIES[family](folder, 96)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.add_tokens(tokens.added(config), special_tokens=True)
        torch.manual_seed(0)
        self.model: Model = AutoModelForCausalLM.from_pretrained(folder)
        self.model.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        for parameter in self.model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        self.examples: Examples = encode_lines(LINES, self.tokenizer)
        method = methods.build(config, self.tokenizer, self.examples, separator_id(self.tokenizer))
        assert isinstance(method, Coconut)
        self.method = method


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Made]:
    return lambda family="gpt2", **fields: Made(tmp_path, family, MethodConfig(name="coconut", **fields))


def naive(model: Model, batch: LatentBatch) -> Tensor:
    """The loss by whole passes without a cache, one after the other, each row on its own and unpadded."""
    total, count = torch.zeros(()), 0
    width = batch.input_ids_BT.shape[1]
    for row, thoughts in enumerate(batch.thoughts_B.tolist()):
        start = 0 if batch.mask_BT is None else int((batch.mask_BT[row] == 0).sum())
        ids_T = batch.input_ids_BT[row, start : start + int(batch.length_B[row])]
        embeddings_TD = model.get_input_embeddings()(ids_T)
        for number in range(thoughts):
            place = batch.column - start + number
            hidden_TD = model.base_model(inputs_embeds=embeddings_TD[None, :place], use_cache=False)[0][0]
            embeddings_TD = torch.cat([embeddings_TD[:place], hidden_TD[-1:], embeddings_TD[place + 1 :]])
        logits_TV = model(inputs_embeds=embeddings_TD[None], use_cache=False).logits[0]
        labels_T = torch.full((width,), IGNORED)
        labels_T[batch.first + 1 :] = batch.labels_BL[row]
        labels_T = labels_T[start + 1 : start + len(ids_T)]
        total = total + F.cross_entropy(logits_TV[:-1], labels_T, ignore_index=IGNORED, reduction="sum")
        count += int((labels_T != IGNORED).sum())
    return total / count


def gradients(model: Model, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_cached_passes_are_the_naive_ones(family: str, made: Callable[..., Made]) -> None:
    own = made(family, thoughts_per_step=2, max_latent_stage=3, pad_latent_to_max=False, uniform_prob=0.9)
    model = quicken(own.model).eval()
    chance = torch.Generator().manual_seed(3)
    batch = own.method.rows(own.examples, 2, chance)
    assert len(set(batch.thoughts_B.tolist())) > 2
    assert batch.mask_BT is not None
    one, other = own.method.loss(model, batch).mean, naive(model, batch)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    ours, theirs = gradients(model, one), gradients(model, other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5, msg=name)
