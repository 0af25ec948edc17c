"""Tasks: one file each, and the table that finds them by `data.task`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from trainer.config import Config
from trainer.data import gsm8k, text
from trainer.data.multiplication import Multiplication
from trainer.data.prontoqa import ProntoQA
from trainer.data.prosqa import ProsQA
from trainer.data.task import NotUnderstood, Problem, Task
from trainer.data.text import TextTask

__all__ = ["NotUnderstood", "Problem", "Task", "load_task"]


def load_task(config: Config) -> Task:
    """The task a configuration names. Its files are read when its examples are first asked for."""
    data, own_words = config.data, config.model.vocab == "task"
    if data.task == "multiplication":
        return Multiplication(data.digits, data.digits_b, data.cot)
    given = partial(text.read_files, data)
    if data.task == "prosqa":
        return ProsQA(data.nodes, data.nouns, given, own_words=own_words)
    if data.task == "prontoqa":
        return ProntoQA(data.hops, given, own_words=own_words)
    if data.train_file is None:
        return TextTask("GSM8K", gsm8k.fetch, own_words=own_words)
    name = "GSM8K" if data.task == "gsm8k" else Path(data.train_file).name
    return TextTask(name, given, own_words=own_words)
