"""Short runs, good and bad, recorded with the watch off: what it is tuned on, and what it is measured on.

    python benchmarks/calibrate.py --folder runs/calibrate --at-once 2
    python benchmarks/watching.py

Every run is 2×2 multiplication by a model of 0.1 million parameters that speaks its CoT already: one is
trained for each seed first, and all runs of that seed begin with it. A case (`CASES`) is a pace, a method and
an optimiser, or something that happens on the way: a batch of wrong labels, a setting changed to what breaks
it. The columns that a watch looks at are kept in docs/results/watch-runs.json.gz; what they say is the matter
of benchmarks/watching.py.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from trainer import presets
from trainer.config import Config
from trainer.control import parse
from trainer.events import AlarmRaised, CommandAcknowledged, Evaluated, Metrics, StageEntered, StateChanged
from trainer.files import replace_text
from trainer.methods.base import Batch
from trainer.record import journal
from trainer.run import Run
from trainer.training import Training
from trainer.watching.automaton import SOURCE

KEPT = Path(__file__).resolve().parent.parent / "docs" / "results" / "watch-runs.json.gz"
BASE, DIGITS, DIGITS_B = 4, 4, 2
PRETRAINED_STEPS = 1_200
SPOKEN = 75
"""Steps of a run before its first removal."""
PATIENCE = 5
"""Evaluations of 25 steps; tuned (benchmarks/watching.py)."""

COMMON: dict[str, Any] = {
    "compute.threads": 1,
    "compute.path": "eager",
    "compute.precision": "float32",
    "data.task": "text",
    "data.train": 2_050,
    "data.valid": 200,
    "data.test": 50,
    "eval.examples": 64,
    "eval.every": 25,
    "log.every": 5,
    "save.minutes": 1_000.0,
    "watch.mode": "off",
}
EXPLICIT = COMMON | {
    "method.name": "explicit_cot",
    "method.move_positions": False,
    "method.smoothing": 4.0,
    "optim.batch": 32,
    "stop.steps": PRETRAINED_STEPS,
    "stop.accuracy": None,
    "eval.every": 100,
}
RUN = COMMON | {
    "model.vocab": "task",
    "method.smoothing": 4.0,
    "optim.batch": 16,
    "optim.lr": 1e-3,
    "optim.warmup": 20,
    "schedule.pretrain_steps": SPOKEN,
    "stop.accuracy": None,
}


@dataclass(frozen=True)
class Case:
    """A kind of run. settings: beside `RUN`. poisoned: steps whose labels are shuffled. changes: settings
    changed at a step.
    """

    name: str
    settings: dict[str, Any]
    seeds: tuple[int, ...]
    poisoned: range = range(0)
    changes: tuple[tuple[int, str], ...] = field(default=())


def paced(steps_per_token: int, stop_at: int, rest: int, **more: Any) -> dict[str, Any]:
    """Settings: so many steps for each of the first `stop_at` tokens, then `rest` more."""
    total = SPOKEN + stop_at * steps_per_token + rest
    settings = {"schedule.steps_per_token": steps_per_token, "method.stop_at": stop_at, "stop.steps": total}
    return settings | {key.replace("__", "."): value for key, value in more.items()}


STEADY = paced(175, 2, 100)
LOOSE = {"method.move_positions": False}
NO_RESET = LOOSE | {"method.reset_optimizer": False}
HURRIED = {"stop.steps": 900}

CASES = (
    Case("steady", STEADY, (0, 1, 2, 3)),
    Case("three-stages", paced(150, 3, 100), (0, 2, 3)),
    Case("smooth", STEADY | {"method.smoothing": 1.0}, (0, 1, 2)),
    Case("slow", paced(200, 2, 75, optim__lr=7e-4), (0, 2, 3)),
    Case("wide-batch", paced(150, 2, 75, optim__batch=32, optim__lr=1.4e-3), (0, 1)),
    Case("keep-positions", STEADY | LOOSE | {"method.keep_positions": True}, (0, 1, 2)),
    Case("spoken", LOOSE | {"method.name": "explicit_cot", "stop.steps": 450}, (0, 1, 2)),
    Case("right-side", STEADY | LOOSE | {"method.side": "right"}, (0, 2)),
    Case("gated", STEADY | {"schedule.kind": "gated"}, (0, 1, 2)),
    Case("loose", STEADY | LOOSE, (0, 1, 3)),
    Case("no-reset", STEADY | NO_RESET, (0, 2)),
    Case("three-bad-batches", STEADY, (0, 1, 3), poisoned=range(235, 238)),
    Case("fast", paced(25, 6, 0) | HURRIED, (0, 1, 2, 3)),
    Case("fast-60", paced(60, 6, 0) | HURRIED, (0, 1, 2)),
    Case("fast-unsmoothed", paced(30, 6, 0, method__smoothing=math.inf) | HURRIED, (0, 1, 2)),
    Case("fast-no-reset", paced(40, 6, 0, method__smoothing=math.inf) | NO_RESET | HURRIED, (0, 1, 2)),
    Case(
        "at-once", paced(75, 13, 0, schedule__kind="geometric", schedule__removed_share=0.9) | HURRIED, (0, 1)
    ),
    Case("hot", STEADY | {"optim.lr": 1e-2}, (0, 1, 2)),
    Case("very-hot", STEADY | {"optim.lr": 3e-2}, (0, 1)),
    Case("hot-later", STEADY, (0, 1, 2), changes=((200, "optim.lr 2e-2"),)),
    Case("bad-from-200", STEADY, (0, 1, 2), poisoned=range(200, 10**6)),
    Case("bad-200-to-350", STEADY, (0, 1), poisoned=range(200, 350)),
    Case("not-finite", STEADY, (0, 1, 2), changes=((200, "optim.lr 1e30"),)),
)


def examples(folder: Path) -> Path:
    """All products of the size in a base in which single digits are quickly learnt, as a file of lines."""

    def digits(number: int, width: int) -> str:
        return " ".join(str(number // BASE**place % BASE) for place in range(width))

    def line(a: int, b: int) -> str:
        parts = (
            " ".join([*["0"] * place, digits(a * (b // BASE**place % BASE), DIGITS + 1)])
            for place in range(DIGITS_B)
        )
        product = digits(a * b, DIGITS + DIGITS_B)
        return f"{digits(a, DIGITS)} * {digits(b, DIGITS_B)}||{' + '.join(parts)} #### {product}"

    pairs = [
        (a, b)
        for a in range(BASE ** (DIGITS - 1), BASE**DIGITS)
        for b in range(BASE ** (DIGITS_B - 1), BASE**DIGITS_B)
    ]
    file = folder / "examples.txt"
    replace_text(file, "".join(f"{line(a, b)}\n" for a, b in pairs), durable=False)
    return file


def half(case: str, seed: int) -> str:
    """Which half a run belongs to, settled beforehand: every other one in the order of their digests."""
    runs = [(c.name, s) for c in CASES for s in c.seeds]
    runs.sort(key=lambda run: hashlib.sha256(f"{run[0]}/{run[1]}".encode()).digest())
    return "tuned" if runs.index((case, seed)) % 2 else "held out"


def configure(case: Case, seed: int, explicit: Path, **more: Any) -> Config:
    settings = RUN | case.settings | {"seed": seed, "model.init": str(explicit)} | more
    settings["data.train_file"] = str(explicit.parents[3] / "examples.txt")
    return presets.resolve("mult2x2", settings)


def speak(seed: int, folder: Path) -> Path:
    """The model of a seed that speaks its CoT; trained where there is none yet."""
    run = folder / f"explicit-{seed}"
    done = sorted((run / "checkpoints").glob("*-final/manifest.json"))
    if not done:
        shutil.rmtree(run, ignore_errors=True)
        in_a_process(
            lambda: train(
                presets.resolve(
                    "mult2x2", EXPLICIT | {"seed": seed, "data.train_file": str(examples(folder))}
                ),
                run,
            )
        )
        done = sorted((run / "checkpoints").glob("*-final/manifest.json"))
    return done[-1].parent / "model"


def train(config: Config, folder: Path, case: Case | None = None, steps: int | None = None) -> None:
    """Train to the end, to where training waits because nothing is finite any more, or for so many `steps` in
    all, those of abandoned branches counted.
    """
    torch.set_num_threads(1)
    run = Run(config, folder, paused=True)
    run.start()
    heard = run.subscribe(None)
    if case is not None and case.poisoned:
        poison(run, case.poisoned)
    for step, setting in case.changes if case is not None else ():
        do(run, heard, f"run {step - run.at.step}", until_paused=True)
        do(run, heard, f"set {setting}")
    do(run, heard, "resume")
    trained = 0
    while not run.wait(0.2):
        news = heard.drain()
        trained += sum(e.steps for e in news if isinstance(e, Metrics))
        if any(isinstance(e, AlarmRaised) and e.pauses for e in news) or trained >= (steps or math.inf):
            break
    run.close()


def do(run: Run, heard: Any, line: str, *, until_paused: bool = False) -> None:
    command = parse(line, source="calibrate")
    run.submit(command)
    answered = False
    while True:
        for event in heard.drain():
            answered = answered or (
                getattr(event, "id", None) == command.id and type(event).__name__ == "CommandAcknowledged"
            )
            if until_paused and answered and isinstance(event, StateChanged) and event.state == "paused":
                return
        if answered and not until_paused:
            return
        time.sleep(0.02)


def poison(run: Run, steps: range) -> None:
    """Shuffle the labels of these steps among each other, as a damaged part of a file would have it.

    A roll back draws another order: after it they are as they should be.
    """
    assert isinstance(run._training, Training)
    loop = run._training.loop
    assert loop is not None
    rows = loop.method.rows

    def shuffled(*given: Any, **named: Any) -> Batch:
        batch = rows(*given, **named)
        if loop.step not in steps or loop.branch > 1:
            return batch
        labels = batch.labels_BL.clone()
        there = labels >= 0
        chance = torch.Generator().manual_seed(loop.step)
        labels[there] = labels[there][torch.randperm(int(there.sum()), generator=chance)]
        return replace(batch, labels_BL=labels)

    loop.method.rows = shuffled  # type: ignore[method-assign]


def in_a_process(work: Callable[[], None]) -> None:
    """Two runs in one process would share torch's random numbers."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def columns(folder: Path) -> dict[str, Any]:
    """What a watch looks at, of a run's journal."""
    events = list(journal.read(folder))
    return {
        "metrics": [
            [e.at.step, e.at.stage, _short(e.loss), _short(e.loss_answer), _short(e.grad_norm), e.steps,
            e.skipped] for e in events if isinstance(e, Metrics)
        ],
        "evaluations": [
            [e.at.step, e.at.stage, e.correct, e.n]
            for e in events if isinstance(e, Evaluated) and e.split == "valid"
        ],
        "stages": [
            [e.at.step, e.at.stage, e.cause, e.optimizer_reset] for e in events if isinstance(e, StageEntered)
        ],
        "settings": [
            [e.at.step, e.key, str(e.old), str(e.new)] for e in events if type(e).__name__ == "SettingChanged"
        ],
        "stopped": any(isinstance(e, AlarmRaised) and e.pauses for e in events),
    }  # fmt: skip


