"""Finding and listing runs from the files they leave, however they ended."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from stepwise_tui import link
from stepwise_tui.link import LinkError, connect
from trainer import registry, runs, status
from trainer.events import RunState
from trainer.record import journal, lock
from trainer.record.recorder import Recorder
from trainer.runs import RunsError
from trainer.status import Status


def gone() -> int:
    """A pid that no process has any more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def make(
    out: Path,
    name: str,
    state: RunState = "training",
    pid: int | None = None,
    host: str | None = None,
    boot_id: str | None = None,
) -> Path:
    """A run folder with a status; without `pid` and elsewhere, of a run that lives in this process."""
    folder = out / name
    folder.mkdir(parents=True)
    (folder / runs.CONFIG_FILE).write_text("seed = 0\n")
    status.write(
        folder,
        Status(
            name=name,
            title="",
            state=state,
            step=1200,
            stage=3,
            stages=9,
            scheduled=3,
            removed=3,
            branch=2,
            accuracy=0.5,
            pid=os.getpid() if pid is None else pid,
            host=status.host() if host is None else host,
            boot_id=status.boot_id() if boot_id is None else boot_id,
            started=time.time(),
            last_step_at=time.time(),
            heartbeat=time.time(),
        ),
    )
    if pid is None and host is None and boot_id is None and state not in runs.ENDED:
        descriptor = os.open(folder / journal.FILE, os.O_WRONLY | os.O_CREAT)
        LOCKED.append(descriptor)
        lock.take(descriptor)
    return folder


LOCKED: list[int] = []


@pytest.fixture(autouse=True)
def unlocked() -> Iterator[None]:
    """After a test no run lives."""
    yield
    while LOCKED:
        os.close(LOCKED.pop())


def state_of(folder: Path) -> RunState:
    return runs.row(folder).state


def test_a_run_is_found_by_path_and_by_name(tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    assert runs.find(str(folder), Path("elsewhere")) == folder
    assert runs.find("one", tmp_path) == folder


def test_what_is_no_run_is_told_with_the_runs_there_are(tmp_path: Path) -> None:
    make(tmp_path, "one")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunsError, match=r"empty is not a run: it has no config.toml. Runs under .*: one"):
        runs.find("empty", tmp_path)
    with pytest.raises(RunsError, match="file is not a run but a file"):
        runs.find("file", tmp_path)
    with pytest.raises(RunsError, match="there is no run 'two'"):
        runs.find("two", tmp_path)
    with pytest.raises(RunsError, match="`stepwise run preset mult2x2` starts one"):
        runs.find("two", tmp_path / "nowhere")


def test_of_a_large_sweep_a_few_runs_are_named(tmp_path: Path) -> None:
    for number in range(12):
        make(tmp_path / "many", f"s{number:02}")
    (tmp_path / "many" / runs.SWEEP_FILE).touch()
    with pytest.raises(RunsError, match=r"is a sweep: .* its runs, many/s00, .*many/s07 and 4 more$"):
        runs.find("many", tmp_path)


def test_what_lies_beside_the_runs_of_a_sweep_is_none_of_them(tmp_path: Path) -> None:
    member, logs = make(tmp_path / "two", "s0"), tmp_path / "two" / "logs"
    (tmp_path / "two" / runs.SWEEP_FILE).touch()
    logs.mkdir()
    named = [member, logs, tmp_path / "two" / runs.SWEEP_FILE]  # as a shell's * names them
    assert [runs.find_all(str(one), tmp_path) for one in named] == [[member], [], []]


