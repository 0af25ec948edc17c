"""Let every write of a run fail once, fill its disk, make it read-only; compare it with one left in peace.

    python benchmarks/faults.py --json docs/results/faults.json
    python benchmarks/faults.py --every 40 --no-mounts          # a sample, as in the tests

*Faults*: in a real run of a tiny model the n-th call of one kind that concerns the run's folder raises
OSError, once, for every kind and every n. The kinds are the functions of `os` and `open` that write, and
safetensors' `save_file`. The run must go on by itself; or refuse to start, or break, and then go on when it
is resumed.
*Mounts* (as root): the run's folder is a tmpfs that is filled to the last byte at random instants, freed a
little later, and again; a read-only mount comes over it and goes; and the process is ended by SIGTERM while
the disk is full.

Then are compared, as in kills.py: the final weights, bit by bit; the events, none missing and none twice; the
answers; every checkpoint's manifest. Exit 1 when anything differs.
"""

from __future__ import annotations

import argparse
import builtins
import errno
import io
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from kills import CONFIG, differences
from transformers import modeling_utils

from benchmarks.arguments import positive, written
from trainer import config, control
from trainer.events import AlarmRaised
from trainer.parts import assemble
from trainer.record import journal, recorder
from trainer.run import Run, RunError
from trainer.saving import checkpoint, keeper

SETTINGS = CONFIG | {
    "save": {"minutes": 10.0, "stages": 2, "every_stage": 3, "keep": 2},
    "stop": {"steps": 30},
}
LONGER = CONFIG | {"stop": {"steps": 2000}, "eval": {"every": 200}, "log": {"every": 20}}
KINDS = {
    "open": errno.ENOSPC, "create": errno.EROFS, "mkdir": errno.ENOSPC, "write": errno.ENOSPC,
    "fsync": errno.EIO, "rename": errno.EROFS, "replace": errno.EIO, "unlink": errno.EROFS,
    "ftruncate": errno.EIO, "rmdir": errno.EIO, "save_file": errno.ENOSPC,
}  # fmt: skip
WENT_ON, REFUSED, BROKE = 0, 3, 4
OUTCOMES = {WENT_ON: "went on", REFUSED: "refused to start, with a sentence", BROKE: "broke, and was resumed"}


