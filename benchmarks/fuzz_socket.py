"""A live run's socket under 100,000 broken, hostile and rude messages, while it trains.

    PYTHONPATH=. python benchmarks/fuzz_socket.py --messages 100000

A tiny model trains on a CPU. Clients send random bytes, torn, oversized, deeply nested and wrongly typed
JSON, huge numbers, bad UTF-8, ids used twice, half a message; they go in the middle of a line, come hundreds
at once, ask for everything and read nothing. What is well-formed among it are commands that change no weight.
Meanwhile a good client lets the run train on, a few steps at a time. At the end no thread of the process may
have failed and the weights have to be those of a run that nobody disturbed; the memory is told.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import random
import socket
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from safetensors.torch import load_file

from stepwise_tui.link import SocketLink, connect
from tests.tiny import tiny_config
from trainer import wire
from trainer.config import Config
from trainer.control import parse
from trainer.events import CommandAcknowledged, RunCrashed
from trainer.host import Host
from trainer.run import Run

HARMLESS = (
    *("rollback 99", "rollback ../../x", "set data.digits 3", "set optim.lr nan", "set a.b \x1b]0;x\x07"),
    *("hold --no", "run 0", "evaluate now", "advance x", "ask", "\ud800", "run " + "9" * 5_000),
    *("rollback " + "9" * 5_000, "set optim.lr " + "[" * 20_000, "set optim.lr " + "9" * 3_000),
)
KINDS = (
    "bytes",
    "torn",
    "oversized",
    "nested",
    "huge number",
    "bad utf-8",
    "wrong types",
    "twice",
    "command",
)
MANY = 150  # connections at once; more than a host has room for


class Outcome(NamedTuple):
    """messages: that were sent, by kind. errors: answered by an error. failed: what threads died of."""

    messages: Counter[str]
    errors: int
    answered: int
    failed: list[str]
    memory_mb: tuple[float, float]
    seconds: float


def message(chance: random.Random) -> tuple[str, bytes]:
    """A kind, and a line of it without its newline."""
    kind = chance.choice(KINDS)
    whole = json.dumps({"command": chance.choice(HARMLESS), "id": f"f{chance.randrange(1 << 40)}"}).encode()
    match kind:
        case "bytes":
            return kind, chance.randbytes(chance.randrange(300)).replace(b"\n", b"")
        case "torn":
            return kind, whole[: chance.randrange(len(whole))]
        case "oversized" if chance.random() < 0.05:
            return kind, b'{"command": "ask ' + b"x" * (2 * wire.LONGEST) + b'"}'
        case "oversized":
            return kind, json.dumps({"command": "ask " + "x" * 30_000, "id": "o"}).encode()
        case "nested":
            return kind, chance.choice([b"[", b'{"a":']) * chance.randrange(1, 8_000)
        case "huge number":
            return kind, b'{"after": ' + chance.choice([b"9" * 6_000, b"1e999", b"-1", b"9" * 30]) + b"}"
        case "bad utf-8":
            return kind, b'{"command": "ask \xff\xc3\x28\xed\xa0\x80", "id": "\xfe"}'
        case "wrong types":
            value = chance.choice([None, True, 3, [], {}, 0.5, ""])
            return kind, json.dumps(
                {chance.choice(["command", "id", "after", "source"]): value, "x": 1}
            ).encode()
        case "twice":
            return kind, b'{"command": "rollback 99", "id": "always the same", "id": "twice"}'
        case _:
            return kind, whole


class Fuzzer(threading.Thread):
    """One who connects, sends nonsense in some manner and goes, again and again."""

    def __init__(self, folder: Path, count: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._folder, self._left, self._chance = folder, count, random.Random(seed)
        self.sent: Counter[str] = Counter()
        self.errors = 0

    def run(self) -> None:
        while self._left > 0:
            with contextlib.suppress(OSError, ValueError), connect(self._folder) as connection:
                connection.settimeout(20)
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        chance = self._chance
        if chance.random() < 0.2:
            connection.sendall(wire.hello(chance.choice([0, 1, 10**9, None])))
        for _ in range(chance.randrange(1, 120)):
            kind, line = message(chance)
            self.sent[kind] += 1
            self._left -= 1
            with contextlib.suppress(BrokenPipeError):  # it is left after a line that is too long
                connection.sendall(line + (b"" if chance.random() < 0.02 else b"\n"))
            if self._left <= 0:
                break
        if chance.random() < 0.5:
            return  # in the middle of whatever it is
        connection.shutdown(socket.SHUT_WR)
        if chance.random() < 0.1:
            time.sleep(0.2)  # slow to read
        replies = b""
        while chunk := connection.recv(1 << 16):
            replies += chunk
        self.errors += replies.count(b'{"error"')


def attacked(folder: Path, count: int, seed: int) -> tuple[Counter[str], int]:
    """What four at once have sent, by kind, and how many answers were errors."""
    fuzzers = [Fuzzer(folder, count // 4, seed + number) for number in range(4)]
    for fuzzer in fuzzers:
        fuzzer.start()
    for fuzzer in fuzzers:
        fuzzer.join()
    return sum((f.sent for f in fuzzers), Counter()), sum(f.errors for f in fuzzers)


def crowd(folder: Path) -> None:
    """Many at once that say nothing, then go."""
    connections = []
    for _ in range(MANY):
        with contextlib.suppress(OSError, ValueError):
            connections.append(connect(folder))
    for connection in connections:
        connection.close()


def fuzz(run: Run, count: int, seed: int = 0) -> Outcome:
    """Disturb a live run with `count` messages, while a good client is served."""
    failed: list[str] = []
    before, threading.excepthook = threading.excepthook, lambda args: failed.append(repr(args.exc_value))
    started, memory = time.perf_counter(), resident()
    good = SocketLink(run.folder)
    answered = 0
    try:
        # In a process of their own, so that what they take is not taken for the host's.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            attack = pool.submit(attacked, run.folder, count, seed)
            while not attack.done():
                # A little at a time, so that it trains for as long as the messages last.
                left = run.config.stop.steps - run.at.step if run.config.stop.steps else 1
                answered += ask(good, f"run {left // 100}" if left > 100 else "save")
                if answered % 20 == 0:
                    crowd(run.folder)
                time.sleep(0.05)
        answered += ask(good, "resume")
    finally:
        threading.excepthook = before
    sent, errors = attack.result()
    return Outcome(sent, errors, answered, failed, (memory, resident()), time.perf_counter() - started)


def ask(link: SocketLink, line: str, patience: float = 60.0) -> int:
    """1: the run has answered the command, well."""
    command = parse(line, source="good")
    link.send(command)
    until = time.monotonic() + patience
    while time.monotonic() < until:
        for event in link.drain():
            assert not isinstance(event, RunCrashed), event.traceback
            if isinstance(event, CommandAcknowledged) and event.id == command.id:
                assert event.ok, event.message
                return 1
        time.sleep(0.01)
    raise AssertionError(f"{line} was not answered in {patience:g} s")


def resident() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (last,) = (folder / "checkpoints").glob("*-final")
    return load_file(last / "model" / "model.safetensors")


def disturbed(config: Config, folder: Path, count: int, seed: int = 0) -> Outcome:
    """Train to the end of the configuration, disturbed for as long as `count` messages last."""
    run = Run(config, folder, paused=True)
    run.start()
    with Host(run):
        outcome = fuzz(run, count, seed)
        run.wait()
    run.close()
    assert run.state == "finished", run.state
    return outcome


def undisturbed(config: Config, folder: Path) -> None:
    run = Run(config, folder)
    run.start()
    run.wait()
    run.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = tiny_config(stop__steps=options.steps, stop__epochs=1e9)
    with tempfile.TemporaryDirectory(prefix="fuzz") as out:
        outcome = disturbed(config, Path(out) / "disturbed", options.messages, options.seed)
        undisturbed(config, Path(out) / "quiet")
        one, other = weights(Path(out) / "disturbed"), weights(Path(out) / "quiet")
    same = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"messages: {outcome.messages.total():,}: {dict(outcome.messages)}")
    print(
        f"answered by an error and read: {outcome.errors:,}; threads that failed: {outcome.failed or 'none'}"
    )
    print(f"commands of the good client, all answered: {outcome.answered}; {outcome.seconds:.0f} s")
    print(f"memory of the process: {outcome.memory_mb[0]:.0f} MB before, {outcome.memory_mb[1]:.0f} MB after")
    print(f"weights {'identical to' if same else 'DIFFERENT FROM'} those of the undisturbed run")
    if outcome.failed or not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
