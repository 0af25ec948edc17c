"""The tables of the papers: their figures beside those of our runs, and nothing where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from trainer import presets, runs
from trainer.analysis import frontier, published, wording
from trainer.analysis import published_coconut as coconut
from trainer.analysis.compare import LEARNT_FROM, steered
from trainer.analysis.published import Dataset, Row
from trainer.config import Config, ConfigError, DataConfig, ModelConfig, shown
from trainer.events import CommandAcknowledged, Evaluated, Event, RunFinished, RunStarted
from trainer.record import journal

NOT_COMPARED = {
    "data.train_file", "data.valid_file", "data.test_file",  # where the data lie
    "data.valid", "data.test",  # n says how many were tested
    "model.init", "model.layers", "model.heads", "model.width",  # the row says which model
    "optim.accumulate",  # the same gradient in parts
}  # fmt: skip
AUGMENTED = 300_000
"""GSM8K's training set in the paper has 378,000 examples, the original one 7,473."""
TOLD = journal.of(RunStarted, RunFinished, CommandAcknowledged, Evaluated)


class NotMeasuredError(ValueError):
    """A run that has no place in the tables; the message says why."""


@dataclass(frozen=True, slots=True)
class Ours:
    """What one finished run measured on its test split.

    date: of the measurement, UTC. step: optimiser steps until then. speed: None where `stepwise frontier` has
    not measured it. differs: what is not as in our configuration of the paper's row. apart: where there is no
    such configuration, what tells this run from others of its row. steered: how often an operator changed
    the course, by command. tokens: generated, mean per example. seconds: for an example at batch 1, as speed.
    """

    run: str
    path: str
    date: str
    seed: int
    step: int
    accuracy: float
    n: int
    speed: float | None
    speed_date: str | None
    differs: tuple[str, ...]
    apart: tuple[str, ...]
    steered: dict[str, int]
    tokens: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A row of Table 2 or 3, or of Coconut's. All but `ours` is published, None or "" where nothing is."""

    task: str
    model: str
    method: str
    accuracy: float | None
    speed: float | None
    source: str
    words: str
    ours: tuple[Ours, ...]
    tokens: float | None = None
    seconds: float | None = None


class Counted(NamedTuple):
    """What our data layer counts, as in `Dataset`."""

    train: int
    valid: int
    test: int
    question: int
    cot: int
    answer: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """A row of Table 1. ours: None where the data would have to be downloaded."""

    published: Dataset
    ours: Counted | None


@dataclass(frozen=True, slots=True)
class Tables:
    """The three tables of ICoT-SI, and Table 1 (with appendix B) and Figure 3 of Coconut.

    left_out: runs that no row was made of, with the reason.
    """

    table_1: tuple[Statistics, ...]
    table_2: tuple[Result, ...]
    table_3: tuple[Result, ...]
    left_out: dict[str, str]
    coconut_table_1: tuple[Result, ...] = ()
    coconut_figure_3: tuple[Result, ...] = ()


class Found(NamedTuple):
    """A run with the row it belongs to."""

    task: str
    model: str
    method: str
    config: Config
    ours: Ours


def tables(out: Path) -> Tables:
    """The tables, with the finished runs under `out`."""
    found: list[Found] = []
    left_out: dict[str, str] = {}
    for row in runs.list_runs(out):
        try:
            config = presets.configure(Path(row.path) / runs.CONFIG_FILE)
            found.append(read(config, list(journal.read(Path(row.path), TOLD)), Path(row.path)))
        except (ConfigError, NotMeasuredError) as error:
            left_out[row.name] = str(error)
    latent = [f for f in found if is_coconuts(f.config)]
    token = [f for f in found if not is_coconuts(f.config)]
    numbered = [
        f._replace(method=coconut.thoughts(c)) for f in latent if (c := thoughts_a_step(f)) is not None
    ]
    return Tables(
        tuple(Statistics(dataset, _counted(dataset)) for dataset in published.DATASETS),
        tuple(beside(published.TABLE_2, [f for f in token if f.task != published.GSM8K])),
        tuple(beside(published.TABLE_3, [f for f in token if f.task == published.GSM8K])),
        left_out,
        tuple(beside(coconut.TABLE_1, latent)),
        tuple(beside(coconut.FIGURE_3, numbered)),
    )


def is_coconuts(config: Config) -> bool:
    """Whether a run belongs to Coconut's tables: by its data, or as one of thoughts or of whole steps."""
    return config.data.task in ("prontoqa", "prosqa") or config.method.counted == "step"


