"""Everything a GPU is asked, in one go of under ten minutes.

    python benchmarks/gpu.py --official CHECKOUT --tokenizer DIR --out RESULTS
    python benchmarks/gpu.py --rehearse --tokenizer DIR --out RESULTS        the same on a CPU, tiny

In the order of what matters: (1) each way to compute gives the CPU's loss and gradients, and a run is stopped
and resumed; (2) throughput beside the official code and a plain `Trainer` at the paper's batch; (3) ours at
larger batches; (4) evaluation; (5) how soon `advance` and `rollback` take effect. Each part is a process with
a limit of time; what one found lies in --out before the next begins. Exit status 1 when a part failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

HERE = Path(__file__).parent
LIMITS = {"right": 120, "throughput": 200, "batches": 120, "evaluation": 80, "stages": 80}
"""Seconds."""


def right(device: str) -> dict[str, Any]:
    """Loss and gradients of each way to compute, beside the CPU's in fp32; then a run, whole."""
    import torch

    from trainer import config as configuration
    from trainer.compute import Compute
    from trainer.events import Event, RunCrashed, RunFinished
    from trainer.parts import assemble
    from trainer.passes import Passes
    from trainer.run import Run

    sizes = {"layers": 4, "heads": 4, "width": 256, "dropout": 0.0}
    tables: dict[str, Any] = {
        "data": {"digits": 4, "train": 20_000, "valid": 200, "test": 200},
        "model": {"init": "scratch", "vocab": "task", **sizes},
        "schedule": {"tokens_per_epoch": None, "steps_per_token": 10},
        "eval": {"every": 100},
        "stop": {"steps": 600},
    }
    ways = [Compute(), Compute(precision="bfloat16"), Compute("compiled"), Compute(parts=3)]
    if device == "cuda":
        ways += [Compute("graphs"), Compute("graphs", "bfloat16"), Compute("graphs", "bfloat16", parts=2)]
    found: dict[str, Any] = {}
    reference: torch.Tensor | None = None
    for where, compute in [("cpu", Compute()), *((device, way) for way in ways)]:
        parts = assemble(configuration.build({**tables, "device": where}))
        passes = Passes(parts.method, parts.model, compute)
        batch = parts.method.rows(parts.splits["train"][:32], 3, torch.Generator().manual_seed(1))
        for _ in range(2):  # a captured graph is another pass than the one that captured it
            passes.clear()
            losses = passes(batch, 1.0)
        gradient = torch.cat([p.grad.flatten().cpu() for p in parts.model.parameters()])
        reference = gradient if reference is None else reference
        apart = float((gradient - reference).norm() / reference.norm())
        found[f"{where}: {compute}"] = {"loss": losses.mean.item(), "gradient_apart": apart}
        assert apart < (0.05 if compute.precision == "bfloat16" else 1e-3), f"{where}: {compute}: {apart}"
    with tempfile.TemporaryDirectory() as folder:
        for resume, steps in ((False, 300), (True, 600)):
            events: list[Event] = []
            settings = configuration.merge(tables, {"device": device, "stop": {"steps": steps}})
            run = Run(configuration.build(settings), Path(folder) / "run", resume=resume)
            if resume:
                run.config = configuration.build(settings)
            run.start(on_event=events.append)
            run.wait()
            run.close()
            crashed = [e.traceback for e in events if isinstance(e, RunCrashed)]
            assert not crashed, crashed[0]
            found["finished" if not resume else "resumed"] = next(
                e.seconds for e in events if isinstance(e, RunFinished)
            )
    return found


def parts_of(options: argparse.Namespace) -> dict[str, list[str]]:
    """The command of each part."""
    device = "cpu" if options.rehearse else "cuda"
    official = ["--official", str(options.official)] if options.official else []
    tokenizer = ["--tokenizer", str(options.tokenizer)]
    throughput = ["throughput.py", "--device", device, *tokenizer, "--out", str(options.out)]
    models = ["--models", "tiny" if options.rehearse else "small"]
    task = ["--tasks", "4x4" if options.rehearse else "7x7"]
    counted = ["--steps", "4", "--every", "1" if options.rehearse else "10"]
    batches = ["32", "64"] if options.rehearse else ["128", "512", "1024"]
    return {
        "right": ["gpu.py", "--only-right", device],
        "throughput": [*throughput, *official, *models, *task, "--rounds", "2", *counted],
        "batches": [
            *throughput, *models, *task, "--sides", "ours", "--batches", *batches, "--rounds", "1",
            *counted, "--name", "throughput-batches",
        ],
        "evaluation": [
            "evaluation.py", "--device", device, *official, *tokenizer, "--model", models[1],
            "--rounds", "1", "--json", str(options.out / "evaluation.json"),
        ],
        "stages": [
            "stages.py", "--preset", "mult2x2" if options.rehearse else "mult4x4-2l4h", "--minutes", "0.3",
            "--commands", "3", "--json", str(options.out / "stages.json"),
        ],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--official", type=Path, default=None)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny models")
    parser.add_argument("--only-right", metavar="DEVICE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_right:
        print(json.dumps(right(options.only_right), indent=1))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    commands = parts_of(options)
    if options.official is None:
        del commands["evaluation"]
    failed = 0
    for name, (script, *arguments) in commands.items():
        started, limit = time.monotonic(), LIMITS[name] * (3 if options.rehearse else 1)
        with (options.out / f"{name}.log").open("w") as log:
            try:
                done = subprocess.run(
                    [sys.executable, str(HERE / script), *arguments],
                    stdout=log, stderr=subprocess.STDOUT, timeout=limit,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                done = 124
        failed += bool(done)
        print(f"{name}: exit {done} after {time.monotonic() - started:.0f} s", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
