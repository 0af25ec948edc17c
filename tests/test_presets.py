"""Presets: every one resolves and trains; a mistake is told with the nearest right thing."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from stepwise_tui.output import presets_table
from tests import small_pretrained
from trainer import config as configuration
from trainer import presets
from trainer.config import ConfigError
from trainer.control import parse
from trainer.events import Event, Metrics, RunCrashed, StageEntered, StateChanged
from trainer.record import journal
from trainer.run import Run

PAPER = {"mult4x4": 4, "mult5x5": 5, "mult7x7": 7, "mult9x9": 9, "mult11x11": 11}
GSM8K = {
    # optim.lr, Δ, data type, batch in so many parts, epochs
    "gsm8k-gpt2": (5e-5, 1.0, "float32", 1, 200.0),
    "gsm8k-gpt2-medium": (5e-5, 1.0, "float32", 1, 200.0),
    "gsm8k-phi3": (1e-5, 8.0, "bfloat16", 2, 80.0),
    "gsm8k-mistral": (1e-5, 8.0, "bfloat16", 2, 80.0),
}
FAMILY = {"gpt2": "gpt2", "gpt2-medium": "gpt2", "microsoft": "phi3", "mistralai": "mistral"}
"""By the beginning of model.init: the architecture that stands in for it."""


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_resolves_and_says_what_it_is_and_costs(name: str) -> None:
    config = presets.resolve(name)
    listed = {p.name: p for p in presets.listing()}[name]
    assert listed.title == config.title != ""
    assert listed.cost
    assert listed.group in presets.GROUPS


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small models of the architectures that the presets download."""
    names = dict.fromkeys(FAMILY.values())
    return {
        name: small_pretrained.FAMILIES[name](tmp_path_factory.mktemp("downloads") / name) for name in names
    }


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_trains_three_steps(name: str, downloads: dict[str, Path], tmp_path: Path) -> None:
    """The real trainer with the preset's own task, method and vocabulary; only sizes are reduced."""
    config = presets.resolve(name)
    parts = min(2, config.optim.accumulate)
    smaller: dict[str, Any] = {
        "device": "cpu",
        "data.train": 40,
        "data.valid": 4,
        "data.test": 4,
        "optim.batch": 2 * parts,
        "optim.accumulate": parts,
        "schedule.pretrain_steps": 0,
        "schedule.steps_per_token": 1,
        "log.every": 1,
    }
    if config.model.init == "scratch":
        smaller |= {"model.layers": 1, "model.heads": 2, "model.width": 16}
    else:
        smaller["model.init"] = str(downloads[FAMILY[config.model.init.split("/")[0]]])
    if config.data.task == "gsm8k":
        sums = tmp_path / "sums.jsonl"
        rows = ({"question": f"{a} + 3", "steps": [f"{a}", "+ 1", "+ 1", "+ 1"], "answer": f"{a + 3}"}
                for a in range(100, 200))  # fmt: skip
        sums.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        smaller["data.train_file"] = str(sums)

    events = _train(presets.resolve(name, smaller), tmp_path / "run")

    losses = [e.loss for e in events if isinstance(e, Metrics)]
    assert len(losses) == 3 and all(map(math.isfinite, losses))
    entered = [e.at.stage for e in events if isinstance(e, StageEntered)]
    assert entered[0] == config.method.start_from
    has_stages = config.method.curriculum and config.method.name != "explicit_cot"
    assert len(entered) == (3 if has_stages else 1) and entered == sorted(set(entered))


def _train(config: configuration.Config, folder: Path) -> list[Event]:
    """Three steps as an operator takes them; the run's journal."""
    paused = threading.Event()

    def heard(event: Event) -> None:
        if isinstance(event, RunCrashed) or (isinstance(event, StateChanged) and event.at.step == 3):
            paused.set()

    run = Run(config, folder, paused=True)
    run.start(on_event=heard)
    run.submit(parse("run 3", source="test"))
    assert paused.wait(60)
    run.close()
    events = list(journal.read(folder))
    assert not any(isinstance(e, RunCrashed) for e in events), events[-2:]
    return events


def test_the_list_of_presets_fits_a_terminal_of_80_columns() -> None:
    lines = presets_table(presets.listing()).splitlines()
    assert max(map(len, lines)) <= 80
    headings = [line.split(":")[0] for line in lines if line and not line.startswith(" ")]
    assert headings == list(presets.GROUPS.values())


def test_a_base_is_not_listed() -> None:
    assert not {"mult", "mult-fast", "gsm8k"} & set(presets.names())
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


@pytest.mark.parametrize(
    ("name", "only"),
    [
        ("mult7x7-no-smoothing", {"method.smoothing": math.inf}),
        ("mult7x7-no-reset", {"method.reset_optimizer": False}),
        ("mult7x7-right", {"method.side": "right", "method.reset_optimizer": False}),
        ("mult7x7-delta16", {"schedule.tokens_per_epoch": 16.0}),
        ("mult7x7-keep-positions", {"method.keep_positions": True}),
        ("mult9x9-tree", {"data.cot": "tree"}),
        ("mult11x11-tree", {"data.cot": "tree"}),
        ("mult11x11-partial", {"method.stop_at": 320}),
    ],
)
def test_a_variant_of_the_paper_differs_in_that_alone(name: str, only: dict[str, Any]) -> None:
    title = presets.resolve(name).title
    assert presets.resolve(name.split("-")[0], only | {"title": title}) == presets.resolve(name)


@pytest.mark.parametrize("name", [*PAPER, "mult20x20"])
def test_a_fast_twin_has_the_same_task_model_and_curriculum(name: str) -> None:
    paper, fast = presets.resolve(name), presets.resolve(f"{name}-fast")
    assert (fast.data, fast.method, fast.schedule) == (paper.data, paper.method, paper.schedule)
    assert (fast.model.init, fast.model.vocab) == (paper.model.init, "task")


@pytest.mark.parametrize("name", GSM8K)
def test_a_gsm8k_preset_has_the_numbers_of_the_paper(name: str) -> None:
    config = presets.resolve(name)
    lr, pace, dtype, parts, epochs = GSM8K[name]
    assert (config.optim.lr, config.schedule.tokens_per_epoch, config.model.dtype) == (lr, pace, dtype)
    assert (config.optim.batch, config.optim.accumulate, config.stop.epochs) == (32, parts, epochs)
    assert (config.method.remove_all_beyond, config.data.max_len_train, config.seed) == (39, 150, 1234)
    assert (config.method.smoothing, config.method.side, config.method.reset_optimizer) == (4.0, "left", True)


@pytest.mark.parametrize("method", ["explicit_cot", "no_cot"])
@pytest.mark.parametrize("name", presets.names())
def test_explicit_cot_and_no_cot_are_one_override(name: str, method: str) -> None:
    assert presets.resolve(name, {"method.name": method}).method.name == method


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
