"""What happens to a run when something happens to its terminal: real processes, a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepwise_tui.terminal import TOGETHER_SECONDS
from tests.processes import answer, heard, reached
from tests.terminal import STEPWISE, Terminal, until
from tests.tiny import endless, kill
from trainer import runs, status
from trainer.events import CommandReceived, Metrics, Notice, RunFinished
from trainer.record import journal

pytestmark = pytest.mark.slow

LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts the endless run `run`, here, in a terminal."""
    opened: list[Terminal] = []

    def launch(*options: str, program: tuple[str, ...] = STEPWISE, controlling: bool = True) -> Terminal:
        arguments = ("run", "config", endless(tmp_path), "--out", ".", "--name", "run", *options)
        opened.append(Terminal(*arguments, cwd=tmp_path, program=program, controlling=controlling))
        return opened[-1]

    yield launch
    for terminal in opened:
        terminal.close()
    kill(tmp_path / "run")


def process_of(run: Path) -> int:
    found = status.read(run)
    assert found is not None
    return found.pid


def goes_on(run: Path, pid: int) -> None:
    """The run trains on in the same process, which holds no terminal, and can be steered."""
    until(lambda: has_let_go(pid))
    link = reached(run)
    step = answer(link, "hold").at.step
    heard(link, lambda event: isinstance(event, Metrics) and event.at.step > step)
    assert process_of(run) == pid
    assert answer(link, "pause").ok and answer(link, "stop").ok
    until(lambda: runs.row(run).state == "interrupted")


def is_shown_again(run: Path, pid: int) -> None:
    """The same, by another cockpit and its keys."""
    until(lambda: has_let_go(pid))
    with contextlib.closing(Terminal("attach", str(run), cwd=run.parent)) as attached:
        attached.until("TRAINING")
        assert process_of(run) == pid
        attached.press("space")
        attached.until("PAUSED")
        attached.press("q")
        attached.until("stop and save")
        attached.press("s")
        assert attached.leave() == 0
    until(lambda: runs.row(run).state == "interrupted")


def has_let_go(pid: int) -> bool:
    """Whether a process holds no terminal any more."""
    return {os.readlink(f"/proc/{pid}/fd/{d}") for d in (0, 1, 2)} == {os.devnull}


def tells_of_the_loss(run: Path) -> bool:
    """Whether the journal says, once, that the terminal went."""
    told = [e.message for e in journal.read(run) if isinstance(e, Notice)]
    return sum("the terminal is gone" in message for message in told) == 1


def close_the_window(terminal: Terminal, pid: int) -> None:
    terminal.hang_up()


def kill_the_front(terminal: Terminal, pid: int) -> None:
    os.kill(terminal.pid, signal.SIGKILL)


def hang_up_the_trainer(terminal: Terminal, pid: int) -> None:
    os.kill(pid, signal.SIGHUP)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "loss",
    [
        close_the_window,
        pytest.param(kill_the_front, marks=SLOW),
        pytest.param(hang_up_the_trainer, marks=SLOW),
    ],
)
def test_training_goes_on_when_the_terminal_is_lost(
    begin: Callable[..., Terminal], tmp_path: Path, loss: Callable[[Terminal, int], None]
) -> None:
    terminal = begin()
    terminal.until("tok/s")
    pid = process_of(tmp_path / "run")
    assert pid != terminal.pid
    loss(terminal, pid)
    assert terminal.leave() == (-signal.SIGKILL if loss is kill_the_front else 0)
    until(lambda: tells_of_the_loss(tmp_path / "run"))
    (is_shown_again if loss is close_the_window else goes_on)(tmp_path / "run", pid)


