"""Presets: every one resolves, extends as it says, and a mistake is told with the nearest right thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer import config as configuration
from trainer import presets
from trainer.config import ConfigError

PAPER = {"mult4x4": 4, "mult5x5": 5, "mult7x7": 7, "mult9x9": 9, "mult11x11": 11}


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_resolves_and_says_what_it_is_and_costs(name: str) -> None:
    config = presets.resolve(name)
    listed = {p.name: p for p in presets.listing()}[name]
    assert listed.title == config.title != ""
    assert listed.cost


def test_a_base_is_not_listed() -> None:
    assert "mult" not in presets.names()
    assert (presets.folder() / "mult.toml").is_file()


@pytest.mark.parametrize("name", PAPER)
def test_a_preset_of_the_paper_has_its_numbers(name: str) -> None:
    config = presets.resolve(name)
    assert config.data.digits == PAPER[name]
    assert (config.data.train, config.data.valid, config.data.test) == (808_000, 1_000, 1_000)
    assert (config.model.init, config.model.vocab) == ("gpt2", "full")
    assert (config.method.name, config.method.side, config.method.smoothing) == ("stepwise", "left", 4.0)
    assert config.method.reset_optimizer
    assert (config.schedule.tokens_per_epoch, config.schedule.pretrain_epochs) == (8.0, 0.0)
    assert (config.optim.lr, config.optim.batch, config.optim.weight_decay) == (5e-5, 32, 0.01)
    assert (config.optim.clip, config.seed) == (1.0, 3456)
    assert (config.stop.epochs, config.stop.hours) == (200.0, 24.0)


@pytest.mark.parametrize("name", ["mult2x2", "mult2x2-breaks", "mult3x3", "mult4x4-2l4h"])
def test_presets_from_scratch_need_no_download(name: str) -> None:
    config = presets.resolve(name)
    assert (config.model.init, config.model.vocab) == ("scratch", "task")


def test_overrides_win_and_alternatives_replace_each_other() -> None:
    config = presets.resolve("mult7x7", {"optim.lr": 1e-4, "schedule.steps_per_token": 100})
    assert config.optim.lr == 1e-4
    assert config.schedule.steps_per_token == 100
    assert config.schedule.tokens_per_epoch is None


def test_seed_and_device_are_overrides_too() -> None:
    config = presets.configure("mult2x2", ["seed=1", "optim.batch=16"], seed=7, device="cpu")
    assert (config.seed, config.device, config.optim.batch) == (7, "cpu", 16)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("mult2x2-brakes", "mult2x2-breaks"), ("7x7", "mult7x7"), ("mul4x4", "mult4x4"), ("MULT9x9", "mult9x9")],
)
def test_an_unknown_preset_names_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean {meant}\?"):
        presets.resolve(typed)


@pytest.mark.parametrize("name", ["", "../presets/mult2x2", "mult2x2.toml", "/etc/passwd"])
def test_a_preset_is_a_name_not_a_path(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no preset"):
        presets.resolve(name)


def test_all_problems_of_file_and_command_line_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "mult2x2"\n[optim]\nlearning_rate = 1.0\n[data]\ndigits = "two"\n')
    with pytest.raises(ConfigError) as caught:
        presets.configure(file, ["optim.lr=fast", "nonsense", "stop.patience=0"])
    text = str(caught.value)
    for field in ("optim.learning_rate", "data.digits = 'two'", "optim.lr = 'fast'", "stop.patience = 0"):
        assert field in text
    assert "--set nonsense" in text
    assert "whole number ≥ 1" in text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("title = ", "is not TOML"),
        ('extends = "mult2x3"', "mine.toml: extends: there is no preset 'mult2x3'; did you mean"),
        ("extends = 3", "the name of a preset is allowed"),
    ],
)
def test_a_file_that_cannot_be_taken_says_why(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        presets.configure(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        presets.configure(tmp_path / "none.toml")


def test_extending_in_a_circle_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.toml").write_text('extends = "b"\n')
    (tmp_path / "b.toml").write_text('extends = "a"\n')
    monkeypatch.setattr(presets, "folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match="a → b → a"):
        presets.resolve("a")


@pytest.mark.parametrize("name", presets.names())
def test_what_is_printed_is_a_file_that_gives_the_same_run(name: str, tmp_path: Path) -> None:
    file = tmp_path / "printed.toml"
    file.write_text(presets.explain(name), encoding="utf-8")
    assert presets.configure(file) == presets.resolve(name)


def test_what_is_printed_explains_every_field() -> None:
    text = presets.explain("mult2x2")
    for row in configuration.table():
        assert f"#   {row.key} = " in text
