"""`status.json`: where a run stands, for whoever looks from outside. Replaced whole, about once a second."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import psutil

from trainer.events import RunState
from trainer.files import FULL, replace_text
from trainer.record import lock

FILE = "status.json"
ROOM = 4096
"""Bytes that the file has, so that it can be written over."""
CLOCKS_DIFFER = 60.0
"""Seconds that a process may seem younger than what it wrote. Younger still, it only has the number."""


@dataclass(frozen=True, slots=True)
class Status:
    """times are seconds since the epoch. accuracy: the last on the validation split, None before it."""

    name: str
    title: str
    state: RunState
    step: int
    stage: int
    stages: int
    scheduled: int
    removed: int
    branch: int
    accuracy: float | None
    pid: int
    host: str
    boot_id: str
    started: float
    last_step_at: float
    heartbeat: float
    socket: str | None = None


def write(folder: Path, status: Status, *, durable: bool = False) -> None:
    """Replace the status of a run. durable: it outlives a power cut. Raises OSError.

    On a full disk there is no room for another file, and it is written over the one that is there.
    """
    text = (json.dumps(asdict(status), indent=1)).ljust(ROOM - 1) + "\n"
    try:
        replace_text(folder / FILE, text, durable=durable)
    except OSError as error:
        if error.errno not in FULL or not _write_over(folder / FILE, text.encode()):
            raise


def _write_over(path: Path, data: bytes) -> bool:
    """Put `data` in a file's place where it is as long, in one go; whether it is."""
    with path.open("r+b", buffering=0) as file:
        return os.fstat(file.fileno()).st_size == len(data) == file.write(data)


def read(folder: Path) -> Status | None:
    """The status of a run; None when there is none or it cannot be understood."""
    try:
        document: Any = json.loads((folder / FILE).read_text(encoding="utf-8"))
        status = Status(**{f.name: document[f.name] for f in fields(Status)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return status if status.state in get_args(RunState) else None


def host() -> str:
    return socket.gethostname()


def boot_id() -> str:
    """A name for this boot of the machine, so that a pid from before a reboot is not taken for alive."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_lives(folder: Path, status: Status) -> bool | None:
    """Whether the process that wrote this status of `folder` still runs; None when it ran on another host
    and cannot be told from here.

    The lock on the journal says so. Where it cannot be asked, the pid does: one that was killed and not yet
    reaped does not run, nor one that has the number of a process of before.
    """
    if status.host != host():
        return None
    locked = lock.held(folder / lock.JOURNAL)
    if locked:
        return True
    if locked is False or status.boot_id != boot_id() or status.pid == os.getpid():
        return False
    try:
        process = psutil.Process(status.pid)
        over = process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return not over and process.create_time() <= status.heartbeat + CLOCKS_DIFFER
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
