"""Runs beside each other: validation accuracy against scheduled removals (paper, Figures 3 and 4).

Reads journals only, so it is quick, needs no torch, and takes runs that are still going on.
"""

from __future__ import annotations

import itertools
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from trainer import presets, runs
from trainer.analysis import wording
from trainer.config import LATENT, Config, ConfigError, MethodConfig, shown
from trainer.events import (
    CommandAcknowledged,
    CommandReceived,
    Evaluated,
    Event,
    RolledBack,
    RunStarted,
    RunState,
)
from trainer.record import journal

LEARNT_FROM = ("data", "model", "method", "schedule", "optim")
"""The sections that decide what is learnt; runs that agree in them are seeds of one configuration."""
STEERING = ("advance", "hold", "rollback", "set")
"""Commands that make a run other than its configuration says."""
KINDS = ("name", "curriculum", "no_thought")
"""The fields of a method that make it another one, but for the unit of its removals."""
PROBLEMS = ("task", "digits", "digits_b", "hops", "nodes", "nouns", "train_file", "valid_file")
"""The fields of data that make them other problems."""
LONGEST_LABEL = 50
"""Characters; a legend of longer ones would leave little room for the figure."""


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation. scheduled: removals called for. x: these and the share of the stage that is over."""

    step: int
    scheduled: int
    x: float
    accuracy: float
    n: int


class Place(NamedTuple):
    """A place on one branch of history. Steps repeat where several removals happen between two of them."""

    step: float
    scheduled: float


BEFORE_ALL, TO_THE_END = Place(-1, -1), Place(math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Curve:
    """One run as the figure shows it.

    stages: the stage at which nothing is left to remove. all_gone: the removals at which all CoT is gone,
    None where some of it stays. live: along the live line of history; abandoned: the pieces that roll
    backs left, each from the last point that its branch shares with the live line. steered: how often an
    operator changed the course, by command.
    """

    name: str
    path: str
    seed: int
    state: RunState
    stages: int
    all_gone: int | None
    live: tuple[Point, ...]
    abandoned: tuple[tuple[Point, ...], ...]
    steered: dict[str, int]

    @property
    def without_cot(self) -> float | None:
        """The best accuracy with no CoT left; None before the first evaluation of that kind."""
        gone = self.all_gone
        return max((p.accuracy for p in self.live if gone is not None and p.scheduled >= gone), default=None)


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one configuration, which differ in their seeds. label: short, different for each group.

    method, task, unit: which it is, where the groups have several. unit: what a removal takes, "tokens" or
    "steps".
    """

    label: str
    curves: tuple[Curve, ...]
    method: str = ""
    task: str = ""
    unit: str = ""


def compare(folders: Sequence[Path]) -> list[Group]:
    """The runs of these folders, grouped. Raises `ConfigError` for a configuration that cannot be read."""
    read = []
    for folder in dict.fromkeys(folders):
        try:
            config = presets.configure(folder / runs.CONFIG_FILE)
        except ConfigError as error:
            problems = [f"{folder.name}: {problem}" for problem in str(error).splitlines()]
            raise ConfigError("\n".join(problems)) from None
        events = journal.read(folder, _telling())
        read.append((config, curve(config, events, folder, runs.state(folder))))
    names = Counter(one.name for _, one in read)
    return grouped((config, one if names[one.name] == 1 else _of_two(one)) for config, one in read)


def _of_two(one: Curve) -> Curve:
    """A run whose name another one has, too: also with that of the folder, or the sweep, that it lies in."""
    path = Path(one.path)
    return replace(one, name=f"{path.parent.name}/{path.name}")


def _telling() -> Callable[[bytes], bool]:
    """Chooses the lines of a journal that matter here.

    Most lines only say again where the run stands. Reading them all takes minutes for a run of a day.
    """
    told = journal.of(RunStarted, Evaluated, RolledBack, CommandAcknowledged)
    pattern = re.compile(rb'"branch": ?(\d+).*?"scheduled": ?(\d+)')
    place: tuple[bytes, ...] = ()

    def tells(line: bytes) -> bool:
        nonlocal place
        match = pattern.search(line)
        before, place = place, match.groups() if match else ()
        return place != before or told(line)

    return tells


def curve(config: Config, events: Iterable[Event], folder: Path, state: RunState) -> Curve:
    """What a journal tells of accuracy."""
    events = [e for e in events if e.at.time and not isinstance(e, CommandReceived)]
    started = next((e for e in reversed(events) if isinstance(e, RunStarted)), None)
    stages = started.stages if started is not None else 0
    entered = _stage_entries(events)
    limits = live_line(events)
    live: dict[int, list[Point]] = {}
    abandoned: dict[int, list[Point]] = {}
    for event in events:
        if isinstance(event, Evaluated) and event.split == "valid":
            at = event.at
            here = Place(at.step, at.scheduled)
            x = _x(here, entered[at.branch])
            piece = live if here <= limits.get(at.branch, BEFORE_ALL) else abandoned
            piece.setdefault(at.branch, []).append(Point(at.step, at.scheduled, x, event.accuracy, event.n))
    return Curve(
        name=folder.name,
        path=str(folder),
        seed=config.seed,
        state=state,
        stages=stages,
        all_gone=_all_gone(config, stages) if started is not None else None,
        live=tuple(point for branch in sorted(live) for point in live[branch]),
        abandoned=tuple((*live.get(branch, [])[-1:], *abandoned[branch]) for branch in sorted(abandoned)),
        steered=steered(events),
    )


