"""Saving while training goes on, and disks that refuse: nothing is lost, and everybody is told."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from stepwise_tui import session
from tests.driven import FOREVER, Driven, of_the_disk, same, weights
from tests.terminal import until
from tests.test_checkpoint import STATE
from trainer.control import parse
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    At,
    CheckpointSaved,
    Evaluated,
    Event,
    Metrics,
    Notice,
    RolledBack,
    RunFinished,
    SettingChanged,
    StageEntered,
    StateChanged,
)
from trainer.rank import Rank
from trainer.record import journal, lock
from trainer.record.lineage import Lineage
from trainer.saving import checkpoint
from trainer.saving.checkpoint import Tensors
from trainer.saving.keeper import Keeper

Start = Callable[..., Driven]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Checkpoints take until the event is set."""
    go_on = threading.Event()
    sync_file = checkpoint.sync_file

    def wait(path: Path) -> None:
        go_on.wait()
        sync_file(path)

    monkeypatch.setattr(checkpoint, "sync_file", wait)
    yield go_on
    go_on.set()


class Refusing:
    """A disk that takes no checkpoint, or no journal, until it is `mended`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._mend: list[Callable[[], object]] = []

    def checkpoints(self) -> None:
        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        self._monkeypatch.setattr(checkpoint, "sync_file", refuse)
        self._mend.append(self._monkeypatch.undo)

    def journal(self, one: Driven) -> None:
        """/dev/full in the journal's place refuses every write, as a full disk does."""
        descriptor = one.run._journal._descriptor
        spare, full = os.dup(descriptor), os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, descriptor)
        os.close(full)

        def mend() -> None:
            if not one.run._inbox.closing.is_set():
                os.dup2(spare, descriptor)
            os.close(spare)

        self._mend.append(mend)

    def mended(self) -> None:
        while self._mend:
            self._mend.pop()()


