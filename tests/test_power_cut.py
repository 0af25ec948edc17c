"""What a power cut leaves: files cut short or empty, renames undone, the status of another boot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.driven import Driven, same, weights
from tests.terminal import until
from tests.tiny import tiny_config
from trainer import runs, status
from trainer.events import Notice, RunFinished, RunStarted, StateChanged
from trainer.record import journal
from trainer.saving.checkpoint import FOLDER, list_checkpoints

MANY = {"save__stages": 20, "save__keep": 5}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the disk has of a run in its middle, `cut`, and of it at its end, `whole`."""
    out = tmp_path_factory.mktemp("runs")
    one = Driven(tiny_config(**MANY), out / "whole")
    one.do("run 30")
    one.until(StateChanged, lambda e: e.state == "paused" and e.at.step >= 30)
    one.do("save")
    one.do("resume")
    one.do("pause")
    until(lambda: not any((out / "whole" / FOLDER).glob(".*")))  # what is half-written would go meanwhile
    shutil.copytree(out / "whole", out / "cut")
    one.do("resume")
    one.until(RunFinished)
    one.run.close()
    found = status.read(out / "whole")
    assert found is not None
    # The machine has booted since, and another process, this one, has the number of the one that trained.
    status.write(out / "cut", replace(found, state="training", boot_id="before", pid=os.getpid()))
    yield out


def newest(run: Path, nth: int = 1) -> Path:
    return run / FOLDER / list_checkpoints(run)[-nth].id


def emptied(*names: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = newest(run)
        for name in names:
            os.truncate(path / name, 0)

    return damage


def halved(run: Path) -> None:
    file = newest(run) / "model/model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def two_damaged(run: Path) -> None:
    last, before = newest(run), newest(run, 2)
    os.truncate(last / "state.json", 10)
    os.truncate(before / "model/config.json", 0)


def not_renamed(run: Path) -> None:
    path = newest(run)
    path.rename(path.with_name(f".{path.name}.4711"))


def half_removed(run: Path) -> None:
    (newest(run) / "manifest.json").unlink()


def torn(run: Path) -> None:
    os.truncate(run / journal.FILE, (run / journal.FILE).stat().st_size - 20)


def zeros(run: Path) -> None:
    with (run / journal.FILE).open("ab") as file:
        file.write(b"\0" * 3000)


CUTS: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "nothing is damaged": (lambda run: None, 1, ""),
    "weights are empty": (emptied("model/model.safetensors"), 2, "model.safetensors is damaged"),
    "weights are cut short": (halved, 2, "model.safetensors is damaged"),
    "the manifest is empty": (emptied("manifest.json"), 2, "manifest.json is missing or cannot be read"),
    "the state is empty": (emptied("state.json"), 2, "state.json cannot be read"),
    "all is empty": (emptied("manifest.json", "state.json", "model/config.json"), 2, "cannot be read"),
    "two are damaged": (two_damaged, 3, "config.json is damaged"),
    "a rename is missing": (not_renamed, 2, ""),
    "a removal is half done": (half_removed, 2, ""),
    "the status is empty": (lambda run: os.truncate(run / status.FILE, 0), 1, ""),
    "the status is missing": (lambda run: (run / status.FILE).unlink(), 1, ""),
    "the journal is torn": (torn, 1, ""),
    "the journal ends in zeros": (zeros, 1, ""),
}


@pytest.mark.parametrize("cut", CUTS)
def test_after_a_power_cut_the_run_is_seen_as_crashed_and_goes_on_from_the_last_good_checkpoint(
    driven: Callable[..., Driven], tmp_path: Path, left: Path, cut: str
) -> None:
    damage, nth, said = CUTS[cut]
    run = tmp_path / "run"
    shutil.copytree(left / "cut", run)
    expected = newest(run, nth).name
    damage(run)
    assert runs.row(run).state == "crashed"
    assert runs.find_ended("run", tmp_path) == run
    one = driven(resume=True, **MANY)
    assert one.until(RunStarted).checkpoint == expected
    final = one.until(RunFinished).checkpoint
    assert same(weights(run, final), weights(left / "whole", final))
    warnings = [e.message for e in one.all(Notice) if e.level == "warning" and "done again" not in e.message]
    assert all(said in w for w in warnings[-1:]) and bool(warnings) == bool(said), warnings


def test_a_run_without_one_good_checkpoint_says_so(
    driven: Callable[..., Driven], left: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(left / "cut", run)
    for state in run.glob("checkpoints/*/state.json"):
        os.truncate(state, 0)
    with pytest.raises(ValueError, match="no good checkpoint to go on from"):
        driven(resume=True, **MANY)


@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_how_a_run_ended_outlives_a_power_cut(left: Path, tmp_path: Path, state: runs.RunState) -> None:
    run = tmp_path / "run"
    shutil.copytree(left / "whole", run)
    found = status.read(run)
    assert found is not None and found.state == "finished"
    status.write(run, replace(found, state=state, boot_id="before", pid=os.getpid()))
    assert runs.row(run).state == state
