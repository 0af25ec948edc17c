"""A sweep: runs of presets × values × seeds in one folder, from a file that is checked before one starts.

    presets = ["mult2x2"]                       # or files: "mine.toml"
    seeds = [0, 1, 2]
    [set]                                       # of all members
    "stop.hours" = 1
    [values]                                    # every combination
    "schedule.steps_per_token" = [250, 300]
    [slurm]                                     # what submitit is told: partition, time, …
    partition = "gpu"

    runs/NAME/sweep.toml          this file, which makes the folder a sweep's
    runs/NAME/MEMBER/             an ordinary run
    runs/NAME/logs/               what the members printed

Members are told by their names alone, so a file may grow: what is there already has to agree with it. Loads
without torch.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer import config as configuration
from trainer import presets, runs
from trainer.config import Config, ConfigError
from trainer.events import RunState
from trainer.files import replace_text
from trainer.runs import SWEEP_FILE

LOGS = "logs"
LOCK = "launcher.lock"
"""Beside the logs: held by who launches the sweep, and there from the first launch on."""
TOLD = 5
"""Members, or values, that are wrong in the same way and named one by one."""


class SweepError(ValueError):
    """A sweep that cannot be begun; the message says what is wrong and what is allowed."""


class LocalConfig(BaseModel):
    """jobs: members at once; as many as there are GPUs, or cores for their threads, if not given. threads: of
    the CPU, for each."""

    model_config = ConfigDict(extra="forbid")

    jobs: int | None = Field(default=None, ge=1)
    threads: int = Field(default=1, ge=1)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    presets: list[str] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    fixed: dict[str, Any] = Field(default={}, alias="set")
    values: dict[str, Any] = {}
    local: LocalConfig = LocalConfig()
    slurm: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Member:
    """A run of a sweep. arguments: that `stepwise run` makes it with, but for --out and --name."""

    name: str
    config: Config
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """folder: where the members live. text: the file's. slurm: parameters of `submitit.SlurmExecutor`."""

    folder: Path
    text: str
    members: tuple[Member, ...]
    local: LocalConfig = field(default_factory=LocalConfig)
    slurm: Mapping[str, Any] = field(default_factory=dict)

    def run(self, member: Member) -> Path:
        """The folder of a member."""
        return self.folder / member.name

    def log(self, member: Member) -> Path:
        """What it printed."""
        return self.folder / LOGS / f"{member.name}.log"

    def state(self, member: Member) -> RunState | Literal["waiting"]:
        """How a member is; "waiting" where it has not begun."""
        folder = self.run(member)
        return runs.state(folder) if runs.is_run(folder) else "waiting"

    def begin(self, member: Member) -> list[str]:
        """The arguments of `stepwise` that begin a member."""
        return ["run", *member.arguments, "--out", str(self.folder), "--name", member.name, "--plain"]

    def resume(self, member: Member) -> list[str]:
        """The arguments of `stepwise` that go on with one that has begun."""
        return ["resume", str(self.run(member)), "--plain"]

    def keep(self) -> None:
        """Make the folder a sweep's."""
        replace_text(self.folder / SWEEP_FILE, self.text, durable=False)


def read(file: Path, out: Path) -> Sweep:
    """The sweep that `file` describes, in the folder of its name under `out`. Nothing is written.

    Raises `ConfigError` and `SweepError` with all that is wrong with the file, or does not agree with what
    lies in that folder.
    """
    out = out.absolute()  # a job begins elsewhere
    document = configuration.load(file)
    try:
        asked = _File.model_validate(document)
    except ValidationError as error:
        raise SweepError("\n".join(f"{file}: {_explain(e)}" for e in error.errors())) from None
    folder = _folder(file, out)
    text = file.read_text(encoding="utf-8-sig")
    sweep = Sweep(folder, text, _members(file, asked), asked.local, asked.slurm)
    _agrees(sweep)
    return sweep


def _folder(file: Path, out: Path) -> Path:
    """Where the sweep of `file` lives: where the file lies that a sweep keeps, else in one of its name."""
    if file.name == SWEEP_FILE and (file.parent / LOGS / LOCK).exists():
        return file.parent.absolute()
    folder = out / file.stem
    if not folder.exists():
        if (problem := runs.misnamed(file.stem)) is not None:
            raise SweepError(f"{file}: the file's name is that of the sweep's folder, too: {problem}")
        return runs.new_folder(out, file.stem, "")
    if not runs.is_sweep(folder):
        raise SweepError(f"{folder} exists already and is no sweep: give --out, or the file another name")
    return folder


ALLOWED = {
    "presets": "a list of presets and files",
    "seeds": "a list of whole numbers",
    **dict.fromkeys(("set", "values", "local", "slurm"), "a table"),
    **dict.fromkeys(("local.jobs", "local.threads"), "whole number ≥ 1"),
}
"""Of each key of the file, in words."""


