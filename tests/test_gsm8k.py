"""GSM8K from the hub: a stand-in for it that speaks its protocol, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from tests import hub
from trainer.config import build
from trainer.data import load_task
from trainer.data.files import DataError

ROOT = Path(__file__).parent.parent
ROWS = {
    "train": [
        {"question": f"{i} ?", "answer": f"It is <<{i}+1={i + 1}>>.\n#### {i + 1}"} for i in range(7_473)
    ],
    "test": [{"question": f"how {i}", "answer": f"#### {i}"} for i in range(1_319)],
}


PROGRAM = """
import json
from trainer.data import gsm8k
print(json.dumps({name: contents.lines for name, contents in gsm8k.fetch().items()}))
"""


def fetched(endpoint: str, cache: Path) -> dict[str, list[list[str]]]:
    """What a process of its own has of GSM8K, with that hub and that cache."""
    environment = {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": endpoint, "HF_HOME": str(cache)}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert process.stderr == ""  # nothing that would tear a screen
    splits: dict[str, list[list[str]]] = json.loads(process.stdout)
    return splits


def test_gsm8k_is_fetched_once_and_split_as_published(tmp_path: Path) -> None:
    with hub.serving("openai/gsm8k", ROWS) as endpoint:
        splits = fetched(endpoint, tmp_path / "cache")
    (tmp_path / "cache").rename(tmp_path / "copied")
    assert fetched(endpoint, tmp_path / "copied") == splits  # the hub answers no more
    assert {name: len(lines) for name, lines in splits.items()} == {
        "train": 6_973,
        "valid": 500,
        "test": 1_319,
    }
    # where the first published validation lines stand in the original file
    assert [line[0] for line in splits["valid"][:3]] == ["3169 ?", "797 ?", "5780 ?"]
    assert [line[0] for line in splits["train"][:11]] == [f"{i} ?" for i in (*range(9), 10, 11)]
    assert splits["valid"][0][1:] == ["<<3169+1=3170>>", "3170"]
    assert splits["test"][7] == ["how 7", "", "7"]


def test_a_hub_that_does_not_answer_is_one_sentence_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    task = load_task(build({"data": {"task": "gsm8k"}}))
    with pytest.raises(
        DataError,
        match=r"fetched from the Hugging Face hub .*data\.train_file=PATH.* or the cache .*HF_HOME=",
    ) as caught:
        task.tokenizer()
    assert "\n" not in str(caught.value)
    assert not constants.HF_HUB_OFFLINE