def thoughts_a_step(found: Found) -> int | None:
    """Coconut's c on GSM8K; None for what Figure 3 does not show."""
    taught = found.config.method
    if found.task != published.GSM8K or taught.name != "coconut" or not taught.curriculum:
        return None
    if set(unusual(found.config)) - {"thoughts_per_step"}:
        return None
    return 0 if taught.no_thought else taught.thoughts_per_step


def read(config: Config, events: Iterable[Event], folder: Path) -> Found:
    """What a run's journal says of its end. Raises `NotMeasuredError`."""
    events = list(events)
    started = next((e for e in reversed(events) if isinstance(e, RunStarted)), None)
    ended = [e for e in events if isinstance(e, RunFinished) and e.accuracy is not None]
    if started is None or not ended:
        raise NotMeasuredError("it has not finished, so there is no accuracy on the test split yet")
    if config.data.task == "text":
        raise NotMeasuredError("its data are not the paper's")
    end = ended[-1]
    assert end.accuracy is not None
    speed = frontier.kept(folder, end.checkpoint)
    tested = [e.generated_tokens for e in events if isinstance(e, Evaluated) and e.split == "test"]
    partial = end.at.stage < started.stages or config.method.stop_at is not None
    few = config.data.task == "gsm8k" and started.train_examples < AUGMENTED
    return Found(
        task(config.data),
        model(config.model),
        method(config, end.at.removed if partial else None),
        config,
        Ours(
            run=runs.called(folder),
            path=str(folder),
            date=datetime.fromtimestamp(end.at.time, UTC).date().isoformat(),
            seed=config.seed,
            step=end.at.step,
            accuracy=end.accuracy,
            n=end.n,
            speed=speed.speed if speed else None,
            speed_date=speed.date if speed else None,
            differs=(f"{started.train_examples:,} training examples",) if few else (),
            apart=(),
            steered=steered(events),
            tokens=tested[-1] if tested else None,
            seconds=speed.seconds if speed else None,
        ),
    )


def task(data: DataConfig) -> str:
    """What the tables call a task: 4×4, GSM8K."""
    if data.task == "gsm8k":
        return published.GSM8K
    default = DataConfig()
    if data.task == "prontoqa":
        return coconut.PRONTOQA if data.hops == default.hops else f"{coconut.PRONTOQA}, {data.hops} hops"
    if data.task == "prosqa":
        published_ = (data.nodes, data.nouns) == (default.nodes, default.nouns)
        small = f", {data.nodes} nodes, {data.nouns} nouns"
        return coconut.PROSQA + ("" if published_ else small)
    return f"{data.digits}×{data.digits if data.digits_b is None else data.digits_b}"


PRETRAINED = {
    "gpt2": published.GPT2,
    "gpt2-medium": published.MEDIUM,
    "Phi-3-mini-4k-instruct": published.PHI3,
    "Mistral-7B-v0.1": published.MISTRAL,
}


def model(config: ModelConfig) -> str:
    """What the tables call a model; the name of its folder, or its size, where they have none."""
    if config.init == "scratch":
        return f"{config.layers} layers, {config.heads} heads, width {config.width}, from scratch"
    name = Path(config.init).name
    return PRETRAINED.get(name, name)


def method(config: Config, removed: int | None) -> str:
    """What the tables call a method, with what makes it a variant. removed: tokens gone, if not all are."""
    if is_coconuts(config):
        return latent_method(config, removed)
    taught = config.method
    tree = ["tree CoT"] if config.data.cot == "tree" else []
    if taught.name != "stepwise":
        names = {"explicit_cot": published.EXPLICIT, "no_cot": published.NO_COT}
        return ", ".join([names[taught.name], *tree])
    variants = [
        *tree,
        *(["no smoothing"] if math.isinf(taught.smoothing) else []),
        *(["right side"] if taught.side == "right" else []),
        # The official code never resets on the right, so that the paper's right side is without as well.
        *(["no reset"] if not taught.reset_optimizer and taught.side == "left" else []),
        *(["Δ = 16"] if config.schedule.kind == "linear" and config.schedule.tokens_per_epoch == 16 else []),
        *([f"{config.schedule.kind} schedule"] if config.schedule.kind != "linear" else []),
        *(["kept positions"] if taught.keep_positions else []),
        *(["moved positions"] if taught.move_positions else []),
        *(["fillers"] if taught.fillers else []),
        *(["one model for both ways"] if taught.explicit_share else []),
        *([f"{removed} removed"] if removed is not None else []),
    ]
    return ", ".join([published.SI, *variants])


