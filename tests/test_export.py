"""Exported folders: plain transformers answers as we do, and the card says what it cannot know."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from stepwise_tui import cli
from tests import small_pretrained
from tests.test_checkpoint import STATE, save
from tests.test_official import official_checkpoint
from tests.test_readme import one_that_knows_408
from tests.tiny import tiny_config
from trainer import config as configuration
from trainer import runs
from trainer.answering.evaluate import questions
from trainer.asking import inspection
from trainer.config import Config
from trainer.data.layout import separator_id
from trainer.events import At, Evaluated, Metrics, RolledBack, encode
from trainer.exporting import export
from trainer.methods.decode import split_answer
from trainer.methods.tokens import DIRECT, EXPLICIT, FILLER
from trainer.models.origin import CONFIG_FILE, ORIGIN_FILE, read
from trainer.parts import assemble
from trainer.saving import checkpoint


def one_line(message: str) -> str:
    """A message without the line breaks that fit it to a terminal."""
    return " ".join(message.split())


def call(*arguments: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], input=text)


def run_of(folder: Path, config: Config, stage: int, seed: int = 2) -> Path:
    """A run with one checkpoint, of a model that writes varied text: random weights, well apart."""
    parts = assemble(config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in parts.model.parameters():
            parameter += torch.randn_like(parameter) * 0.4
    parts.method.enter(parts.model, 0, stage)
    folder.mkdir(parents=True)
    (folder / runs.CONFIG_FILE).write_text(configuration.dumps(config), encoding="utf-8")
    state = replace(STATE, step=7, branch=1, stage=stage, scheduled=stage)
    save(folder, state, parts, torch.optim.AdamW(parts.model.parameters()))
    return folder


Written = dict[str, tuple[list[int], list[int]]]
"""For each question the ids of CoT and answer."""


def ours(where: Path, count: int = 12, *, explicit: bool = False, room: int | None = None) -> Written:
    """What our own decoding writes to some held-out questions."""
    loaded = inspection.open_checkpoint(str(where), None, where)
    parts, tokenizer = loaded.parts, loaded.parts.tokenizer
    assert loaded.config is not None
    sizes = {"valid": loaded.config.data.valid, "test": loaded.config.data.test}
    examples = parts.task.splits(sizes, loaded.config.seed, tokenizer)["test"][:count]
    decoded = parts.method.generate(
        parts.model,
        questions(examples),
        loaded.at.scheduled,
        max_new_tokens=room or parts.room,
        explicit=explicit,
    )
    asked = [parts.task.example_text(examples, i, tokenizer).question for i in range(count)]
    return dict(zip(asked, zip(decoded.cot, decoded.answer, strict=True), strict=True))


def program(folder: Path) -> str:
    """The program of a folder's card."""
    return (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def theirs(folder: Path, asked: Iterable[str], code: str = "") -> Written:
    """What the card's program, which is plain transformers, has from the model for the same questions."""
    found: Written = {}
    for question in asked:
        names: dict[str, Any] = {}
        with contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["program", str(folder), question])
            exec(code or program(folder), names)
        eos = names["tokenizer"].eos_token_id
        ids = until_second(names["written"].tolist(), eos)
        found[question] = split_answer(ids, eos, separator_id(names["tokenizer"]))
    return found


def until_second(ids: list[int], eos: int) -> list[int]:
    """What counts: nothing after the answer's EOS does."""
    ends = [place for place, id in enumerate(ids) if id == eos]
    return ids[: ends[1]] if len(ends) > 1 else ids


VARIANTS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "explicit CoT": (0, 0, {}),
    "half way": (5, 0, {}),
    "no CoT left": (9, 0, {}),
    "positions moved": (5, 0, {"method__move_positions": True}),
    "positions kept": (5, 0, {"method__keep_positions": True}),
    "positions kept, no CoT": (9, 0, {"method__keep_positions": True}),
    "fillers": (5, 1, {"method__fillers": True}),
    "both ways": (9, 1, {"method__explicit_share": 0.5}),
    "both ways, fillers": (5, 2, {"method__explicit_share": 0.5, "method__fillers": True}),
    "right": (5, 0, {"method__side": "right"}),
    "partial": (4, 0, {"method__stop_at": 4}),
}
"""Of each the stage, how many caveats it has, and the configuration."""


