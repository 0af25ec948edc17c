"""The estimate of what a run's checkpoints take, against what runs really leave on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.driven import Driven
from tests.tiny import tiny_config
from trainer.config import SaveConfig
from trainer.events import CheckpointRemoved, CheckpointSaved, Notice, RunFinished
from trainer.record.lineage import CheckpointRef, Lineage, surplus
from trainer.run import Run, RunError
from trainer.saving.checkpoint import FOLDER, OPTIMIZER, list_checkpoints, size
from trainer.saving.room import GB, habits, needed, shortage

GPT2 = 124_439_808 * 4


def test_the_papers_longest_run_is_told_before_it_starts() -> None:
    """149 stages of GPT-2 Small: 75 GB if all entries were kept, a quarter of it as they are."""
    everything = needed(SaveConfig(every_stage=1), GPT2, 2 * GPT2, start=0, stages=149, resets=True)
    assert 75 * GB < everything.bytes < 83 * GB
    usual = needed(SaveConfig(), GPT2, 2 * GPT2, start=0, stages=149, resets=True)
    assert usual.bytes < 21 * GB
    said = habits(SaveConfig(), usual, 640 * GB)
    assert "of each 8th before" in said and "at most 30 checkpoints, 20.4 GB; 640 GB are free" in said
    limited = SaveConfig(disk_gb=10.0)
    assert needed(limited, GPT2, 2 * GPT2, start=0, stages=149, resets=True).bytes == 10 * GB
    assert "10 GB (save.disk_gb)" in habits(limited, usual, 640 * GB)
    assert shortage(usual, 640 * GB) is None
    assert "save.disk_gb" in (shortage(usual, 15 * GB) or "")


@given(st.integers(0, 20), st.integers(1, 5), st.integers(1, 6), st.integers(1, 9))
def test_no_run_keeps_more_than_was_estimated(last: int, keep: int, stages: int, every: int) -> None:
    """Entry, then timed saves with moments, stage after stage, as retention leaves them."""
    save = SaveConfig(keep=keep, stages=stages, every_stage=every)
    expected = needed(save, 10, 20, start=0, stages=20, resets=True)
    kept: list[CheckpointRef] = []
    for stage in range(last + 1):
        for i, cause in enumerate(("stage", "time", "best", "time")):
            bytes = 10 if cause == "stage" else 30
            ref = CheckpointRef(f"{stage}-{i}", 1, 10 * stage + i, stage, cause, bytes)  # type: ignore[arg-type]
            kept.append(ref)
            assert sum(c.bytes for c in kept) <= expected.bytes
            gone = surplus(Lineage(tuple(kept)), 1, keep=keep, stages=stages, every_stage=every)
            kept = [c for c in kept if c.id not in gone]
            assert len(kept) <= expected.checkpoints


def test_a_stages_entry_has_no_moments_where_the_optimiser_is_reset(driven: Callable[..., Driven]) -> None:
    one = driven(save__stages=20)
    one.until(RunFinished)
    one.run.close()
    refs = list_checkpoints(one.run.folder)
    assert sum(ref.is_entry for ref in refs) == 10
    for ref in refs:
        assert (one.run.folder / FOLDER / ref.id / OPTIMIZER).exists() != ref.is_entry
        assert size(one.run.folder / FOLDER / ref.id) == ref.bytes


def test_a_run_stays_within_its_disk_budget_and_says_when_it_cannot(driven: Callable[..., Driven]) -> None:
    one = driven("probe", save__stages=20)
    one.until(RunFinished)
    one.run.close()
    largest = max(e.bytes for e in one.all(CheckpointSaved))
    two = driven("run", save__stages=20, save__disk_gb=4 * largest / GB)
    final = two.until(RunFinished).checkpoint
    gone = {e.checkpoint for e in two.all(CheckpointRemoved)}
    kept = [e for e in two.all(CheckpointSaved) if e.checkpoint not in gone]
    assert kept[-1].checkpoint == final
    assert sum(e.bytes for e in kept) <= 3 * largest  # room for the next is left
    assert {r.id for r in list_checkpoints(two.run.folder)} == {e.checkpoint for e in kept}
    assert not [e for e in two.all(Notice) if "more than save.disk_gb" in e.message]
    two.run.close()
    three = driven("small", save__stages=20, save__disk_gb=1e-9)
    three.until(RunFinished)
    three.run.close()
    assert len([e for e in three.all(Notice) if "more than save.disk_gb" in e.message]) == 1
    refs = list_checkpoints(three.run.folder)
    assert refs[-1].cause == "final"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_what_a_run_uses_is_told_without_its_disk(
    driven: Callable[..., Driven], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 tells it with the signs of life: a stuck disk is not to look like a stuck rank."""

    def stuck(*_: Any) -> Any:
        raise OSError("stale file handle")

    one = driven("run", paused=True)
    with monkeypatch.context() as patch:
        for name in ("rglob", "iterdir", "stat"):
            patch.setattr(Path, name, stuck)
        patch.setattr(shutil, "disk_usage", stuck)
        needs = one.run.needs()
    assert needs is not None and needs.disk > 0


def test_a_new_run_needs_room_for_two_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def little(_: Any) -> Usage:
        return Usage(1000, 0, 1000)

    monkeypatch.setattr(shutil, "disk_usage", little)
    run = Run(tiny_config(), tmp_path / "run")
    with pytest.raises(RunError, match=r"free, and two checkpoints .* --out on another disk"):
        run.start()
    assert not (tmp_path / "run").exists()
