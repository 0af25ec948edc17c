"""Memory over 100,000 steps, and at its peak beside what a step needs.

    python benchmarks/memory.py --steps 100000 --json docs/results/memory.json

A run of the smallest model trains, evaluates, saves and enters stages as any run does; its resident memory
is read from its own process every 2,000 steps. Then the peak of larger models is put beside the sum of
weights, gradients, moments, activations that wait for the backward pass (counted by torch's own hooks), and
what the same run takes with a model of next to no size: Python, torch and transformers, with all that is
loaded in the course of a run. That peak has saves in it, each a copy of weights and moments. What is needed
is counted in a process of its own, which would raise the peak.
"""

from __future__ import annotations

import argparse
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

from benchmarks.arguments import positive, written

EVERY = 2_000  # steps
NOTHING = "next to nothing"
SIZES: dict[str, dict[str, Any]] = {
    NOTHING: {"layers": 1, "heads": 2, "width": 16},
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


def settings(name: str, steps: int = 4) -> Any:
    from trainer import config as configuration

    return configuration.build(
        {
            "device": "cpu",
            "data": {"digits": 4, "train": 2_000, "valid": 100, "test": 100},
            "model": {"init": "scratch", "vocab": "task", **SIZES[name]},
            "eval": {"every": 10**9},
            "stop": {"steps": steps},
        }
    )


def peak(name: str) -> int:
    """Bytes of a process at its peak in which a run trains, saves and ends, and nothing else happens."""
    from trainer.run import Run

    with tempfile.TemporaryDirectory() as folder:
        run = Run(settings(name), Path(folder) / "run")
        run.start()
        run.wait()
        run.close()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def needs(name: str) -> dict[str, int]:
    """Bytes that a step is known to need."""
    import torch

    from trainer.computing.compute import Compute
    from trainer.computing.passes import Passes
    from trainer.parts import assemble

    parts = assemble(settings(name))
    weights = sum(p.nbytes for p in parts.model.parameters())
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = parts.method.rows(parts.splits["train"][:32], 0, None)
    passes = Passes(parts.method, parts.model, Compute(precision="bfloat16"))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        passes(batch, 1.0)
    own = {p.untyped_storage().data_ptr() for p in parts.model.parameters()}
    activations = sum(size for at, size in kept.items() if at not in own)
    return {"weights": weights, "gradients": weights, "moments": 2 * weights, "activations": activations}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=positive, default=100_000)
    parser.add_argument("--one", choices=("growth", "peak", "needs"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=written, default=None, help="write the result here")
    parser.add_argument("--model", choices=SIZES, default=NOTHING, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        ways = {"growth": lambda: growth(options.steps), "peak": lambda: peak(options.model)}
        print(json.dumps(ways.get(options.one, lambda: needs(options.model))()))
        return 0

    def measured(what: str, model: str = NOTHING) -> Any:
        command = [sys.executable, __file__, "--one", what, "--model", model, "--steps", str(options.steps)]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])

    before = measured("peak")
    print(f"before: {before / 1e6:,.0f} MB", flush=True)
    peaks = {}
    for name in SIZES:
        if name != NOTHING:
            found = {"before": before, **measured("needs", name)}
            needed, most = sum(found.values()), measured("peak", name)
            peaks[name] = {**found, "peak": most}
            told = ", ".join(f"{what} {size / 1e6:,.0f}" for what, size in peaks[name].items())
            print(f"{name}: {most / needed:.2f} × what is needed ({told} MB)", flush=True)
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
