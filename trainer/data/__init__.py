"""Tasks: one file each, and the table that finds them by `data.task`."""

from __future__ import annotations

from trainer.config import Config
from trainer.data.multiplication import Multiplication
from trainer.data.task import NotUnderstood, Problem, Task

__all__ = ["NotUnderstood", "Problem", "Task", "load_task"]


def load_task(config: Config) -> Task:
    """The task a configuration names."""
    return Multiplication(config.data.digits, config.data.digits_b, config.data.cot)
