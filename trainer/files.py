"""Writing files so that a kill or a full disk leaves the old or the new one, never half of one."""

from __future__ import annotations

import os
from pathlib import Path

RETRY_SECONDS = 1.0
"""Between two attempts to write to a disk that refuses."""
PATIENCE = 2.0
"""Seconds that the end of a run waits for a disk that refuses."""


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str, *, durable: bool) -> None:
    """Replace a text file in one go. durable: wait until it is on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)
