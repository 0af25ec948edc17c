"""The README's code runs and does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.tiny import tiny_config
from trainer import runs
from trainer.data.layout import encode_lines, parse_line
from trainer.parts import Parts, assemble

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINE = "2 1 * 4 3||8 4 0 + 0 6 3 0 #### 8 0 4 0"


def block(word: str) -> str:
    """The Python block of the README that holds `word`."""
    (found,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in code)
    return str(found)


def one_that_knows_408() -> Parts:
    """A tiny model that has seen nothing but 12 × 34, with no CoT."""
    torch.manual_seed(0)
    parts = assemble(tiny_config(method__name="no_cot", model__width=32, model__dropout=0.0))
    batch = parts.method.rows(encode_lines([parse_line(LINE)], parts.tokenizer), 0, None)
    optimizer = torch.optim.AdamW(parts.model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        parts.method.loss(parts.model, batch).mean.backward()
        optimizer.step()
    return parts


def test_the_ten_lines_load_a_checkpoint_and_multiply(tmp_path: Path) -> None:
    parts = one_that_knows_408()
    parts.model.save_pretrained(tmp_path)
    parts.tokenizer.save_pretrained(tmp_path)
    program = tmp_path / "ten_lines.py"
    program.write_text(block("AutoModelForCausalLM"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "12 × 34 = 408\n", done.stderr


def test_the_model_has_no_stop_token_since_a_row_has_two_ends(tmp_path: Path) -> None:
    """What the ten lines rely on: generation goes on over the CoT's EOS, for a fixed number of tokens."""
    parts = one_that_knows_408()
    parts.model.save_pretrained(tmp_path)
    generation = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config
    assert generation.eos_token_id is None
    cot, answer, blank_and_eos = 8, 4, 2
    assert generation.max_new_tokens == cot + blank_and_eos + 1 + answer + blank_and_eos


def test_the_lines_from_python_train_ask_and_save(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block("from trainer import Run")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ChatAnswered" in done.stdout
    row = runs.row(tmp_path / "runs" / "mine")
    assert (row.state, row.step) == ("finished", 200)
