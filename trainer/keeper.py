"""Which checkpoints a run has: when the next is due, saving it, and letting old ones go."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from trainer import checkpoint
from trainer.checkpoint import TrainState
from trainer.config import SaveConfig
from trainer.events import At, CheckpointRemoved, CheckpointSaved, Event
from trainer.lineage import Fork, Lineage, surplus
from trainer.methods.base import Model

COSTS_BETWEEN_SAVES = 30
"""Timed saves are at least this many times as far apart as a save takes."""


class Keeper:
    """The owner of a run's lineage and of its checkpoint folder."""

    def __init__(self, folder: Path, lineage: Lineage) -> None:
        self.folder = folder
        self.lineage = lineage
        self._last = time.monotonic()
        self._cost = 0.0

    def due(self, config: SaveConfig) -> bool:
        """Whether the longest time between two checkpoints has passed."""
        interval = max(60 * config.minutes, COSTS_BETWEEN_SAVES * self._cost)
        return time.monotonic() - self._last >= interval

    def save(
        self,
        state: TrainState,
        at: At,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        optimizer: torch.optim.Optimizer,
        config: SaveConfig,
    ) -> tuple[str, list[Event]]:
        """Write a checkpoint, then apply retention: its id, and what there is to tell.

        Raises OSError when the disk does not take it; every older checkpoint is then still there.
        """
        started = time.monotonic()
        id, size = checkpoint.save(self.folder, state, model, tokenizer, optimizer)
        self._last = time.monotonic()
        self._cost = self._last - started
        if any(c.id == id for c in self.lineage.checkpoints):
            return id, []
        saved = CheckpointSaved(at=at, checkpoint=id, cause=state.cause, seconds=self._cost, bytes=size)
        everything = (*self.lineage.checkpoints, state.ref(id))
        gone = surplus(
            Lineage(everything, self.lineage.forks),
            state.branch,
            keep=config.keep,
            stages=config.stages,
            every_stage=config.every_stage,
        )
        checkpoint.remove(self.folder, gone)
        self.lineage = Lineage(tuple(c for c in everything if c.id not in gone), self.lineage.forks)
        return id, [saved, *(CheckpointRemoved(at=at, checkpoint=g) for g in gone)]

    def fork(self, branch: int, fork: Fork) -> None:
        """Open a branch."""
        self.lineage = Lineage(self.lineage.checkpoints, {**self.lineage.forks, branch: fork})

    def last(self) -> str:
        """Id of the newest checkpoint, "" when there is none."""
        return self.lineage.checkpoints[-1].id if self.lineage.checkpoints else ""
