"""The configuration: every field documented, every mistake named, every file reproduced."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import config as configuration
from trainer.config import ConfigError

SCRATCH: dict[str, Any] = {"model": {"init": "scratch", "vocab": "task"}}


def test_every_field_says_what_it_means_and_what_is_allowed() -> None:
    for row in configuration.table():
        assert row.allowed, row.key
        assert row.description or row.key == "title", row.key


def test_all_problems_are_told_at_once_with_value_and_choice() -> None:
    wrong = {
        "optim": {"lr": -1, "batc": 3},
        "data": {"task": "addition"},
        "model": {"width": 5},
        "eval": {"every": "often"},
        "compute": {"threads": 100_000},
        "schedule": {"tokens_per_epoch": 8.0, "steps_per_token": 100},
        "extra": 1,
    }
    with pytest.raises(ConfigError) as caught:
        configuration.build(wrong)
    said = str(caught.value)
    for part in (
        "optim.lr = -1: number > 0",
        "optim.batc: there is no such field; did you mean optim.batch",
        "data.task = 'addition': multiplication | gsm8k | prontoqa | prosqa | text is allowed",
        "width 5 must be a multiple of heads 12",
        "eval.every = 'often': whole number ≥ 1",
        "compute.threads = 100000: whole number ≥ 1 ≤ 1024, or none",
        "one of tokens_per_epoch, steps_per_token and epochs_per_stage",
        "extra: there is no such field",
    ):
        assert part in said


def test_weights_of_bfloat16_cannot_be_multiplied_in_float32() -> None:
    model = {**SCRATCH["model"], "dtype": "bfloat16"}
    with pytest.raises(ConfigError, match=r"multiplied in bfloat16: --set model\.dtype=float32, or"):
        configuration.build({"model": model, "compute": {"precision": "float32"}})
    configuration.build({"model": model})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("3", 3),
        ("808_000", 808_000),
        ("true", True),
        ('"a b"', "a b"),
        ("left", "left"),
        ("inf", math.inf),
        ("none", None),
        (".5", 0.5),
        ("-5.", -5.0),
        (".5e-3", 5e-4),
        (".", "."),
        ("1.2.3", "1.2.3"),
    ],
)
def test_values_are_toml_and_bare_words_are_text(text: str, value: Any) -> None:
    assert configuration.parse_value(text) == value


def test_an_assignment_needs_its_equals_sign() -> None:
    assert configuration.parse_assignment("optim.lr = 1e-4") == ("optim.lr", 1e-4)
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        configuration.parse_assignment("optim.lr")


def test_one_way_of_giving_the_pace_takes_the_other_back() -> None:
    config = configuration.build(configuration.merge(SCRATCH, {"schedule": {"steps_per_token": 300}}))
    assert config.schedule.tokens_per_epoch is None
    config = configuration.changed(config, "schedule.tokens_per_epoch", 4)
    assert (config.schedule.tokens_per_epoch, config.schedule.steps_per_token) == (4.0, None)
    config = configuration.changed(config, "schedule.steps_per_token", 50)
    assert (config.schedule.tokens_per_epoch, config.schedule.steps_per_token) == (None, 50)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "method.smoothing": st.sampled_from([0.0, 4.0, math.inf]),
            "schedule.steps_per_token": st.integers(1, 10**6),
            "schedule.pretrain_steps": st.integers(0, 10**6),
            "stop.epochs": st.sampled_from([1.0, math.inf]),
            "stop.accuracy": st.floats(0.01, 1.0),
            "watch.notify": st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])),
            "title": st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])),
            "data.digits_b": st.integers(1, 64),
        },
    )
)
def test_the_written_file_gives_the_same_configuration(changes: dict[str, Any]) -> None:
    config = configuration.build(configuration.merge(SCRATCH, configuration.nested(changes)))
    assert configuration.build(tomllib.loads(configuration.dumps(config))) == config


def test_set_names_the_nearest_key_and_keeps_fixed_ones_fixed() -> None:
    config = configuration.build(SCRATCH)
    with pytest.raises(ConfigError, match=r"did you mean optim\.lr"):
        configuration.changed(config, "optim.lrr", 1)
    with pytest.raises(ConfigError, match="cannot change while a run trains"):
        configuration.changed(config, "data.digits", 3)
    with pytest.raises(ConfigError, match=r"optim\.lr = 'fast'"):
        configuration.changed(config, "optim.lr", "fast")
    with pytest.raises(ConfigError, match=r"compute\.threads = none: a run that trains keeps to its number"):
        configuration.changed(config, "compute.threads", None)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(["data", "optim", "lr", "task", "x"]), inner),
        max_leaves=8,
    ).filter(lambda value: isinstance(value, dict))
)
def test_no_document_raises_anything_but_sentences(document: dict[str, Any]) -> None:
    try:
        configuration.build(document)
    except ConfigError as error:
        assert str(error)
