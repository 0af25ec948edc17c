"""What is timed: a training step of a model, on a task, at a stage, with a vocabulary; and its arithmetic."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MODELS = {"tiny": (2, 4, 128), "2l4h": (2, 4, 768), "small": (12, 12, 768)}
"""Layers, heads, width. small: GPT-2 Small's sizes, with random weights."""
STAGES = {"0": 0.0, "half": 0.5, "all": 1.0}
"""Share of the CoT tokens that is gone."""
COT_TOKENS = {"4x4": 47, "5x5": 75, "7x7": 149, "9x9": 247, "11x11": 369, "gsm8k": 39}
"""Tokens that can be removed; of GSM8K so many, beyond which all that is left goes at once."""
FULL = 50_257
POSITIONS = 1_024

Vocabulary = Literal["task", "full"]


@dataclass(frozen=True)
class Cell:
    """One row of the table. task: "4x4" and the like, or "gsm8k". batch: examples per step."""

    model: str
    task: str
    stage: str
    vocab: Vocabulary
    batch: int = 32

    @property
    def name(self) -> str:
        stage = "stage 0" if self.stage == "0" else f"{self.stage} removed"
        return f"{self.model}, {self.task}, {stage}, {self.vocab} vocabulary, batch {self.batch}"

    @property
    def digits(self) -> int | None:
        return int(self.task.split("x")[0]) if "x" in self.task else None

    @property
    def removed(self) -> int:
        return round(STAGES[self.stage] * COT_TOKENS[self.task])


def flops(cell: Cell, width: int, labels: int, vocabulary: int) -> float:
    """Multiplications and additions in the matrix products of a step, forward and backward.

    width: columns of the batch. labels: columns that predict something; the head is needed there alone.
    Attention is counted as causal, the half of its square.
    """
    layers, _, d = MODELS[cell.model]
    blocks = layers * (24 * d * d + 2 * width * d) * width
    head = 2 * d * vocabulary * labels
    return 3.0 * cell.batch * (blocks + head)


def make_lines(task: str, count: int, gsm8k: Path | None) -> list[str]:
    """Lines of the official format. Raises ValueError where GSM8K is asked for and its file is not given."""
    from trainer.data import layout, multiplication

    if task == "gsm8k":
        if gsm8k is None:
            raise ValueError("gsm8k needs --gsm8k FILE, lines question||CoT #### answer")
        lines = gsm8k.read_text(encoding="utf-8").splitlines()
        return (lines * (count // len(lines) + 1))[:count]
    digits = int(task.split("x")[0])
    rng = random.Random(1)
    low, high = 10 ** (digits - 1), 10**digits - 1
    pairs = ((str(rng.randint(low, high)), str(rng.randint(low, high))) for _ in range(count))
    return [layout.format_line(multiplication.render(a, b)) for a, b in pairs]


def make_model(name: str, tokenizer: Path, folder: Path) -> Path:
    """A folder with random weights of these sizes and GPT-2's tokenizer; kept if it is there already.

    The official main() looks for "gpt2" in the name of a GPT-2.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    path = folder / f"gpt2-{name}"
    if (path / "model.safetensors").is_file():
        return path
    shutil.rmtree(path, ignore_errors=True)
    layers, heads, width = MODELS[name]
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=FULL, n_positions=POSITIONS, n_layer=layers, n_head=heads, n_embd=width)
    )
    model.save_pretrained(path)
    GPT2Tokenizer.from_pretrained(tokenizer).save_pretrained(path)
    return path
