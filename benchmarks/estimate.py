"""The estimate of memory that a run prints at its start, beside what torch's tensors then take at their peak,
and by how much the process grows.

    python benchmarks/estimate.py --json docs/results/estimate.json

Each model makes two steps in a process of its own on the CPU, the second watched by torch's `MemTracker`; and
three in another, whose resident memory is compared with that before the model was made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arguments import written

MIDDLE: dict[str, Any] = {"layers": 4, "heads": 8, "width": 512}
SMALL: dict[str, Any] = {"layers": 4, "heads": 4, "width": 256}
GPT2: dict[str, Any] = {"layers": 12, "heads": 12, "width": 768, "batch": 8}
SIZES: dict[str, dict[str, Any]] = {
    "4 layers of 512, batch 32": MIDDLE,
    "4 layers of 512, checkpointing": MIDDLE | {"again": True},
    "4 layers of 256, LoRA of rank 8": SMALL | {"lora_rank": 8},
    "4 layers of 256, LoRA, checkpointing": SMALL | {"lora_rank": 8, "again": True},
    "12 layers of 768 (GPT-2 Small), batch 8": GPT2,
    "12 layers of 768, checkpointing": GPT2 | {"again": True},
    "12 layers of 768, moments in 8 bits": GPT2 | {"moments": "8bit"},
}
TINY: dict[str, Any] = {"layers": 1, "heads": 2, "width": 16}


def assembled(size: dict[str, Any]) -> Any:
    """A rank of such a model, and what it will take as it is estimated."""
    from trainer import config as configuration
    from trainer.computing.compute import Compute
    from trainer.computing.world import World
    from trainer.memory import estimate
    from trainer.parts import assemble
    from trainer.rank import Rank

    size = dict(size)
    batch, again = size.pop("batch", 32), size.pop("again", False)
    config = configuration.build(
        {
            "device": "cpu",
            "data": {"digits": 4, "train": 256, "valid": 8, "test": 8},
            "optim": {"batch": batch, "moments": size.pop("moments", "full")},
            "model": {"init": "scratch", "vocab": "task", **size},
            "compute": {"activation_checkpointing": again, "precision": "float32"},
        }
    )
    parts = assemble(config)
    rows = parts.method.rows(parts.splits["train"][:batch], 0, None)
    estimated = estimate(parts.method, parts.model, rows, config, 1)
    return Rank(config, parts, Compute(), World()), estimated.peak


def tensors(size: dict[str, Any]) -> dict[str, int]:
    """Bytes that torch's tensors take at most in the second step, and those estimated."""
    import torch
    from torch.distributed._tools.mem_tracker import MemTracker

    class Tracker(MemTracker):
        """torch's asks each weight for its gradient; those of LoRA's base have none."""

        def _track_module_params_and_buffers(self, module: Any, install_grad_hooks: bool = True) -> Any:
            return super()._track_module_params_and_buffers(module, install_grad_hooks=False)

    rank, estimated = assembled(size)
    rank.update(1, 0, False)  # the first step makes the moments
    tracker: Any = Tracker()
    tracker.track_external(rank.model, rank.updater.optimizer)
    with tracker:
        rank.update(1, 0, False)
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return {"used": peak["Total"], "estimated": estimated}


def resident(size: dict[str, Any]) -> dict[str, int]:
    """Bytes by which the process grows, at most, over three steps; Linux tells."""
    import torch

    from trainer.computing.heap import keep_memory

    keep_memory()
    torch.set_num_threads(1)
    assembled(TINY)[0].update(1, 0, False)  # what torch makes once is there
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    rank, _ = assembled(size)
    for _ in range(3):
        rank.update(1, 0, False)
    status = Path("/proc/self/status").read_text()
    return {"resident": int(status.partition("VmHWM:")[2].split()[0]) * 1024 - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=written)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        what, size = given.one
        print(json.dumps({"tensors": tensors, "resident": resident}[what](json.loads(size))))
        return
    found: dict[str, dict[str, int]] = {}
    for name, size in SIZES.items():
        found[name] = {}
        for what in ("tensors", "resident"):
            command = [sys.executable, __file__, "--one", what, json.dumps(size)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[name] |= json.loads(done.stdout)
        used, estimated, grown = (found[name][key] for key in ("used", "estimated", "resident"))
        both = f"used {used / 1e6:,.0f} MB, estimated {estimated / 1e6:,.0f}"
        against = f"resident {grown / 1e6:,.0f} ({estimated / grown - 1:+.0%})"
        print(f"{name}: {both} ({estimated / used - 1:+.0%}), {against}", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
