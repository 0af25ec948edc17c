"""Memory over 100,000 steps, and at its peak beside what a step needs.

    python benchmarks/memory.py --steps 100000 --json docs/results/memory.json

A run of the smallest model trains, evaluates, saves and enters stages as any run does; its resident memory
is read from its own process every 2,000 steps. Then the peak of larger models is put beside the sum of
weights, gradients, moments, activations that wait for the backward pass (counted by torch's own hooks), and
what Python and torch take before the first step. That peak has saves in it, each a copy of weights and
moments.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

EVERY = 2_000  # steps
SIZES: dict[str, dict[str, Any]] = {
    "4 layers of 256": {"layers": 4, "heads": 4, "width": 256},
    "GPT-2 Small": {"layers": 12, "heads": 12, "width": 768},
}


def growth(steps: int) -> list[tuple[int, int]]:
    """Resident bytes by step."""
    from tests.tiny import tiny_config
    from trainer.events import Event, Metrics
    from trainer.run import Run

    seen: list[tuple[int, int]] = []
    process = psutil.Process()

    def look(event: Event) -> None:
        if isinstance(event, Metrics) and event.at.step % EVERY == 0:
            seen.append((event.at.step, process.memory_info().rss))

    changes = {
        "stop__steps": steps,
        "stop__epochs": 1e9,
        "schedule__steps_per_token": 2_000,
        "eval__every": 500,
    }
    with tempfile.TemporaryDirectory() as folder:
        run = Run(tiny_config(**changes, log__every=10, save__minutes=0.1), Path(folder) / "run")
        run.start(on_event=look)
        run.wait()
        run.close()
    return seen


def peak(name: str, steps: int = 4) -> dict[str, float]:
    """Bytes of a real run's process at its peak, and what a step is known to need."""
    import torch

    from trainer import config as configuration
    from trainer.compute import Compute
    from trainer.parts import assemble
    from trainer.passes import Passes
    from trainer.run import Run

    tables = {
        "device": "cpu",
        "data": {"digits": 4, "train": 2_000, "valid": 100, "test": 100},
        "model": {"init": "scratch", "vocab": "task", **SIZES[name]},
        "eval": {"every": 10**9},
        "stop": {"steps": steps},
    }
    config = configuration.build(tables)
    gc.collect()
    before = psutil.Process().memory_info().rss
    parts = assemble(config)
    weights = sum(p.nbytes for p in parts.model.parameters())
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = parts.method.rows(parts.splits["train"][:32], 0, None)
    passes = Passes(parts.method, parts.model, Compute(precision="bfloat16"))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        passes(batch, 1.0)
    passes.clear()
    own = {p.untyped_storage().data_ptr() for p in parts.model.parameters()}
    activations = sum(size for at, size in kept.items() if at not in own)
    del parts, passes, batch
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(folder) / "run")
        run.start()
        run.wait()
        run.close()
    return {
        "before": before, "weights": weights, "gradients": weights, "moments": 2 * weights,
        "activations": activations, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--one", choices=("growth", *SIZES), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=None, help="write the result here")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(growth(options.steps) if options.one == "growth" else peak(options.one)))
        return 0

    def measured(what: str) -> Any:
        command = [sys.executable, __file__, "--one", what, "--steps", str(options.steps)]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])

    peaks = {name: measured(name) for name in SIZES}
    for name, found in peaks.items():
        needed = sum(size for what, size in found.items() if what != "peak")
        print(
            f"{name}: peak {found['peak'] / 1e6:,.0f} MB, {found['peak'] / needed:.2f} × what is needed",
            flush=True,
        )
    grown = measured("growth") if options.steps else []
    for step, size in grown[:: max(1, len(grown) // 10)]:
        print(f"step {step:,}: {size / 1e6:.1f} MB")
    result = {
        "peaks": peaks, "growth": grown, "cores": os.cpu_count(), "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