@pytest.mark.parametrize("name", VARIANTS)
def test_plain_transformers_answers_as_we_do(name: str, tmp_path: Path) -> None:
    stage, caveats, changes = VARIANTS[name]
    run = run_of(tmp_path / "run", tiny_config(**changes), stage)
    answers = ours(run)
    assert len({str(answer) for answer in answers.values()}) > 3, "they must differ for this to test much"
    plain = tmp_path / "plain"
    assert len(export.export(str(run), plain, id=None, out=tmp_path)) == caveats
    assert theirs(plain, answers) == answers
    assert ours(plain) == answers, "and it opens without its run"


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_pretrained_models_and_their_tokenizers_too(family: str, tmp_path: Path) -> None:
    init = small_pretrained.FAMILIES[family](tmp_path / "init", positions=80)
    for vocab in ("full", "task"):
        config = tiny_config(model__init=str(init), model__vocab=vocab)
        run = run_of(tmp_path / vocab, config, 5)
        answers = ours(run, 4)
        export.export(str(run), tmp_path / f"{vocab}-plain", id=None, out=tmp_path)
        assert theirs(tmp_path / f"{vocab}-plain", answers) == answers


def test_the_program_of_the_card_prints_cot_and_answer(tmp_path: Path) -> None:
    parts = one_that_knows_408()
    run = tmp_path / "run"
    run.mkdir()
    (run / runs.CONFIG_FILE).write_text(configuration.dumps(tiny_config(method__name="no_cot")))
    save(run, STATE, parts, torch.optim.AdamW(parts.model.parameters()))
    export.export(str(run), tmp_path / "plain", id=None, out=tmp_path)
    file = tmp_path / "program.py"
    file.write_text(program(tmp_path / "plain"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file), str(tmp_path / "plain"), "2 1 * 4 3"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "CoT: \nanswer: 8 0 4 0\n", done.stderr


def test_the_other_way_of_answering(tmp_path: Path) -> None:
    config = tiny_config(method__explicit_share=0.5, method__fillers=True)
    run = run_of(tmp_path / "run", config, 5, seed=3)  # its rows end before there is no room, some of them
    answers = ours(run, explicit=True)
    assert answers != ours(run)
    export.export(str(run), tmp_path / "plain", id=None, out=tmp_path)
    code = program(tmp_path / "plain")
    assert DIRECT in code and FILLER in code
    code = code.replace(DIRECT, EXPLICIT).replace(f' + "{FILLER}" * 5', "")
    assert theirs(tmp_path / "plain", answers, code) == answers
    assert ours(tmp_path / "plain", explicit=True) == answers
    for where in (run, tmp_path / "plain"):
        explicit = json.loads(call("eval", where, "--explicit", "--json").stdout)
        assert (
            explicit["generated_tokens"]
            != json.loads(call("eval", where, "--json").stdout)["generated_tokens"]
        )
        turns = [call("chat", where, *way, text="12*34\n").stdout for way in ([], ["--explicit"])]
        assert turns[0].startswith("12 × 34 = ") and turns[1].startswith("12 × 34 = ")


def test_kept_positions_stand_in_the_table(tmp_path: Path) -> None:
    """Without that, plain transformers answers otherwise."""
    run = run_of(tmp_path / "run", tiny_config(method__keep_positions=True), 5)
    export.export(str(run), tmp_path / "plain", id=None, out=tmp_path)
    (saved,) = (run / checkpoint.FOLDER).glob("b1-*")
    before = AutoModelForCausalLM.from_pretrained(checkpoint.model_folder(saved))
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert after.config.n_positions == before.config.n_positions - 5
    assert theirs(checkpoint.model_folder(saved), ours(run), program(tmp_path / "plain")) != ours(run)
    config, origin = read(tmp_path / "plain")
    assert config is not None and origin is not None and not config.method.keep_positions


def test_what_weights_cannot_hold_is_said(tmp_path: Path) -> None:
    """Positions kept on the right jump in the middle of what is written."""
    changes = {"method__keep_positions": True, "method__side": "right"}
    run = run_of(tmp_path / "run", tiny_config(**changes), 5)
    result = call("export", run, tmp_path / "plain")
    told = " ".join(result.stderr.split())
    assert result.exit_code == 0
    assert "5 higher from the 4th token after the question's EOS on" in told
    assert "5 higher from the 4th token" in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")
    assert ours(tmp_path / "plain") == ours(run)

    run = run_of(tmp_path / "filled", tiny_config(method__fillers=True), 5)
    told = " ".join(call("export", run, tmp_path / "with fillers").stderr.split())
    assert f"After the question's EOS 5 tokens {FILLER} must stand" in told


def test_an_exported_folder_is_measured_and_asked_like_its_run(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", tiny_config(), 5)
    result = call("export", run, tmp_path / "plain")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [str(tmp_path / "plain"), f"stepwise chat {tmp_path / 'plain'}"]
    same = (
        "accuracy",
        "token_accuracy",
        "cot_match",
        "cot_tokens",
        "generated_tokens",
        "n",
        "split",
        "stage",
    )
    measured = [json.loads(call("eval", where, "--json").stdout) for where in (run, tmp_path / "plain")]
    assert [measured[0][key] for key in same] == [measured[1][key] for key in same]
    turns = [call("chat", where, text="12*34\n").stdout for where in (run, tmp_path / "plain")]
    assert turns[0].split(" · ")[0] == turns[1].split(" · ")[0] != ""
    again = call("export", tmp_path / "plain", tmp_path / "again")
    assert again.exit_code == 0 and ours(tmp_path / "again") == ours(run)
    refused = call("eval", tmp_path / "plain", "--preset", "mult2x2")
    assert refused.exit_code == 2 and "knows its task already (stepwise.toml)" in one_line(refused.stderr)


def test_whoever_may_read_the_card_may_read_the_weights(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", tiny_config(), 1)
    assert call("export", run, tmp_path / "plain").exit_code == 0
    for folder in (run / "checkpoints", tmp_path / "plain"):
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert any(file.suffix == ".safetensors" for file in files)
        assert len({file.stat().st_mode for file in files}) == 1


def test_no_cot_is_not_measured_where_none_is_left(tmp_path: Path) -> None:
    for stage, left in ((8, True), (9, False)):
        run = run_of(tmp_path / str(stage), tiny_config(), stage)
        assert (json.loads(call("eval", run, "--json").stdout)["cot_match"] is not None) == left
        assert ("CoT match" in call("eval", run).stdout) == left


def test_the_card_says_where_it_comes_from(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", tiny_config(title="A tiny one"), 5)
    export.export(str(run), tmp_path / "plain", id=None, out=tmp_path)
    card = (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: unknown\n")
    for part in (
        "# A tiny one",
        "- Task: 2×2 multiplication",
        "- Stage: 5 of 9 CoT tokens removed (stage 5; step 7, branch 1, checkpoint b1-s000007-stage",
        "Nothing: it answers as it was trained.",
        ", which stands for ",
    ):
        assert part in card


def test_a_checkpoint_of_the_official_code_becomes_a_plain_folder(tmp_path: Path) -> None:
    base = small_pretrained.gpt2(tmp_path / "base")
    foreign = official_checkpoint(base, tmp_path / "trained", positions=100)
    result = call("export", foreign, tmp_path / "plain", "--base", base, "--preset", "mult2x2")
    assert result.exit_code == 0, result.stderr
    answers = ours(tmp_path / "plain", 6, room=50)  # the task is known from stepwise.toml
    assert theirs(tmp_path / "plain", answers) == answers
    assert "- Stage: not known" in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")
    assert call("export", foreign, tmp_path / "without", "--base", base).exit_code == 0
    assert not (tmp_path / "without" / CONFIG_FILE).exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", tiny_config(), 0)
    to = tmp_path / "full"
    to.mkdir()
    (to / "mine.txt").write_text("mine")
    result = call("export", run, to)
    assert result.exit_code == 2 and "is not empty" in result.stderr
    assert [file.name for file in to.iterdir()] == ["mine.txt"]
    assert "is a file" in one_line(call("export", run, to / "mine.txt").stderr)
    (to / "mine.txt").unlink()
    assert call("export", run, to).exit_code == 0 and (to / "README.md").exists()


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    run = run_of(tmp_path / "run", tiny_config(), 0)
    monkeypatch.setattr("trainer.exporting.card.text", full)
    before = sorted(tmp_path.iterdir())
    result = call("export", run, tmp_path / "plain")
    assert result.exit_code == 1 and "No space left" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", ["{", "{}", '{"checkpoint": "x"}', "[]"])
def test_a_damaged_origin_is_told(tmp_path: Path, content: str) -> None:
    run = run_of(tmp_path / "run", tiny_config(), 5)
    export.export(str(run), tmp_path / "plain", id=None, out=tmp_path)
    (tmp_path / "plain" / ORIGIN_FILE).write_text(content)
    result = call("chat", tmp_path / "plain", text="")
    assert result.exit_code == 2 and "stepwise.json cannot be read" in " ".join(result.stderr.split())


# The numbers of a journal -----------------------------------------------------------------------------------


def journal_of(folder: Path) -> Path:
    """A run of 30 steps, rolled back to step 10, and 10 steps of its second branch."""
    run = run_of(folder, tiny_config(), 5)
    loss: dict[str, Any] = {"loss_answer": 1.0, "loss_cot": None, "grad_norm": 1.0, "lr": 1e-3, "steps": 10}
    rate: dict[str, Any] = {"steps_per_second": 9.0, "tokens_per_second": 9.0, "epoch": 0.1}

    def at(step: int, branch: int = 1) -> At:
        return At(step=step, branch=branch, stage=1, scheduled=1, removed=1, time=1000.0 + step)

    score: dict[str, Any] = {"token_accuracy": 0.5, "correct": 5, "n": 10, "cot_tokens": 3.0, "seconds": 0.1}
    events = [
        Metrics(at=at(10), loss=float("nan"), **loss, **rate),
        Metrics(at=at(20), loss=2.0, **loss, **rate),
        Evaluated(at=at(20), split="valid", accuracy=0.5, **score, cot_match=0.25, generated_tokens=9.0),
        Metrics(at=at(30), loss=9.0, **loss, **rate),
        RolledBack(at=at(10, 2), checkpoint="x", parent=1, from_branch=1, from_step=30),
        Metrics(at=at(20, 2), loss=1.5, **loss, **rate),
    ]
    (run / "journal.jsonl").write_text("".join(encode(event) + "\n" for event in events), encoding="utf-8")
    return run


def test_the_journal_as_csv(tmp_path: Path) -> None:
    run = journal_of(tmp_path / "run")
    assert call("export", run, tmp_path / "plain", "--metrics", "csv").exit_code == 0
    with (tmp_path / "plain" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["event"], r["step"], r["branch"], r["live"], r["loss"]) for r in rows] == [
        ("metrics", "10", "1", "1", "nan"),
        ("metrics", "20", "1", "0", "2.0"),
        ("evaluated", "20", "1", "0", ""),
        ("metrics", "30", "1", "0", "9.0"),
        ("metrics", "20", "2", "1", "1.5"),
    ]
    assert (rows[2]["accuracy"], rows[2]["cot_match"], rows[2]["split"]) == ("0.5", "0.25", "valid")
    assert rows[0]["loss_cot"] == ""


def test_tensorboard_files_or_how_to_get_them(tmp_path: Path) -> None:
    run = journal_of(tmp_path / "run")
    result = call("export", run, tmp_path / "plain", "--metrics", "tensorboard")
    if importlib.util.find_spec("tensorboard") is None:
        assert result.exit_code == 1 and "pip install tensorboard" in result.stderr
        assert not (tmp_path / "plain").exists()
    else:
        folders = sorted(path.name for path in (tmp_path / "plain" / "tensorboard").iterdir())
        assert folders == ["branch-1", "branch-2"]


def test_only_runs_have_numbers(tmp_path: Path) -> None:
    base = small_pretrained.gpt2(tmp_path / "base")
    result = call("export", base, tmp_path / "plain", "--metrics", "csv")
    assert result.exit_code == 2 and "has no journal" in " ".join(result.stderr.split())
    run = journal_of(tmp_path / "run")
    (saved,) = (run / checkpoint.FOLDER).glob("b1-*")
    assert call("export", saved, tmp_path / "plain", "--metrics", "csv").exit_code == 0
