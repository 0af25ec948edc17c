"""Arguments of the benchmarks that argparse has no type for; each raises what it tells as a sentence."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any


def positive(text: str) -> int:
    """How many."""
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text!r}: a whole number ≥ 1 is allowed")
    return int(text)


def device(text: str) -> str:
    """Where to compute."""
    if text == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ArgumentTypeError("torch finds no GPU here")
    return text


def settings(text: str) -> dict[str, Any]:
    """Settings as JSON."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ArgumentTypeError(f'{text!r}: JSON like {{"optim": {{"lr": 1e-4}}}} is allowed')
    return found


def written(text: str) -> Path:
    """A file that is written at the end. Its folder is made now, or what was measured could be lost."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentTypeError(f"{path.parent}: {error.strerror}") from None
    return path
