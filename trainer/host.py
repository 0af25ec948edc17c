"""The control socket of a run: whoever attaches hears every event and may steer.

Each client has a thread that listens to it and one that tells it. Neither the trainer nor another client
waits for a slow one: who does not take what it is told is left, and of who floods it no more is read until
the answers are taken. Malformed, oversized and half-sent messages are answered, and harm nobody else. The
journal's lock makes this process the only one of its run, so a socket found at its address is one that was
left behind.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from trainer import wire
from trainer.control import CommandError
from trainer.events import Notice
from trainer.record.story import Listener
from trainer.run import Run
from trainer.system import Sampler
from trainer.wire import Hello, WireError

PATIENCE = 10  # seconds that a client may take for what it is told
LOOKS = 1.0  # seconds between two looks whether the socket is still there
PAUSE = 0.05  # seconds between two looks for news
MOST_CLIENTS = 64  # at once
MOST_ANSWERS = 100  # to what could not be understood, waiting to be taken
MOST_COMMANDS = 1_000  # waiting for the trainer


class Host:
    """The socket of a running run, and the looks at its machine, for as long as the `with` block lasts."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._closing = threading.Event()
        self._path: Path | None = None
        self._places = threading.BoundedSemaphore(MOST_CLIENTS)
        self._sampler = Sampler(run)

    def __enter__(self) -> Host:
        self._sampler.start()
        try:
            self._listen()
        except OSError as problem:
            where = f"{problem.filename}: " if problem.filename else ""
            message = f"nobody can attach to this run: {where}{problem.strerror or problem}"
            self._run.tell(Notice(at=self._run.at, level="warning", message=message))
        else:
            threading.Thread(target=self._accept, name="stepwise-socket", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._run.socket = None
        self._sampler.stop()
        if self._path is not None:
            self._socket.close()
            self._path.unlink(missing_ok=True)

    def _listen(self) -> None:
        wire.sweep()
        path = wire.address(self._run.folder)
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        listening.listen(16)
        listening.settimeout(LOOKS)
        self._socket, self._path, self._inode = listening, path, path.stat().st_ino
        self._run.socket = str(path)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                self._look()
            except OSError:
                self._closing.wait(LOOKS)  # closed, or no file can be opened at the moment
            else:
                self._receive(connection)

    def _receive(self, connection: socket.socket) -> None:
        """Give a new client its thread, or say that there is no room."""
        # Only telling has a limit in time: a client may be silent for as long as it likes, once it has said
        # what it wants.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE, 0))
        if self._places.acquire(blocking=False):
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            return
        with contextlib.suppress(OSError), connection:
            full = WireError(f"{MOST_CLIENTS} are attached already; when one of them has left there is room")
            connection.sendall(wire.error(full))

    def _look(self) -> None:
        """Temporary folders are swept: put the socket back where it vanished."""
        assert self._path is not None
        with contextlib.suppress(OSError):
            if not self._path.exists() or self._path.stat().st_ino != self._inode:
                swept = self._socket
                self._listen()
                swept.close()

    def _serve(self, connection: socket.socket) -> None:
        """Listen to one client until it goes."""
        client = _Client(connection)
        telling = threading.Thread(target=self._tell, args=(client,), daemon=True)
        telling.start()
        connection.settimeout(PATIENCE)
        try:
            for line in _lines(connection):
                self._hear(client, line)
                while self._floods(client) and telling.is_alive():
                    telling.join(PAUSE)
        except OSError:
            pass  # gone
        finally:
            client.gone.set()
            telling.join()
            if client.news is not None:
                self._run.unsubscribe(client.news)
            connection.close()
            self._places.release()

    def _floods(self, client: _Client) -> bool:
        return len(client.outbox) > MOST_ANSWERS or self._run.waiting > MOST_COMMANDS

    def _hear(self, client: _Client, line: bytes) -> None:
        """Do what one line says."""
        try:
            message = wire.read(line)
        except (WireError, CommandError) as problem:
            client.outbox.append(wire.error(problem))
            return
        client.connection.settimeout(None)
        if not isinstance(message, Hello):
            self._run.submit(message)
        elif client.news is None:
            client.news = self._run.subscribe(after=message.after)

    def _tell(self, client: _Client) -> None:
        """Tell one client what happens until it goes, or does not listen."""
        with contextlib.suppress(OSError):
            while True:
                last = client.gone.is_set() or self._closing.is_set()
                lines = b"".join(client.outbox.popleft() for _ in range(len(client.outbox)))
                if client.news is not None:
                    lines += client.news.take()
                if lines:
                    client.connection.sendall(lines)
                elif last:
                    break
                else:
                    client.gone.wait(PAUSE)
        with contextlib.suppress(OSError):
            client.connection.shutdown(socket.SHUT_RDWR)


class _Client:
    """One connection. outbox: answers to what could not be understood. news: once it has said hello."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.outbox: deque[bytes] = deque()
        self.news: Listener | None = None
        self.gone = threading.Event()


def _lines(connection: socket.socket) -> Iterator[bytes]:
    """Whole lines as they come. After one that is too long, which is cut, nothing more is read."""
    rest = b""
    while chunk := connection.recv(wire.LONGEST):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > wire.LONGEST:
            yield rest[: wire.LONGEST]
            return
