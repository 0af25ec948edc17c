"""`attach --ssh`: a local command stands in ssh's place, everything else is real."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stepwise_tui.relay import RelayLink
from tests.terminal import STEPWISE, Terminal, until
from tests.tiny import endless, kill
from trainer import runs


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another host, as far as the command line can tell: its shell greets and begins in this folder, where
    an endless run `far` trains."""
    (tmp_path / "box").mkdir()
    script = tmp_path / "ssh"
    script.write_text(f'#!/bin/sh\necho "Welcome to $1"\ncd {tmp_path / "box"}\nexec sh -c "exec $2"\n')
    script.chmod(0o755)
    monkeypatch.setenv("STEPWISE_SSH", str(script))
    monkeypatch.setenv("STEPWISE_REMOTE", shlex.join(STEPWISE))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(
            [*STEPWISE, "run", "config", endless(tmp_path), "--name", "far", "--plain"],
            cwd=tmp_path / "box",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    folder = tmp_path / "box" / "runs" / "far"
    until(lambda: runs.is_run(folder) and runs.row(folder).step > 0)
    yield folder
    kill(folder)
    run.wait()


def attach(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*STEPWISE, "attach", "--ssh", "box", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_a_run_of_another_host_is_steered_also_after_the_line_dropped(box: Path, tmp_path: Path) -> None:
    terminal = Terminal("attach", "--ssh", "box", cwd=tmp_path)
    try:
        terminal.until("far on box")
        terminal.until("TRAINING")
        terminal.press("g")  # how that machine is doing, not this one
        terminal.until(lambda screen: "process" in screen and screen.count(" GiB") >= 2)
        terminal.press("g", "space")
        terminal.until("PAUSED")
        (line,) = psutil.Process(terminal.pid).children()
        line.kill()
        terminal.until("the connection ended")
        terminal.until("reached again")
        terminal.press("space")
        terminal.until("TRAINING")
        terminal.press("d")
        assert terminal.leave() == 0
    finally:
        terminal.close()


@pytest.mark.slow
def test_a_run_of_another_host_is_told_in_lines(box: Path, tmp_path: Path) -> None:
    command = [*STEPWISE, "attach", "--ssh", "box", "far", "--plain"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as attached:
        assert attached.stdout is not None
        try:
            assert any("tok/s" in line for line in attached.stdout)
            subprocess.run([*STEPWISE, "send", str(box), "stop"], check=True, timeout=60)
            assert any("interrupted: stopped by the operator" in line for line in attached.stdout)
        except BaseException:
            attached.kill()  # or it would be waited for
            raise
    assert attached.returncode == 0


@pytest.mark.slow
def test_the_commands_that_are_named_of_a_run_of_another_host_work_here(box: Path) -> None:
    link = RelayLink("box", None, Path("runs"))
    assert link.command("attach") == f"stepwise attach --ssh box {box}"
    done = subprocess.run(link.command("send", "pause"), shell=True, timeout=60, check=False)
    assert done.returncode == 0
    until(lambda: runs.state(box) == "paused")


def test_what_is_not_there_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "ssh"
    script.write_text('#!/bin/sh\nexec sh -c "exec $2"\n')
    script.chmod(0o755)
    monkeypatch.setenv("STEPWISE_SSH", str(script))
    monkeypatch.setenv("STEPWISE_REMOTE", str(tmp_path / "nothing"))
    done = attach("far", cwd=tmp_path)
    assert done.returncode == 1
    assert "box finds no `stepwise`; STEPWISE_REMOTE" in done.stderr

    monkeypatch.setenv("STEPWISE_REMOTE", shlex.join((sys.executable, "-m", "stepwise_tui")))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    done = attach("far", cwd=tmp_path)
    assert done.returncode == 1
    assert "box: there is no run 'far'" in done.stderr

    script.write_text(
        "#!/bin/sh\necho 'ssh: connect to host box port 22: Connection refused' >&2; exit 255\n"
    )
    done = attach("far", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "stepwise: box: ssh: connect to host box port 22: Connection refused\n",
    )
    monkeypatch.setenv("STEPWISE_SSH", str(tmp_path / "nothing"))
    done = attach("far", cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing cannot be run: No such file" in done.stderr
