"""`stepwise …` as a real process without a terminal, and its socket."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from stepwise_tui.link import Link, LinkError, SocketLink
from tests.terminal import STEPWISE
from trainer.control import parse
from trainer.events import CommandAcknowledged, Event

ROOT = Path(__file__).parent.parent


def begin(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """Start it, in a folder away from the checkout."""
    return subprocess.Popen(
        [*STEPWISE, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    """Read what it prints until a line has the word in it."""
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"{word!r} never came: {process.communicate()}")


def reached(run: Path, seconds: float = 60) -> SocketLink:
    """A link to a run that lives; its socket comes a moment after its first step may."""
    until = time.monotonic() + seconds
    while True:
        try:
            return SocketLink(run)
        except LinkError:
            assert time.monotonic() < until, "it was not reached"
            time.sleep(0.02)


def heard(link: Link, wanted: Callable[[Event], bool], seconds: float = 20) -> Event:
    """The next event that is `wanted`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for event in link.drain():
            if wanted(event):
                return event
        time.sleep(0.01)
    raise AssertionError("it was not heard")


def answer(link: Link, line: str) -> CommandAcknowledged:
    """Give a command and wait for its acknowledgement."""
    command = parse(line, source="test")
    link.send(command)
    event = heard(link, lambda e: isinstance(e, CommandAcknowledged) and e.id == command.id)
    assert isinstance(event, CommandAcknowledged)
    return event