def _short(number: float) -> float | str:
    return float(f"{number:.4g}") if number == number and abs(number) < 1e30 else repr(number)


def record(case: Case, seed: int, folder: Path, explicit: Path) -> dict[str, Any]:
    run = folder / f"{case.name}-{seed}"
    kept = folder / f"{case.name}-{seed}.json"
    if not kept.exists():
        shutil.rmtree(run, ignore_errors=True)
        began = time.time()
        in_a_process(lambda: train(configure(case, seed, explicit), run, case))
        row = {"case": case.name, "seed": seed, "half": half(case.name, seed)} | columns(run)
        kept.write_text(json.dumps(row))
        shutil.rmtree(run / "checkpoints")
        accuracies = [round(right / n, 2) for _, _, right, n in row["evaluations"]]
        print(
            f"{case.name}/{seed} {time.time() - began:.0f} s",
            accuracies[:3],
            accuracies[3:-3:4],
            accuracies[-3:],
            flush=True,
        )
    return json.loads(kept.read_text())


def healthy_steps(case: Case) -> int:
    """What the tokens of a case take at the pace of the steady ones."""
    tokens = case.settings.get("method.stop_at", 13)
    return SPOKEN + 175 * int(tokens) + 100


def bring_back(case: Case, seed: int, folder: Path, explicit: Path) -> dict[str, Any]:
    """The same run with the watch in mode auto, for half as long again as a healthy one takes."""
    most = math.ceil(1.5 * healthy_steps(case))
    more = {"watch.mode": "auto", "watch.patience": PATIENCE, "stop.steps": most}
    run = folder / f"auto-{case.name}-{seed}"
    kept = folder / f"auto-{case.name}-{seed}.json"
    if not kept.exists():
        shutil.rmtree(run, ignore_errors=True)
        config = configure(case, seed, explicit, **more)
        in_a_process(lambda: train(config, run, case, steps=most))
        events = list(journal.read(run))
        acts = [
            [e.at.step, e.command, e.message]
            for e in events
            if isinstance(e, CommandAcknowledged) and e.source == SOURCE
        ]
        row = {"case": case.name, "seed": seed, "most": most, "acts": acts, "target": stages(config)}
        kept.write_text(json.dumps(row | columns(run)))
        shutil.rmtree(run / "checkpoints")
        print(f"auto {case.name}/{seed}", [act[1] for act in acts], row["target"], flush=True)
    result: dict[str, Any] = json.loads(kept.read_text())
    return result


