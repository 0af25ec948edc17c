"""The benchmarks that take long say at once what they cannot do, and in their exit status what went wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cockpit_cost, evaluation, gpu, hangups, kills, stages, throughput
from benchmarks.speed import subjects
from benchmarks.speed.cells import Cell


def call(program: Any, *arguments: str) -> int:
    """What main() of a benchmark ends with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["benchmark", *arguments])
        status: int = program.main()
    return status


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        (throughput, ["--rounds", "0"], "--rounds: '0': a whole number ≥ 1 is allowed"),
        (throughput, ["--steps", "-1"], "--steps: '-1': a whole number"),
        (throughput, ["--set", "[1]"], "--set: '[1]': JSON like"),
        (throughput, ["--sides", "official"], "left out: official, which needs --official and --tokenizer"),
        (throughput, ["--vocab", "full"], "left out: full, which needs --tokenizer"),
        (throughput, ["--tasks", "gsm8k"], "nothing is left to measure"),
        (gpu, [], "required: --tokenizer"),
        (evaluation, ["--official", ".", "--tokenizer", ".", "--model", "huge"], "choice: 'huge'"),
        (stages, ["--preset", "nope"], "nope"),
        (stages, ["--set", "foo"], "--set foo: KEY=VALUE is expected"),
        (stages, ["--commands", "0"], "--commands: '0': a whole number"),
        (stages, ["--json", "/dev/null/stages.json"], "/dev/null: "),
        (kills, ["--json", "/dev/null/kills.json"], "/dev/null: "),
        (hangups, ["--json", "/dev/null/hangups.json"], "/dev/null: "),
        (hangups, ["--rounds", "0"], "--rounds: '0': a whole number"),
        (cockpit_cost, ["--keys", "0"], "--keys: '0': a whole number"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence_at_once(
    program: Any, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(program, *arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call(throughput, "--device", "cuda")
    assert "torch finds no GPU here" in capsys.readouterr().err


def test_a_side_that_failed_is_told_by_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(throughput, "peak", lambda *_: 1e12)
    wrong = '{"optim": {"lr": -1}}'
    arguments = ["--rounds", "1", "--steps", "1", "--sides", "ours", "--vocab", "task", "--set", wrong]
    assert call(throughput, *arguments) == 1
    assert "failed: trainer.config.ConfigError: optim.lr = -1" in capsys.readouterr().out


def test_a_side_that_failed_in_one_round_is_told_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {
        "seconds": [1.0], "memory": 1, "tokens": 1, "width": 64, "labels": 1, "symbols": 20, "note": "",
    }  # fmt: skip
    rounds = iter([good, {"error": "killed"}, good])
    monkeypatch.setattr(throughput, "peak", lambda *_: 1e12)
    monkeypatch.setattr(throughput, "timed", lambda *_: next(rounds))
    arguments = ["--sides", "official", "ours", "official", "--vocab", "task"]
    assert call(throughput, *arguments) == 1
    assert "1,000.0 (1,000.0–1,000.0); failed rounds: 1" in capsys.readouterr().out


def test_gsm8k_without_its_file_says_what_it_needs() -> None:
    cell = asdict(Cell("tiny", "gsm8k", "0", "full"))
    with pytest.raises(ValueError, match="gsm8k needs --gsm8k FILE"):
        call(subjects, json.dumps({"cell": cell, "steps": 1, "gsm8k": ""}))


def test_a_side_of_the_evaluation_that_failed_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(evaluation, "make_model", lambda *_: tmp_path)
    monkeypatch.setattr(evaluation, "teach", lambda _: None)
    monkeypatch.setattr(evaluation, "SIDES", ("single",))
    with pytest.raises(SystemExit, match=r"No module named 'train'\s+single: failed with 1"):
        call(evaluation, "--official", "/nonexistent", "--tokenizer", ".")
