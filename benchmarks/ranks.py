"""Several ranks against one, on the CPU: the same losses, commands at one step, and death at random.

    python benchmarks/ranks.py --runs 20 --commands 15 --kills 20 --json docs/results/ranks.json

Losses: 100 steps by one rank and by two, as copies and spread, without dropout. Commands: random ones while
two ranks train; each rank keeps a trace of what it did, at which step, with which learning rate, and of its
weights after it, bit by bit; the traces must be equal. Kills: a random rank gets SIGKILL at a random moment;
then must be told which, the newest checkpoint must verify, and the run must go on with one rank, then with
two again. Families: tiny random Llamas, Mistrals and so on, spread over two ranks, trained, resumed, exported
and read by plain transformers. Exit 1 when anything is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
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
import types
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from kills import CONFIG
from transformers import AutoModelForCausalLM

from benchmarks.arguments import written
from tests.small_pretrained import FAMILIES
from trainer import config
from trainer.config import Config
from trainer.control import parse
from trainer.distributed import launch, member, ranks
from trainer.events import CheckpointSaved, CommandAcknowledged, Metrics, RunCrashed, RunStarted
from trainer.exporting import export
from trainer.record import journal
from trainer.run import Run
from trainer.saving import checkpoint

COMMANDS = (
    "pause", "resume", "run 3", "run 7", "advance", "advance 2", "hold", "release", "save", "evaluate",
    "ask 12*34", "quiz 4", "rollback", "rollback 0", "rollback 1", "rollback --keep-weights",
    "rollback 0 --seed replay", "set optim.lr 1e-3", "set optim.lr 5e-4", "set method.smoothing 1",
    "set optim.lr never",
)  # fmt: skip
PATIENCE = 300.0


class Zygote:
    """Forks launchers from a process that has loaded everything: on a busy machine that saves a minute each.

    In the place of `subprocess.Popen` in `trainer.distributed.ranks`; what is forked is torch's launcher all
    the same.
    """

    def __init__(self) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            self._ours.close()
            self._serve(theirs)
        theirs.close()

    def _serve(self, host: Any) -> None:
        with contextlib.suppress(EOFError):
            while True:
                arguments, log, trace = host.recv()
                pid = os.fork()
                if pid == 0:
                    host.close()
                    self._become(arguments, log, trace)
                host.send(pid)
        os._exit(0)

    def _become(self, arguments: list[str], log: str, trace: str | None) -> None:
        code = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            if trace is not None:
                os.environ["RANKS_TRACE"] = trace
            sys.argv = ["launch", *arguments]
            made = launch.LaunchConfig
            launch.LaunchConfig = lambda **given: made(**given | {"start_method": "fork"})
            launch.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def __call__(self, command: list[str], *, stdout: Any, **options: Any) -> Launched:
        self._ours.send((command[3:], stdout.name, os.environ.get("RANKS_TRACE")))
        return Launched(self._ours.recv())


class Launched:
    """A launcher, as far as it is looked at."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return None

    def wait(self, timeout: float = PATIENCE) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("launch", timeout)
            time.sleep(0.05)
        return 0

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def settings(gpus: int, parallel: str, **changes: Any) -> Config:
    over = {"gpus": gpus, "device": "cpu", "model.dropout": 0.0, "compute.parallel": parallel, **changes}
    return config.build(config.merge(CONFIG, config.nested(over)))


ENDLESS = {"stop.steps": 1_000_000, "stop.epochs": 1e9, "schedule.steps_per_token": 15}


def until(run: Run, kind: type[Any], since: int = 0) -> Any:
    """The first event of a kind after number `since`, from the journal."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for event in journal.read(run.folder):
            if isinstance(event, kind) and event.seq > since:
                return event
        time.sleep(0.05)
    raise RuntimeError(f"no {kind.__name__} came")


def losses(folder: Path) -> dict[str, float]:
    """The largest differences of loss and gradient norm to those of one rank, over 100 steps."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, gpus, parallel in (("one", 1, "ddp"), ("ddp", 2, "ddp"), ("fsdp", 2, "fsdp")):
        changes = {"log.every": 1, "stop.steps": 100, "schedule.steps_per_token": 15}
        run = Run(settings(gpus, parallel, **changes), folder / name)
        run.start()
        run.wait()
        run.close()
        curves[name] = [(e.loss, e.grad_norm) for e in journal.read(run.folder) if isinstance(e, Metrics)]
        assert len(curves[name]) == 100, f"{name}: {len(curves[name])} steps, {run.state}"
    found = {}
    for name in ("ddp", "fsdp"):
        pairs = list(zip(curves["one"], curves[name], strict=True))
        found[f"{name}: loss"] = max(abs(a[0] - b[0]) for a, b in pairs)
        found[f"{name}: gradient norm"] = max(abs(a[1] - b[1]) for a, b in pairs)
    return found


