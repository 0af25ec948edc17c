"""A run on another machine, over ssh: no port is opened.

There, `stepwise relay` joins its stdin and stdout to the run's control socket, after one line that says which
run it is. Here, `RelayLink` starts it through ssh and is a link like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import IO, Literal

from stepwise_tui.link import LinkError, SocketLink, connect
from trainer import config as configuration
from trainer import runs
from trainer.events import ReachChanged
from trainer.record import journal

SSH = "STEPWISE_SSH"
"""The environment's word for the command that reaches a host; the host and what it shall run are added."""
REMOTE = "STEPWISE_REMOTE"
"""The same for `stepwise` on that host, where it is not on the PATH."""
DEFAULT_SSH = "ssh -T -o ServerAliveInterval=15"
TYPED_SSH = "ssh -t"
"""The same for a command that a person types: it has a terminal there."""
NOT_FOUND = 127
AT_ONCE = 65_536


def serve(folder: Path) -> None:
    """Join stdin and stdout to the control socket of a run until either side ends.

    Raises `LinkError` when the run does not answer.
    """
    connection = connect(folder)
    config = (folder / runs.CONFIG_FILE).read_text(encoding="utf-8")
    head = {"relay": 1, "name": folder.name, "folder": str(folder), "config": config}
    out = sys.stdout.buffer
    with contextlib.suppress(OSError):
        out.write(json.dumps(head).encode() + b"\n")
        out.flush()
        threading.Thread(target=_pass_up, args=(connection,), daemon=True).start()
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(AT_ONCE):
                out.write(data)
                out.flush()
        # Who follows may have been left before it was told the end; what it knows it passes over.
        out.write(b"\n" + _tail(folder))
        out.flush()


def _tail(folder: Path) -> bytes:
    """The last lines of a run's journal."""
    with (folder / journal.FILE).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - AT_ONCE))
        return file.read().partition(b"\n")[2]


def _pass_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, AT_ONCE):
            connection.sendall(data)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class RelayLink(SocketLink):
    """A run on another host."""

    local = False
    _again = 5.0
    _lost = "the connection ended, or the run did; looking for it. Training does not depend on it"

    def __init__(self, host: str, run: str | None, out: Path) -> None:
        """run: as on that host; None: the only one that trains there. Raises `LinkError` with a sentence."""
        if not host or host.startswith("-"):
            raise LinkError(f"--ssh {host!r}: the name of a host is wanted, as ssh takes it")
        self._host = host
        words = [*_there(), "relay", *([run] if run else []), "--out", str(out)]
        self._command = [*shlex.split(os.environ.get(SSH) or DEFAULT_SSH), host, shlex.join(words)]
        self._line = Line(self._command, host, may_ask=True)
        head = self._line.head
        self.name = f"{head['name']} on {host}"
        self.folder = Path(head["folder"])
        self.config = configuration.build(tomllib.loads(head["config"]))
        self._begin(self._line)

    def command(self, name: str, *options: str) -> str:
        run = [str(self.folder), *options]
        if name == "attach":
            return shlex.join(["stepwise", name, "--ssh", self._host, *run])
        there = shlex.join([*_there(), name, *run])
        return shlex.join([*shlex.split(os.environ.get(SSH) or TYPED_SSH), self._host, there])

    def _connect(self) -> Line:
        self._line.end()
        self._line = Line(self._command, self._host, may_ask=False)
        return self._line

    def _look(self) -> ReachChanged:
        advice = (
            f"the connection ended, or the run did; looking for it. `stepwise runs` on {self._host} tells"
        )
        return ReachChanged(gone="not reached", advice=advice)

    def _read_journal(self) -> None:
        """It is not here. What was missed is told when the line is there again."""


def _there() -> list[str]:
    """What runs `stepwise` on the other host."""
    return shlex.split(os.environ.get(REMOTE) or "stepwise")


class Line:
    """The relay on the other side, as a connection. head: which run it is."""

    def __init__(self, command: list[str], host: str, *, may_ask: bool) -> None:
        """may_ask: ssh may ask for a password. Raises `LinkError` when there is no relay at the other end."""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=not may_ask,  # without a terminal it cannot ask
            )
        except OSError as error:
            raise LinkError(f"{command[0]} cannot be run: {error.strerror}") from None
        assert self._process.stdout is not None
        self._lines = self._process.stdout
        self._said: list[bytes] = []
        hearing = threading.Thread(target=self._hear, name="stepwise-ssh", daemon=True)
        hearing.start()
        for line in self._lines:
            if (head := _head(line)) is not None:  # before it a shell may have greeted
                self.head = head
                return
        hearing.join()
        raise LinkError(self._trouble(host, self._process.wait()))

    def _hear(self) -> None:
        """What ssh complains of must not tear the screen; the last of it is kept."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said = [*self._said[-4:], line]

    def _trouble(self, host: str, code: int) -> str:
        said = " ".join(b" ".join(self._said).decode("utf-8", "replace").split())
        if code == NOT_FOUND:
            return (
                f"{host} finds no `stepwise`; {REMOTE}='/path/to/stepwise' says where it is there"
                f"{f' ({said})' if said else ''}"
            )
        return f"{host}: {said.removeprefix('stepwise: ') or f'the connection ended, with exit code {code}'}"

    def sendall(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def makefile(self, mode: Literal["rb"]) -> IO[bytes]:
        return self._lines

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def _head(line: bytes) -> dict[str, str] | None:
    """What the relay says first; None for any other line."""
    with contextlib.suppress(ValueError):
        match json.loads(line):
            case {"relay": 1, "name": str(name), "folder": str(folder), "config": str(config)}:
                return {"name": name, "folder": folder, "config": config}
    return None