def _explain(error: Any) -> str:
    """One pydantic error as a sentence that names the key, its value and what is allowed."""
    key = ".".join(part for part in error["loc"] if isinstance(part, str))
    if error["type"] == "missing":
        return f"{key} is missing; {ALLOWED[key]} is expected"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, ALLOWED, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ALLOWED)}"
        return f"{key}: there is no such key; {hint}"
    if error["type"] == "too_short":
        return f"{key} = []: at least one is expected"
    return f"{key} = {error['input']!r}: {ALLOWED[key]} is allowed"


def _members(file: Path, asked: _File) -> tuple[Member, ...]:
    fixed, values = _flat(asked.fixed), _flat(asked.values)
    problems = [f"{file}: presets: {name!r} stands there twice" for name in _twice(asked.presets)]
    problems += [f"{file}: seeds: {seed} stands there twice" for seed in _twice(asked.seeds)]
    problems += [f"{file}: {key} stands in [set] and in [values]" for key in fixed if key in values]
    for key, choices in values.items():
        if not isinstance(choices, list) or not choices:
            what = "at least one value" if choices == [] else "a list of values"
            problems.append(f"{file}: values: {key} = {_text(choices)}: {what} is expected")
    problems += [
        f"{file}: {key}: seeds = [0, 1, 2] gives the seeds" for key in (*fixed, *values) if key == "seed"
    ]
    for seed in asked.seeds:
        try:
            configuration.build({"seed": seed})
        except ConfigError as error:
            problems.append(f"{file}: seeds: {error}")
    if problems:
        raise SweepError("\n".join(problems))
    members: list[Member] = []
    wrong: Counter[str] = Counter()
    for preset in asked.presets:
        from_file = preset.endswith(".toml")
        base = Path(preset).expanduser() if from_file else preset
        kind, shown = ("config", str(Path(base).absolute())) if from_file else ("preset", preset)
        for choice in itertools.product(*values.values()):
            given = {**fixed, **dict(zip(values, choice, strict=True))}
            texts = [f"{key}={_text(value)}" for key, value in given.items()]
            try:
                config = presets.configure(base, texts)
            except ConfigError as error:
                wrong.update(str(error).splitlines())
                continue
            words = [f"{key.rpartition('.')[2]}_{_text(v)}" for key, v in zip(values, choice, strict=True)]
            sets = [part for text in texts for part in ("--set", text)]
            for seed in asked.seeds:
                name = _name([Path(preset).stem, *words, f"s{seed}"])
                arguments = (kind, shown, *sets, "--seed", str(seed))
                members.append(Member(name, config.model_copy(update={"seed": seed}), arguments))
    problems = [f"{file}: {line}" + (f" ({n} times)" if n > 1 else "") for line, n in wrong.items()]
    names = [member.name for member in members]
    problems += [f"{file}: two members would have the name {name}" for name in _twice(names)]
    problems += [
        f"{file}: the name {name[:40]}… has {len(name)} characters, {runs.LONGEST_NAME} are allowed: put the "
        "values into a file of their own, as one of the presets"
        for name in names
        if len(name) > runs.LONGEST_NAME
    ][:1]
    if problems:
        raise SweepError("\n".join(problems))
    return tuple(members)


def _agrees(sweep: Sweep) -> None:
    """Raises `SweepError` where a member that is there already was begun with another configuration."""
    others: dict[str, list[str]] = {}
    for member in sweep.members:
        folder = sweep.run(member)
        if runs.is_run(folder):
            there = presets.configure(folder / runs.CONFIG_FILE)
            if there != member.config:
                others.setdefault(_differences(there, member.config), []).append(member.name)
        elif folder.exists():
            raise SweepError(f"{folder} is in the way: it is not a run")
    if others:
        problems = [
            f"{sweep.folder} has {_first(names)} with another configuration: {differences}"
            for differences, names in others.items()
        ]
        way_out = "give the file another name, or --out another folder"
        raise SweepError("\n".join(f"{problem}; {way_out}" for problem in problems[:TOLD]))


def _differences(there: Config, here: Config) -> str:
    """In which values two configurations differ, in words."""
    before, now = _flat(there.model_dump()), _flat(here.model_dump())
    shown = configuration.shown
    return _first(
        [
            f"{key} = {shown(before[key])} there, {shown(now[key])} here"
            for key in now
            if before[key] != now[key]
        ]
    )


def _first(words: list[str]) -> str:
    more = f" and {len(words) - TOLD} more" if len(words) > TOLD else ""
    return f"{', '.join(words[:TOLD])}{more}"


def _flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim": {"lr": 1}} → {"optim.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _text(value: Any) -> str:
    """A value as `--set` takes it."""
    return value if isinstance(value, str) else str(tomlkit.item(value).as_string())


def _name(parts: list[str]) -> str:
    return "-".join(re.sub(r"[^\w.+-]+", "_", part).strip("_") for part in parts)


def _twice(values: list[Any]) -> list[Any]:
    return [value for value, n in Counter(values).items() if n > 1]
