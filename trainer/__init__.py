"""The engine of stepwise: trains, is steered, and knows nothing of screens.

    from trainer import Config, Run

`Run` is loaded on first use, so that journals and presets can be read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer.config import Config

if TYPE_CHECKING:
    from trainer.run import Run

__all__ = ["Config", "Run"]


def __getattr__(name: str) -> Any:
    if name == "Run":
        from trainer.run import Run

        return Run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