def test_a_row_has_the_contract_keys(tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    (folder / "big").write_bytes(b"x" * 5000)
    row = runs.row(folder)
    assert (row.name, row.path, row.state) == ("one", str(folder), "training")
    assert (row.step, row.stage, row.stages, row.branch, row.accuracy) == (1200, 3, 9, 2, 0.5)
    assert row.bytes > 5000
    offset = datetime.fromisoformat(row.updated).utcoffset()
    assert offset is not None and offset.total_seconds() == 0


@pytest.mark.parametrize("state", ["starting", "training", "paused", "evaluating"])
def test_a_run_whose_process_is_gone_has_crashed(tmp_path: Path, state: RunState) -> None:
    assert state_of(make(tmp_path, "here", state)) == state
    assert state_of(make(tmp_path, "gone", state, pid=gone())) == "crashed"


@pytest.mark.parametrize("state", ["finished", "interrupted", "crashed"])
def test_a_run_that_ended_keeps_its_state(tmp_path: Path, state: RunState) -> None:
    assert state_of(make(tmp_path, "ended", state, pid=gone())) == state


def test_a_pid_from_before_a_reboot_is_not_taken_for_alive(tmp_path: Path) -> None:
    assert state_of(make(tmp_path, "old", boot_id="another boot")) == "crashed"


def test_a_run_on_another_host_is_as_it_says_and_named_so(tmp_path: Path) -> None:
    row = runs.row(make(tmp_path, "far", pid=gone(), host="gpu7"))
    assert (row.state, row.host) == ("training", "gpu7")
    assert runs.row(make(tmp_path, "done", "finished", host="gpu7")).host is None


def test_a_broken_status_does_not_hide_the_run(tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    (folder / status.FILE).write_text("{")
    row = runs.row(folder)
    assert (row.state, row.step, row.accuracy) == ("crashed", 0, None)


def test_the_latest_run_comes_first_and_other_folders_are_left_out(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "middle", "old"]):
        folder = make(tmp_path, name)
        then = time.time() - 100 * age
        os.utime(folder / status.FILE, (then, then))
    (tmp_path / "not a run").mkdir()
    assert [row.name for row in runs.list_runs(tmp_path)] == ["new", "middle", "old"]
    assert runs.list_runs(tmp_path / "nowhere") == []


def test_a_run_that_goes_away_while_one_looks_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "stays", "finished")
    gone_meanwhile = make(tmp_path, "goes", "finished")
    sweep = tmp_path / "sweep"
    make(sweep, "member", "finished")
    (sweep / runs.SWEEP_FILE).write_text("")
    known = runs.is_sweep

    def is_run(folder: Path) -> bool:
        found = (folder / runs.CONFIG_FILE).is_file()
        if folder == gone_meanwhile:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    monkeypatch.setattr(runs, "is_run", is_run)
    assert {row.name for row in runs.list_runs(tmp_path)} == {"stays", "sweep/member"}

    def is_sweep(folder: Path) -> bool:
        found = known(folder)
        if found:
            shutil.rmtree(folder)
        return found

    monkeypatch.setattr(runs, "is_sweep", is_sweep)
    assert [row.name for row in runs.list_runs(tmp_path)] == ["stays"]


def test_a_live_run_is_not_taken_up_twice(tmp_path: Path) -> None:
    make(tmp_path, "live")
    make(tmp_path, "dead", pid=gone())
    with pytest.raises(RunsError, match=f"runs already, as process {os.getpid()}"):
        runs.find_ended("live", tmp_path)
    assert runs.find_ended("dead", tmp_path) == tmp_path / "dead"


def test_how_a_run_is_can_be_told_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path, "one")
    found = status.read(folder)
    assert found is not None

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(status, "replace_text", refuse)
    status.write(folder, replace(found, state="paused", step=10**12))
    assert (state_of(folder), runs.row(folder).step) == ("paused", 10**12)


def test_made_up_names_are_friendly_and_free(tmp_path: Path) -> None:
    name = runs.new_folder(tmp_path, None, "mult2x2").name
    assert name.startswith("mult2x2-") and name.count("-") == 2
    make(tmp_path, runs.new_name("x", tmp_path, random.Random(1)))
    assert not (tmp_path / runs.new_name("x", tmp_path, random.Random(1))).exists()


