"""AdamW, with moments of the weights' own dtype or in 8 bits.

8 bits are those of arXiv 2110.02861, by `bitsandbytes`: blocks of 256 with a scale each, by a table of 256
values. As there, tables of embeddings keep theirs in fp32 (section 2.3), and so does what is small.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer import hub
from trainer.config import OptimConfig
from trainer.methods.base import Model

MOMENTS = 2
"""AdamW's, each as large as what is trained."""
BLOCK = 256
SMALL = 4_096
"""Of fewer numbers `bitsandbytes` makes none in 8 bits."""


def adamw(model: Model, config: OptimConfig) -> torch.optim.Optimizer:
    """A new optimiser over what is trained of the model. Raises ValueError as `check` does."""
    trained = _trained(model)
    if config.moments == "full":
        return torch.optim.AdamW(trained, fused=True)
    tables = _tables(model)
    groups = [
        {"params": [p for p in trained if p not in tables], "optim_bits": 8},
        {"params": [p for p in trained if p in tables], "optim_bits": 32},
    ]

    class AdamW8bit(_bitsandbytes().optim.AdamW8bit):  # type: ignore[misc]
        """The library's, which would be told of single parameters by what all models of a process share."""

        def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
            config: dict[str, Any] = super().get_config(gindex, pindex, group)
            return config | {"optim_bits": group["optim_bits"]}

    optimizer: torch.optim.Optimizer = AdamW8bit([group for group in groups if group["params"]])
    return optimizer


def check(config: OptimConfig) -> None:
    """Raises ValueError with a sentence where 8 bits are asked for and there is no `bitsandbytes`."""
    if config.moments == "8bit":
        _bitsandbytes()


def size(model: Model, config: OptimConfig) -> int:
    """Bytes that the moments of all that is trained take."""
    tables = _tables(model)

    def of(parameter: nn.Parameter) -> int:
        if config.moments == "full":
            return MOMENTS * parameter.numel() * parameter.element_size()
        if parameter in tables or parameter.numel() < SMALL:
            return MOMENTS * parameter.numel() * 4
        return MOMENTS * (parameter.numel() + 4 * -(-parameter.numel() // BLOCK))

    return sum(map(of, _trained(model)))


def _trained(model: Model) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _tables(model: Model) -> set[Tensor]:
    return {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}


def _bitsandbytes() -> Any:
    try:
        with hub.no_kernels():
            import bitsandbytes
    except ImportError:
        raise ValueError(
            "optim.moments = \"8bit\" needs bitsandbytes: pip install 'stepwise-tui[memory]'; without it: "
            "--set optim.moments=full"
        ) from None
    return bitsandbytes