def stages(config: Config) -> int:
    return config.method.stop_at or 13


def work(worker: int, workers: int, folder: Path, only: list[str]) -> None:
    """One of several processes: its share of the models that speak, then whatever run nobody has begun."""
    seeds = sorted({seed for case in CASES for seed in case.seeds})
    for seed in seeds[worker::workers]:
        speak(seed, folder)
    wanted = [(case, seed) for case in CASES for seed in case.seeds if not only or case.name in only]
    # Every kind of run first, with one seed, should there be no time for all.
    for case, seed in sorted(wanted, key=lambda pair: pair[0].seeds.index(pair[1])):
        try:
            (folder / f"{case.name}-{seed}.begun").touch(exist_ok=False)
        except FileExistsError:
            continue
        record(case, seed, folder, speak(seed, folder))


def rescue(names: list[str], folder: Path) -> None:
    """These runs again, in mode auto."""
    for name in names:
        case, _, seed = name.partition("/")
        found = next(each for each in CASES if each.name == case)
        bring_back(found, int(seed), folder, speak(int(seed), folder))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the runs go")
    parser.add_argument("--cases", nargs="*", default=[], help="all if not given")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument(
        "--auto", nargs="*", default=[], metavar="CASE/SEED", help="these again, in mode auto"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    examples(options.folder)
    children = []
    for worker in range(options.at_once):
        if not (pid := os.fork()):
            code = 1
            with contextlib.suppress(KeyboardInterrupt):
                if options.auto:
                    rescue(options.auto[worker :: options.at_once], options.folder)
                else:
                    work(worker, options.at_once, options.folder, options.cases)
                code = 0
            os._exit(code)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    rows = [
        json.loads(file.read_text())
        for file in sorted(options.folder.glob("*.json"))
        if not file.name.startswith("auto-")
    ]
    if not options.cases and not options.auto:
        KEPT.write_bytes(gzip.compress(json.dumps(rows, separators=(",", ":")).encode(), mtime=0))
    print(f"{len(rows)} runs, {sum(row['half'] == 'tuned' for row in rows)} of them to tune on")


if __name__ == "__main__":
    main()
