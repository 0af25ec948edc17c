"""The control socket: real sockets, a real run, clients that behave and clients that do not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from stepwise_tui.link import JournalLink, LinkError, SocketLink, attach, connect
from tests.processes import answer, heard
from tests.terminal import until
from tests.tiny import tiny_config
from trainer import status, wire
from trainer.control import parse
from trainer.events import (
    CommandAcknowledged,
    Evaluated,
    Event,
    Metrics,
    Notice,
    ReachChanged,
    RunFinished,
    encode,
)
from trainer.host import MOST_CLIENTS, Host
from trainer.record import journal
from trainer.run import Run


@pytest.fixture
def run(tmp_path: Path, short: Path) -> Iterator[Run]:
    """A run that trains for ever, with its socket."""
    one = Run(tiny_config(stop__steps=1_000_000, stop__epochs=1e9), tmp_path / "run")
    one.start()
    with Host(one):
        yield one
    one.close()


def test_several_may_attach_and_all_see_who_did_what(run: Run) -> None:
    one, two = SocketLink(run.folder), SocketLink(run.folder)
    assert answer(one, "pause").ok
    seen = heard(two, lambda e: isinstance(e, CommandAcknowledged))
    assert isinstance(seen, CommandAcknowledged)
    assert (seen.command, seen.source) == ("pause", "test")
    assert not answer(two, "rollback 99").ok
    assert answer(two, "resume").ok
    heard(one, lambda e: isinstance(e, Metrics))


def test_who_attaches_hears_the_whole_history_once(run: Run) -> None:
    first = SocketLink(run.folder)
    heard(first, lambda e: isinstance(e, Metrics) and e.at.step > 20)
    answer(first, "pause")
    late = SocketLink(run.folder)
    answer(late, "evaluate")
    again = SocketLink(run.folder)
    assert [e for e in again.drain() if isinstance(e, Metrics | CommandAcknowledged)] == [
        e for e in journal.read(run.folder) if isinstance(e, Metrics | CommandAcknowledged)
    ]


def test_the_socket_is_this_users_alone_and_comes_back_when_swept_away(run: Run) -> None:
    path = wire.address(run.folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.unlink()
    until(path.exists)
    assert answer(SocketLink(run.folder), "pause").ok


def test_nobody_trusts_a_folder_that_others_can_reach(tmp_path: Path, short: Path) -> None:
    folder = short / f"stepwise-{os.getuid()}"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="this user alone"):
        wire.address(tmp_path / "run")
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="this user alone"):
        wire.address(tmp_path / "run")


def test_a_temporary_folder_with_a_long_path_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/tmp/" + "x" * 120)
    assert wire.address(Path("/runs/mine")).parent.parent == Path("/tmp")


def test_a_run_without_a_socket_trains_all_the_same(tmp_path: Path, short: Path) -> None:
    (short / f"stepwise-{os.getuid()}").write_text("in the way")
    run = Run(tiny_config(), tmp_path / "run")
    run.start()
    with Host(run):
        assert run.wait(60)
    notices = [e.message for e in run.subscribe().drain() if isinstance(e, Notice)]
    run.close()
    assert run.state == "finished" and sum("nobody can attach" in message for message in notices) == 1


def test_who_looks_for_a_run_leaves_nothing_in_the_temporary_folder(tmp_path: Path, short: Path) -> None:
    with pytest.raises(LinkError):
        connect(tmp_path / "gone")
    assert not list(short.iterdir())


def test_a_run_that_is_gone_says_so(run: Run) -> None:
    run.close()
    wire.address(run.folder).unlink()
    with pytest.raises(LinkError, match="stepwise resume"):
        SocketLink(run.folder)


def coming() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="coming")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The threads of `coming` that found no socket, and wait for one; other tests' links may seek theirs."""
    threads: set[str] = set()

    def sleep(seconds: float) -> None:
        name = threading.current_thread().name
        if name.startswith("coming"):
            threads.add(name)
        time.sleep(seconds)

    monkeypatch.setattr("stepwise_tui.link.time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    return threads


def test_who_comes_while_a_run_starts_waits_for_it(tmp_path: Path, short: Path, waits: set[str]) -> None:
    run = Run(tiny_config(stop__steps=1_000_000, stop__epochs=1e9), tmp_path / "run")
    run.start()
    found = status.read(run.folder)
    assert found is not None and found.socket is None  # its process lives, and nobody listens yet
    with coming() as other:
        waiting = other.submit(SocketLink, run.folder)
        waiting_too = other.submit(connect, run.folder)
        until(lambda: len(waits) == 2)
        with Host(run):
            assert answer(waiting.result(), "pause").ok
            waiting_too.result().close()
            run.close()


def test_a_run_that_ends_while_someone_waits_for_its_socket_is_shown(
    tmp_path: Path, short: Path, waits: set[str]
) -> None:
    run = Run(tiny_config(stop__steps=1_000_000, stop__epochs=1e9), tmp_path / "run")
    run.start()
    with coming() as other:
        waiting = other.submit(attach, run.folder, ended=True)
        until(lambda: bool(waits))
        run.close()
        assert any(isinstance(event, RunFinished) for event in waiting.result().drain())


def stepwise(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stepwise_tui", *arguments]
    environment = {**os.environ, "TMPDIR": tempfile.gettempdir(), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_a_detached_run_gives_the_shell_back_and_is_steered_from_it(tmp_path: Path, short: Path) -> None:
    small = ["--set", "data.train=400", "--set", "data.valid=20", "--set", "data.test=20"]
    small += ["--set", "stop.epochs=inf"]
    begun = stepwise("run", "preset", "mult2x2", "--name", "far", "--detach", *small, cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    try:
        taken = stepwise("run", "preset", "mult2x2", "--name", "far", "--detach", cwd=tmp_path)
        assert taken.returncode == 2
        twice = stepwise("resume", "far", cwd=tmp_path)
        assert twice.returncode == 2 and "runs already" in twice.stderr and "attach" in twice.stderr
        paused = json.loads(stepwise("send", "far", "--json", "pause", cwd=tmp_path).stdout)
        assert paused["ok"] and paused["command"] == "pause"
        assert set(paused) == {"id", "command", "applied_at_step", "ok", "message"}
        again = stepwise("send", "far", "pause", cwd=tmp_path).stdout
        assert re.fullmatch(r"paused at step [\d,]+\n", again), "the step is said once"
        refused = stepwise("send", "far", "rollback", "99", cwd=tmp_path)
        assert refused.returncode == 1 and "no stage 99" in refused.stderr
        assert stepwise("send", "far", "explode", cwd=tmp_path).returncode == 2
    finally:
        ended = stepwise("send", "far", "stop", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = status.read(tmp_path / "runs" / "far")
    assert found is not None
    until(lambda: not psutil.pid_exists(found.pid))
    gone = stepwise("send", "far", "pause", cwd=tmp_path)
    assert gone.returncode == 1 and "stepwise resume" in gone.stderr


def test_from_another_host_the_whole_history_is_shown_and_nothing_is_steered(run: Run) -> None:
    link = SocketLink(run.folder)
    answer(link, "evaluate")
    run.close()
    found = status.read(run.folder)
    assert found is not None
    elsewhere = replace(found, host="gpu7", state="training", heartbeat=time.time())
    status.write(run.folder, elsewhere)

    far = attach(run.folder)
    assert isinstance(far, JournalLink)
    events = far.drain()
    assert [e.seq for e in events if isinstance(e, Evaluated)] == [
        e.seq for e in journal.read(run.folder) if isinstance(e, Evaluated)
    ]
    assert "read only: it runs on gpu7" in str(events[-1])
    far.send(parse("pause"))
    (refused,) = far.drain()
    assert "not sent: pause; read only" in str(refused)
    with (run.folder / journal.FILE).open("a") as file:
        file.write(encode(Notice(seq=10**6, message="and it goes on")) + "\n")
    told = heard(far, lambda event: bool(event.seq))
    assert isinstance(told, Notice) and told.message == "and it goes on"

    status.write(run.folder, replace(elsewhere, heartbeat=time.time() - 1000))
    with pytest.raises(LinkError, match="runs on gpu7"):
        attach(run.folder)


def test_who_finds_no_free_place_is_told_so(run: Run) -> None:
    with contextlib.ExitStack() as taken:
        for _ in range(MOST_CLIENTS):
            taken.enter_context(connect(run.folder)).sendall(wire.hello(None))
        with pytest.raises(
            LinkError, match="64 are attached already; when one of them has left there is room"
        ):
            SocketLink(run.folder)


def test_who_watches_a_run_to_its_end_is_not_told_that_its_process_is_lost(
    tmp_path: Path, short: Path
) -> None:
    run = Run(tiny_config(stop__steps=1_000_000, stop__epochs=1e9), tmp_path / "run")
    run.start()
    events: list[Event] = []
    with Host(run):
        link = SocketLink(run.folder)
        run.close()

    def left() -> bool:
        events.extend(link.drain())
        return any(isinstance(e, ReachChanged) for e in events)

    until(left)
    assert any(isinstance(e, RunFinished) for e in events)
    assert not [e.message for e in events if isinstance(e, Notice) and "looking for it" in e.message]


def test_what_dead_runs_left_is_swept_away_when_one_starts(tmp_path: Path, short: Path) -> None:
    folder = wire.private_folder()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(folder / "dead.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as alive:
        alive.bind(str(folder / "alive.sock"))
        alive.listen()
        for name in ("dead.log", "alive.log", "older.toml"):
            (folder / name).touch()
        for path in folder.iterdir():
            os.utime(path, (0, 0))
        (folder / "new.log").touch()
        wire.sweep()
        assert {path.name for path in folder.iterdir()} == {"alive.sock", "alive.log", "new.log"}


def test_a_run_that_has_ended_is_shown_and_steered_again_once_it_is_taken_up(
    tmp_path: Path, short: Path
) -> None:
    run = Run(tiny_config(stop__steps=1_000_000, stop__epochs=1e9), tmp_path / "run")
    run.start()
    with Host(run):
        answer(SocketLink(run.folder), "evaluate")
        run.close()
    shown = attach(run.folder, ended=True)
    assert isinstance(shown, SocketLink)
    events = shown.drain()
    assert any(isinstance(e, Evaluated) for e in events) and any(isinstance(e, RunFinished) for e in events)
    shown.send(parse("pause"))
    refused = heard(shown, lambda e: "Not sent" in str(e))
    advice = f"its process is gone; `stepwise resume {run.folder}` goes on with it, and this window follows"
    assert isinstance(refused, Notice) and refused.message == f"{advice}. Not sent: pause"
    again = Run(run.config, run.folder, resume=True)
    again.start()
    try:
        with Host(again):
            heard(shown, lambda e: isinstance(e, ReachChanged) and e.gone is None)
            assert answer(shown, "pause").ok
    finally:
        again.close()


def test_who_asks_a_run_that_has_finished_is_told_how_it_can_be_asked(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tiny_config(), tmp_path / "run")
    run.start()
    assert run.wait(60)
    run.close()
    monkeypatch.chdir(tmp_path)
    shown = attach(run.folder, ended=True)
    shown.send(parse("ask 12*34"))
    refused = heard(shown, lambda e: "Not sent" in str(e))
    advice = "it has finished; `stepwise chat run` asks it. Not sent: ask 12*34"
    assert isinstance(refused, Notice) and refused.message == advice
