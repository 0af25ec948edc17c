"""The runs of a sweep on this machine: as many at once as it has GPUs, or cores for their threads.

Each is a process in a session of its own, `stepwise run … --plain`, so it outlives whoever launched it. What
has finished is not run again, what trains already is waited for, what was interrupted is resumed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType

import typer

from stepwise_tui.output import FAILURE, block
from stepwise_tui.text import accuracy, shortest
from trainer import runs
from trainer.record import lock
from trainer.sweep import LOCK, LOGS, Member, Sweep, SweepError

LOOK_SECONDS = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM)
TAIL = 2_000
"""Characters of what a member printed, shown when it broke."""


@contextlib.contextmanager
def held(sweep: Sweep) -> Iterator[None]:
    """Nobody else launches this sweep while inside. Raises `SweepError`."""
    path = sweep.folder / LOGS / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        lock.take(descriptor)
        sweep.keep()
        yield
    except BlockingIOError:
        raise SweepError(
            f"{sweep.folder} is launched by another process already; plain `stepwise` shows it"
        ) from None
    finally:
        os.close(descriptor)


def run(sweep: Sweep) -> None:
    """Train every member that has not finished; return when all have ended. Exits 1 when one broke.

    The first SIGINT or SIGTERM stops and saves the members that train, a second one leaves them alone.
    Raises `SweepError` where this machine cannot run them.
    """
    devices = _places(sweep)
    with held(sweep):
        local = _Local(sweep, devices)
        already = f"{len(local.told)} finished already, " if local.told else ""
        with _signals(local.stop):
            _say(f"{len(sweep.members)} runs, {already}{len(devices)} at once, in {shortest(sweep.folder)}")
            local.run()
    _say_end(sweep, stopped=local.stopping.is_set())


class _Local:
    """Runs members; `stop` may be called by a signal.

    devices: one per member at once, each what CUDA_VISIBLE_DEVICES is to say; None: as it is.
    """

    def __init__(self, sweep: Sweep, devices: list[str | None]) -> None:
        self._sweep = sweep
        self._devices: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for device in devices:
            self._devices.put(device)
        self._jobs = len(devices)
        self.stopping = threading.Event()
        self.told = {m.name: "finished" for m in sweep.members if sweep.state(m) == "finished"}
        """The states that have been told."""

    def run(self) -> None:
        """Return when every member has ended, or those that train have been stopped."""
        # Those that train already take their places first, then those that were begun.
        order = sorted(
            self._sweep.members, key=lambda m: (not self._lives(m), self._sweep.state(m) == "waiting")
        )
        with ThreadPoolExecutor(self._jobs) as pool:
            left = {pool.submit(self._train, member) for member in order}
            while left:
                done, left = wait(left, LOOK_SECONDS, FIRST_COMPLETED)
                self._tell()
                for one in done:
                    one.result()

    def stop(self) -> None:
        """Have all members that train here save and end; none is begun any more."""
        self.stopping.set()
        _say("stopping: what trains is saved; the same command goes on", err=True)

    def _train(self, member: Member) -> None:
        device = self._devices.get()
        try:
            while not self._ended(member):
                if self._lives(member):
                    self._await(member)
                else:
                    self._begin(member, device)
                    if not self._lives(member):  # else another had begun it a moment before
                        return
        finally:
            self._devices.put(device)

    def _ended(self, member: Member) -> bool:
        return (self.stopping.is_set() and not self._lives(member)) or self._sweep.state(member) == "finished"

    def _lives(self, member: Member) -> bool:
        folder = self._sweep.run(member)
        return runs.is_run(folder) and runs.lives(folder) is not None

    def _await(self, member: Member) -> None:
        """Wait for one that somebody else has begun: mostly a launcher that was killed."""
        asked = False
        while (found := runs.lives(self._sweep.run(member))) is not None:
            if self.stopping.is_set() and not asked:
                asked = True
                with contextlib.suppress(OSError):
                    os.kill(found.pid, signal.SIGTERM)
            time.sleep(LOOK_SECONDS)

    def _begin(self, member: Member, device: str | None) -> None:
        """Train one to its end, or until all are stopped."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._sweep.local.threads)}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        sweep = self._sweep
        command = sweep.resume(member) if runs.is_run(sweep.run(member)) else sweep.begin(member)
        with sweep.log(member).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "stepwise_tui", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        asked = False
        while process.poll() is None:
            if self.stopping.is_set() and not asked:
                asked = True
                process.terminate()
            time.sleep(LOOK_SECONDS)

    def _tell(self) -> None:
        """A line for every member whose state is another than it was."""
        states = {member.name: self._sweep.state(member) for member in self._sweep.members}
        finished = sum(state == "finished" for state in states.values())
        for name, state in states.items():
            if state in ("evaluating", "starting") or state == self.told.get(name, "waiting"):
                continue
            self.told[name] = state
            line = f"{time.strftime('%H:%M:%S')}  {state:<12}{name}"
            if state == "finished":
                reached = accuracy(runs.row(self._sweep.folder / name).accuracy)
                line += f"  accuracy {reached}, {finished} of {len(states)}"
            _say(line)


def _places(sweep: Sweep) -> list[str | None]:
    """A device for each member at once. Raises `SweepError`."""
    several = next((m.name for m in sweep.members if m.config.gpus > 1), None)
    if several is not None:
        raise SweepError(
            f"{several}: gpus > 1, and here each run has one device; `--on slurm` gives it several"
        )
    kinds = {member.config.device for member in sweep.members}
    found = [] if kinds == {"cpu"} else _gpus()
    jobs = sweep.local.jobs
    if found and kinds <= {"auto", "cuda"}:
        return [found[i % len(found)] for i in range(jobs or len(found))]
    cores = len(os.sched_getaffinity(0))
    return [None] * (jobs or max(1, cores // sweep.local.threads))


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    from torch import cuda

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(i) for i in range(cuda.device_count())]
    return names[: cuda.device_count()]


def _say_end(sweep: Sweep, *, stopped: bool) -> None:
    """How it came out; exits 1 when a member broke that nobody stopped."""
    states = {member: sweep.state(member) for member in sweep.members}
    counts = ", ".join(f"{n} {state}" for state, n in Counter(states.values()).items())
    _say(f"{counts}: {shortest(sweep.folder)}")
    if all(state == "finished" for state in states.values()):
        _say(f"stepwise compare {shortest(sweep.folder)}")
        return
    _say("the same command goes on with what has not finished")
    broken = [member for member, state in states.items() if state in ("crashed", "waiting")]
    if broken and not stopped:
        log = sweep.log(broken[0])
        _say(f"{broken[0].name}, of {len(broken)} that broke: {shortest(log)}\n{_end_of(log)}", err=True)
        raise typer.Exit(FAILURE)


def _say(text: str, *, err: bool = False) -> None:
    with contextlib.suppress(OSError):  # nobody may look any more
        block(text, err=err)


def _end_of(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-TAIL:].strip()
    except OSError:
        return ""


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT, SIGTERM: `stop`; again: leave at once. SIGHUP: a line that dropped ends nothing."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        stop()

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