def commands(folder: Path, runs: int, count: int, chance: random.Random) -> tuple[Counter[str], list[str]]:
    """Random commands; how many were given and done, operations traced, and what was not the same."""
    counts: Counter[str] = Counter()
    wrong = []
    for number in range(runs):
        parallel = ("ddp", "fsdp")[number % 2]
        trace = folder / f"trace{number}"
        os.environ["RANKS_TRACE"] = str(trace)
        run = Run(settings(2, parallel, **ENDLESS), folder / f"commands{number}")
        run.start()
        ids = []
        for _ in range(count):
            time.sleep(chance.uniform(0, 0.5))
            command = parse(chance.choice(COMMANDS), source="benchmark")
            ids.append(command.id)
            run.submit(command)
        run.submit(parse("stop", source="benchmark"))
        if not run.wait(PATIENCE):
            wrong.append(f"run {number} did not end")
        run.close()
        answers = [e for e in journal.read(run.folder) if isinstance(e, CommandAcknowledged) and e.id in ids]
        counts["commands"] += len(ids)
        counts["answered"] += len(answers)
        counts["done"] += sum(answer.ok for answer in answers)
        first, second = (Path(f"{trace}.{rank}").read_text(encoding="utf-8").splitlines() for rank in (0, 1))
        counts["operations"] += len(first)
        if run.state != "interrupted" or len(answers) != len(ids):
            wrong.append(f"run {number} is {run.state}, with {len(answers)} answers to {len(ids)} commands")
        differing = [pair for pair in zip(first, second, strict=False) if pair[0] != pair[1]]
        if differing or len(first) != len(second):
            wrong.append(f"run {number}: {len(first)} and {len(second)} operations; {differing[:1]}")
        print(f"commands {number}: {dict(counts)} {wrong}", file=sys.stderr, flush=True)
    os.environ.pop("RANKS_TRACE", None)
    return counts, wrong


def kills(folder: Path, count: int, chance: random.Random) -> tuple[Counter[str], list[str]]:
    """Kill a rank, look, go on with one rank and with two; what was not as it should be."""
    counts: Counter[str] = Counter()
    wrong = []
    for number in range(count):
        parallel = ("ddp", "fsdp")[number % 2]
        place = folder / f"killed-{parallel}"
        resume = place.exists()
        run = Run(settings(2, parallel, **ENDLESS), place, resume=resume)
        run.start()
        since = max(e.seq for e in journal.read(place) if isinstance(e, RunStarted))
        until(run, Metrics, since)
        until(run, CheckpointSaved)  # there has to be one
        counts["went on with 2"] += resume
        training = run._training
        assert isinstance(training, ranks.Ranks)
        while len(training.ranks) < 2:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 2))
        victim = chance.choice(training.ranks)
        os.kill(victim.pid, signal.SIGKILL)
        crash = until(run, RunCrashed, since)
        clear = f"rank {victim.rank} (process {victim.pid}) was killed by SIGKILL" in crash.error
        counts["clear message"] += clear
        if not clear:
            wrong.append(f"kill {number} of rank {victim.rank}: {crash.error}")
        run.close()
        try:
            checkpoint.verify(place / checkpoint.FOLDER / crash.checkpoint)
            counts["good checkpoint"] += 1
        except checkpoint.CheckpointError as error:
            wrong.append(f"kill {number}: {error}")
        again = Run(settings(1, parallel, **ENDLESS), place, resume=True)
        again.start()
        since = max(e.seq for e in journal.read(place) if isinstance(e, RunStarted))
        metrics = until(again, Metrics, since)
        again.close()
        counts["went on with 1"] += again.state == "interrupted"
        if again.state != "interrupted":
            wrong.append(f"kill {number}: resumed by one rank it is {again.state}")
        counts["kills"] += 1
        print(
            f"kill {number}, rank {victim.rank}: step {metrics.at.step}, {dict(counts)}",
            file=sys.stderr,
            flush=True,
        )
    return counts, wrong


def families(folder: Path) -> tuple[Counter[str], list[str]]:
    """Each family, tiny and random, spread over two ranks: trained, saved, resumed, exported, read by plain
    transformers, whose answers to random ids are those of the checkpoint."""
    counts: Counter[str] = Counter()
    wrong = []
    for family in sorted(FAMILIES):
        init = FAMILIES[family](folder / f"{family}-pretrained", positions=16)
        changes = {"model.init": str(init), "model.vocab": "full", "stop.steps": 6, "optim.lr": 1e-2}
        place = folder / family
        for steps, resume in ((6, False), (9, True)):
            run = Run(settings(2, "fsdp", **changes | {"stop.steps": steps}), place, resume=resume)
            run.start()
            run.wait(PATIENCE)
            run.close()
        last = run.end.checkpoint if run.end else None
        if run.state != "finished" or last is None or run.at.step != 9:
            wrong.append(f"{family} is {run.state} at step {run.at.step}")
            continue
        export.export(str(place), folder / f"{family}-exported", id=None, out=folder)
        ids = torch.randint(0, 10, (2, 8))
        logits = [
            AutoModelForCausalLM.from_pretrained(path)(ids).logits
            for path in (place / checkpoint.FOLDER / last / "model", folder / f"{family}-exported")
        ]
        counts[family] = int(torch.equal(*logits))
        if not counts[family]:
            wrong.append(f"{family}: the exported model answers otherwise")
        print(f"{family}: {dict(counts)} {wrong}", file=sys.stderr, flush=True)
    return counts, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--commands", type=int, default=15)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=written)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    assert member  # loaded before anything is forked
    ranks.MEMBER = "ranks_member"
    zygote = Zygote()
    ranks.subprocess = types.SimpleNamespace(  # type: ignore[assignment]
        Popen=zygote, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        differences = losses(folder)
        print(differences, file=sys.stderr, flush=True)
        steered, wrong = commands(folder, given.runs, given.commands, chance)
        killed, more = kills(folder, given.kills, chance)
        spread, others = families(folder)
        shutil.rmtree(folder, ignore_errors=True)
    wrong += more + others
    wrong += [
        f"{name} differs by {value:.2g}"
        for name, value in differences.items()
        if value > 1e-5 and "loss" in name
    ]
    found = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "seed": given.seed,
        "differences": differences,
        "commands": dict(steered),
        "kills": dict(killed),
        "families": dict(spread),
        "wrong": wrong,
    }
    print(json.dumps(found, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
