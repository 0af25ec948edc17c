"""Paths as people read them and commands take them."""

from __future__ import annotations

import shlex
from pathlib import Path


def shortest(path: Path) -> str:
    """`path` from the working directory on, if it lies there."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def named(path: Path) -> str:
    """A run, or another folder, as a command that is typed here takes it."""
    return shlex.quote(shortest(path))
