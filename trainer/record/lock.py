"""The lock on a run's journal: who holds it trains the run, and it goes with the process, however that ends.

A pid says little: it is given again, soonest where containers start anew and everything is process 1. Light
to import.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

JOURNAL = "journal.jsonl"
PATIENCE = 1.0
"""Seconds that a writer tries. Whoever looks whether the lock is held has it for an instant."""


def take(descriptor: int) -> None:
    """Lock an open journal for its writer. Raises BlockingIOError while another holds it, and OSError."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
        time.sleep(0.01)


def held(path: Path) -> bool | None:
    """Whether a process has the journal `path` locked; None where that cannot be told from here."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def holds(pid: int, path: Path) -> bool:
    """Whether it is process `pid` that has the journal locked, as far as the system says so."""
    process = Path("/proc") / str(pid)
    try:
        journal, numbers = path.stat(), os.listdir(process / "fd")
    except OSError:
        return False
    for number in numbers:
        with contextlib.suppress(OSError):  # closed meanwhile
            same = os.path.samestat(os.stat(process / "fd" / number), journal)
            if same and "FLOCK" in (process / "fdinfo" / number).read_text():
                return True
    return False
