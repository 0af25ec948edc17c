"""Finding runs on disk and saying how they are, without loading torch."""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from trainer import registry, status
from trainer.events import RunState
from trainer.paths import named
from trainer.record import lock
from trainer.status import Status

CONFIG_FILE = "config.toml"
SWEEP_FILE = "sweep.toml"
DYING_SECONDS = 1.0
"""A process that was just killed takes a moment to be gone."""
FRESH_SECONDS = 60.0
"""A heartbeat from another host that is not older than this is one of a run that runs."""
NAMED = 8
"""Runs that a message names, of many."""
LONGEST_NAME = 100
"""Characters. A folder's name may have 255 bytes, of four to a character."""
ENDED: Collection[RunState] = ("finished", "interrupted", "crashed")

_ADJECTIVES = (
    "amber",
    "bold",
    "brisk",
    "calm",
    "clear",
    "cosy",
    "crisp",
    "dapper",
    "eager",
    "early",
    "fair",
    "fleet",
    "fond",
    "frank",
    "gentle",
    "glad",
    "hardy",
    "keen",
    "kind",
    "lively",
    "lucid",
    "merry",
    "mild",
    "neat",
    "nimble",
    "noble",
    "patient",
    "plain",
    "proud",
    "quick",
    "quiet",
    "ready",
    "sage",
    "sharp",
    "shy",
    "sleek",
    "snug",
    "spry",
    "steady",
    "stout",
    "sunny",
    "swift",
    "tidy",
    "vivid",
    "warm",
    "wise",
    "witty",
    "young",
)
_ANIMALS = (
    "badger",
    "bee",
    "bison",
    "crane",
    "crow",
    "curlew",
    "deer",
    "dove",
    "eagle",
    "egret",
    "falcon",
    "ferret",
    "finch",
    "fox",
    "gecko",
    "goose",
    "grouse",
    "hare",
    "hawk",
    "heron",
    "ibex",
    "ibis",
    "jay",
    "kestrel",
    "kite",
    "lark",
    "lemur",
    "linnet",
    "lynx",
    "marten",
    "merlin",
    "mole",
    "moose",
    "moth",
    "newt",
    "otter",
    "owl",
    "panda",
    "plover",
    "puffin",
    "quail",
    "raven",
    "robin",
    "seal",
    "snipe",
    "stoat",
    "stork",
    "swan",
    "swift",
    "tern",
    "thrush",
    "toad",
    "vole",
    "wolf",
    "wren",
    "yak",
)


class RunsError(ValueError):
    """A run that cannot be found or told; the message says what there is."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as `stepwise runs` lists it; its fields are the keys of `--json`.

    state: "crashed" also when the process is gone without having said so. accuracy: the last on the
    validation split. bytes: everything in the folder. updated: ISO 8601, UTC. host: the machine it ran
    on when that is not this one; whether it still runs cannot be told from here.
    """

    name: str
    path: str
    state: RunState
    step: int
    stage: int
    stages: int
    branch: int
    accuracy: float | None
    bytes: int
    updated: str
    host: str | None


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: its configuration is there."""
    return (folder / CONFIG_FILE).is_file()


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's (`trainer.sweep`): its runs lie beneath."""
    return (folder / SWEEP_FILE).is_file()


def find_all(name: str, out: Path) -> list[Path]:
    """The runs of a sweep, by name; of a run, that alone; none of what lies beside a sweep's runs, which a
    shell's `*` names, too. Raises `RunsError` as `find` does."""
    path = Path(name).expanduser()
    if path.exists() and is_sweep(path.parent) and not (is_run(path) or is_sweep(path)):
        return []
    sweep = next((f for f in (Path(name).expanduser(), out / name) if is_sweep(f)), None)
    if sweep is None:
        return [find(name, out)]
    members = sorted(folder.resolve() for folder in sweep.iterdir() if is_run(folder))
    if not members:
        raise RunsError(f"{sweep}: no run of this sweep has begun yet")
    return members


