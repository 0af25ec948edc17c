"""How much disk a run's checkpoints will take, estimated before it starts. Pure.

Weights are as large as the model, AdamW's moments as `trainer.computing.moments` says. A stage's entry has no
moments where the method resets the optimiser there: there are none yet.
"""

from __future__ import annotations

from typing import NamedTuple

from trainer.config import SaveConfig

GB = 10**9


class Room(NamedTuple):
    """checkpoints: how many will be kept, at most, besides those that a person saves. bytes: what these take,
    with one more that is being written. least: what a run needs to go on at all: one good, one being written.
    Both with the base of adapters, where there is one.
    """

    checkpoints: int
    bytes: int
    least: int


def needed(
    save: SaveConfig,
    model: int,
    moments: int,
    *,
    start: int,
    stages: int,
    resets: bool,
    trained: int | None = None,
) -> Room:
    """For a model of so many bytes and their moments, from stage `start` to `stages`.

    resets: whether the optimiser starts anew at each stage. trained: bytes of what is trained of it, beside a
    base that is kept once; None where that is all.
    """
    every = range(start, stages + 1)
    entries = len({s for s in every if s % save.every_stage == 0} | set(every[-save.stages :]))
    others = save.keep + 1  # the last ones, and the best
    whole = model + moments
    base = 0 if trained is None else model - trained
    kept = entries * (model if resets else whole) + others * whole + whole
    least = 2 * whole
    if save.disk_gb is not None:
        kept = max(least, min(kept, round(save.disk_gb * GB)))
    return Room(entries + others, base + kept, base + least)


def habits(save: SaveConfig, room: Room, free: int) -> str:
    """What will be saved, kept and deleted, in a sentence for people. free: bytes on that disk."""
    entries = (
        "all stages"
        if save.every_stage == 1
        else f"the last {save.stages} stages and of each {save.every_stage}th before"
    )
    limit = ""
    if save.disk_gb is not None:
        limit = (
            f", as far as they fit into {save.disk_gb:g} GB (save.disk_gb): of more the oldest go, but "
            "never the newest, the best, what training would go on from, or those you saved"
        )
    return (
        f"saved at every stage and every {60 * save.minutes:g} s, or 30 × what a save costs if that is "
        f"longer; kept: the last {save.keep}, the entries of {entries}, the best, and all you save{limit}. "
        f"Without those you save that is at most {room.checkpoints} checkpoints, {gigabytes(room.bytes)}; "
        f"{gigabytes(free)} are free"
    )


def shortage(room: Room, free: int) -> str | None:
    """What to do where the disk has not that much free; None where it has."""
    if free >= room.bytes:
        return None
    return (
        f"the checkpoints of this run may take {gigabytes(room.bytes)} and {gigabytes(free)} are free: "
        "when the disk is full, training waits. Make room, or have less kept: save.disk_gb is a limit, "
        "save.stages, save.every_stage and save.keep say what is kept; `set` changes them at any time"
    )


def gigabytes(amount: int) -> str:
    """Bytes as people read them; decimal, as disks are sold."""
    for unit, size in (("TB", 10**12), ("GB", GB)):
        if amount >= size:
            return f"{amount / size:.3g} {unit}"
    return f"{max(amount / 10**6, 0.1):.3g} MB"
