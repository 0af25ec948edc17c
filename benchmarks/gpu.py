"""Everything a GPU is asked, in one go of under ten minutes.

    python benchmarks/gpu.py --official CHECKOUT --tokenizer DIR --out RESULTS
    python benchmarks/gpu.py --rehearse --tokenizer DIR --out RESULTS        the same on a CPU, tiny

In the order of what matters: (1) each way to compute gives the CPU's loss and gradients, and a run is stopped
and resumed; (2) throughput beside the official code and a plain `Trainer` at the paper's batch; (3) ours at
larger batches; (4) evaluation; (5) how soon `advance` and `rollback` take effect. Each part is a process with
a limit of time; what it finds lies in --out at once: correctness a line at a time in right.log, the tables
after each cell. Exit status 1 when a part failed.
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


def right(device: str) -> list[str]:
    """Loss and gradients of each way to compute, beside the CPU's in fp32; then a run, stopped and resumed.

    What was wrong; each finding is printed as soon as it is there.
    """
    import torch

    from trainer import config as configuration
    from trainer.computing.compute import Compute
    from trainer.computing.passes import Passes
    from trainer.events import Event, RunCrashed, RunFinished
    from trainer.parts import assemble
    from trainer.run import Run

    rehearsal = device == "cpu"
    sizes = {"layers": 2 if rehearsal else 4, "heads": 4, "width": 64 if rehearsal else 256, "dropout": 0.0}
    half = 30 if rehearsal else 300  # steps, after which a run is stopped
    tables: dict[str, Any] = {
        "data": {"digits": 4, "train": 2_000, "valid": 200, "test": 200},
        "model": {"init": "scratch", "vocab": "task", **sizes},
        "schedule": {"tokens_per_epoch": None, "steps_per_token": 10},
        "eval": {"every": half // 3},
        "stop": {"steps": 2 * half},
    }
    ways = [Compute(), Compute(precision="bfloat16"), Compute(parts=3)]
    if device == "cuda":
        ways += [Compute("graphs"), Compute("graphs", "bfloat16"), Compute("graphs", "bfloat16", parts=2)]
    ways.append(Compute("compiled"))  # the longest
    wrong: list[str] = []
    reference: tuple[float, torch.Tensor] | None = None

    def tell(what: str, **found: float) -> None:
        """At once: what comes after may meet the limit of time."""
        print(json.dumps({"what": what, **found}), flush=True)

    for where, compute in [("cpu", Compute()), *((device, way) for way in ways)]:
        parts = assemble(configuration.build({**tables, "device": where}))
        passes = Passes(parts.method, parts.model, compute)
        batch = parts.method.rows(parts.splits["train"][:32], 3, torch.Generator().manual_seed(1))
        for _ in range(2):  # a captured graph is another pass than the one that captured it
            passes.clear()
            losses = passes(batch, 1.0)
        gradient = torch.cat([p.grad.flatten().cpu() for p in parts.model.parameters()])
        loss = losses.mean.item()
        reference = reference or (loss, gradient)
        apart = float((gradient - reference[1]).norm() / reference[1].norm())
        loss_apart = abs(loss - reference[0]) / reference[0]
        tell(f"{where}: {compute}", loss=loss, loss_apart=loss_apart, gradient_apart=apart)
        bound = 0.05 if compute.precision == "bfloat16" else 1e-3
        if not max(apart, loss_apart) < bound:
            wrong.append(f"{where}: {compute}")
    with tempfile.TemporaryDirectory() as folder:
        for resume, steps in ((False, half), (True, 2 * half)):
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
            seconds = next(e.seconds for e in events if isinstance(e, RunFinished))
            tell("resumed" if resume else "finished", seconds=seconds)
    return wrong


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
        "right": ["gpu.py", *tokenizer, "--only-right", device],
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
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny models")
    parser.add_argument("--only-right", metavar="DEVICE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_right:
        wrong = right(options.only_right)
        print("\n".join(f"WRONG: {way}" for way in wrong) or "all right", flush=True)
        return bool(wrong)
    options.out.mkdir(parents=True, exist_ok=True)
    commands = parts_of(options)
    if options.official is None:
        del commands["evaluation"]
        print("evaluation: left out, since it needs --official", flush=True)
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
        lines = (options.out / f"{name}.log").read_text().splitlines()
        print("\n".join(f"  {line}" for line in lines[-12:]), flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
