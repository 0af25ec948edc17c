"""Answers by weights that are laid out once are those of the model as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import small_pretrained
from trainer.computing.compute import Compute
from trainer.computing.packed import available
from trainer.models.model import quicken

pytestmark = pytest.mark.skipif(
    not available(), reason="this CPU or this build of torch has no bfloat16 products"
)


@pytest.mark.parametrize("make", [small_pretrained.gpt2, small_pretrained.llama])
def test_logits_are_the_same_and_follow_the_weights(make: Callable[[Path], Path], tmp_path: Path) -> None:
    model = quicken(AutoModelForCausalLM.from_pretrained(make(tmp_path / "model"))).eval()
    ids_BT = torch.randint(model.config.vocab_size, (3, 7))
    compute = Compute(precision="bfloat16")
    found = []
    for _ in range(2):
        with torch.no_grad(), compute.autocast(model.device):
            plain_BTV = model(ids_BT).logits
        with torch.no_grad(), compute.answering(model):
            packed_BTV = model(ids_BT).logits
        spread = plain_BTV.float().std()
        torch.testing.assert_close(
            packed_BTV.float(), plain_BTV.float(), rtol=2**-5, atol=float(spread) * 2**-4
        )
        found.append(packed_BTV)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.5)
    assert not torch.equal(*found)


def test_training_goes_on_with_the_model_as_it_was(tmp_path: Path) -> None:
    model = quicken(AutoModelForCausalLM.from_pretrained(small_pretrained.gpt2(tmp_path / "model")))
    with Compute(precision="bfloat16").answering(model), torch.no_grad():
        model(torch.tensor([[5, 6]]))
    assert not any("forward" in vars(layer) for layer in model.modules())
    model(torch.tensor([[5, 6]])).logits.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
