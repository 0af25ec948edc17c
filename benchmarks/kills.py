"""Kill a run at random instants, resume it, and compare it with one that was never disturbed.

    python benchmarks/kills.py --kills 200 --seed 0 --json docs/results/kills.json

Each run follows a plan of commands (advance, set, roll back, hold …), each given while the run is paused, so
that it comes at the same step in both; the last ruins the weights, and the watch, in mode auto, mends it by
commands of its own. Its process is killed by SIGKILL after a random time, again and again, and
taken up by `Run(resume=True)` in a new process. Then are compared: the final weights, bit by bit; the
events, none missing and none twice; the answers, one to each command; every checkpoint's manifest. Dropout
and smoothing are on. Exit 1 when anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from safetensors.torch import load_file

from benchmarks.arguments import positive, written
from trainer import config, control
from trainer.events import DISK, CommandAcknowledged, CommandReceived, Event
from trainer.parts import assemble
from trainer.record import journal
from trainer.run import Run
from trainer.saving import checkpoint
from trainer.saving.resumption import RETOLD
from trainer.watching.automaton import SOURCE

PLAN = [
    "run 12", "advance", "run 9", "set optim.lr 1e-3", "evaluate", "run 7", "save", "rollback 2", "run 11",
    "hold", "run 8", "release", "advance 2", "rollback 3 --keep-weights", "run 15", "set method.smoothing 1",
    "rollback 1 --seed replay", "run 5", "set optim.lr 1e30", "resume",
]  # fmt: skip
CONFIG: dict[str, Any] = {
    "data": {"digits": 2, "train": 400, "valid": 40, "test": 40},
    "model": {"init": "scratch", "vocab": "task", "layers": 1, "heads": 2, "width": 16, "dropout": 0.1},
    "schedule": {"steps_per_token": 5, "pretrain_steps": 5},
    "optim": {"lr": 2e-3, "batch": 16},
    "eval": {"every": 10},
    "log": {"every": 2},
    "save": {"minutes": 0.002, "stages": 20},
    "watch": {"mode": "auto", "skipped": 5},
    "stop": {"steps": 90},
}


def follow_the_plan(folder: Path) -> None:
    """Start or resume the run, give what is left of the plan, and stay to the end."""
    resume = (folder / "config.toml").is_file()
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    events = list(journal.read(folder))
    answered = answers(events)
    attempts = Counter(e.id.split("-")[0] for e in events if isinstance(e, CommandReceived))
    training = control.replay(events).pause_at is not None or str(len(PLAN) - 1) in answered
    run = Run(config.build(CONFIG), folder, resume=resume, paused=not training)
    run.start()
    heard = run.subscribe()
    loop = run.loop
    orders = loop.orders
    for number, line in enumerate(PLAN):
        while str(number) not in answered and (
            not loop.control.paused or orders.repeating or orders.unanswered
        ):
            time.sleep(0.001)
            answered |= answers(heard.drain())
        answered |= answers(heard.drain())
        if str(number) in answered:
            continue
        run.submit(control.parse(line, id=f"{number}-{attempts[str(number)]}", source="plan"))
        while str(number) not in answered:
            time.sleep(0.001)
            answered |= answers(heard.drain())
    run.wait()
    run.close()
    assert run.state == "finished", run.state


def answers(events: list[Event]) -> set[str]:
    """Numbers of the commands of the plan that were done."""
    return {e.id.split("-")[0] for e in events if isinstance(e, CommandAcknowledged) and e.ok}


def child(folder: Path) -> int:
    """Follow the plan in a new process; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        follow_the_plan(folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def disturbed(folder: Path, chance: random.Random, longest: float) -> int:
    """Kill and resume until it ends by itself; how often it was killed."""
    kills = 0
    while True:
        pid = child(folder)
        until = time.monotonic() + chance.uniform(0.02, longest)
        while time.monotonic() < until:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                assert status == 0, f"the run in {folder} failed"
                return kills
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1


def differences(folder: Path, reference: Path) -> list[str]:
    """What is not as in the run that was never disturbed."""
    found = []
    events, wanted = list(journal.read(folder)), list(journal.read(reference))
    if [e.seq for e in events] != list(range(1, len(events) + 1)):
        found.append("the numbers of the events have gaps")
    told, should = Counter(map(describe, retold(events))), Counter(map(describe, retold(wanted)))
    found += [
        f"told {told[key]} times, not {should[key]}: {key}"
        for key in told | should
        if told[key] != should[key]
    ]
    answers = Counter(e.id for e in events if isinstance(e, CommandAcknowledged))
    for event in events:
        if isinstance(event, CommandReceived) and answers[event.id] != 1:
            found.append(f"{event.command} ({event.id}) was answered {answers[event.id]} times")
    for ref in checkpoint.list_checkpoints(folder):
        checkpoint.verify(folder / checkpoint.FOLDER / ref.id)
    if fingerprint(folder) != fingerprint(reference):
        found.append("the final weights differ")
    return found


def retold(events: list[Event]) -> Iterator[Event]:
    own = (e for e in events if isinstance(e, RETOLD) or getattr(e, "source", "") == SOURCE)
    return (e for e in own if getattr(e, "kind", "") != DISK)


def describe(event: Event) -> str:
    at = event.at
    names = ("cause", "split", "key", "accuracy", "loss_answer", "kind", "of", "plan", "command", "message")
    own = [str(getattr(event, name, "")) for name in names]
    return f"{type(event).__name__} b{at.branch} s{at.step} stage{at.stage} {' '.join(own)}"


def fingerprint(folder: Path) -> str:
    last = [ref.id for ref in checkpoint.list_checkpoints(folder) if ref.cause == "final"][-1]
    tensors = load_file(checkpoint.model_folder(folder / checkpoint.FOLDER / last) / "model.safetensors")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=positive, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lora-rank", type=int, default=0, help="of adapters, trained beside a base")
    parser.add_argument("--longest", type=float, default=2.0, help="seconds between start and kill, at most")
    parser.add_argument("--folder", type=Path, default=None, help="where the runs go; a temporary folder")
    parser.add_argument("--json", type=written, default=None, help="write the result here")
    options = parser.parse_args()
    CONFIG["model"]["lora_rank"] = options.lora_rank
    torch.set_num_threads(1)
    assemble(config.build(CONFIG))  # so that forked processes find everything imported
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    reference = folder / "undisturbed"
    assert os.waitpid(child(reference), 0)[1] == 0
    chance, kills, runs = random.Random(options.seed), 0, 0
    found: list[str] = []
    while kills < options.kills:
        runs += 1
        run = folder / f"run{runs}"
        killed = disturbed(run, chance, options.longest)
        kills += killed
        problems = differences(run, reference)
        found += [f"{run.name}: {problem}" for problem in problems]
        print(f"{run.name}: killed {killed} times, {len(problems)} differences", flush=True)
        for problem in problems[:10]:
            print(f"  {problem}", flush=True)
    result = {
        "kills": kills, "runs": runs, "differences": found, "seed": options.seed, "plan": PLAN,
        "lora_rank": options.lora_rank,
        "torch": torch.__version__, "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"{kills} kills in {runs} runs: {len(found)} differences")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
