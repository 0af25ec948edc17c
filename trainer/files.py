"""Writing files so that a kill or a full disk leaves the old or the new one, never half of one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

RETRY_SECONDS = 1.0
"""Between two attempts to write to a disk that refuses."""
PATIENCE = 2.0
"""Seconds that the end of a run waits for a disk that refuses."""

FULL = (errno.ENOSPC, errno.EDQUOT)


class Trouble(NamedTuple):
    """Why a disk takes nothing, and what a person can do about it."""

    reason: str
    remedy: str


def trouble(what: str, error: OSError) -> Trouble:
    """What there is to say of `error`, on account of which `what` is not possible."""
    match error.errno:
        case number if number in FULL:
            remedy = "make room"
        case errno.EROFS:
            remedy = "mount it to be written"
        case errno.EACCES | errno.EPERM:
            remedy = "give back the right to write there"
        case _:
            remedy = "see to that disk"
    return Trouble(f"{what}: {error.strerror or error}", remedy)


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


def share(folder: Path) -> None:
    """Let whoever may read a new folder read its files; safetensors writes its own for their owner alone."""
    mode = folder.stat().st_mode & 0o666
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(mode)


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
