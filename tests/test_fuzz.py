"""A live socket under nonsense: the short form of `benchmarks/fuzz_socket.py`."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from benchmarks import fuzz_socket
from tests.tiny import tiny_config
from trainer.host import Host
from trainer.run import Run


def test_nonsense_costs_neither_the_run_nor_its_weights_nor_another_client(
    tmp_path: Path, short: Path
) -> None:
    outcome = fuzz_socket.disturbed(tiny_config(), tmp_path / "disturbed", 2_000)
    assert outcome.messages.total() == 2_000
    assert outcome.failed == []
    assert outcome.errors > 100 and outcome.answered >= 2
    fuzz_socket.undisturbed(tiny_config(), tmp_path / "quiet")
    one, other = (fuzz_socket.weights(tmp_path / name) for name in ("disturbed", "quiet"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_run_listens_on_no_port(tmp_path: Path, short: Path) -> None:
    run = Run(tiny_config(), tmp_path / "run", paused=True)
    run.start()
    with Host(run):
        kinds = {c.type for c in psutil.Process().net_connections("inet") if c.status == "LISTEN"}
    run.close()
    assert kinds == set()
