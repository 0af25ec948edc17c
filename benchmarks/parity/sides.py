"""Both sides of a `Case`, run for real; each batch that goes into a model caught."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.parity.cases import BATCH, Case, Lines
from trainer import config as configuration
from trainer.config import Config
from trainer.events import Event, RunCrashed, StageEntered
from trainer.loop import Loop
from trainer.methods.base import Batch, Examples, Losses
from trainer.methods.stepwise import IGNORED, Stepwise
from trainer.run import Run
from trainer.seeds import Order

DRIVER = Path(__file__).with_name("official_driver.py")
LEARNING, STANDSTILL = 5e-5, 1e-30
"""Learning rates: the papers', and one that moves no weight in fp32, so that every batch sees the same ones.

A new AdamW's first update is nearly lr × the sign of the gradient, also where that is no more than rounding.
So far larger rates make two runs part that differ in the order of a sum alone.
"""
NEVER = 10**9
MOST_BATCHES = 1_000  # of a case


@dataclass
class Step:
    """A batch. ids_BT and labels_BT (−100: none) have one shape; positions None: they count from 0.

    loss: None where the batch was skipped. norm: of the gradient, before clipping, where weights were
    updated after this batch. scheduled: removals, told by ours only.
    """

    ids_BT: Tensor | None = None
    labels_BT: Tensor | None = None
    positions_BT: Tensor | None = None
    loss: float | None = None
    norm: float | None = None
    reset: bool = False
    scheduled: int = 0


def given_offsets(case: Case) -> list[list[int]]:
    """Random offsets for every batch of a case: mostly small, some that no CoT survives."""
    rng = random.Random(case.name)
    if case.smoothing == float("inf"):
        return [[0] * BATCH] * MOST_BATCHES
    return [
        [99 if rng.random() < 0.02 else int(rng.expovariate(0.5)) for _ in range(BATCH)]
        for _ in range(MOST_BATCHES)
    ]


# Ours ----------------------------------------------------------------------------------------------------


def run_ours(case: Case, lines: Lines, init: Path, folder: Path) -> tuple[list[Step], list[list[int]]]:
    """A real run: every batch, and which rows each step took."""
    events: list[Event] = []
    with caught(given_offsets(case)) as (steps, indices):
        run = Run(_config(case, lines, init), folder)
        run.start(on_event=events.append)
        run.wait()
        run.close()
    for event in events:
        if isinstance(event, RunCrashed):
            raise RuntimeError(f"{case.name}: our run crashed\n{event.traceback}")
        if isinstance(event, StageEntered) and event.optimizer_reset:
            steps[event.at.step * case.accumulate].reset = True
    return steps, indices


@contextmanager
def caught(offsets: Sequence[Sequence[int]]) -> Iterator[tuple[list[Step], list[list[int]]]]:
    """What the trainer does in this process, batch by batch, with these offsets."""
    steps: list[Step] = []
    indices: list[list[int]] = []
    made: list[Batch] = []
    train_step, order, rows, loss = Loop._train_step, Order.batch, Stepwise.rows, Stepwise.loss
    clip = torch.nn.utils.clip_grad_norm_
    training = False  # evaluations make batches, too

    def caught_train_step(self: Loop) -> None:
        nonlocal training
        training = True
        train_step(self)
        training = False

    def caught_order(self: Order, stream: int, step: int) -> Tensor:
        indices.append(order(self, stream, step).tolist())
        return torch.tensor(indices[-1])

    def caught_rows(
        self: Stepwise, examples: Examples, scheduled: int, *chance: Any, **options: Any
    ) -> Batch:
        if not training:
            return rows(self, examples, scheduled, *chance, **options)
        steps.append(Step(scheduled=scheduled))
        batch = rows(self, examples, scheduled, *chance, **options)
        labels_BT = torch.full_like(batch.input_ids_BT, IGNORED)
        labels_BT[:, batch.first + 1 :] = batch.labels_BL
        steps[-1].ids_BT, steps[-1].labels_BT = batch.input_ids_BT, labels_BT
        steps[-1].positions_BT = batch.position_ids_BT
        made.append(batch)
        return batch

    def caught_loss(self: Stepwise, model: Any, batch: Batch, labels: Tensor | None = None) -> Losses:
        losses = loss(self, model, batch, labels)
        if training:
            step = next(i for i, other in enumerate(made) if other is batch)
            steps[step].loss = losses.mean.item()
        return losses

    def caught_clip(parameters: Any, max_norm: float) -> Tensor:
        norm: Tensor = clip(parameters, max_norm)
        steps[-1].norm = norm.item()
        return norm

    def given(weights: Tensor, number: int, replacement: bool, *, generator: torch.Generator) -> Tensor:
        return torch.tensor(offsets[len(steps) - 1])

    with ExitStack() as stack:
        for target, name, new in (
            (Loop, "_train_step", caught_train_step),
            (Order, "batch", caught_order),
            (Stepwise, "rows", caught_rows),
            (Stepwise, "loss", caught_loss),
            (torch, "multinomial", given),
            (torch.nn.utils, "clip_grad_norm_", caught_clip),
        ):
            stack.enter_context(patch.object(target, name, new))
        yield steps, indices


def _config(case: Case, lines: Lines, init: Path) -> Config:
    document: dict[str, Any] = {
        "seed": 7,
        "device": "cpu",
        "data": {**lines.data, "max_len_train": case.max_len},
        "model": {"init": str(init), "vocab": "full", "dropout": 0.0},
        "method": {
            "side": case.side,
            "smoothing": case.smoothing,
            "keep_positions": case.keep_positions,
            "remove_all_beyond": case.beyond,
            "start_from": case.start_from,
            # On the right the official optimiser is reset once at most; see DIFFERENCES.
            "reset_optimizer": case.reset and case.side == "left",
        },
        "schedule": {"tokens_per_epoch": case.per_epoch, "pretrain_epochs": float(case.pretrain)},
        "compute": {"precision": "float32"},
        "optim": {
            "lr": LEARNING if case.trained else STANDSTILL,
            "batch": BATCH * case.accumulate,
            "accumulate": case.accumulate,
        },
        "eval": {"every": NEVER},
        "save": {"minutes": 1e6, "keep": 1, "stages": 1, "every_stage": NEVER},
        "watch": {"mode": "off"},
        "stop": {"epochs": float(case.epochs)},
    }
    return configuration.build(configuration.merge(document, case.ours))


# Theirs --------------------------------------------------------------------------------------------------


def make_job(case: Case, lines: Lines, init: Path, indices: list[list[int]]) -> dict[str, Any]:
    """The case as arguments of the official main(), with the order of rows that ours took."""
    batches = [batch[i : i + BATCH] for batch in indices for i in range(0, len(batch), BATCH)]
    offsets = given_offsets(case)[: len(batches)]
    per_epoch = len(batches) // case.epochs
    epochs = [batches[i : i + per_epoch] for i in range(0, len(batches), per_epoch)]
    if case.accumulate > 1:
        epochs[0] = [batches[0], *epochs[0]]
        offsets = [offsets[0], *offsets]
    options = {
        "model": init,
        "train_path": lines.path,
        "val_path": lines.path,
        "epochs": case.epochs,
        "lr": LEARNING if case.trained else STANDSTILL,
        "batch_size": BATCH,
        "accumulate": case.accumulate,
        "remove_per_epoch": case.per_epoch,
        "remove_all_when_remove_beyond": "inf" if case.beyond is None else case.beyond,
        "removal_smoothing_lambda": case.smoothing,
        "removal_side": case.side,
        "pretrain_epochs": case.pretrain,
        "max_len_train": -1 if case.max_len is None else case.max_len,
        "remove_start_from": case.start_from,
    }
    argv = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    argv += ["--reset_optimizer"] * case.reset + ["--keep_position"] * case.keep_positions
    return {"name": case.name, "argv": argv, "epochs": epochs, "offsets": offsets}


def run_theirs(python: str, official: Path, jobs: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """What the driver recorded of these jobs. Raises CalledProcessError when it fails."""
    given, recorded = folder / "jobs.json", folder / "recorded.pt"
    given.write_text(json.dumps(jobs))
    command = [python, DRIVER, "--official", official.resolve(), given, recorded]
    subprocess.run(list(map(str, command)), check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    result: dict[str, Any] = torch.load(recorded, weights_only=True)
    return result


def their_steps(case: Case, record: list[dict[str, Any]]) -> list[Step]:
    """Without the batch that was theirs alone."""
    steps = [
        Step(
            ids_BT=batch.get("input_ids"),
            labels_BT=batch.get("labels"),
            positions_BT=batch.get("position_ids"),
            loss=batch.get("loss"),
            norm=batch.get("norm"),
            reset=batch["reset"],
        )
        for batch in record
    ]
    return steps[1:] if case.accumulate > 1 else steps
