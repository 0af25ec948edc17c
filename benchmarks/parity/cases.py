"""What is compared: lines, models, and one `Case` for each option of both sides."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedTokenizerBase,
)

from tests import small_pretrained
from trainer import config as configuration
from trainer.data import layout, load_task, multiplication

BATCH = 8
SWEPT, CURVED = 2 * BATCH, 10 * BATCH
"""Lines of a sweep through the stages, and of 100 training steps."""


@dataclass(frozen=True)
class Lines:
    """A file of examples, how our configuration names it, and tokens of its longest CoT and row."""

    path: Path
    data: dict[str, Any]
    longest_cot: int
    longest: int


@dataclass(frozen=True)
class Case:
    """One configuration, told to both sides.

    per_epoch: tokens removed, Δ. trained: real steps, and not the same weights at every batch. ours: what
    only our configuration has. accumulate: parts of a batch; theirs gets one batch more, its first update.
    control: ours is told something else, so that the losses must differ by more than the bound.
    """

    name: str
    lines: str
    epochs: int
    per_epoch: float
    side: Literal["left", "right"] = "left"
    smoothing: float = 0.5
    beyond: int | None = None
    max_len: int | None = None
    keep_positions: bool = False
    start_from: int = 0
    pretrain: int = 0
    reset: bool = True
    accumulate: int = 1
    model: str = "gpt2"
    trained: bool = False
    control: bool = False
    ours: dict[str, Any] = field(default_factory=dict)


def make_cases(files: dict[str, Lines]) -> list[Case]:
    """Sweeps remove a token after every batch, from none to beyond the longest CoT; then 100 steps each."""
    return [*_sweeps(files), *_curves(files)]


def _sweeps(files: dict[str, Lines]) -> list[Case]:
    def sweep(name: str, lines: str, **options: Any) -> Case:
        batches = options.pop("batches", files[lines].longest_cot + 6)
        epochs = math.ceil(batches * BATCH / SWEPT)
        return Case(f"{lines}, {name}", lines, epochs, SWEPT / BATCH, **options)

    every = ("mult 4×4", "gsm8k", "mixed")
    explicit = {"method": {"name": "explicit_cot"}}
    no_cot = {"method": {"name": "no_cot", "start_from": 0}}
    return [
        *(sweep(side, lines, side=side) for lines in every for side in ("left", "right")),
        sweep("left, no smoothing", "mixed", smoothing=math.inf),
        sweep("right, no smoothing", "mixed", side="right", smoothing=math.inf),
        sweep("left, beyond 9", "gsm8k", beyond=9, batches=20),
        sweep("right, beyond 9", "gsm8k", side="right", beyond=9, batches=20),
        sweep("left, max_len_train", "gsm8k", max_len=files["gsm8k"].longest - 10),
        sweep("right, beyond 20, max_len_train", "mixed", side="right", beyond=20, max_len=60, batches=30),
        sweep("left, keep positions", "mult 4×4", keep_positions=True),
        sweep("right, keep positions", "mult 4×4", side="right", keep_positions=True),
        sweep("left, from 5", "mixed", start_from=5, batches=20),
        sweep("left, from 9, beyond 9", "mixed", start_from=9, beyond=9, batches=6),
        sweep("left, pretraining at 3", "mixed", start_from=3, pretrain=3, batches=20),
        sweep("explicit CoT", "gsm8k", pretrain=3, batches=6, ours=explicit),
        sweep("no CoT", "gsm8k", start_from=1000, batches=6, ours=no_cot),
        sweep("in 2 parts", "gsm8k", start_from=4, pretrain=6, batches=12, accumulate=2),
        sweep("left", "mult 2×2, ours"),
        sweep("left", "mixed, Llama", model="llama"),
        sweep("right", "mixed, Llama", side="right", model="llama"),
    ]


def _curves(files: dict[str, Lines]) -> list[Case]:
    def curve(name: str, lines: str, every: int, **options: Any) -> Case:
        """100 steps in 10 epochs, a token after `every` of them."""
        name = f"100 steps: {lines}, {name}"
        return Case(name, f"{lines} (80)", 10, CURVED / BATCH / every, trained=True, **options)

    return [
        curve("left", "mult 4×4", 2),
        curve("left, no reset", "mult 4×4", 2, reset=False),
        curve("left, no smoothing", "mult 4×4", 2, smoothing=math.inf),
        curve("left, keep positions", "mult 4×4", 2, keep_positions=True),
        curve("right", "gsm8k", 5, side="right"),
        curve("left, beyond 12, max_len_train", "gsm8k", 5, beyond=12, max_len=files["gsm8k"].longest - 10),
        curve("left, pretraining at 2", "mixed", 4, start_from=2, pretrain=2),
        curve("left", "mixed, Llama", 4, model="llama"),
        curve(
            "left, ours without reset",
            "mult 4×4",
            2,
            control=True,
            ours={"method": {"reset_optimizer": False}},
        ),
    ]


# Models --------------------------------------------------------------------------------------------------


def make_models(folder: Path, tokenizer: Path | None) -> dict[str, Path]:
    """Folders with tiny random models. The official main() looks for "gpt2" in the name of a GPT-2."""
    return {
        "gpt2": _gpt2(folder / "gpt2", tokenizer),
        "llama": small_pretrained.llama(folder / "llama", 512, bos=True),
    }


def _gpt2(folder: Path, tokenizer: Path | None) -> Path:
    chosen: PreTrainedTokenizerBase = (
        small_pretrained.gpt2_tokenizer(folder)
        if tokenizer is None
        else GPT2Tokenizer.from_pretrained(tokenizer)
    )
    torch.manual_seed(0)
    architecture = GPT2Config(
        vocab_size=len(chosen),
        n_positions=512,
        n_layer=2,
        n_head=4,
        n_embd=32,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=chosen.eos_token_id,
        eos_token_id=chosen.eos_token_id,
    )
    model = GPT2LMHeadModel(architecture)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(4.0)  # a fresh model finds every token equally likely, wherever it stands
    model.save_pretrained(folder)
    chosen.save_pretrained(folder)
    return folder


# Lines ---------------------------------------------------------------------------------------------------


def make_lines(folder: Path, models: dict[str, Path], published: Path | None) -> dict[str, Lines]:
    """The files that both sides read, for a sweep and for 100 steps; those of `published` where given."""
    texts = {"mult 4×4": _multiplications(CURVED), "gsm8k": _mixed(CURVED)[::-1], "mixed": _mixed(CURVED)}
    if published is not None:
        for name, path in (("mult 4×4", "mult/valid-4x4.txt"), ("gsm8k", "gsm8k/valid.txt")):
            texts[name] = (published / path).read_text(encoding="utf-8").splitlines()[:CURVED]
    texts["mixed, Llama"] = [_plain(line) for line in texts["mixed"]]
    held = folder / "held.txt"
    held.write_text("1 * 2||3 #### 4\n")
    files = {}
    for name, lines in texts.items():
        tokenizer = AutoTokenizer.from_pretrained(models["llama" if "Llama" in name else "gpt2"])
        for size, suffix in ((SWEPT, ""), (CURVED, f" ({CURVED})")):
            path = folder / f"{name}{suffix}.txt"
            path.write_text("".join(f"{line}\n" for line in lines[:size]), encoding="utf-8")
            data = {"task": "text", "train_file": str(path), "valid_file": str(held), "test_file": str(held)}
            files[name + suffix] = _measured(path, data, tokenizer)
    files["mult 2×2, ours"] = _generated(folder, AutoTokenizer.from_pretrained(models["gpt2"]))
    return files


def _generated(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Lines:
    """Rows that our multiplication makes as ids, without any text, and the text that they are."""
    data = {"task": "multiplication", "digits": 2, "train": SWEPT, "valid": 1, "test": 1}
    config = configuration.build({"seed": 7, "data": data})
    task = load_task(config)
    examples = task.splits({"train": SWEPT, "valid": 1, "test": 1}, config.seed, tokenizer)["train"]
    path = folder / "mult 2×2, ours.txt"
    lines = [layout.format_line(task.example_text(examples, i, tokenizer)) for i in range(SWEPT)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return _measured(path, data, tokenizer)


def _measured(path: Path, data: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Lines:
    lines = [layout.parse_line(line) for line in path.read_text(encoding="utf-8").splitlines()]
    examples = layout.encode_lines(lines, tokenizer)
    return Lines(path, data, int(examples.cot_N.max()), int(examples.length_N.max()))


def _multiplications(count: int) -> list[str]:
    rng = random.Random(5)
    pairs = [[str(rng.randint(1000, 9999)) for _ in range(2)] for _ in range(count)]
    return [layout.format_line(multiplication.render(a, b)) for a, b in pairs]


def _mixed(count: int) -> list[str]:
    """Lines of very different lengths: no CoT, one of a token, long ones; commas, other scripts, blanks."""
    rng = random.Random(3)
    names = ["Ann", "Zoë", "Łukasz", "李雷", "Bob the builder", "Иван"]
    lines = []
    for i in range(count):
        a, b = rng.randint(1, 99), rng.randint(1, 9999)
        cot = " ".join(f"<<{a}*{k}={a * k}>>" for k in range(1, (0, 1, 2, 3, 4)[i % 5] + 1))
        if i % 10 == 1:
            cot = "7"
        question = f"{rng.choice(names)} has {a} apples" + " and buys more" * rng.choice([0, 0, 1, 4]) + "?"
        lines.append(f"{question}||{cot} #### {b:,}" + "  " * (i % 3 == 0))
    return lines


def _plain(line: str) -> str:
    """What is left of a line in the symbols that the small Llama knows."""
    question, rest = line.split("||")
    kept = {symbol: symbol for symbol in "0123456789*+()# "}
    return "".join(kept.get(c, "+") for c in question) + "||" + "".join(kept.get(c, "+") for c in rest)
