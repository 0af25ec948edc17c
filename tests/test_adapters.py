"""Adapters (LoRA) in the place of weights: what is trained, that a run with them resumes bit by bit, and that
what it leaves needs nothing but transformers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.driven import FOREVER, Driven
from tests.small_pretrained import FAMILIES
from tests.test_families import config, train, weights
from tests.tiny import tiny_config
from trainer.analysis.metrics import rows
from trainer.asking.inspection import ask, evaluate_checkpoint, open_checkpoint
from trainer.config import ConfigError
from trainer.events import ChatAnswered, Evaluated, ExamplesShown, Metrics, StateChanged
from trainer.exporting import export
from trainer.methods.cross_entropy import linear_cross_entropy
from trainer.models import adapters
from trainer.parts import assemble
from trainer.saving import checkpoint
from trainer.saving.checkpoint import CheckpointError
from trainer.training import RunError

LORA: dict[str, Any] = {"model__lora_rank": 4, "model__vocab": "full"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_trained_beside_weights_that_stay_and_become_part_of_them(
    family: str, dtype: str, tmp_path: Path
) -> None:
    init = FAMILIES[family](tmp_path, positions=64)
    parts = assemble(config(init, model__dtype=dtype, model__dropout=0.0, **LORA))
    model, batch = parts.model, parts.method.rows(parts.splits["train"], 0, None)
    before = {name: tensor.clone() for name, tensor in adapters.merged(model)}
    plain = AutoModelForCausalLM.from_pretrained(init, dtype=getattr(torch, dtype)).eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in plain.state_dict().items())

    own = adapters.trained(model)
    assert {p.dtype for name, p in own.items() if "lora" in name} == {torch.float32}
    whole = {name for name in own if "lora" not in name}
    assert whole == ({"transformer.wpe.weight"} if family == "gpt2" else set())
    optimizer = torch.optim.AdamW(own.values(), lr=0.02)
    losses = []
    for _ in range(5):
        loss = parts.method.loss(model, batch).mean
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is None for name, p in model.named_parameters() if name not in own)

    merged = dict(adapters.merged(model))
    moved = {name for name, tensor in merged.items() if not torch.equal(tensor, before[name])}
    blocks = {name for name, p in plain.named_parameters() if p.ndim == 2 and ".embed" not in name}
    assert moved == blocks - {"transformer.wte.weight", "lm_head.weight"}
    plain.load_state_dict(merged)
    ids = batch.input_ids_BT[:4]
    with torch.no_grad():
        close = 1e-4 if dtype == "float32" else 0.1
        assert (plain(ids).logits - model.eval()(ids).logits).abs().max() < close


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_resumed_run_is_the_one_that_never_stopped_and_what_it_leaves_is_plain(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = FAMILIES[family](tmp_path / "pretrained", positions=16)  # too few: GPT-2's table is lengthened
    chosen = config(init, **LORA)
    events, never_stopped = train(chosen, tmp_path / "whole")
    train(config(init, **LORA, stop__steps=3), tmp_path / "halves")
    (init / "model.safetensors").unlink()  # the run has its own base
    again, resumed = train(chosen, tmp_path / "halves", resume=True)
    for file in (checkpoint.ADAPTERS, checkpoint.OPTIMIZER, "model/model.safetensors"):
        ours, theirs = load_file(never_stopped / file), load_file(resumed / file)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    losses = [event.loss for event in events if isinstance(event, Metrics)]
    assert losses[3:] == [event.loss for event in again if isinstance(event, Metrics)] and len(losses) == 6
    assert load_file(resumed / checkpoint.OPTIMIZER).keys() == {
        f"{i}.{slot}"
        for i in range(len(load_file(resumed / checkpoint.ADAPTERS)))
        for slot in ("exp_avg", "exp_avg_sq", "step")
    }

    # Nobody who reads it needs peft.
    monkeypatch.setitem(sys.modules, "peft", None)
    assert not [name for name in weights(resumed) if "lora" in name or "base_layer" in name]
    loaded = open_checkpoint(str(tmp_path / "halves"), None, tmp_path)
    report, measured = evaluate_checkpoint(loaded), [e for e in events if isinstance(e, Evaluated)][-1]
    assert (report.accuracy, report.token_accuracy) == (measured.accuracy, measured.token_accuracy)
    assert ask(loaded, "12*34").answer is not None
    export.export(str(tmp_path / "halves"), tmp_path / "out", id=None, out=tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    test = loaded.parts.splits["test"]
    shown = [event for event in events if isinstance(event, ExamplesShown)][-1].examples
    for i, example in enumerate(shown):
        ids = test.ids_NT[i : i + 1, : int(test.question_N[i])].long()
        written = model.generate(ids, attention_mask=torch.ones_like(ids))[0, ids.shape[1] :]
        answer = tokenizer.decode(written).partition("####")[2].partition(tokenizer.eos_token)[0]
        assert example.given.split() == answer.split()


def steps(one: Driven, last: int, branch: int = 1) -> None:
    """Train up to a step, and pause there."""
    here = [e.at.step for e in one.all(Metrics) if e.at.branch == branch]
    assert one.do(f"run {last - max(here, default=0 if branch == 1 else 15)}").ok
    one.until(StateChanged, lambda e: e.state == "paused" and (e.at.step, e.at.branch) == (last, branch))


def test_a_steered_run_with_them(driven: Callable[..., Driven]) -> None:
    """From scratch, where tables are trained whole; positions move, and stages begin with a new optimiser."""
    lora = {"model__lora_rank": 2, "model__lora_alpha": 2, "method__move_positions": True}
    one = driven("run", paused=True, **FOREVER, **lora, log__every=1, schedule__steps_per_token=3)
    steps(one, 12)
    assert one.do("ask 12*34").ok and one.until(ChatAnswered).answer is not None
    steps(one, 15)
    saved = one.do("save").message.removeprefix("saved ")
    steps(one, 17)
    assert one.do(f"rollback {saved} --seed replay").ok
    steps(one, 17, branch=2)
    assert one.do("evaluate").ok
    losses: dict[int, list[float]] = {}
    for event in one.all(Metrics):
        losses.setdefault(event.at.step, []).append(event.loss)
    twice = {step: said for step, said in losses.items() if len(said) > 1}
    assert len(twice) == 2 and all(first == second for first, second in twice.values())
    one.run.close()

    base = checkpoint.base_folder(one.run.folder)
    checkpoint.verify(base)
    own = load_file(one.run.folder / checkpoint.FOLDER / saved / checkpoint.ADAPTERS)
    whole = {name for name in own if "lora" not in name}
    assert whole == {"transformer.wte.weight", "transformer.wpe.weight"}
    assert len(list(rows(one.run.folder))) > 10

    refused = tiny_config(**FOREVER, **lora | {"model__lora_rank": 3})
    with pytest.raises((RunError, CheckpointError), match=r"other adapters than model\.lora_rank"):
        Driven(refused, one.run.folder, resume=True)
    (base / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises((RunError, CheckpointError), match=r"base: model\.safetensors is damaged"):
        Driven(tiny_config(**FOREVER, **lora), one.run.folder, resume=True)


def test_what_cannot_be_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"model.lora_rank = 4 trains adapters .*compute.parallel=ddp"):
        tiny_config(model__lora_rank=4, gpus=2, compute__parallel="fsdp")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"model.lora_rank = 4 needs peft: pip .*stepwise-tui\[lora\]"):
        assemble(tiny_config(model__lora_rank=4))


def test_a_head_that_stays_costs_no_gradient_and_changes_none() -> None:
    hidden, head = torch.randn(300, 8), torch.randn(20, 8)
    labels = torch.randint(0, 20, (300,))
    gradients = []
    for learns in (True, False):
        rows_, weight = hidden.clone().requires_grad_(), head.clone().requires_grad_(learns)
        linear_cross_entropy(rows_, weight, labels)[0].backward()
        gradients.append(rows_.grad)
        assert (weight.grad is not None) == learns
    assert torch.equal(gradients[0], gradients[1])


FETCHING = """
import sys, types
from trainer import presets
from trainer.parts import assemble

kernels = types.ModuleType("kernels")
kernels.get_kernel = lambda *asked, **more: print("fetched", *asked)
sys.modules["kernels"] = kernels
assemble(presets.resolve("mult2x2", {"model.lora_rank": 4, "data.train": 64, "device": "cpu"}))
assert sys.modules["kernels"] is kernels
"""


def test_no_code_is_fetched_for_adapters_and_nobody_is_told_to_install_what_does() -> None:
    """`peft` imports `bitsandbytes` where there is one, which asks `kernels` on CPUs that have bf16."""
    said = subprocess.run([sys.executable, "-c", FETCHING], capture_output=True, text=True, check=True)
    assert "fetched" not in said.stdout
    assert "kernels" not in said.stderr
