"""What holds for all tests, and the fixtures of several files."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.driven import Driven

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts into the background so; runs would inherit it, and ignore interrupts, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Tests run in parallel processes; more than one thread in each would only make them wait for each other. And
# where nobody says how many, a run finds out by trying: two that should be equal bit by bit need not be.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests start hundreds of processes; with what Python has compiled kept, each of them starts a third sooner.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no worker begins with one when the others have nothing left to do."""

    def length(item: pytest.Item) -> float:
        own = item.get_closest_marker("timeout")
        return own.args[0] if own else float(item.get_closest_marker("slow") is not None)

    items.sort(key=length, reverse=True)


@pytest.fixture(autouse=True)
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test notes its runs where a person's are noted, or finds another test's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path.with_name(f"{tmp_path.name}-state")))


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Callable[..., Driven]]:
    """Starts tiny runs and closes them."""
    from tests.driven import Driven
    from tests.tiny import tiny_config

    started: list[Driven] = []

    def start(name: str = "run", *, resume: bool = False, paused: bool = False, **changes: object) -> Driven:
        started.append(Driven(tiny_config(**changes), tmp_path / name, resume=resume, paused=paused))
        return started[-1]

    yield start
    for one in started:
        one.run.close()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of its own whose path leaves room for a socket's."""
    # A detached run of an earlier test may still be writing its log there as it ends.
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)