@pytest.fixture
def refusing(driven: Start, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    disk = Refusing(monkeypatch)
    yield disk
    disk.mended()


def test_training_goes_on_while_a_checkpoint_is_written_and_it_holds_what_was_then(
    driven: Start, tmp_path: Path, slow: threading.Event
) -> None:
    slow.set()
    quick = driven("quick", save__stages=20)
    quick.until(RunFinished)
    slow.clear()
    one = driven("slow", save__stages=20)
    one.until(Metrics, lambda e: e.at.step >= 8)  # the run's first checkpoint is being written
    slow.set()
    entry = one.until(CheckpointSaved)
    assert entry.at.step == 0
    one.until(RunFinished)
    for id in ("b1-s000000-stage0", "b1-s000015-stage2", "b1-s000060-stage9-final"):
        assert same(weights(tmp_path / "quick", id), weights(tmp_path / "slow", id))


def test_a_saved_checkpoint_is_on_the_disk_when_it_is_acknowledged(driven: Start, tmp_path: Path) -> None:
    one = driven(**FOREVER)
    for _ in range(5):
        saved = one.do("save").message.split()[-1]
        checkpoint.verify(tmp_path / "run" / checkpoint.FOLDER / saved)


def test_a_roll_back_waits_for_the_checkpoint_that_is_being_written(
    driven: Start, slow: threading.Event
) -> None:
    slow.set()
    one = driven(**FOREVER)
    one.do("pause")
    one.do("save")
    slow.clear()
    entered = one.do("advance").at
    timer = threading.Timer(0.3, slow.set)
    timer.start()
    answer = one.do(f"rollback {entered.stage}")
    timer.join()
    assert answer.ok, answer.message
    assert one.until(RolledBack).checkpoint.endswith(f"stage{entered.stage}")
    assert (answer.at.step, answer.at.stage) == (entered.step, entered.stage)


def test_training_waits_for_a_journal_that_cannot_be_written_and_says_so(
    driven: Start, tmp_path: Path, refusing: Refusing
) -> None:
    one = driven(**FOREVER)
    one.until(Metrics)
    refusing.journal(one)
    notice = one.until(Notice, lambda e: e.level == "error")
    assert "journal.jsonl cannot be written" in notice.message
    paused = one.until(StateChanged, lambda e: e.state == "paused")
    alarm = one.until(AlarmRaised, of_the_disk)
    assert (paused.seq, alarm.seq) == (0, 0)  # told, though it could not be written
    assert one.run.state == "paused"
    refusing.mended()
    one.until(AlarmCleared, lambda e: of_the_disk(e) and e.seq > 0)
    one.until(Metrics, lambda e: e.at.step > paused.at.step)
    one.run.close()
    events = list(journal.read(tmp_path / "run"))
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert any(isinstance(e, AlarmRaised) for e in events)  # visible afterwards


def test_a_stopped_run_ends_though_no_checkpoint_can_be_written(
    driven: Start, tmp_path: Path, refusing: Refusing
) -> None:
    one = driven(save__stages=20)
    good = one.until(CheckpointSaved, lambda e: e.at.stage == 2).checkpoint
    refusing.checkpoints()
    assert one.do("stop").ok
    end = one.until(RunFinished)
    assert (end.state, end.checkpoint) == ("interrupted", one.all(CheckpointSaved)[-1].checkpoint)
    assert end.checkpoint >= good
    assert "could not be saved" in end.reason
    one.run.close()
    farewell = session._farewell(one.run.state, "run", "stepwise resume run", one.run.end)
    assert "the end could not be saved: no checkpoint can be written: No space left on device" in farewell
    assert f"{end.checkpoint} stands" in farewell
    ends_as_if_nothing_had_happened(driven, tmp_path, refusing)


def test_a_signalled_run_does_not_wait_for_a_slow_last_save(
    driven: Start, tmp_path: Path, slow: threading.Event
) -> None:
    slow.set()
    one = driven(save__stages=20)
    good = one.until(CheckpointSaved).checkpoint
    slow.clear()
    one.run.submit(replace(parse("stop", source="SIGTERM"), within=0.5))
    end = one.until(RunFinished)
    assert end.state == "interrupted"
    assert end.checkpoint >= good
    assert "longer than" in end.unsaved
    checkpoint.verify(tmp_path / "run" / checkpoint.FOLDER / end.checkpoint)
    one.run.close()  # with the writer still at it
    slow.set()
    again = driven(resume=True)
    again.until(RunFinished, lambda e: e.state == "finished")


def test_an_evaluation_of_the_last_step_that_a_stop_interrupted_is_made_up_for(
    driven: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, asked = Rank.answer, itertools.count()
    monkeypatch.setattr(Rank, "answer", lambda *a: answer(*a) if next(asked) else None)
    one = driven(stop__steps=10, eval__every=10)
    one.until(RunFinished)
    (told,) = [e for e in one.all(Evaluated) if e.split == "valid"]
    assert told.at.step == 10


def test_a_stopped_run_ends_though_the_journal_cannot_be_written(
    driven: Start, tmp_path: Path, refusing: Refusing
) -> None:
    one = driven(save__stages=20)
    one.until(CheckpointSaved, lambda e: e.at.stage == 2)
    refusing.journal(one)
    one.until(AlarmRaised, of_the_disk)
    one.run.close()
    end = one.until(RunFinished)
    assert end.seq == 0
    assert end.checkpoint == one.all(CheckpointSaved)[-1].checkpoint
    ends_as_if_nothing_had_happened(driven, tmp_path, refusing)


def test_a_run_that_cannot_save_its_end_waits_for_room(driven: Start, refusing: Refusing) -> None:
    one = driven(stop__steps=12, schedule__pretrain_steps=50)
    one.do("run 4")
    one.until(StateChanged, lambda e: e.state == "paused")
    refusing.checkpoints()
    one.do("resume")
    assert one.until(AlarmRaised, of_the_disk).remedy == "make room; then it goes on by itself"
    refusing.mended()
    end = one.until(RunFinished)
    assert (end.state, end.checkpoint) == ("finished", "b1-s000012-stage0-final")
    over = one.until(AlarmCleared, of_the_disk)
    before = [e for e in one.events[: one.events.index(over)] if isinstance(e, CheckpointSaved)]
    assert over.message.endswith(f"{before[-1].checkpoint} stands")


@pytest.mark.slow
def test_writes_that_fail_once_cost_nothing(tmp_path: Path) -> None:
    """A sample of what `benchmarks/faults.py` does, in real processes; it says what is compared."""
    script = Path(__file__).resolve().parents[1] / "benchmarks/faults.py"
    command = [sys.executable, script, "--every", "24", "--no-mounts", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": 0 differences" in done.stdout.splitlines()[-1]


def ends_as_if_nothing_had_happened(driven: Start, tmp_path: Path, refusing: Refusing) -> None:
    """Resumed, the run in `run` has the weights and events of one that was never disturbed."""
    refusing.mended()
    two = driven(resume=True, save__stages=20)
    final = two.until(RunFinished).checkpoint
    two.run.close()
    whole = driven("whole", save__stages=20).until(RunFinished).checkpoint
    assert final == whole
    assert same(weights(tmp_path / "run", final), weights(tmp_path / "whole", whole))
    events: list[Event] = list(journal.read(tmp_path / "run"))
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert [e.at.stage for e in events if isinstance(e, StageEntered)] == list(range(10))


def test_the_ranks_forget_their_copies_of_what_is_not_worth_saving(tmp_path: Path) -> None:
    """They hold moments, twice what the model takes, until rank 0 says that nobody will write them."""
    spread = Mock()
    ruined = Tensors({"head": torch.full((2,), torch.nan)}, {}, {}, spread)
    keeper = Keeper(tmp_path, Lineage(), Mock(), Mock(), lambda: None)
    keeper.save(replace(STATE, cause="time"), At(), lambda: ruined)
    keeper.wait()
    keeper.close()
    spread.forget.assert_called_once_with()
    spread.write.assert_not_called()


def test_while_updates_are_left_out_the_last_checkpoint_from_before_is_kept_and_offered(
    driven: Start,
) -> None:
    """However often something else is saved; and the ruined weights are not saved by time."""
    one = driven(**FOREVER, save__minutes=1e-4, save__keep=1, log__every=2, watch__skipped=6)
    one.until(CheckpointSaved, lambda e: e.cause == "time")
    one.do("pause")
    one.do("set optim.lr 1e30")
    one.do("resume")
    changed = one.until(SettingChanged).at.step
    alarm = one.until(AlarmRaised, lambda e: e.kind == "not finite")
    assert "optim.lr 0.002 → 1e+30 at step" in alarm.message
    for _ in range(3):
        one.do("advance")
    assert not [e for e in one.all(CheckpointSaved) if e.cause == "time" and e.at.step > changed + 4]
    assert one.do("set optim.lr 0.002").ok
    assert one.do(f"rollback {alarm.target}").ok
    one.do("resume")
    back = one.until(RolledBack)
    assert back.at.step <= changed
    assert one.until(Metrics, lambda e: e.at.branch == 2).skipped == 0


@pytest.mark.parametrize("what", ["the folder", "the journal"])
def test_what_is_deleted_while_a_run_trains_is_written_again_and_told(
    driven: Start, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "run"
    one = driven(**FOREVER)
    one.until(Metrics)
    one.until(CheckpointSaved)
    listener = one.run.subscribe(after=None)
    before = (folder / "config.toml").read_text()
    if what == "the folder":
        shutil.rmtree(folder, ignore_errors=True)  # the run writes into it meanwhile
    else:
        (folder / journal.FILE).unlink()
    notice = one.until(Notice, lambda e: "was deleted or replaced" in e.message)
    until(lambda: one.do("save").ok)  # a save that failed without its folder is tried again first
    checkpoint.verify(folder / checkpoint.FOLDER / one.all(CheckpointSaved)[-1].checkpoint)
    assert (folder / "config.toml").read_text() == before
    heard: list[Event] = []
    while notice not in heard:
        heard += listener.drain()
    one.run.close()
    events = list(journal.read(folder))
    assert events == [e for e in one.events if e.seq]
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    again = driven(resume=True, **FOREVER)
    again.until(Metrics)
    assert not [e for e in again.all(Notice) if "missing" in e.message]


def test_a_run_whose_folder_is_another_runs_now_waits_and_leaves_it_alone(
    driven: Start, tmp_path: Path
) -> None:
    one = driven(**FOREVER)
    one.until(Metrics)
    with (tmp_path / "other").open("wb") as other:
        lock.take(other.fileno())
        (tmp_path / "other").rename(tmp_path / "run" / journal.FILE)
        assert "another run has its folder now" in one.until(AlarmRaised, of_the_disk).message
        one.until(StateChanged, lambda e: e.state == "paused")
        assert (tmp_path / "run" / journal.FILE).read_bytes() == b""
    one.until(AlarmCleared, of_the_disk)
