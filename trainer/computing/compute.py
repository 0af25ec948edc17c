"""How a step is computed on a machine. None of it changes what is computed but for rounding; it changes bits.

So a checkpoint says what was chosen (`TrainState.compute`), and a resumed run keeps to it on the same kind of
device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch

from trainer.computing.packed import available, packed
from trainer.methods.base import Model

Path = Literal["eager", "compiled", "graphs"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Compute:
    """path: eager, through torch.compile, or as captured CUDA graphs. precision: of matrix products.

    threads: of the CPU. parts: that each batch is computed in. device: the kind that all this is for.
    """

    path: Path = "eager"
    precision: Precision = "float32"
    threads: int = 1
    parts: int = 1
    device: str = "cpu"

    def __str__(self) -> str:
        parts = f", batches in {self.parts} parts" if self.parts > 1 else ""
        threads = f"{self.threads} CPU thread{'s' if self.threads > 1 else ''}"
        return f"{self.precision}, {self.path}, {threads}{parts}"

    def divided(self, rows: int) -> Compute | None:
        """The same in more parts, where so many rows do not fit; None where each is alone already."""
        return replace(self, parts=min(2 * self.parts, rows)) if self.parts < rows else None

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which a model multiplies in this precision."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    @contextmanager
    def answering(self, model: Model) -> Iterator[None]:
        """The context of evaluation and chat: the model answers, and its weights do not change."""
        packs = self.precision == "bfloat16" and model.device.type == "cpu" and available()
        with self.autocast(model.device), packed(model) if packs else nullcontext():
            yield