def find(run: str, out: Path) -> Path:
    """The folder of a run named by a path, or by its name: under `out`, or wherever this user has begun it.

    Raises `RunsError` when there is none or more than one, or when the folder is not a run.
    """
    candidates = [Path(run).expanduser(), out / run]
    for folder in candidates:
        if is_run(folder):
            return folder.resolve()
    known = [folder for folder in registry.folders() if folder.name == run and is_run(folder)]
    if len(known) == 1:
        return known[0]
    if known:
        raise RunsError(f"several runs have the name {run!r}: give the path, {_listed(known)}")
    for folder in candidates:
        if is_sweep(folder):
            members = [f"{folder.name}/{one.name}" for one in find_all(str(folder), out)]
            raise RunsError(f"{folder} is a sweep: name one of its runs, {_few(members)}")
        if folder.is_dir():
            raise RunsError(f"{folder} is not a run: it has no {CONFIG_FILE}. {_known(out)}")
        if folder.exists():
            raise RunsError(f"{folder} is not a run but a file. {_known(out)}")
    raise RunsError(f"there is no run {run!r}, neither as a path nor under {out}. {_known(out)}")


def find_live(out: Path) -> Path:
    """The only run that trains now, of those under `out` and those that this user has begun elsewhere.

    Raises `RunsError` when there is none, or more than one.
    """
    known = {folder.resolve() for folder in (*_folders(out), *registry.folders())}
    found = {folder: one for folder in known if (one := lives(folder)) is not None}
    here = [folder for folder, one in found.items() if one.host == status.host()]
    live = here or list(found)
    if len(live) == 1:
        return live[0]
    if live:
        raise RunsError(f"several runs train now: name one of {_listed(live)}")
    raise RunsError(f"no run of yours trains now. {_known(out)}")


def lives(folder: Path) -> status.Status | None:
    """The status of a run that trains now on this machine, or seems to on another; else None."""
    found = status.read(folder)
    if found is None or found.state in ENDED:
        return None
    here = status.process_lives(folder, found)
    fresh = here is None and time.time() - found.heartbeat < FRESH_SECONDS
    return found if here or fresh else None


def find_ended(run: str, out: Path, *, finished: bool = False) -> Path:
    """As `find`, for a run that is to be taken up again. finished: also one that came to its end.

    Raises `RunsError` also while it still runs.
    """
    folder = find(run, out)
    found = status.read(folder)
    if found is not None and found.state == "finished" and not finished:
        run = named(folder)
        raise RunsError(
            f"{folder.name} has finished; `stepwise chat {run}` asks it, `stepwise eval {run}` "
            f"measures it, `stepwise resume {run} --set stop.steps=N` trains it further, to step N"
        )
    until = time.monotonic() + DYING_SECONDS
    while (found := lives(folder)) is not None:
        if time.monotonic() > until:
            raise RunsError(taken(folder, found))
        time.sleep(0.1)
    return folder


def taken(folder: Path, found: Status) -> str:
    """Why a run that trains already is not taken up, and what to do."""
    return f"{folder.name} runs already, {process(folder, found)}; see `stepwise attach {named(folder)}`"


def process(folder: Path, found: Status) -> str:
    """Which process trains a run, in words. Its number may mean nothing here."""
    if found.host != status.host():
        return f"as process {found.pid} on {found.host}"
    if lock.held(folder / lock.JOURNAL) and not lock.holds(found.pid, folder / lock.JOURNAL):
        return f"in a container or a process that cannot be seen from here (there it is process {found.pid})"
    return f"as process {found.pid}"


def new_folder(out: Path, name: str | None, stem: str) -> Path:
    """Where a new run goes: `name` under `out`, or a free name made from `stem`. Nothing is created.

    Raises `RunsError` for a name that is taken or is not one, and for an `out` that is a file.
    """
    if out.exists() and not out.is_dir():
        raise RunsError(f"--out {out}: is a file, and a folder is wanted")
    if name is None:
        return out / new_name(stem, out)
    if (problem := misnamed(name)) is not None:
        raise RunsError(f"--name {problem}")
    if (found := lives(out / name)) is not None:
        raise RunsError(f"{taken(out / name, found)}, or give another --name")
    if (out / name).exists():
        raise RunsError(
            f"{out / name} exists already: give another --name, or go on with "
            f"`stepwise resume {named(out / name)}`"
        )
    return out / name


