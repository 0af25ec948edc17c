"""Steps and tokens per second beside the official code, a plain Hugging Face `Trainer`, and what is possible.

    python benchmarks/throughput.py --tokenizer GPT2_TOKENIZER --official CHECKOUT --out docs/results

Each cell of the grid (model × task × stage × vocabulary) is trained by each side in turn, round after round,
every time in a new process; what is told is the median over all counted steps of all rounds, with the
quartiles. The official code has the full vocabulary only, and stands beside both of ours. Models have random
weights of the sizes named. The floor is what the step's matrix products take at the rate that large ones
reach on this machine, measured in the same run. A side that lacks --official, --tokenizer or
`pip install accelerate` is left out, which is said. Exit status 1 when a side failed.

The steps are those of a whole run with its journal and saves, but without evaluation and without stage
changes: benchmarks/stages.py has those.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arguments import device, positive, settings
from benchmarks.speed.cells import COT_TOKENS, MODELS, STAGES, Cell, flops, make_model

SUBJECTS = Path(__file__).with_name("speed") / "subjects.py"
SIDES = {"ours": "stepwise", "official": "official code", "trainer": "HF Trainer"}


def peak(device: str, dtype: str) -> float:
    """Multiplications and additions per second of a matrix product, the best of several large ones."""
    import torch

    kind = getattr(torch, dtype)
    size = 8_192 if device == "cuda" else 2_048
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(3):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 3 * 2 * size**3 / (time.perf_counter() - started))
    return best


def timed(who: str, cell: Cell, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One process of one side."""
    init = make_model(cell.model, options.tokenizer, folder) if options.tokenizer else ""
    job = {
        "who": who, "cell": asdict(cell), "steps": options.steps, "every": options.every,
        "device": options.device, "init": str(init), "settings": dict(options.settings),
        "official": str(options.official or ""), "gsm8k": str(options.gsm8k or ""),
    }  # fmt: skip
    command = [sys.executable, str(SUBJECTS), json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(cell: Cell, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All sides of a cell, interleaved."""
    sides = [side for side in SIDES if side in options.sides]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(options.rounds):
        for side in sides[:: -1 if number % 2 else 1]:
            found[side].append(timed(side, cell, options, folder))
            last = found[side][-1]
            text = last.get("error") or f"{statistics.median(last['seconds']) * 1e3:,.1f} ms"
            print(f"  {cell.name}: {SIDES[side]}: {text}", file=sys.stderr, flush=True)
    return {side: _together(cell, rounds, options.peaks) for side, rounds in found.items()}


def _together(cell: Cell, rounds: list[dict[str, Any]], peaks: dict[str, float]) -> dict[str, Any]:
    good = [r for r in rounds if "error" not in r]
    if not good:
        return {"error": rounds[0]["error"], "failed": len(rounds)}
    seconds = sorted(itertools.chain.from_iterable(r["seconds"] for r in good))
    middle = statistics.median(seconds)
    low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else (middle,) * 3
    first = good[0]
    work = flops(cell, first["width"], first["labels"], first["symbols"])
    return {
        "ms": middle * 1e3, "quartiles": [low * 1e3, high * 1e3], "counted": len(seconds),
        "steps_per_second": 1 / middle, "tokens_per_second": first["tokens"] / middle,
        "floor": {name: work / rate / middle for name, rate in peaks.items()},
        "memory": max(r["memory"] for r in good), "failed": len(rounds) - len(good), "note": first["note"],
    }  # fmt: skip


def table(results: list[dict[str, Any]], peaks: dict[str, float]) -> str:
    floors = "".join(f" share of the floor, {name} |" for name in peaks)
    lines = [
        "| model | task | stage | vocabulary | batch | side | ms per step (quartiles) | steps/s | tokens/s |"
        f"{floors} peak memory | beside the official code |",
        "|---" * (11 + len(peaks)) + "|",
    ]
    for row in results:
        cell = Cell(**row["cell"])
        place = f"| {cell.model} | {cell.task} | {cell.stage} | {cell.vocab} | {cell.batch} "
        reference = row["sides"].get("official", {}).get("ms")
        for side, found in row["sides"].items():
            if "error" in found:
                lines.append(f"{place}| {SIDES[side]} | failed: {found['error']} |" + " |" * (4 + len(peaks)))
                continue
            low, high = found["quartiles"]
            failed = f"; failed rounds: {found['failed']}" if found["failed"] else ""
            shares = "".join(f" {share:.0%} |" for share in found["floor"].values())
            ratio = f"{reference / found['ms']:.1f} ×" if reference else "–"
            lines.append(
                f"{place}| {SIDES[side]} | {found['ms']:,.1f} ({low:,.1f}–{high:,.1f}){failed} "
                f"| {found['steps_per_second']:.2f} | {found['tokens_per_second']:,.0f} |{shares} "
                f"{found['memory'] / 1e9:.2f} GB | {ratio} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["tiny"])
    parser.add_argument("--tasks", nargs="+", choices=COT_TOKENS, default=["4x4"])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=["0"])
    parser.add_argument("--vocab", nargs="+", choices=("task", "full"), default=["task", "full"])
    parser.add_argument("--batches", nargs="+", type=positive, default=[32])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=8, help="counted, per process; of ours: readings")
    parser.add_argument("--every", type=positive, default=1, help="of ours: steps between two readings")
    parser.add_argument("--device", type=device, choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--official", type=Path, help="a checkout of da03/Internalize_CoT_Step_by_Step")
    parser.add_argument(
        "--tokenizer", type=Path, help="a folder with GPT-2's tokenizer, for the full vocabulary"
    )
    parser.add_argument("--gsm8k", type=Path, help="lines of GSM8K in the official format")
    parser.add_argument("--set", dest="settings", type=settings, default={}, help="of ours, as JSON")
    parser.add_argument("--name", default="throughput", help="of the files in --out")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    for chosen, one, there, wanted in (
        (options.sides, "official", options.official and options.tokenizer, "--official and --tokenizer"),
        (options.sides, "trainer", importlib.util.find_spec("accelerate"), "pip install accelerate"),
        (options.vocab, "full", options.tokenizer, "--tokenizer"),
    ):
        if one in chosen and not there:
            chosen[:] = [each for each in chosen if each != one]
            print(f"left out: {one}, which needs {wanted}", file=sys.stderr)
    dtypes = ("float32", "bfloat16")
    grid = [
        cell
        for values in itertools.product(
            options.models, options.tasks, options.stages, options.vocab, options.batches
        )
        if (cell := Cell(*values)).vocab == "full" or cell.task != "gsm8k"  # a text has the pretrained one
    ]
    if not grid or not options.sides:
        parser.error("nothing is left to measure")
    options.peaks = {dtype: peak(options.device, dtype) for dtype in dtypes}
    results = []
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for cell in grid:
            results.append({"cell": asdict(cell), "sides": measure(cell, options, Path(folder))})
            text = table(results, options.peaks)
            if options.out:  # after each, since a grid takes long and a machine can be taken away
                report = {
                    "results": results, "peaks": options.peaks, "date": datetime.date.today().isoformat(),
                    "machine": machine(options.device), "rounds": options.rounds, "steps": options.steps,
                }  # fmt: skip
                (options.out / f"{options.name}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(text)
    print(", ".join(f"{name}: {rate / 1e9:,.0f} GFLOP/s" for name, rate in options.peaks.items()))
    return any(found["failed"] for row in results for found in row["sides"].values())


def machine(device: str) -> dict[str, Any]:
    import torch
    import transformers

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name, "cores": os.cpu_count(), "torch": str(torch.__version__),
        "transformers": transformers.__version__, "python": platform.python_version(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
