"""The estimate of memory that a run prints at its start, beside what torch's tensors then take at their peak.

    python benchmarks/estimate.py --json docs/results/estimate.json

Each model makes two steps in a process of its own on the CPU; the second is watched by torch's `MemTracker`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SIZES: dict[str, dict[str, Any]] = {
    "4 layers of 512, batch 32": {"layers": 4, "heads": 8, "width": 512},
    "the same, checkpointing": {"layers": 4, "heads": 8, "width": 512, "again": True},
    "12 layers of 768 (GPT-2 Small), batch 8": {"layers": 12, "heads": 12, "width": 768, "batch": 8},
    "the same, checkpointing ": {"layers": 12, "heads": 12, "width": 768, "batch": 8, "again": True},
}


def measure(size: dict[str, Any]) -> dict[str, int]:
    """Bytes used and estimated."""
    import torch
    from torch.distributed._tools.mem_tracker import MemTracker

    from trainer import config as configuration
    from trainer.computing.compute import Compute
    from trainer.computing.world import World
    from trainer.memory import estimate
    from trainer.parts import assemble
    from trainer.rank import Rank

    torch.set_num_threads(1)
    batch = size.pop("batch", 32)
    again = size.pop("again", False)
    config = configuration.build(
        {
            "device": "cpu",
            "data": {"digits": 4, "train": 256, "valid": 8, "test": 8},
            "model": {"init": "scratch", "vocab": "task", **size},
            "optim": {"batch": batch},
            "compute": {"activation_checkpointing": again, "precision": "float32"},
        }
    )
    parts = assemble(config)
    rank = Rank(config, parts, Compute(), World())
    rows = parts.method.rows(parts.splits["train"][:batch], 0, None)
    estimated = estimate(parts.method, parts.model, rows, config, 1)
    rank.update(1, 0, False)  # the first step makes the moments
    tracker = MemTracker()
    tracker.track_external(parts.model, rank.updater.optimizer)
    with tracker:
        rank.update(1, 0, False)
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return {"used": peak["Total"], "estimated": estimated.peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(json.loads(given.one))))
        return
    found = {}
    for name, size in SIZES.items():
        command = [sys.executable, __file__, "--one", json.dumps(size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[name] = json.loads(done.stdout)
        used, estimated = found[name]["used"], found[name]["estimated"]
        both = f"used {used / 1e6:,.0f} MB, estimated {estimated / 1e6:,.0f}"
        print(f"{name}: {both} ({estimated / used - 1:+.0%})", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