def test_the_name_of_a_run_that_trains_is_refused_with_the_way_to_it(tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    taken = f"one runs already, as process {os.getpid()}; see `stepwise attach {folder}`, or give another"
    with pytest.raises(RunsError, match=taken):
        runs.new_folder(tmp_path, "one", "mult2x2")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    assert runs.new_folder(tmp_path, "n" * 100, "x").name == "n" * 100
    with pytest.raises(RunsError, match="101 characters; 100 are allowed"):
        runs.new_folder(tmp_path, "n" * 101, "x")


def test_a_taken_name_is_refused_with_the_way_out(tmp_path: Path) -> None:
    make(tmp_path, "one", "finished")
    with pytest.raises(RunsError, match="exists already: give another --name, or go on with"):
        runs.new_folder(tmp_path, "one", "mult2x2")


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", ".hidden", "a b", "x\n"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunsError, match="letters, digits"):
        runs.new_folder(tmp_path, name, "mult2x2")


def test_a_run_is_found_by_its_name_wherever_it_was_begun(tmp_path: Path) -> None:
    folder = make(tmp_path / "there", "one")
    registry.note(folder)
    assert runs.find("one", tmp_path) == folder
    registry.note(make(tmp_path / "elsewhere", "one", "finished"))
    with pytest.raises(RunsError, match=r"several runs have the name 'one': give the path, .*elsewhere"):
        runs.find("one", tmp_path)
    assert runs.find("one", tmp_path / "there") == folder


def test_the_only_live_run_is_found_under_out_and_elsewhere(tmp_path: Path) -> None:
    make(tmp_path, "ended", "finished")
    registry.note(make(tmp_path / "there", "dead", pid=gone()))
    with pytest.raises(RunsError, match="no run of yours trains now"):
        runs.find_live(tmp_path)
    far = make(tmp_path / "there", "far", host="gpu7")
    registry.note(far)
    assert runs.find_live(tmp_path) == far
    live = make(tmp_path / "there", "live")
    registry.note(live)
    assert runs.find_live(tmp_path) == live, "one of this machine first"
    make(tmp_path, "another")
    with pytest.raises(RunsError, match=r"several runs train now: name one of .*another, .*live"):
        runs.find_live(tmp_path)


def test_stale_entries_of_the_registry_do_no_harm(tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    registry.note(folder)
    registry.note(tmp_path / "gone")
    (registry._folder() / "broken").write_bytes(b"\0\xff")
    (registry._folder() / "a folder").mkdir()
    for _ in range(2):
        assert registry.folders() == [folder]


def test_a_killed_process_does_not_live_even_unreaped(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        folder = make(tmp_path, "one", pid=process.pid)
        assert state_of(folder) == "training"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert state_of(folder) == "crashed"


def test_another_process_with_the_same_number_is_not_the_run(tmp_path: Path) -> None:
    """As where a container starts anew: the same boot, and the same number at once. The lock tells."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        folder = make(tmp_path, "one", pid=other.pid)
        assert state_of(folder) == "training", "without a journal the number is all there is"
        (folder / journal.FILE).touch()
        assert state_of(folder) == "crashed"
        assert runs.find_ended("one", tmp_path) == folder
        (folder / journal.FILE).unlink()
        found = status.read(folder)
        assert found is not None
        status.write(folder, replace(found, heartbeat=found.heartbeat - 1e6))
        assert state_of(folder) == "crashed"
        status.write(folder, replace(found, pid=os.getpid()))
        assert state_of(folder) == "crashed", "who asks is not the run"
        other.communicate(b"\n")


def test_only_a_number_that_holds_the_lock_is_named_as_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "APPEARS_SECONDS", 0.0)
    folder = make(tmp_path, "one")
    found = status.read(folder)
    assert found is not None
    assert runs.process(folder, found) == f"as process {os.getpid()}"
    assert "cannot be seen from here" in runs.process(folder, replace(found, pid=os.getppid()))
    with pytest.raises(LinkError, match=f"; kill {os.getpid()} saves and ends it"):
        connect(folder)
    status.write(folder, replace(found, pid=os.getppid()))
    with pytest.raises(LinkError, match="cannot be reached") as refused:
        connect(folder)
    assert "kill" not in str(refused.value)
    status.write(folder, replace(found, state="starting"))
    with pytest.raises(LinkError, match=r"^one is still starting; try again in a moment$"):
        connect(folder)


def test_looking_at_a_run_never_keeps_a_writer_from_it(tmp_path: Path) -> None:
    path = tmp_path / journal.FILE
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            lock.held(path)

    path.touch()
    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(50):
            Recorder(tmp_path, lambda event: None).close()
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()
    assert lock.held(path) is False


def test_a_run_that_trains_on_another_host_is_not_taken_up_here(tmp_path: Path) -> None:
    folder = make(tmp_path, "far", host="gpu7")
    with pytest.raises(RunsError, match=r"runs already, as process .* on gpu7"):
        runs.find_ended("far", tmp_path)
    found = status.read(folder)
    assert found is not None
    status.write(folder, replace(found, heartbeat=found.heartbeat - 1000))
    assert runs.find_ended("far", tmp_path) == folder


def test_commands_that_messages_name_work_as_they_stand_where_a_path_has_a_blank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "my runs"
    ended, broke, trains = (make(out, "a", "finished"), make(out, "b", "interrupted"), make(out, "c"))
    sayings = (
        (ended, lambda: runs.find_ended("a", out)),
        (ended, lambda: runs.new_folder(out, "a", "x")),
        (broke, lambda: connect(broke)),
        (trains, lambda: runs.find_ended("c", out)),
    )
    for folder, say in sayings:
        with pytest.raises(ValueError) as told:
            say()
        commands = re.findall("`(stepwise .*?)`", str(told.value))
        assert commands
        for command in commands:
            assert runs.find(shlex.split(command)[2], Path("elsewhere")).resolve() == folder
