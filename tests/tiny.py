"""A run so small that tests can train it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from trainer import config as configuration
from trainer import status
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


def endless(folder: Path, **changes: Any) -> str:
    """A file in `folder`: the tiny configuration, for a run that does not end by itself."""
    for_ever = {"stop__steps": 1_000_000, "stop__epochs": 1e9, "schedule__steps_per_token": 10**6}
    file = folder / "tiny.toml"
    file.write_text(configuration.dumps(tiny_config(**for_ever | changes)))
    return str(file)


def kill(run: Path) -> None:
    """End the process of a run, if there is one, whatever the test left."""
    found = status.read(run)
    if found is not None and status.process_lives(run, found):
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGKILL)