def latent_method(config: Config, removed: int | None) -> str:
    """What Coconut's tables call a method. removed: steps gone, if not all are."""
    taught = config.method
    rows = {
        "explicit_cot": coconut.COT,
        "no_cot": coconut.NO_COT,
        "stepwise": coconut.ICOT,
        "pause": coconut.PAUSE_AS_THOUGHT if taught.curriculum else coconut.PAUSE,
        "coconut": coconut.COCONUT if taught.curriculum else coconut.NO_CURRICULUM,
    }
    variants = [
        coconut.NO_THOUGHT if taught.no_thought else rows[taught.name],
        *(["by tokens"] if taught.name == "stepwise" and taught.unit == "token" else []),
        *wording.in_words(taught, unusual(config)),
        *([f"{config.schedule.kind} schedule"] if config.schedule.kind != "linear" else []),
        *([f"{removed} steps gone"] if removed is not None else []),
    ]
    return ", ".join(variants)


def unusual(config: Config) -> list[str]:
    """The settings of thoughts that are not as in our configuration of the paper's row, or of its like."""
    usual = coconut.usual(config.data)
    return [name for name in wording.FIELDS if getattr(config.method, name) != getattr(usual, name)]


def beside(rows: Iterable[Row], found: Iterable[Found]) -> Iterator[Result]:
    """The published rows with the runs that belong to them, then the rows that only runs have; by task."""
    by_row: dict[tuple[str, str, str], list[Found]] = {}
    for one in found:
        by_row.setdefault((one.task, one.model, one.method), []).append(one)
    results = [
        Result(
            row.task, row.model, row.method, row.accuracy, row.speed, row.source, row.words,
            _sorted(_compared(one, row) for one in by_row.pop(row[:3], [])), row.tokens, row.seconds,
        )
        for row in rows
    ]  # fmt: skip
    results += [Result(*key, None, None, "", "", _sorted(_apart(ours))) for key, ours in by_row.items()]
    return iter(sorted(results, key=lambda row: _place(row.task)))


def _place(task: str) -> tuple[str, list[int]]:
    """Where a task stands: the sizes of multiplication in order, each other task's variants after it."""
    return task.partition(",")[0].strip("0123456789×"), [int(k) for k in task.split("×") if k.isdigit()]


def _compared(one: Found, row: Row) -> Ours:
    """The run with what it has otherwise than our configuration of the paper's row."""
    if not row.preset:
        return one.ours
    overrides: dict[str, Any] = {"method.name": one.config.method.name}
    if is_coconuts(one.config):
        overrides = coconut.OVERRIDES.get(row.method, {})
    paper = _flat(presets.resolve(row.preset, overrides))
    differs = [f"{key} = {shown(v)}" for key, v in _flat(one.config).items() if v != paper[key]]
    return replace(one.ours, differs=(*differs, *one.ours.differs))


def _apart(found: Sequence[Found]) -> Iterator[Ours]:
    """The runs of a row that the paper does not have, each with the fields in which they differ."""
    flat = [_flat(one.config) for one in found]
    keys = [key for key in flat[0] if len({repr(fields[key]) for fields in flat}) > 1]
    for one, fields in zip(found, flat, strict=True):
        yield replace(one.ours, apart=tuple(f"{key} = {shown(fields[key])}" for key in keys))


def _sorted(ours: Iterable[Ours]) -> tuple[Ours, ...]:
    """Seeds of one configuration beside each other."""
    return tuple(sorted(ours, key=lambda one: (one.differs, one.apart, one.seed, one.run)))


def _flat(config: Config) -> dict[str, Any]:
    sections = config.model_dump(include=set(LEARNT_FROM))
    fields = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    return {key: value for key, value in fields.items() if key not in NOT_COMPARED}


def _counted(dataset: Dataset) -> Counted | None:
    """The sizes of our configuration, and the tokens of any one example: they all have as many.

    In GPT-2's vocabulary each digit and sign is one token, with the blank before it.
    """
    if dataset.task == published.GSM8K:
        return None
    from trainer.data.multiplication import render

    data = presets.resolve(f"mult{dataset.task.replace('×', 'x')}").data
    line = render("1" * data.digits, "1" * data.digits)
    question, cot, answer = (len(text.split()) for text in line)
    return Counted(data.train, data.valid, data.test, question, cot, answer + 1)
