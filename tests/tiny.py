"""A run so small that tests can train it."""

from __future__ import annotations

from typing import Any

from trainer import config as configuration
from trainer.config import Config

TINY: dict[str, Any] = {
    "data": {"digits": 2, "train": 400, "valid": 40, "test": 40},
    "model": {"init": "scratch", "vocab": "task", "layers": 1, "heads": 2, "width": 16, "dropout": 0.1},
    "schedule": {"steps_per_token": 5, "pretrain_steps": 5},
    "optim": {"lr": 2e-3, "batch": 16},
    "eval": {"every": 10},
    "log": {"every": 2},
    "stop": {"steps": 60},
}


def tiny_config(**changes: Any) -> Config:
    """The tiny configuration; `optim__lr=1e-3` changes a nested field, `seed=1` one of the top."""
    over = configuration.nested({key.replace("__", "."): value for key, value in changes.items()})
    return configuration.build(configuration.merge(TINY, over))
