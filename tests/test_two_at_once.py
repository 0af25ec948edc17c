"""A run is trained by one process at a time; two runs beside each other do not meet."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.processes import begin, wait_for
from tests.terminal import until
from tests.tiny import endless, kill
from trainer import runs, status
from trainer.events import RunStarted
from trainer.record import journal

OPTIONS = ("--out", ".", "--plain")


@pytest.mark.slow
def test_of_two_that_take_a_run_up_at_the_same_moment_one_is_refused(tmp_path: Path) -> None:
    """And of two new runs that begin then, each trains by itself."""
    first, other = (
        begin("run", "config", endless(tmp_path), "--name", name, *OPTIONS, cwd=tmp_path)
        for name in ("run", "other")
    )
    try:
        wait_for(first, "loss")
        wait_for(other, "loss")
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
        assert first.returncode == 0
        assert runs.lives(tmp_path / "other")

        rivals = [begin("resume", "run", *OPTIONS, cwd=tmp_path) for _ in range(2)]
        until(lambda: any(rival.poll() is not None for rival in rivals))
        (loser,) = (rival for rival in rivals if rival.poll() is not None)
        (winner,) = (rival for rival in rivals if rival is not loser)
        _, errors = loser.communicate(timeout=60)
        assert loser.returncode == 2
        assert f"run runs already, as process {winner.pid}" in errors
        assert "stepwise attach" in errors
        wait_for(winner, "loss")
        winner.send_signal(signal.SIGTERM)
        winner.communicate(timeout=60)
        assert winner.returncode == 0
        assert sum(isinstance(e, RunStarted) for e in journal.read(tmp_path / "run")) == 2
        found = status.read(tmp_path / "other")
        assert found is not None
        assert found.pid == other.pid
        assert runs.lives(tmp_path / "other")
    finally:
        for name in ("run", "other"):
            kill(tmp_path / name)
