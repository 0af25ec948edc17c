"""1,000 examples with no CoT left, beside the official generate.py at batch 1, as documented, and at 32.

    python benchmarks/evaluation.py --official CHECKOUT --tokenizer DIR --json docs/results/evaluation.json

GPT-2 Small's sizes, 4×4, the full vocabulary, and weights that have the model write `ANSWER` to whatever it
is asked, which here is what is true of every example: it is right, as a trained model is. All sides do all of
the arithmetic; none knows what the weights are. Ours twice: as an evaluation does it where most was right
before (one pass over the true rows, what that does not tell decoded, and one in sixteen as well), and all
decoded, as where most is wrong. The official side does some examples only (--singles, --batched); what is
compared is the time for one. They take turns, each in a new process. OMP_NUM_THREADS holds for all of them.
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

from benchmarks.arguments import device, positive, written
from benchmarks.speed.cells import MODELS, make_lines, make_model

EXAMPLES = 1_000
ANSWER = "1 2 3 4 5 6 7 8"
NEW = 13
"""Tokens from the CoT's EOS to the last: ` ####` is two, eight digits, a blank, two EOS."""
SIDES = ("ours", "decoded", "single", "batched")


def teach(init: Path) -> None:
    """Have the model in this folder write EOS, ####, `ANSWER`, EOS to questions of 4×4.

    The blocks add nothing to their input any more, so a position alone says what comes next.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(init)
    tokenizer = AutoTokenizer.from_pretrained(init)
    end = tokenizer.eos_token
    question = len(tokenizer.encode(f" 1 2 3 4 * 5 6 7 8 {end}"))
    written = tokenizer.encode(f"{end} #### {ANSWER} {end}")
    assert len(written) == NEW
    torch.manual_seed(1)
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
        for place, token in enumerate(written, start=question - 1):
            direction = torch.randn(model.config.n_embd)
            direction /= direction.norm()
            model.transformer.wpe.weight[place] = 50 * direction
            model.transformer.wte.weight[token] += 4 * direction
    model.save_pretrained(init)


def ours(init: Path, count: int, device: str, shortcut: bool) -> dict[str, Any]:
    """Seconds for one of `count` examples, as an evaluation during a run does them."""
    import torch

    from trainer import config as configuration
    from trainer.answering import evaluate
    from trainer.computing.choosing import choose
    from trainer.computing.heap import keep_memory
    from trainer.parts import assemble

    keep_memory()
    settings = configuration.build(
        {
            "data": {"digits": 4, "train": 2_000, "valid": count, "test": 10},
            "model": {"init": str(init), "vocab": "full"},
            "method": {"start_from": 47},
            "device": device,
            "compute": {"threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))},
        }
    )
    parts = assemble(settings)
    batch = parts.method.rows(parts.splits["train"][:2], parts.method.start, None)
    compute, _ = choose(settings.compute, parts.device, parts.method, parts.model, batch)
    torch.set_num_threads(compute.threads)
    examples = parts.splits["valid"]
    true = parts.tokenizer.encode(f" {ANSWER}")
    examples.ids_NT[:, -2 - len(true) : -2] = torch.tensor(true)
    assert examples.length_N.min() == examples.ids_NT.shape[1]
    for rows in (examples[:64], examples):
        started = time.perf_counter()
        with compute.answering(parts.model):
            found = evaluate.evaluate(parts.method, parts.model, rows, 47, parts.tokenizer, shortcut=shortcut)
        seconds = (time.perf_counter() - started) / len(rows)
    assert found is not None
    assert found.accuracy == 1.0, found.accuracy
    return {"seconds": seconds, "decoded": len(rows) - found.decoded.foretold}


def official(checkout: Path, init: Path, count: int, batch: int, device: str) -> dict[str, Any]:
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
        bare = [f"{question}|| #### {ANSWER}" for question, _ in parted]
        lines.write_text("".join(f"{line}\n" for line in bare))
        names = train.ImplicitModelConfig(base_model=str(init), tokenizer_name=str(init))
        model = train.ImplicitModel(names).to(device).eval()
        data = generate.CoTDataset(model.tokenizer, str(lines), -1)
        loader = DataLoader(data, batch_size=batch, collate_fn=generate.CoTDataCollator(model.tokenizer))
        started = time.perf_counter()
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            accuracy, _ = generate.evaluate(
                loader, model.tokenizer, torch.device(device), contextlib.nullcontext(), model, NEW
            )
        seconds = (time.perf_counter() - started) / count
        assert accuracy == 1.0, accuracy
        return {"seconds": seconds, "decoded": count}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--device", type=device, choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--examples", type=positive, default=EXAMPLES, help="of ours")
    parser.add_argument("--singles", type=positive, default=16, help="examples at batch 1")
    parser.add_argument("--batched", type=positive, default=96, help="examples at batch 32")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--init", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=written, default=None, help="write the result here")
    options = parser.parse_args()
    if options.one:
        sides = {
            "ours": lambda: ours(options.init, options.examples, options.device, True),
            "decoded": lambda: ours(options.init, options.examples, options.device, False),
            "single": lambda: official(options.official, options.init, options.singles, 1, options.device),
            "batched": lambda: official(options.official, options.init, options.batched, 32, options.device),
        }
        print(json.dumps(sides[options.one]()))
        return 0
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    really: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        init = make_model(options.model, options.tokenizer, Path(folder))
        teach(init)
        for number in range(options.rounds):
            for side in list(found)[:: -1 if number % 2 else 1]:
                done = subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], "--one", side, "--init", str(init)],
                    capture_output=True, text=True,
                )  # fmt: skip
                if done.returncode:
                    sys.exit(f"{done.stderr}{side}: failed with {done.returncode}")
                told = json.loads(done.stdout.splitlines()[-1])
                found[side].append(told["seconds"])
                really[side] = told["decoded"]
                print(f"{side}: {found[side][-1] * 1e3:,.1f} ms an example", file=sys.stderr, flush=True)
    middle = {side: statistics.median(times) for side, times in found.items()}
    result: dict[str, Any] = {
        "seconds_per_example": found, "really_decoded": really, "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "as each side chooses"),
        "load": os.getloadavg(), "date": time.strftime("%Y-%m-%d"),
        "times_faster": {
            mine: {side: middle[side] / middle[mine] for side in ("single", "batched")}
            for mine in ("ours", "decoded")
        },
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    for mine, ratios in result["times_faster"].items():
        print(f"{mine}: {middle[mine] * 1e3:,.2f} ms an example, {really[mine]} decoded")
        for side, ratio in ratios.items():
            print(f"  official, {side}: {middle[side] * 1e3:,.1f} ms, {ratio:.1f} times as long")
    return 0


if __name__ == "__main__":
    sys.exit(main())
