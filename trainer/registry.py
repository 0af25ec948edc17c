"""Which runs this user has begun, wherever they lie: one small file each, so that `RUN` may be a bare name.

Nothing depends on it: an entry that is missing, stale or broken costs only that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from platformdirs import user_state_path


def note(run: Path) -> None:
    """Remember a run folder."""
    path = run.resolve()
    name = hashlib.blake2b(os.fsencode(path), digest_size=10).hexdigest()
    with contextlib.suppress(OSError):
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.fsencode(path))


def folders() -> list[Path]:
    """The run folders that are still there; of others the entry goes."""
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(_folder().iterdir()):
            with contextlib.suppress(OSError, ValueError):
                run = Path(os.fsdecode(entry.read_bytes()))
                if run.is_dir():
                    found.append(run)
                else:
                    entry.unlink()
    return found


def _folder() -> Path:
    return user_state_path("stepwise") / "runs"
