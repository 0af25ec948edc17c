"""The main job for real: `mult2x2` from the command line to the end, and its checkpoint in other hands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer import config as configuration
from trainer.data import load_task
from trainer.data.multiplication import Multiplication
from trainer.events import AlarmRaised, Evaluated, RunFinished, StageEntered
from trainer.record import journal


def stepwise(*arguments: str, cwd: Path) -> str:
    """The command line in a process of its own; what it printed."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    }
    command = [sys.executable, "-m", "stepwise_tui", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_chain_of_thought_is_internalised_and_the_checkpoint_proves_it_anywhere(tmp_path: Path) -> None:
    lines = stepwise("run", "preset", "mult2x2", "--plain", "--name", "run", cwd=tmp_path).splitlines()
    folder = tmp_path / "runs" / "run"
    events = list(journal.read(folder))

    assert [e.at.stage for e in events if isinstance(e, StageEntered)] == list(range(10))
    assert not any(isinstance(e, AlarmRaised) for e in events)
    valid = [e for e in events if isinstance(e, Evaluated) and e.split == "valid"]
    assert max(e.accuracy for e in valid if e.at.stage == 0) >= 0.9  # explicit CoT was learnt
    assert min(e.accuracy for e in valid if 0 < e.at.stage < 9) < 0.5  # the dip
    (end,) = [e for e in events if isinstance(e, RunFinished)]
    assert end.accuracy is not None
    assert end.accuracy >= 0.95  # the recovery, with no CoT left, on problems never seen in either order
    assert "test accuracy" in next(line for line in lines if "finished:" in line)

    report = json.loads(stepwise("eval", "run", "--json", cwd=tmp_path))
    assert (report["accuracy"], report["n"], report["stage"]) == (end.accuracy, end.n, 9)
    assert report["cot_tokens"] == 0
    assert stepwise_accuracy_by_plain_transformers(folder, end.checkpoint) == end.accuracy


def stepwise_accuracy_by_plain_transformers(folder: Path, id: str) -> float:
    """Exact match on the test split by `generate` alone; only the questions come from us."""
    config = configuration.build(configuration.load(folder / "config.toml"))
    task = load_task(config)
    assert isinstance(task, Multiplication)
    sizes = {"valid": config.data.valid, "test": config.data.test}
    test = task.splits(sizes, config.seed, task.tokenizer())["test"]
    lines = [task.example_text(test, i, task.tokenizer()) for i in range(len(test))]

    path = folder / "checkpoints" / id / "model"
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    prompts = [f" {line.question} {tokenizer.eos_token}" for line in lines]
    with torch.no_grad():
        written = model.generate(**tokenizer(prompts, return_tensors="pt"))
    answers = [
        text.split("####")[1].split(tokenizer.eos_token)[0].strip()
        for text in tokenizer.batch_decode(written)
    ]
    return sum(answer == line.answer for answer, line in zip(answers, lines, strict=True)) / len(lines)
