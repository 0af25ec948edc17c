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
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType

import typer

from stepwise_tui.output import FAILURE, block
from stepwise_tui.terminal import is_the_same
from stepwise_tui.text import accuracy
from trainer import runs
from trainer.paths import named, shortest
from trainer.record import lock
from trainer.sweep import LOCK, LOGS, Member, Sweep, SweepError

LOOK_SECONDS = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOT_BEGUN, NOT_TAKEN_UP = "could not begin", "could not go on"
TAIL = 5
"""Lines of what a member printed, shown when it broke."""
SHOWN = 3
"""Members of those that broke, of which that is shown."""
READ = 1 << 14
"""Bytes of a log's end that are looked through for them."""


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
        with _signals(local.stop):
            _say(plan(sweep, len(devices)))
            local.run()
    _say_end(sweep, local.ends, stopped=local.stopping.is_set())


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
        self.ends: dict[str, str] = {}
        """How each that ended since came out, in words."""
        self._told: dict[str, str] = {}
        """The state of each that trains, as it was told."""
        self._finished = sum(sweep.state(member) == "finished" for member in sweep.members)

    def run(self) -> None:
        """Return when every member has ended, or those that train have been stopped."""
        # Those that train already take their places first, then those that were begun.
        order = sorted(
            self._sweep.members, key=lambda m: (not self._lives(m), self._sweep.state(m) == "waiting")
        )
        with ThreadPoolExecutor(self._jobs) as pool:
            left = {pool.submit(self._train, member): member for member in order}
            while left:
                done, _ = wait(left, LOOK_SECONDS, FIRST_COMPLETED)
                for one in done:
                    self._tell_end(left.pop(one), one.result())
                self._tell(left.values())

    def stop(self) -> None:
        """Have all members that train here save and end; none is begun any more."""
        self.stopping.set()
        _say("stopping: what trains is saved; the same command goes on", err=True)

    def _train(self, member: Member) -> int | None:
        """Have it trained; what its process ended with, 0 where another had begun it, None where there was
        nothing to do."""
        device, ended = self._devices.get(), None
        try:
            while not self._ended(member):
                if self._lives(member):
                    self._await(member)
                    ended = 0
                else:
                    ended = self._begin(member, device)
                    if not self._lives(member):  # else another had begun it a moment before
                        break
        finally:
            self._devices.put(device)
        return ended

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

    def _begin(self, member: Member, device: str | None) -> int:
        """Train one to its end, or until all are stopped; what its process ended with."""
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
        while (ended := process.poll()) is None:
            if self.stopping.is_set() and not asked:
                asked = True
                process.terminate()
            time.sleep(LOOK_SECONDS)
        return ended

    def _tell(self, members: Iterable[Member]) -> None:
        """A line for every member that trains whose state is another than it was."""
        for member in members:
            state = self._sweep.state(member)
            # What seems to have ended is loaded just now, or told in a moment by how its process ended.
            passing = state in ("waiting", "starting", "evaluating", *runs.ENDED)
            if not passing and state != self._told.get(member.name):
                self._told[member.name] = state
                _say_of(member, state)

    def _tell_end(self, member: Member, ended: int | None) -> None:
        """A line for a member that is over. ended: what its process ended with; None where it had none."""
        state = self._sweep.state(member)
        if ended is None or (state == "waiting" and self.stopping.is_set()):
            return
        self.ends[member.name] = how = outcome(state, ended, stopping=self.stopping.is_set())
        more = ""
        if state == "finished":
            self._finished += 1
            reached = accuracy(runs.row(self._sweep.run(member)).accuracy)
            more = f"accuracy {reached}, {self._finished} of {len(self._sweep.members)}"
        elif how in (NOT_BEGUN, NOT_TAKEN_UP):
            more = "".join(_end_of(self._sweep.log(member))[-1:]).removeprefix("stepwise: ")
        _say_of(member, how, more)


def outcome(state: str, ended: int, *, stopping: bool = False) -> str:
    """How a member came out that is in `state` and whose process ended with `ended`, in words."""
    if state == "waiting":  # its folder is taken away again
        return NOT_BEGUN
    if state == "interrupted" and ended and not stopping:
        return NOT_TAKEN_UP
    if state == "crashed" and ended < 0:
        return f"ended by signal {-ended}"
    return state


def plan(sweep: Sweep, places: int) -> str:
    """What is there and will be done, in words."""
    states = Counter(sweep.state(member) for member in sweep.members)
    number, left = len(sweep.members), len(sweep.members) - states["finished"]
    parts = [f"{number} run{'' if number == 1 else 's'}"]
    if states["finished"]:
        parts.append(f"{states['finished']} finished already")
    begun = [f"{states[state]} {state}" for state in ("interrupted", "crashed") if states[state]]
    if begun:
        parts.append(f"going on with {' and '.join(begun)}")
    if left:
        parts.append(f"{min(places, left)} at once")
    return f"{', '.join(parts)}, in {shortest(sweep.folder)}"


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
    cores, threads = len(os.sched_getaffinity(0)), sweep.local.threads
    if (wanted := min(jobs or 1, len(sweep.members)) * threads) > cores:
        _say(f"[local] asks for {wanted} threads at once of {cores} cores: they wait for each other")
    return [None] * (jobs or max(1, cores // threads))


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    from torch import cuda

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(i) for i in range(cuda.device_count())]
    return names[: cuda.device_count()]


def _say_end(sweep: Sweep, ends: Mapping[str, str], *, stopped: bool) -> None:
    """How it came out; exits 1 when a member broke that nobody stopped. ends: of those that ended here."""
    states = {member: sweep.state(member) for member in sweep.members}
    how = {member: ends.get(member.name, state) for member, state in states.items()}
    counts = ", ".join(f"{n} {words}" for words, n in Counter(how.values()).items())
    _say(f"{counts}: {shortest(sweep.folder)}")
    if all(state == "finished" for state in states.values()):
        _say(f"stepwise compare {named(sweep.folder)}")
        return
    _say("the same command goes on with what has not finished")
    broken = [m for m, state in states.items() if state in ("crashed", "waiting") or how[m] == NOT_TAKEN_UP]
    if stopped or not broken:
        return
    for member in broken[:SHOWN]:
        log = sweep.log(member)
        _say("\n  ".join([f"{member.name} {how[member]}: {shortest(log)}", *_end_of(log)]), err=True)
    if others := broken[SHOWN:]:
        _say(f"so did {', '.join(member.name for member in others)}", err=True)
    raise typer.Exit(FAILURE)


def _say_of(member: Member, state: str, more: str = "") -> None:
    _say(f"{time.strftime('%H:%M:%S')}  {state:<10}  {member.name}  {more}".rstrip())


def _say(text: str, *, err: bool = False) -> None:
    with contextlib.suppress(OSError):  # nobody may look any more
        block(text, err=err)


def _end_of(log: Path) -> list[str]:
    """The last lines of what a member printed."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - READ))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-TAIL:]


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT, SIGTERM: `stop`; again: leave at once. SIGHUP: a line that dropped ends nothing."""
    asked_at: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        if asked_at is None:
            asked_at = time.monotonic()
            stop()
        elif not is_the_same(number, asked_at):
            os._exit(128 + number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
