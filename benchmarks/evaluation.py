"""1,000 examples with no CoT left, beside the official generate.py at batch 1, as documented, and at 32.

    python benchmarks/evaluation.py --official CHECKOUT --tokenizer DIR --json docs/results/evaluation.json

GPT-2 Small with random weights, 4×4, the full vocabulary. Such a model never ends by itself, so each side is
told to stop after as many tokens as the answer has; the official code's default is 800, which a trained model
does not reach either. The official side does some examples only (--singles, --batched), ours all 1,000; what
is compared is the time for one. They take turns, each in a new process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.speed.cells import make_lines, make_model

EXAMPLES = 1_000
ANSWER = 13
"""Tokens from the CoT's EOS to the last: ` ####` is two, eight digits, a blank, two EOS."""


def ours(init: Path, count: int, device: str) -> float:
    """Seconds for one of `count` examples, as an evaluation during a run does them."""
    import torch

    from trainer import config as configuration
    from trainer import evaluate
    from trainer.choosing import choose
    from trainer.heap import keep_memory
    from trainer.parts import assemble

    keep_memory()
    settings = configuration.build(
        {
            "data": {"digits": 4, "train": 2_000, "valid": count, "test": 10},
            "model": {"init": str(init), "vocab": "full"},
            "method": {"start_from": 47},
            "device": device,
            "compute": {"threads": os.cpu_count()},
        }
    )
    parts = assemble(settings)
    batch = parts.method.rows(parts.splits["train"][:2], parts.method.start, None)
    compute, _ = choose(settings.compute, parts.device, parts.method, parts.model, batch)
    torch.set_num_threads(compute.threads)
    evaluate.answer_room = lambda examples: ANSWER
    times = []
    for rows in (parts.splits["valid"][:100], parts.splits["valid"]):
        started = time.perf_counter()
        with compute.autocast(parts.device):
            evaluate.evaluate(parts.method, parts.model, rows, 47, parts.tokenizer)
        times.append((time.perf_counter() - started) / len(rows))
    return times[-1]


def official(checkout: Path, init: Path, count: int, batch: int, device: str) -> float:
    """Seconds for one of `count` examples by the official evaluate() of generate.py."""
    import importlib

    import torch
    from torch.utils.data import DataLoader

    from benchmarks.parity import official_driver

    train, _ = official_driver.load(checkout)
    generate = importlib.import_module("generate")
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines.txt"
        parted = (line.split("||") for line in make_lines("4x4", count, None))
        bare = [f"{question}|| ####{rest.split('####')[1]}" for question, rest in parted]
        lines.write_text("".join(f"{line}\n" for line in bare))
        names = train.ImplicitModelConfig(base_model=str(init), tokenizer_name=str(init))
        model = train.ImplicitModel(names).to(device).eval()
        data = generate.CoTDataset(model.tokenizer, str(lines), -1)
        loader = DataLoader(data, batch_size=batch, collate_fn=generate.CoTDataCollator(model.tokenizer))
        started = time.perf_counter()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            generate.evaluate(
                loader, model.tokenizer, torch.device(device), contextlib.nullcontext(), model, ANSWER
            )
        return (time.perf_counter() - started) / count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--singles", type=int, default=16, help="examples at batch 1")
    parser.add_argument("--batched", type=int, default=96, help="examples at batch 32")
    parser.add_argument("--one", choices=("ours", "single", "batched"), help=argparse.SUPPRESS)
    parser.add_argument("--init", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=None, help="write the result here")
    options = parser.parse_args()
    if options.one:
        sides = {
            "ours": lambda: ours(options.init, EXAMPLES, options.device),
            "single": lambda: official(options.official, options.init, options.singles, 1, options.device),
            "batched": lambda: official(options.official, options.init, options.batched, 32, options.device),
        }
        print(json.dumps(sides[options.one]()))
        return 0
    found: dict[str, list[float]] = {"ours": [], "single": [], "batched": []}
    with tempfile.TemporaryDirectory() as folder:
        init = make_model(options.model, options.tokenizer, Path(folder))
        for number in range(options.rounds):
            for side in list(found)[:: -1 if number % 2 else 1]:
                done = subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], "--one", side, "--init", str(init)],
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                found[side].append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{side}: {found[side][-1] * 1e3:,.1f} ms an example", file=sys.stderr, flush=True)
    middle = {side: statistics.median(times) for side, times in found.items()}
    result: dict[str, Any] = {
        "seconds_per_example": found, "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d"),
        "times_faster": {side: middle[side] / middle["ours"] for side in ("single", "batched")},
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"ours: {middle['ours'] * 1e3:,.2f} ms an example")
    for side, ratio in result["times_faster"].items():
        print(f"official, {side}: {middle[side] * 1e3:,.1f} ms, {ratio:.1f} times as long")
    return 0


if __name__ == "__main__":
    sys.exit(main())
