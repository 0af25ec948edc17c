"""How a step is computed on a machine. None of it changes what is computed but for rounding; it changes bits.

So a checkpoint says what was chosen (`TrainState.compute`), and a resumed run keeps to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Path = Literal["eager", "compiled", "graphs"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Compute:
    """path: eager, through torch.compile, or as captured CUDA graphs. precision: of matrix products.

    threads: of the CPU. parts: that each batch is computed in.
    """

    path: Path = "eager"
    precision: Precision = "float32"
    threads: int = 1
    parts: int = 1

    def __str__(self) -> str:
        parts = f", batches in {self.parts} parts" if self.parts > 1 else ""
        threads = f"{self.threads} CPU thread{'s' if self.threads > 1 else ''}"
        return f"{self.precision}, {self.path}, {threads}{parts}"

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which a model multiplies in this precision: in training, evaluation and chat."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
