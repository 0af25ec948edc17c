"""Checkpoints: whole or absent, verified, and loaded by plain transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import tiny_config
from trainer.computing.compute import Compute
from trainer.pacing.gate import Gate
from trainer.parts import Parts, assemble
from trainer.saving import checkpoint
from trainer.saving.checkpoint import CheckpointError, TrainState

STATE = TrainState(
    step=120, branch=2, stage=3, cause="manual", stream=2, scheduled=3, counter=20,
    updates=20, cot_free=False,
    seconds=1.5, seq=40, during="", accuracy=0.25, meter=[0.5] * 9, evaluation_owed=False,
    gate=Gate(0.5, (0.25,)).state(), watch={}, compute=Compute(threads=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def parts() -> Parts:
    return assemble(tiny_config())


def save(run: Path, state: TrainState, parts: Parts, optimizer: torch.optim.Optimizer) -> tuple[str, int]:
    """Write a checkpoint at once; its id and its size."""
    tensors = checkpoint.copied(parts.model, optimizer)
    snapshot = checkpoint.Snapshot(state, parts.model, parts.tokenizer, tensors)
    return snapshot.id, checkpoint.write(run, snapshot)


def trained(parts: Parts) -> torch.optim.AdamW:
    """An optimiser with moments."""
    optimizer = torch.optim.AdamW(parts.model.parameters(), lr=1e-3, fused=True)
    batch = parts.method.rows(parts.splits["train"][:8], 0, None)
    parts.method.loss(parts.model, batch).mean.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


@pytest.fixture
def saved(tmp_path: Path, parts: Parts) -> Path:
    id, size = save(tmp_path, STATE, parts, trained(parts))
    path = tmp_path / checkpoint.FOLDER / id
    assert id == "b2-s000120-stage3-manual"
    assert size == sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path


def test_everything_comes_back(saved: Path, parts: Parts) -> None:
    checkpoint.verify(saved)
    assert checkpoint.load_state(saved) == STATE
    other = assemble(tiny_config(seed=5))
    checkpoint.put_weights(checkpoint.read_weights(saved, other.model), other.model)
    for name, tensor in parts.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    old = trained(parts)
    fresh = torch.optim.AdamW(parts.model.parameters(), lr=1e-3, fused=True)
    save(saved.parent.parent, STATE, parts, old)
    checkpoint.load_optimizer(saved, fresh)
    assert fresh.state_dict()["state"].keys() == old.state_dict()["state"].keys()
    assert all("exp_avg_sq" in slots for slots in fresh.state_dict()["state"].values())
    (ref,) = checkpoint.list_checkpoints(saved.parent.parent)
    assert ref == STATE.ref(saved.name, checkpoint.size(saved))


def test_plain_transformers_loads_it_and_it_has_no_end_token_of_its_own(saved: Path, parts: Parts) -> None:
    model = AutoModelForCausalLM.from_pretrained(saved / "model")
    tokenizer = AutoTokenizer.from_pretrained(saved / "model")
    assert model.generation_config.eos_token_id is None
    assert model.generation_config.max_new_tokens > 0
    ids = tokenizer(f" 2 1 * 4 3 {tokenizer.eos_token}", return_tensors="pt")["input_ids"]
    assert ids.tolist() == parts.splits["train"].ids_NT[:0].tolist() or ids.shape == (1, 7)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_one_flipped_byte_anywhere_is_found(saved: Path, data: st.DataObject) -> None:
    files = sorted(p for p in saved.rglob("*") if p.is_file() and p.stat().st_size)
    victim = data.draw(st.sampled_from(files))
    content = victim.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    bit = data.draw(st.integers(0, 7))
    victim.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
    try:
        with pytest.raises(CheckpointError):
            checkpoint.verify(saved)
    finally:
        victim.write_bytes(content)
    checkpoint.verify(saved)


@pytest.mark.parametrize("lost", ["manifest.json", "state.json", "model/model.safetensors"])
def test_a_missing_file_is_named(saved: Path, lost: str) -> None:
    (saved / lost).unlink()
    with pytest.raises(CheckpointError, match=Path(lost).name):
        checkpoint.verify(saved)


@pytest.mark.parametrize("manifest", ["", "[]", '{"x": 1}', '{"x": {"size": "a", "sha256": ""}}'])
def test_a_manifest_of_nonsense_is_no_checkpoint(saved: Path, manifest: str) -> None:
    (saved / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError):
        checkpoint.verify(saved)


def test_a_manifest_cannot_reach_outside(saved: Path) -> None:
    (saved / "manifest.json").write_text(json.dumps({"../../../x": {"size": 1, "sha256": ""}}))
    with pytest.raises(CheckpointError, match="missing"):
        checkpoint.verify(saved)


def test_a_disk_that_refuses_leaves_nothing_behind(
    tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "sync_file", refuse)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, STATE, parts, trained(parts))
    assert list((tmp_path / checkpoint.FOLDER).iterdir()) == []


def test_removing_takes_the_manifest_first(saved: Path) -> None:
    checkpoint.remove(saved.parent.parent, [saved.name])
    assert not saved.exists()
    assert checkpoint.list_checkpoints(saved.parent.parent) == []
