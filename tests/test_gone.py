"""A run that is watched while its process is killed, and taken up again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from stepwise_tui.link import SocketLink
from tests.processes import begin, wait_for
from tests.terminal import until
from tests.tiny import endless, kill
from trainer.events import Event, Metrics, ReachChanged


@pytest.mark.slow
def test_who_watches_is_told_that_the_process_is_gone_and_sees_it_taken_up(tmp_path: Path) -> None:
    run = tmp_path / "run"
    heard: list[Event] = []

    def told(gone: str | None) -> bool:
        heard.extend(link.drain())
        return any(isinstance(e, ReachChanged) and e.gone == gone for e in heard)

    first = begin("run", "config", endless(tmp_path), "--name", "run", "--out", ".", "--plain", cwd=tmp_path)
    try:
        wait_for(first, "loss")
        link = SocketLink(run)
        first.send_signal(signal.SIGKILL)
        until(lambda: told("crashed"))
        (gone,) = [e for e in heard if isinstance(e, ReachChanged) and e.gone == "crashed"]
        assert f"`stepwise resume {run}`" in gone.advice
        first.communicate()
        heard.clear()
        begin("resume", "run", "--out", ".", "--plain", cwd=tmp_path)
        until(lambda: told(None))
        until(lambda: any(isinstance(e, Metrics) for e in [*heard, *link.drain()]))
    finally:
        kill(run)