def live_line(events: Iterable[Event]) -> dict[int, Place]:
    """The branches of the live line of history, each with the last place of it that is on that line.

    The live line leads from the first step to where the run stands now. A roll back leaves what came
    after the checkpoint that it returned to; one that kept the weights leaves nothing.
    """
    forks = {e.at.branch: e for e in events if isinstance(e, RolledBack)}
    branch = max(forks, default=1)
    limits = {branch: TO_THE_END}
    while (fork := forks.get(branch)) is not None and fork.parent not in limits:
        branch = fork.parent
        limits[branch] = Place(fork.at.step, TO_THE_END.scheduled if fork.keep_weights else fork.at.scheduled)
    return limits


def _stage_entries(events: Iterable[Event]) -> dict[int, list[Place]]:
    """For each branch, where each number of removals was reached, beginning on the branches before it."""
    entered: dict[int, list[Place]] = {}
    for event in events:
        here = Place(event.at.step, event.at.scheduled)
        if isinstance(event, RolledBack) and not event.keep_weights:
            entered[event.at.branch] = [p for p in entered.get(event.parent, []) if p <= here]
        places = entered.setdefault(event.at.branch, [])
        if not places or places[-1].scheduled != here.scheduled:
            places.append(here)
    return entered


def _x(here: Place, entered: list[Place]) -> float:
    """Removals, with the share of the way to the next one as a fraction.

    How long the last stage will be is not known: at least as long as it is by now, and as the one before.
    """
    index = bisect_right(entered, here) - 1
    since = entered[index].step
    length = here.step - since
    if index + 1 < len(entered):
        length = entered[index + 1].step - since
    elif index > 0:
        length = max(length, since - entered[index - 1].step)
    return here.scheduled + min(1.0, (here.step - since) / max(1, length))


def _all_gone(config: Config, stages: int) -> int | None:
    if config.method.name == "no_cot":
        return 0
    partial = config.method.name == "explicit_cot" or config.method.stop_at is not None
    return None if partial else stages


def steered(events: Iterable[Event]) -> dict[str, int]:
    """How often an operator made the run other than its configuration says, by command."""
    done = (e.command.split() for e in events if isinstance(e, CommandAcknowledged) and e.ok)
    return dict(
        Counter(
            name
            for name, *rest in done
            if name in STEERING and (name != "set" or rest[0].split(".")[0] in LEARNT_FROM)
        )
    )


def grouped(read: Iterable[tuple[Config, Curve]]) -> list[Group]:
    """Runs that differ in nothing but their seed together, in the order in which they come."""
    members: dict[str, list[Curve]] = {}
    learnt: dict[str, dict[str, Any]] = {}
    units: dict[str, str] = {}
    taught: dict[str, MethodConfig] = {}
    for config, one in read:
        fields = config.model_dump(include=set(LEARNT_FROM))
        key = repr(fields)
        learnt[key], taught[key] = fields, config.method
        keeps = config.method.name in ("explicit_cot", "no_cot")
        units[key] = "" if keeps else f"{config.method.counted}s"
        members.setdefault(key, []).append(one)
    labels = _labels([[c.name for c in curves] for curves in members.values()], list(learnt.values()))
    methods = [
        ", ".join(filter(None, parts))
        for parts in zip(_apart("method", KINDS, learnt.values()), _thoughts(taught.values()), strict=True)
    ]
    tasks = _apart("data", PROBLEMS, learnt.values())
    several = len(set(filter(None, units.values()))) > 1
    return [
        Group(label, tuple(curves), method, task, unit if several else "")
        for label, curves, method, task, unit in zip(
            labels, members.values(), methods, tasks, units.values(), strict=True
        )
    ]


def _apart(section: str, keys: Iterable[str], learnt: Collection[dict[str, Any]]) -> list[str]:
    """What of these fields makes each of them another than the others."""
    own = [fields[section] for fields in learnt]
    differing = [key for key in keys if len({one[key] for one in own}) > 1]
    return [", ".join(f"{section}.{key} = {shown(one[key])}" for key in differing) for one in own]


def _thoughts(taught: Collection[MethodConfig]) -> list[str]:
    """What tells those that have thoughts, or pauses, from each other, in words."""
    latent = [method for method in taught if method.name in LATENT]
    differing = [name for name in wording.FIELDS if len({getattr(method, name) for method in latent}) > 1]
    return [", ".join(wording.in_words(method, differing)) for method in taught]


def _labels(names: list[list[str]], learnt: list[dict[str, Any]]) -> list[str]:
    """What the names of a group's runs have in common, else the fields that differ, else all names."""
    labels = [_common_start(group) for group in names]
    if all(labels) and len(set(labels)) == len(labels):
        return labels
    flat = [
        {f"{section}.{key}": value for section, fields in sections.items() for key, value in fields.items()}
        for sections in learnt
    ]
    keys = [key for key in flat[0] if len({repr(fields[key]) for fields in flat}) > 1]
    labels = [", ".join(f"{key} = {shown(fields[key])}" for key in keys) for fields in flat]
    if keys and max(map(len, labels)) <= LONGEST_LABEL:
        return labels
    return [", ".join(group) for group in names]


def _common_start(names: list[str]) -> str:
    """ "mult2x2" for mult2x2-brisk-otter and mult2x2-calm-bee; the name itself for one."""
    if len(names) == 1:
        return names[0]
    columns = zip(*(f"{name}-" for name in names), strict=False)
    shared = "".join(same[0] for same in itertools.takewhile(lambda letters: len(set(letters)) == 1, columns))
    return shared[: max(0, *(shared.rfind(end) for end in "-_.+"))]
