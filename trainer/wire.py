"""What goes over the control socket: JSON lines, and where the socket lies. Light to import.

    client → run    {"after": SEQ}                              once, first: tell me all from there on;
                                                                0: what was before by its digest, which
                                                                ends with `history_told`; null: from now on
                    {"command": "pause", "id": …, "source": …}  any command of `control.COMMANDS`
    run → client    events, as in the journal                   transient ones too
                    {"error": "…"}                              what could not be understood

The socket lies in a folder of this user's own in the temporary folder. The run's folder would not do: it is
often readable by others, often on NFS, and its path may be longer than a socket's may be. Nor would the login
session's runtime folder: it goes with the last logout, just when it is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from trainer.control import Command, CommandError, parse

LONGEST = 1 << 16
"""Bytes of a client's line; more is no command."""

STALE_SECONDS = 3600.0

LONGEST_PATH = 100
"""Bytes that a socket's address may have, a few less than Linux and macOS allow."""


class WireError(ValueError):
    """A message that cannot be understood; the text says what is expected."""


@dataclass(frozen=True, slots=True)
class Hello:
    """after: seq of the last event the client has, 0 for none; None: it wants only what comes."""

    after: int | None


def address(run: Path, *, make: bool = True) -> Path:
    """Where the socket of a run lies. Raises OSError where its folder is not ours alone.

    make: whether the folder is made if need be; whoever only looks for a run has no use for an empty one.
    """
    name = hashlib.blake2b(os.fsencode(run.resolve()), digest_size=10).hexdigest()
    return private_folder(make=make) / f"{name}.sock"


def private_folder(*, make: bool = True) -> Path:
    """This user's folder for sockets.

    Raises OSError when what lies there is a link, belongs to another user or is open to others, and when
    nothing does and it is not to be made.
    """
    name = f"stepwise-{os.getuid()}"
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder)) > LONGEST_PATH - 30:  # room for a socket's name
        folder = Path("/tmp") / name
    if make:
        folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(
            1, "is not a folder of this user alone (mode 0700); without it nobody can attach", str(folder)
        )
    return folder


def sweep() -> None:
    """Take away what dead runs left in the folder for sockets, an hour after they last touched it."""
    with contextlib.suppress(OSError):
        for path in private_folder().iterdir():
            with contextlib.suppress(OSError):
                old = time.time() - path.stat().st_mtime > STALE_SECONDS
                if old and not _answers(path.with_suffix(".sock")):
                    path.unlink()


def _answers(path: Path) -> bool:
    """Whether a process listens at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def read(line: bytes) -> Hello | Command:
    """A client's line. Raises `WireError`, and `CommandError` for a command that is not one."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a line of JSON: {error}") from None
    match message:
        case {"after": None}:
            return Hello(None)
        case {"after": int(after)} if not isinstance(after, bool) and after >= 0:
            return Hello(after)
        case {"command": str(text), **rest}:
            id, source = rest.get("id"), rest.get("source", "socket")
            if isinstance(id, str) and isinstance(source, str) and 0 < len(id) <= 100 and len(source) <= 100:
                return parse(text, id=id, source=source)
    raise WireError('{"after": SEQ} or {"command": TEXT, "id": TEXT, "source": TEXT} is expected')


def hello(after: int | None) -> bytes:
    return _line({"after": after})


def command(asked: Command) -> bytes:
    return _line({"command": asked.text, "id": asked.id, "source": asked.source})


def error(problem: WireError | CommandError) -> bytes:
    return _line({"error": str(problem)})


def _line(message: dict[str, object]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
