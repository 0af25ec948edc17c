"""Ranks that somebody else's torchrun starts: they find themselves a host; the run is one as any other."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal import until
from tests.tiny import endless
from trainer import runs, status
from trainer.distributed.ranks import stop_in_time
from trainer.events import CommandAcknowledged, Metrics, RunFinished
from trainer.record import journal

ROOT = Path(__file__).parent.parent


def test_without_torchrun_the_way_is_said() -> None:
    command = [sys.executable, "-m", "trainer", "run", "preset", "mult2x2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "stepwise run … --gpus N" in done.stderr


@pytest.mark.parametrize(("told", "within"), [(None, 20), ("110", 100), ("5", 0)])
def test_a_signal_leaves_the_last_checkpoint_the_time_that_torchrun_does(
    monkeypatch: pytest.MonkeyPatch, told: str | None, within: float
) -> None:
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", raising=False)
    if told is not None:
        monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", told)
    command = stop_in_time("SIGTERM")
    assert (command.name, command.source, command.within) == ("stop", "SIGTERM", within)


@pytest.mark.slow
def test_a_run_under_torchrun_and_its_end_by_a_signal(tmp_path: Path) -> None:
    place = ["--out", str(tmp_path), "--name", "run", "--device", "cpu"]
    arguments = ["--nproc-per-node=1", "-m", "trainer", "run", "config", endless(tmp_path), *place]
    launcher = subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *arguments], cwd=ROOT)
    folder = tmp_path / "run"
    try:
        until(lambda: any(isinstance(e, Metrics) for e in journal.read(folder)), 120)
        until(lambda: bool((found := status.read(folder)) and found.socket), 60)
        launcher.send_signal(signal.SIGTERM)
        launcher.wait(60)
        until(lambda: runs.state(folder) == "interrupted", 60)
    finally:
        launcher.kill()
        launcher.wait()
    events = list(journal.read(folder))
    assert [e.source for e in events if isinstance(e, CommandAcknowledged)] == ["SIGTERM"]
    end = next(e for e in events if isinstance(e, RunFinished))
    assert end.checkpoint and end.at.step > 0
