"""What training will take of a device's memory: the estimate, beside what torch then has, and the refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from tests.test_variants import run_of
from tests.tiny import tiny_config
from trainer import memory
from trainer.computing.compute import Compute
from trainer.computing.world import World
from trainer.events import Notice
from trainer.methods.base import Examples
from trainer.parts import assemble
from trainer.rank import Rank

WIDE = {"model__width": 64, "model__layers": 2, "data__train": 64, "optim__batch": 32}


class Tracker(MemTracker):
    """torch's, which asks each weight for its gradient; without that gradients count all the same."""

    def _track_module_params_and_buffers(self, module: Any, install_grad_hooks: bool = True) -> Any:
        return super()._track_module_params_and_buffers(module, install_grad_hooks=False)


@pytest.mark.parametrize(("again", "lora"), [(False, 0), (True, 0), (False, 2)])
def test_the_estimate_is_what_is_then_used(again: bool, lora: int) -> None:
    config = tiny_config(**WIDE, compute__activation_checkpointing=again, model__lora_rank=lora)
    parts = assemble(config)
    rank = Rank(config, parts, Compute(), World())
    batch = parts.method.rows(parts.splits["train"][:32], 0, None)
    estimated = memory.estimate(parts.method, parts.model, batch, config, parts=1)
    rank.update(1, 0, False)  # makes the moments
    tracker: Any = Tracker()
    tracker.track_external(parts.model, rank.updater.optimizer)
    with tracker:
        rank.update(1, 0, False)
    used = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert estimated.peak == pytest.approx(used, rel=0.15)
    trained = sum(p.numel() * p.element_size() for p in parts.model.parameters() if p.requires_grad)
    assert estimated.moments == 2 * estimated.gradients == 2 * trained
    assert trained < estimated.weights / 2 or not lora


def test_the_estimate_is_of_the_longest_examples_that_are_trained_on() -> None:
    length_N = torch.tensor([3, 9, 4, 30, 8])
    train = Examples(torch.zeros(5, 30), length_N, length_N, length_N)
    assert memory.longest(train, 2, None).length_N.tolist() == [30, 9]
    assert memory.longest(train, 2, 10).length_N.tolist() == [9, 8]


def test_activations_computed_again_are_the_same_and_take_less() -> None:
    seen = []
    for again in (False, True):
        config = tiny_config(**WIDE, compute__activation_checkpointing=again)
        parts = assemble(config)
        rank = Rank(config, parts, Compute(), World())
        batch = parts.method.rows(parts.splits["train"][:32], 0, None)
        kept = memory.estimate(parts.method, parts.model, batch, config, parts=1).activations
        rank.update(1, 0, False)
        seen.append((kept, [p.detach().clone() for p in parts.model.parameters()]))
    assert seen[1][0] < seen[0][0] / 2
    assert all(torch.equal(a, b) for a, b in zip(seen[0][1], seen[1][1], strict=True))


def test_what_is_told_counts_the_thoughts_of_the_last_stage(tmp_path: Path) -> None:
    told = []
    for count in (1, 20):
        taught = {"method__name": "coconut", "method__thoughts_per_step": count, "stop__steps": 1}
        events = run_of(tmp_path / str(count), **WIDE, **taught)
        [memory] = [e.message for e in events if isinstance(e, Notice) and e.message.startswith("memory of")]
        told.append(float(memory.split("activations of a batch ")[1].split(" MB")[0]))
    assert told[1] > 4 * told[0]


def test_what_cannot_fit_is_refused_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 50_000)
    with pytest.raises(ValueError, match=r"take .* free. The ways out: .*--gpus N.*model.dtype=bfloat16"):
        assemble(tiny_config(**WIDE))
    half = memory.least(assemble_quietly(), tiny_config(**WIDE, gpus=2, compute__parallel="fsdp"))
    alone = memory.least(assemble_quietly(), tiny_config(**WIDE))
    assert half.weights == alone.weights // 2


def test_a_spread_model_needs_room_for_all_its_weights_beside_the_shares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To answer with, and before it is spread: with many ranks that is most of what it takes."""
    deep = WIDE | {"model__layers": 8}
    alone, many = tiny_config(**deep), tiny_config(**deep, gpus=8, compute__parallel="fsdp")
    model = assemble(alone).model
    whole, shares = (memory.least(model, config) for config in (alone, many))
    wanted = whole.weights + whole.weights // 8 + whole.moments // 8
    assert shares.peak == wanted > shares.weights + shares.moments + shares.gradients + shares.passing
    assert "a whole copy to answer with" in str(shares) and "copy" not in str(whole)
    monkeypatch.setattr(memory, "available", lambda device: wanted - 1)
    with pytest.raises(ValueError, match=r"all weights to answer with, take .*The ways out: more GPUs"):
        memory.check(model, many, torch.device("cpu"))


def assemble_quietly() -> Any:
    """A model that is made where there is room."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "available", lambda device: 10**12)
        return assemble(tiny_config(**WIDE)).model
