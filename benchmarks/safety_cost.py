"""What safety costs: steps per second of a run as it is by default, against the bare loop of the same steps.

    python benchmarks/safety_cost.py --pairs 5 --seconds 150 --json docs/results/safety_cost.json

The *run* has its journal, its checkpoints (every minute, at every stage), its status and its control socket;
the *bare* loop draws the same batches, makes the same updates, and reads the loss as often, and nothing else.
4×4 multiplication with 4 layers of width 256 from scratch, batches of 32, on the CPU. Neither evaluates. They
take turns, each in a new process, in pairs whose order changes; the first steps of each are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arguments import positive, written

WARM_UP = 10  # steps that are not counted; as many as between two metrics events
SETTINGS: dict[str, Any] = {
    "data": {"digits": 4, "train": 50_000, "valid": 100, "test": 100},
    "model": {"init": "scratch", "vocab": "task", "layers": 4, "heads": 4, "width": 256},
    "compute": {"threads": os.cpu_count()},
    "eval": {"every": 10**9},
    "device": "cpu",
}


def bare(seconds: float) -> dict[str, float]:
    """Steps per second of the steps alone."""
    import torch

    from trainer import config
    from trainer.computing.choosing import choose
    from trainer.computing.heap import keep_memory
    from trainer.computing.meter import Meter
    from trainer.computing.passes import Passes
    from trainer.computing.update import Updater
    from trainer.parts import assemble
    from trainer.seeds import Order, derive, generator

    keep_memory()
    settings = config.build(SETTINGS)
    parts = assemble(settings)
    train = parts.splits["train"]
    order = Order(settings.seed, len(train), settings.optim.batch)
    chance = generator(settings.seed, "offset", 1, 0)
    batch = parts.method.rows(train[: settings.optim.batch], 0, chance)
    compute, _ = choose(settings.compute, parts.device, parts.method, parts.model, batch)
    torch.set_num_threads(compute.threads)
    passes = Passes(parts.method, parts.model, compute)
    updater, meter = Updater(parts.model, settings.optim), Meter()
    step = 0
    started = counted = time.perf_counter()
    while time.perf_counter() < started + seconds:
        if step == WARM_UP:
            counted = time.perf_counter()
        batch = parts.method.rows(
            train[order.batch(1, step)], 0, generator(settings.seed, "offset", 1, step), pretraining=False
        )
        torch.manual_seed(derive(settings.seed, "dropout", 1, step))
        meter.add(*updater.step(passes, [batch], 1.0), tokens=batch.tokens)
        step += 1
        if step % settings.log.every == 0:
            meter.read()
            meter.clear()
    return {"rate": (step - WARM_UP) / (time.perf_counter() - counted), "steps": step}


def run(seconds: float) -> dict[str, float]:
    """Steps per second of a run with all that keeps it safe, between two of its own metrics events."""
    from trainer import config
    from trainer.control import parse
    from trainer.events import CheckpointSaved, Metrics
    from trainer.host import Host
    from trainer.record import journal
    from trainer.run import Run

    with tempfile.TemporaryDirectory() as out:
        this = Run(config.build(SETTINGS), Path(out) / "run")
        this.start()
        with Host(this):
            time.sleep(seconds)
            this.submit(parse("stop"))
            this.wait()
        this.close()
        events = list(journal.read(this.folder))
    metrics = [e.at for e in events if isinstance(e, Metrics)]
    first, last = metrics[0], metrics[-1]
    assert first.step == WARM_UP < last.step, "too few steps: give more --seconds"
    saves = sum(isinstance(e, CheckpointSaved) and first.step < e.at.step < last.step for e in events)
    return {
        "rate": (last.step - first.step) / (last.time - first.time), "steps": last.step, "saves": saves
    }  # fmt: skip


def measured(kind: str, seconds: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", kind, "--seconds", str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=positive, default=5)
    parser.add_argument("--seconds", type=float, default=150.0, help="of training, in each process")
    parser.add_argument("--one", choices=("bare", "run"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=written, default=None, help="write the result here")
    options = parser.parse_args()
    if options.one:
        print(json.dumps({"bare": bare, "run": run}[options.one](options.seconds)))
        return 0
    pairs = []
    for number in range(options.pairs):
        order = ("bare", "run") if number % 2 == 0 else ("run", "bare")
        pair = {kind: measured(kind, options.seconds) for kind in order}
        share = pair["run"]["rate"] / pair["bare"]["rate"]
        pairs.append({"bare": pair["bare"], "run": pair["run"], "share": share})
        print(
            f"bare {pair['bare']['rate']:.3f}, run {pair['run']['rate']:.3f} steps/s with "
            f"{pair['run']['saves']:.0f} saves: {share:.1%}; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    shares = [pair["share"] for pair in pairs]
    result = {
        "pairs": pairs, "median": statistics.median(shares), "settings": SETTINGS,
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"the run makes {result['median']:.1%} of the bare loop's steps (median of {len(shares)} pairs)")
    return result["median"] < 0.97


if __name__ == "__main__":
    sys.exit(main())