class Faults:
    """Counts the calls of each kind that concern `folder`, and lets the `n`-th of `kind` fail."""

    def __init__(self, folder: Path, kind: str = "", n: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self._folder, self._kind, self._n = str(folder), kind, n
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir"):
            self._replace(os, name, name)
        for name in ("write", "fsync", "ftruncate"):
            self._replace(os, name, name, of_descriptor=True)
        self._replace(os, "open", "open")
        self._replace(io, "open", "create", wanted=_writes)
        self._replace(builtins, "open", "create", wanted=_writes)
        self._replace(checkpoint, "save_file", "save_file", place=1)
        self._replace(modeling_utils, "safe_save_file", "save_file", place=1)

    def _replace(
        self,
        module: Any,
        name: str,
        kind: str,
        *,
        of_descriptor: bool = False,
        place: int = 0,
        wanted: Callable[..., bool] = lambda *_, **__: True,
    ) -> None:
        real = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            if wanted(*args, **options):
                where = args[place]
                if of_descriptor or isinstance(where, int):
                    with suppress(OSError):
                        where = os.readlink(f"/proc/self/fd/{where}")
                if str(where).startswith(self._folder):
                    self.counts[kind] += 1
                    if kind == self._kind and self.counts[kind] == self._n:
                        raise OSError(KINDS[kind], os.strerror(KINDS[kind]), str(where))
            return real(*args, **options)

        setattr(module, name, call)


def _writes(file: Any, mode: str = "r", *_: Any, **__: Any) -> bool:
    return any(letter in mode for letter in "wax+")


def train(folder: Path, settings: dict[str, Any], *, signals: bool = False) -> int:
    """Start or resume the run and stay to its end; how that was."""
    resume = (folder / "config.toml").is_file()
    if not resume and folder.exists():
        shutil.rmtree(folder)
    try:
        run = Run(config.build(settings), folder, resume=resume)
        run.start()
    except RunError as refusal:
        print(refusal)
        return REFUSED
    if signals:
        stop = control.parse("stop", source="signal")
        signal.signal(signal.SIGTERM, lambda *_: run.submit(stop))
    while not run.wait(0.1):
        pass
    run.close()
    return BROKE if run.state == "crashed" else WENT_ON


def child(work: Callable[[], int], log: Path) -> int:
    """Do it in a new process, which writes to `log`; its pid."""
    pid = os.fork()
    if pid:
        return pid
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        code = work()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fault(folder: Path, kind: str, n: int, log: Path) -> int:
    """A run with one fault; how that ended. Without it, it then comes to its end, resumed if need be."""

    def work() -> int:
        Faults(folder, kind, n)
        return train(folder, SETTINGS)

    outcome = ended(child(work, log))
    if outcome in (REFUSED, BROKE):
        again = ended(child(lambda: train(folder, SETTINGS), log))
        return outcome if again == WENT_ON else again
    return outcome


def calls(folder: Path, log: Path) -> Counter[str]:
    """How many calls of each kind a run makes that is left in peace: the reference."""

    def work() -> int:
        faults = Faults(folder)
        code = train(folder, SETTINGS)
        log.with_suffix(".calls").write_text(json.dumps(faults.counts))
        return code

    assert ended(child(work, log)) == WENT_ON, log.read_text()
    return Counter(json.loads(log.with_suffix(".calls").read_text()))


def every_fault(folder: Path, every: int) -> dict[str, Any]:
    log = folder / "log"
    reference = folder / "in-peace"
    counts = calls(reference, log)
    found: list[str] = []
    table: dict[str, Counter[str]] = {}
    for kind in KINDS:
        table[kind] = Counter()
        for n in range(1, counts[kind] + 1, every):
            run = folder / f"{kind}-{n}"
            log.write_text("")
            outcome = fault(run, kind, n, log)
            table[kind][OUTCOMES.get(outcome, f"exit {outcome}")] += 1
            problems = differences(run, reference) if outcome in OUTCOMES else [log.read_text()]
            found += [f"{kind} {n}: {problem}" for problem in problems]
            shutil.rmtree(run, ignore_errors=True)
        print(f"{kind}: {counts[kind]} calls, {dict(table[kind])}", flush=True)
    return {"calls": counts, "outcomes": table, "differences": found}


# Mounts ---------------------------------------------------------------------------------------------------


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    # A read-only mount is made in two steps, and what is opened for writing between them forbids the second.
    while subprocess.run(["mount", *options, str(folder)], capture_output=True).returncode:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take the rest of a disk, to the last byte."""
    file = folder / "filler"
    with file.open("wb", buffering=0) as filler:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    filler.write(b"\0" * size)
    return file


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def disturbed(pid: int, chance: random.Random, times: int, disturb: Callable[[], object]) -> dict[str, Any]:
    """Disturb a run again and again, then leave it in peace until it has come to its end."""
    for _ in range(times):
        time.sleep(chance.uniform(0.2, 1.0))
        disturb()
    return {"times": times, "exit": ended(pid)}


def disk_that_fills(folder: Path, log: Path, chance: random.Random, times: int) -> dict[str, Any]:
    """Fill the run's disk again and again while it trains, for one to two seconds."""

    def disturb() -> None:
        filler = fill(folder)
        time.sleep(chance.uniform(1, 2))
        filler.unlink()

    pid = child(lambda: train(folder / "run", LONGER), log)
    until((folder / "run/journal.jsonl").exists)
    return disturbed(pid, chance, times, disturb)


def mount_that_is_read_only(folder: Path, log: Path, chance: random.Random, times: int) -> dict[str, Any]:
    """Lay a read-only mount over the run's folder while it trains."""
    run = folder / "run"

    def disturb() -> None:
        with mounted(run, "--bind", "-o", "ro", str(run)):
            time.sleep(chance.uniform(1, 2))

    pid = child(lambda: train(run, LONGER), log)
    until((run / "journal.jsonl").exists)
    return disturbed(pid, chance, times, disturb)


def terms_on_a_full_disk(folder: Path, log: Path, chance: random.Random, times: int) -> dict[str, Any]:
    """Fill the disk and end the process by SIGTERM; then make room and resume."""
    run, file = folder / "run", folder / "run" / "journal.jsonl"
    seconds = []
    for _ in range(times):
        before = file.stat().st_size if file.exists() else 0
        pid = child(lambda: train(run, LONGER, signals=True), log)
        until(lambda before=before: file.exists() and file.stat().st_size > before)
        time.sleep(chance.uniform(0.05, 0.5))
        filler = fill(folder)
        time.sleep(chance.uniform(0, 1.5))
        asked = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        assert ended(pid) == WENT_ON, log.read_text()
        seconds.append(round(time.monotonic() - asked, 1))
        filler.unlink()
    pid = child(lambda: train(run, LONGER), log)
    return {"times": times, "seconds": seconds, "exit": ended(pid)}


def mounts(folder: Path, chance: random.Random, times: int) -> dict[str, Any]:
    log, reference = folder / "log", folder / "long-in-peace"
    assert ended(child(lambda: train(reference, LONGER), log)) == WENT_ON, log.read_text()
    found: list[str] = []
    table = {}
    for kind in (disk_that_fills, mount_that_is_read_only, terms_on_a_full_disk):
        disk = folder / kind.__name__
        disk.mkdir()
        log.write_text("")
        with mounted(disk, "-t", "tmpfs", "-o", "size=24m", "none"):
            table[kind.__name__] = kind(disk, log, chance, times)
            alarms = [e for e in journal.read(disk / "run") if isinstance(e, AlarmRaised)]
            table[kind.__name__]["alarms"] = len(alarms)
            problems = differences(disk / "run", reference)
            if table[kind.__name__]["exit"]:
                problems.append(log.read_text())
        found += [f"{kind.__name__}: {problem}" for problem in problems]
        print(f"{kind.__name__}: {table[kind.__name__]}, {len(problems)} differences", flush=True)
    return {"mounts": table, "differences": found}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=positive, default=1, help="only every so manyth call of a kind")
    parser.add_argument("--times", type=int, default=8, help="how often a disk is filled, and a mount laid")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-mounts", action="store_true", help="leave out what needs root")
    parser.add_argument("--folder", type=Path, default=None, help="where the runs go; a temporary folder")
    parser.add_argument("--json", type=written, default=None, help="write the result here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    assemble(config.build(SETTINGS))  # so that forked processes find everything imported
    folder = options.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(exist_ok=True)
    result: dict[str, Any] = {
        "seed": options.seed, "every": options.every, "torch": torch.__version__,
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    found: list[str] = []
    if not options.no_mounts:
        part = mounts(folder, random.Random(options.seed), options.times)
        found += part.pop("differences")
        result |= part
    # A second between two attempts is long where there are hundreds of them.
    recorder.RETRY_SECONDS = keeper.RETRY_SECONDS = 0.05
    part = every_fault(folder, options.every)
    found += part.pop("differences")
    result |= part | {"differences": found}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for problem in found[:20]:
        print(f"  {problem}")
    print(f"{sum(sum(c.values()) for c in result['outcomes'].values())} faults: {len(found)} differences")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
