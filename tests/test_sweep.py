"""Sweeps: what a file stands for, what is refused, and real runs that outlive whoever launched them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import typer

from stepwise_tui import launcher, sweeping
from stepwise_tui.queued import Job
from tests.terminal import until
from tests.tiny import kill, tiny_config
from trainer import config as configuration
from trainer import runs, sweep
from trainer.events import RunFinished, RunStarted
from trainer.record import journal

GRID = """
presets = ["mult2x2", "mult3x3"]
seeds = [0, 1]
[set]
stop.hours = 1
[values]
"optim.lr" = [1e-3, 2e-3]
schedule.kind = ["linear", "adaptive"]
"""


def read(tmp_path: Path, text: str) -> sweep.Sweep:
    file = tmp_path / "pace.toml"
    file.write_text(text)
    return sweep.read(file, tmp_path / "runs")


def test_every_combination_is_a_run_with_a_name_and_a_command_of_its_own(tmp_path: Path) -> None:
    asked = read(tmp_path, GRID)
    assert len({member.name for member in asked.members}) == 16
    one = asked.members[7]
    assert one.name == "mult2x2-lr_0.002-kind_adaptive-s1"
    assert (one.config.optim.lr, one.config.schedule.kind, one.config.seed) == (2e-3, "adaptive", 1)
    assert one.config.stop.hours == 1
    assert asked.begin(one) == [
        *("run", "preset", "mult2x2", "--set", "stop.hours=1", "--set", "optim.lr=0.002"),
        *("--set", "schedule.kind=adaptive", "--seed", "1"),
        *("--out", str(tmp_path / "runs" / "pace"), "--name", one.name, "--plain"),
    ]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = [1]", "pace.toml: presets is missing; a list"),
        ('presets = ["mult2x3"]', "did you mean mult3x3?"),
        ('presets = ["mult2x2"]\n[values]\n"optim.lr" = []', "optim.lr = []: at least one value is expected"),
        ('presets = ["mult2x2"]\n[values]\n"optim.lr" = 1', "optim.lr = 1: a list of values is expected"),
        ('presets = ["mult2x2"]\n[values]\n"optim.lr" = [1, -1]', "optim.lr = -1: number > 0 is allowed"),
        ('presets = ["mult2x2"]\n[values]\n"optim.rate" = [1]', "optim.rate"),
        ('presets = ["mult2x2"]\n[values]\n"seed" = [1]', "seeds = [0, 1, 2] gives the seeds"),
        ('presets = ["mult2x2"]\nseeds = [1, 1]', "1 stands there twice"),
        ('presets = ["mult2x2"]\nseeds = [3, -1]', "seeds: seed = -1: whole number"),
        ('presets = ["mult2x2"]\nseeds = [3000000000]', "seeds: seed = 3000000000: whole number"),
        ('presets = ["mult2x2"]\n[values]\n"optim.lr" = [1e-3, 0.001]', "the name mult2x2-lr_0.001-s0"),
        ('presets = ["mult2x2"]\n[sets]\n"optim.lr" = 1', "sets: there is no such key; did you mean set?"),
        ('presets = ["mult2x2"]\nlr = 1', "lr: there is no such key; there are presets, seeds, set, values,"),
        ('presets = ["mult2x2"]\n[local]\njobs = 0', "local.jobs = 0: whole number ≥ 1 is allowed"),
        ('presets = ["mult2x2"]\nseeds = []', "seeds = []: at least one is expected"),
        ('presets = ["mult2x2"]\nseeds = ["x"]', "seeds = 'x': a list of whole numbers is allowed"),
        ('presets = "mult2x2"', "presets = 'mult2x2': a list of presets and files is allowed"),
        ("presets = [", "is not TOML"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"pace\.toml") as refusal:
        read(tmp_path, text)
    assert said in str(refusal.value)
    assert not (tmp_path / "runs").exists()


def test_the_file_that_a_sweep_keeps_goes_on_with_that_sweep(tmp_path: Path) -> None:
    asked = read(tmp_path, GRID)
    with sweeping.held(asked):
        pass
    kept = asked.folder / runs.SWEEP_FILE
    assert sweep.read(kept, tmp_path / "elsewhere").folder == asked.folder
    mine = tmp_path / runs.SWEEP_FILE
    mine.write_text(GRID)
    assert sweep.read(mine, tmp_path / "runs").folder == tmp_path / "runs" / "sweep"


def test_a_run_of_another_configuration_is_told_with_what_differs(tmp_path: Path) -> None:
    asked = read(tmp_path, 'presets = ["mult2x2"]\nseeds = [0, 1, 2]')
    for member in asked.members[:2]:
        asked.run(member).mkdir(parents=True)
        (asked.run(member) / runs.CONFIG_FILE).write_text(configuration.dumps(member.config))
    asked.keep()
    grown = 'presets = ["mult2x2"]\nseeds = [0, 1, 2, 3]'
    assert len(read(tmp_path, grown).members) == 4
    with pytest.raises(ValueError, match="has mult2x2-s0, mult2x2-s1 with another configuration") as refusal:
        read(tmp_path, f'{grown}\n[set]\n"optim.lr" = 3e-3\n"stop.hours" = 2')
    assert "optim.lr = 0.002 there, 0.003 here, stop.hours = 24.0 there, 2.0 here" in str(refusal.value)


def test_members_that_cannot_begin_are_told_at_once_and_all_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = read(tmp_path, 'presets = ["mult2x2"]\nseeds = [0, 1]\n[set]\ndevice = "cpu"\n[local]\njobs = 5')
    monkeypatch.setattr(sweep.Sweep, "begin", lambda self, member: ["no-such-command"])
    with pytest.raises(typer.Exit):
        sweeping.run(asked)
    said = capsys.readouterr()
    first, *lines = [line for line in said.out.splitlines() if not line.startswith("[local]")]
    assert first.startswith("2 runs, 2 at once, in ")
    told = sorted(line.split("  ")[1:3] for line in lines[:2])
    assert told == [["could not begin", "mult2x2-s0"], ["could not begin", "mult2x2-s1"]]
    assert lines[2].startswith("2 could not begin: ")
    for member in asked.members:
        assert f"{member.name} could not begin: " in said.err and "no-such-command" in said.err


def test_how_a_member_came_out_is_told_by_its_state_and_the_end_of_its_process() -> None:
    assert sweeping.outcome("finished", 0) == "finished"
    assert sweeping.outcome("crashed", 1) == "crashed"
    assert sweeping.outcome("crashed", -9) == "ended by signal 9"
    assert sweeping.outcome("waiting", 2) == "could not begin"
    assert sweeping.outcome("interrupted", 2) == "could not go on"
    assert sweeping.outcome("interrupted", 0) == "interrupted"
    assert sweeping.outcome("interrupted", -15, stopping=True) == "interrupted"


def test_a_launch_says_what_is_there_already_and_what_it_goes_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {"s0": "finished", "s1": "interrupted", "s2": "interrupted", "s3": "crashed", "s4": "waiting"}
    monkeypatch.setattr(sweep.Sweep, "state", lambda self, member: states[member.name[-2:]])
    asked = read(tmp_path, 'presets = ["mult2x2"]\nseeds = [0, 1, 2, 3, 4]')
    assert sweeping.plan(asked, 8).startswith(
        "5 runs, 1 finished already, going on with 2 interrupted and 1 crashed, 4 at once, in "
    )
    states["s0"] = "waiting"
    asked = read(tmp_path, 'presets = ["mult2x2"]')
    assert sweeping.plan(asked, 2).startswith("1 run, 1 at once, in ")


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    asked = read(tmp_path, f"\ufeff{GRID}")
    assert len(asked.members) == 16 and asked.text == GRID


def test_a_file_whose_name_no_folder_can_have_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "my sweep.toml"
    file.write_text(GRID)
    with pytest.raises(
        ValueError, match=r"my sweep\.toml: the file's name .* 'my sweep': letters"
    ) as refusal:
        sweep.read(file, tmp_path / "runs")
    assert "--name" not in str(refusal.value)


def tiny(tmp_path: Path, seeds: int, **changes: object) -> Path:
    """A sweep of tiny runs, two at once; they measure and tell little, so that a step takes little."""
    changes = {"eval__every": 500, "log__every": 50, **changes}
    (tmp_path / "tiny.toml").write_text(configuration.dumps(tiny_config(**changes)))
    file = tmp_path / "three.toml"
    file.write_text(f'presets = ["{tmp_path}/tiny.toml"]\nseeds = {list(range(seeds))}\n[local]\njobs = 2\n')
    return file


def launch(file: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stepwise_tui", "sweep", file.name, *more]
    return subprocess.Popen(
        command, cwd=file.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def trains(folder: Path) -> bool:
    return runs.is_run(folder) and runs.state(folder) == "training"


@pytest.mark.slow
def test_a_sweep_outlives_its_launcher_and_the_same_command_goes_on(tmp_path: Path) -> None:
    file = tiny(tmp_path, 3, stop__steps=1_000)
    folders = [tmp_path / "runs" / "three" / f"tiny-s{seed}" for seed in range(3)]
    launched = [launch(file)]
    try:
        pids: set[int] = set()

        def stopped() -> bool:
            """So that they are still there, however quick a run or slow a launcher is.

            With a socket: before it a run may not know yet what to do at a signal.
            """
            for folder in folders[:2]:
                if trains(folder) and (found := runs.lives(folder)) is not None and found.socket:
                    os.kill(found.pid, signal.SIGSTOP)
                    pids.add(found.pid)
            return len(pids) == 2

        until(stopped, 150)
        launched.append(launch(file))
        assert "launched by another process" in launched[-1].communicate()[0]
        assert launched[-1].returncode == 2

        launched[0].send_signal(signal.SIGKILL)
        launched[0].wait()
        launched.append(launch(file))
        assert launched[-1].stdout is not None and "3 runs, 2 at once" in launched[-1].stdout.readline()
        for _ in range(2):  # as `timeout` signals its command, and then the group
            launched[-1].terminate()
            time.sleep(0.05)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        said = launched[-1].communicate()[0]
        assert "2 interrupted, 1 waiting" in said, said
        assert launched[-1].returncode == 0

        launched.append(launch(file))
        said = launched[-1].communicate()[0]
        assert "3 finished" in said, said
        assert launched[-1].returncode == 0
        started = [list(journal.read(folder, journal.of(RunStarted))) for folder in folders]
        assert [[bool(e.checkpoint) for e in events] for events in started] == [[False, True]] * 2 + [[False]]

        listed = launcher.look(tmp_path / "runs")
        assert {seen.row.name for seen in listed} == {f"three/tiny-s{seed}" for seed in range(3)}
        assert runs.find("three/tiny-s1", tmp_path / "runs") == folders[1]
        assert runs.find_all("three", tmp_path / "runs") == folders
        with pytest.raises(ValueError, match="with another configuration"):
            sweep.read(tiny(tmp_path, 3, stop__steps=900), tmp_path / "runs")
    finally:
        for process in launched:
            process.kill()
        for folder in folders:
            kill(folder)


@pytest.mark.slow
def test_a_job_of_a_queue_saves_when_its_time_is_over_and_goes_on_in_the_next(tmp_path: Path) -> None:
    """As submitit does it: `checkpoint` while it runs, then what that gave back, anew."""
    file = tiny(tmp_path, 1, stop__steps=1_000)
    asked = sweep.read(file, tmp_path / "runs")
    member = asked.members[0]
    folder = asked.run(member)
    job = Job(str(folder), asked.begin(member), asked.resume(member))
    given = []

    def signalled(*_: object) -> None:
        given.append(job.checkpoint())
        raise SystemExit

    def disturb() -> None:
        until(lambda: trains(folder), 150)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, signalled)
    threading.Thread(target=disturb, daemon=True).start()
    try:
        with pytest.raises(SystemExit):
            job()
    finally:
        signal.signal(signal.SIGUSR1, before)
    again = pickle.loads(pickle.dumps(given[0].function))
    assert runs.state(folder) == "interrupted"
    assert again() == 0
    assert runs.state(folder) == "finished"
    assert len(list(journal.read(folder, journal.of(RunFinished)))) == 2