@SLOW
def test_a_terminal_may_go_before_training_begins(begin: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = begin()
    terminal.until("loading torch")
    terminal.hang_up()
    assert terminal.leave() == 0
    until(lambda: runs.is_run(tmp_path / "run") and runs.row(tmp_path / "run").state == "training")
    goes_on(tmp_path / "run", process_of(tmp_path / "run"))


@SLOW
def test_a_plain_run_survives_its_terminal_too(begin: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = begin("--plain")
    terminal.until("loss")
    assert process_of(tmp_path / "run") == terminal.pid
    terminal.hang_up()
    goes_on(tmp_path / "run", terminal.pid)
    assert terminal.leave() == 0


@SLOW
def test_a_terminal_that_vanishes_without_a_signal_is_noticed(
    begin: Callable[..., Terminal], tmp_path: Path
) -> None:
    terminal = begin(controlling=False)
    terminal.until("tok/s")
    terminal.hang_up()
    assert terminal.leave() == 0
    goes_on(tmp_path / "run", process_of(tmp_path / "run"))


@pytest.mark.parametrize(
    ("front", "trainer"),
    [(1, 1), *(pytest.param(*times, marks=SLOW) for times in ((1, 0), (0, 1), (2, 0), (0, 2)))],
)
def test_one_signal_saves_and_ends(
    begin: Callable[..., Terminal], tmp_path: Path, front: int, trainer: int
) -> None:
    """Schedulers signal every process of a job, and `timeout` its command and all of its group: that is one
    request, not two."""
    terminal = begin()
    terminal.until("tok/s")
    for pid in [terminal.pid] * front + [process_of(tmp_path / "run")] * trainer:
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.01)  # or the kernel makes one of two
    assert terminal.leave() == 0
    assert terminal.raw.endswith(b"interrupted: run\r\nstepwise resume run\r\n")
    assert LEAVE_ALTERNATE_SCREEN in terminal.raw
    assert runs.row(tmp_path / "run").state == "interrupted"
    assert [e.source for e in journal.read(tmp_path / "run") if isinstance(e, CommandReceived)] == ["SIGTERM"]


@pytest.mark.parametrize(
    ("whom", "number", "code"), [("the front", signal.SIGTERM, 143), ("the trainer", signal.SIGINT, 130)]
)
def test_the_second_signal_ends_it_at_once_and_the_terminal_is_restored(
    begin: Callable[..., Terminal], tmp_path: Path, whom: str, number: signal.Signals, code: int
) -> None:
    terminal = begin()
    terminal.until("tok/s")
    pid = terminal.pid if whom == "the front" else process_of(tmp_path / "run")
    terminal.freeze()  # so that the cockpit cannot be closed before the second one comes
    os.kill(pid, number)
    until(lambda: any(isinstance(e, RunFinished) for e in journal.read(tmp_path / "run")))
    time.sleep(TOGETHER_SECONDS)
    os.kill(pid, number)
    terminal.thaw()
    assert terminal.leave() == code
    assert LEAVE_ALTERNATE_SCREEN in terminal.raw


@SLOW
def test_a_killed_trainer_leaves_the_terminal_in_order(
    begin: Callable[..., Terminal], tmp_path: Path
) -> None:
    terminal = begin()
    terminal.until("tok/s")
    os.kill(process_of(tmp_path / "run"), signal.SIGKILL)
    assert terminal.leave() == 128 + signal.SIGKILL
    assert LEAVE_ALTERNATE_SCREEN in terminal.raw
    assert b"`stepwise resume run`" in terminal.raw[-200:]


@SLOW
def test_a_terminal_that_takes_nothing_delays_neither_training_nor_the_end(
    begin: Callable[..., Terminal], tmp_path: Path
) -> None:
    """A line that hangs: nobody reads what is drawn."""
    terminal = begin()
    terminal.until("tok/s")
    terminal.freeze()
    step = runs.row(tmp_path / "run").step
    until(lambda: runs.row(tmp_path / "run").step > step + 100)
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.leave() == 0
    assert runs.row(tmp_path / "run").state == "interrupted"


def test_ctrl_z_gives_the_shell_back_for_a_while_and_training_goes_on(
    begin: Callable[..., Terminal], tmp_path: Path
) -> None:
    told = 'echo "it stopped: $?"; read'
    script = f'{sys.executable} -m stepwise_tui "$@"; {told}; fg; {told}; fg; {told}'
    shell = begin(program=("bash", "-m", "-c", script, "stepwise"))
    shell.until("tok/s")
    run = tmp_path / "run"
    for stop in (lambda: shell.press("ctrl+z"), lambda: os.kill(process_of(run), signal.SIGTSTP)):
        shell.screen.reset()
        stop()
        shell.until("it stopped: 148")
        step = runs.row(run).step
        until(lambda step=step: runs.row(run).step > step)
        shell.screen.reset()
        shell.press("enter")
        shell.until("TRAINING")
    shell.screen.reset()
    shell.press("d")
    shell.until("it stopped: 0")
    assert shell.text.splitlines()[1].strip() == "stepwise attach run"
    is_shown_again(run, process_of(run))


@SLOW
def test_a_shell_that_ends_while_the_screen_is_stopped_ends_no_run(
    begin: Callable[..., Terminal], tmp_path: Path
) -> None:
    """Bash sends its stopped jobs SIGTERM and is gone."""
    script = f'{sys.executable} -m stepwise_tui "$@"; echo "it stopped"; read'
    shell = begin(program=("bash", "-m", "-c", script, "stepwise"))
    shell.until("tok/s")
    pid = process_of(tmp_path / "run")
    shell.press("ctrl+z")
    shell.until("it stopped")
    shell.hang_up()
    shell.leave()
    goes_on(tmp_path / "run", pid)


@SLOW
def test_a_stopped_screen_can_be_told_to_end(begin: Callable[..., Terminal], tmp_path: Path) -> None:
    script = f'{sys.executable} -m stepwise_tui "$@"; echo "it stopped"; kill %1; read'
    shell = begin(program=("bash", "-m", "-c", script, "stepwise"))
    shell.until("tok/s")
    shell.press("ctrl+z")
    shell.until("it stopped")
    until(lambda: runs.row(tmp_path / "run").state == "interrupted")
