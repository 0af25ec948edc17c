"""A run as lines, for pipes, logs and terminals that cannot show the cockpit."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import TextIO

from stepwise_tui.link import Link
from stepwise_tui.text import wrapped
from stepwise_tui.words import words
from trainer.events import Event, RunCrashed, RunFinished, RunStarted, StateChanged

POLL_SECONDS = 0.1

INDENT = len("step       1  stage  0  ")
"""The column in which it is said what happened."""


def line(event: Event) -> str | None:
    """One event as one line; None for those that say nothing new to a reader of lines."""
    paused = isinstance(event, StateChanged) and event.state == "paused"
    text = "paused" if paused else words(event)
    if text is None:
        return None
    at = event.at
    branch = f"  branch {at.branch}" if at.branch > 1 else ""
    return f"step {at.step:>7,}{branch}  stage {at.stage:>2}  {text}"


def follow(link: Link, out: TextIO, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Print the run's events until it ends; 0 when it finished or was stopped, 1 when it crashed.

    Of a resumed run only what has happened since. When `out` takes no more (a closed pipe, a terminal that
    is gone, a full disk) a run of this process goes on in silence: that is no reason to stop training.
    """
    events = link.drain()
    starts = [i for i, event in enumerate(events) if isinstance(event, RunStarted)]
    events = events[starts[-1] :] if starts else events
    silent = False
    while True:
        for event in events:
            text = line(event)
            if text is not None and not silent:
                silent = not _print(text, out)
                if silent and not link.owner:
                    return 0
            if isinstance(event, RunFinished | RunCrashed):
                return 1 if isinstance(event, RunCrashed) else 0
        sleep(POLL_SECONDS)
        events = link.drain()


def _print(text: str, out: TextIO) -> bool:
    """Whether the line could be written. A terminal gets it broken between words, a log whole."""
    try:
        if out.isatty():
            text = wrapped(text, shutil.get_terminal_size().columns, INDENT)
        print(text, file=out, flush=True)
    except OSError:
        # What is left in the buffer has to go somewhere, or the interpreter complains about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return False
    return True
