"""Moments in 8 bits: a run resumes with them bit by bit, what it leaves out, and its refusals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.test_families import train, weights
from tests.tiny import tiny_config
from trainer import memory
from trainer.computing.compute import Compute
from trainer.computing.world import World
from trainer.config import ConfigError
from trainer.events import Metrics, StageEntered
from trainer.parts import assemble
from trainer.rank import Rank
from trainer.saving import checkpoint
from trainer.saving.checkpoint import CheckpointError

EIGHT: dict[str, Any] = {"model__width": 64, "optim__moments": "8bit", "log__every": 1}


def test_a_resumed_run_is_the_one_that_never_stopped(tmp_path: Path) -> None:
    """Over two removals, each with a new optimiser, and stopped amid the second stage."""
    events, never_stopped = train(tiny_config(**EIGHT, stop__steps=17), tmp_path / "whole")
    assert len([event for event in events if isinstance(event, StageEntered)]) > 1
    train(tiny_config(**EIGHT, stop__steps=13), tmp_path / "halves")
    again, resumed = train(tiny_config(**EIGHT, stop__steps=17), tmp_path / "halves", resume=True)
    for a, b in (
        (weights(never_stopped), weights(resumed)),
        (load_file(never_stopped / checkpoint.OPTIMIZER), load_file(resumed / checkpoint.OPTIMIZER)),
    ):
        assert a.keys() == b.keys()
        assert [name for name in a if not torch.equal(a[name], b[name])] == []
    losses = [event.loss for event in events if isinstance(event, Metrics)]
    assert losses[13:] == [event.loss for event in again if isinstance(event, Metrics)]
    assert losses[-1] < losses[0]

    saved = load_file(resumed / checkpoint.OPTIMIZER)
    states = {name: tensor for name, tensor in saved.items() if name.endswith((".state1", ".state2"))}
    large = [t for t in weights(resumed).values() if t.numel() >= 4_096]
    assert sum(t.dtype == torch.uint8 for t in states.values()) == 2 * len(large)
    config = tiny_config(**EIGHT)
    told = memory.least(assemble(config).model, config).moments
    scales = {name: tensor for name, tensor in saved.items() if ".absmax" in name}
    assert told == sum(tensor.nbytes for tensor in (states | scales).values())

    full = tiny_config(**EIGHT | {"optim__moments": "full"})
    rank = Rank(full, assemble(full), Compute(), World())
    before = [parameter.detach().clone() for parameter in rank.model.parameters()]
    with pytest.raises(CheckpointError, match=r"moments are not of the kind that optim\.moments says"):
        rank.restore(resumed, 17, 3)
    assert all(map(torch.equal, before, rank.model.parameters()))


def test_an_update_that_is_not_finite_is_left_out() -> None:
    config = tiny_config(**EIGHT)
    rank = Rank(config, assemble(config), Compute(), World())
    rank.update(1, 0, 0)
    (first, *others) = rank.model.parameters()
    with torch.no_grad():
        first[0] = torch.nan
    before = [parameter.detach().clone() for parameter in others]
    moments = checkpoint.copied(rank.model, rank.updater.optimizer).moments
    stepped = rank.update(1, 0, 0)
    assert stepped.applied is not None and not stepped.applied.finite
    assert all(map(torch.equal, before, others))
    after = checkpoint.copied(rank.model, rank.updater.optimizer).moments
    assert moments and all(torch.equal(moments[name], after[name]) for name in moments)


def test_what_cannot_be_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"8 bits are of whole weights: --set compute\.parallel=ddp"):
        tiny_config(**EIGHT, gpus=2, compute__parallel="fsdp")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r'"8bit" needs bitsandbytes: pip .*stepwise-tui\[memory\]'):
        assemble(tiny_config(**EIGHT))
