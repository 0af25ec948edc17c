"""Whether a run's data are still those it began with.

A run that goes on, or is measured, with other examples would have learnt some of those that are held out now.
So the start of a run tells a digest of what it read, and whoever takes the run up compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from trainer.data.files import Contents
from trainer.data.layout import format_line
from trainer.events import Event, Longest, RunStarted, Source
from trainer.record import journal


def source(split: str, contents: Contents) -> Source:
    """Where a split comes from, with a digest of its examples: another gzip of them makes no difference."""
    digest = hashlib.blake2b(digest_size=16)
    for line in contents.lines:
        digest.update(f"{format_line(line)}\n".encode())
    return Source(split, str(contents.file), len(contents.lines), digest.hexdigest())


def changed(began: Sequence[Source], now: Iterable[Source]) -> str:
    """A sentence about the first split whose examples are not those of then; "" where all are."""
    then = {source.split: source for source in began}
    for source in now:
        before = then.get(source.split)
        if before is not None and before.digest != source.digest:
            what = f"{before.examples:,} then, {source.examples:,} now"
            if before.examples == source.examples:
                what = f"as many, {source.examples:,}, but others"
            return f"{source.name} has not the examples that this run began with ({what})"
    return ""


def began_with(events: Iterable[Event]) -> tuple[Source, ...]:
    """What the first process of a run read; nothing where its journal is of before this was told."""
    return next((event.sources for event in events if isinstance(event, RunStarted)), ())


def of_run(run: Path) -> tuple[Source, ...]:
    """The same from the run's folder."""
    return began_with(journal.read(run, journal.of(RunStarted)))


def longest_of_run(run: Path) -> Longest | None:
    """What its data ask for, as its last process found them; None where its journal is of before."""
    started = [event for event in journal.read(run, journal.of(RunStarted)) if isinstance(event, RunStarted)]
    return started[-1].longest if started else None