def misnamed(name: str) -> str | None:
    """Why no run and no sweep can have this name, in words; None where one can."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        return f"{name!r}: letters, digits and . _ + - are allowed, a letter or digit first"
    if len(name) > LONGEST_NAME:
        return f"{name[:40]}… has {len(name):,} characters; {LONGEST_NAME} are allowed"
    return None


def list_runs(out: Path) -> list[RunRow]:
    """Every run under `out`, those of sweeps too, the one touched last first. No `out`, no run."""
    return rows(_folders(out))


def rows(folders: Iterable[Path]) -> list[RunRow]:
    """How the runs in `folders` are, the one touched last first. One that goes away meanwhile is none."""
    found = []
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            found.append(row(folder))
    return sorted(found, key=lambda r: r.updated, reverse=True)


def row(folder: Path) -> RunRow:
    """How the run in `folder` is."""
    found = status.read(folder)
    touched = (folder / (status.FILE if found else CONFIG_FILE)).stat().st_mtime
    return RunRow(
        name=called(folder),
        path=str(folder.resolve()),
        state=_state(folder, found),
        step=found.step if found else 0,
        stage=found.stage if found else 0,
        stages=found.stages if found else 0,
        branch=found.branch if found else 1,
        accuracy=found.accuracy if found else None,
        bytes=size(folder),
        updated=datetime.fromtimestamp(touched, UTC).isoformat(timespec="seconds"),
        host=found.host if found and _away(folder, found) else None,
    )


def called(folder: Path) -> str:
    """The name of a run. One of a sweep is called by both names, with which it is found as well."""
    return f"{folder.parent.name}/{folder.name}" if is_sweep(folder.parent) else folder.name


def size(folder: Path) -> int:
    """Bytes of all files beneath `folder`; what vanishes while counting counts nothing."""
    total = 0
    for path, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(path, file)).st_size
            except FileNotFoundError:
                continue
    return total


def new_name(stem: str, out: Path, chance: random.Random | None = None) -> str:
    """A name that is free under `out`: "mult2x2" → "mult2x2-brisk-otter"."""
    chance = chance or random.Random()
    while True:
        name = f"{stem}-{chance.choice(_ADJECTIVES)}-{chance.choice(_ANIMALS)}"
        if not (out / name).exists():
            return name


def _folders(out: Path) -> list[Path]:
    try:
        there = _within(out)
        there += [member for folder in there if is_sweep(folder) for member in _within(folder)]
        return [folder for folder in there if is_run(folder)]
    except OSError as error:
        raise RunsError(f"{out} cannot be listed: {error.strerror}") from None


def _within(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none, or none any more."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def state(folder: Path) -> RunState:
    """How the run in `folder` is: also "crashed" when its process is gone without having said so."""
    return _state(folder, status.read(folder))


def _state(folder: Path, found: Status | None) -> RunState:
    """A run without a readable status never got as far as training, or lost it: it does not run."""
    if found is None:
        return "crashed"
    if found.state not in ENDED and status.process_lives(folder, found) is False:
        return "crashed"
    return found.state


def _away(folder: Path, found: Status) -> bool:
    return found.state not in ENDED and status.process_lives(folder, found) is None


def _listed(folders: Iterable[Path]) -> str:
    return ", ".join(sorted(map(str, folders)))


def _known(out: Path) -> str:
    try:
        found = [r.name for r in list_runs(out)]
    except RunsError as error:
        return str(error)
    if not found:
        return f"There is no run under {out} yet; `stepwise run preset mult2x2` starts one"
    return f"Runs under {out}: {_few(found)}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
