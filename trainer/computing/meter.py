"""Sums of what happened since the last metrics event, kept on the device and read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.methods.base import Losses


class Reading(NamedTuple):
    """Means over the window; losses in nats per token. loss_cot: None when no CoT label was left.

    before_skipped: steps before the first that was skipped, None when none was.
    """

    loss: float
    loss_answer: float
    loss_cot: float | None
    grad_norm: float
    steps: int
    skipped: int
    before_skipped: int | None
    left_out: int
    tokens_per_second: float
    steps_per_second: float


class Meter:
    """Add each step, read every so often. Only what reads waits for the device.

    left_out: batches, or parts of one, that were too long to train on; it counts on until it is read.
    seconds: spent on all.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self.clear()

    def clear(self) -> None:
        self._sums: Tensor | None = None
        self.steps = 0
        self._tokens = 0
        self.seconds = 0.0

    def state(self) -> list[float]:
        """What was added since the last `clear`, to go on with after a restart; seconds are not kept."""
        sums = self._read_sums()
        return [*sums, self.steps, self._tokens, self.left_out]

    def load(self, state: Sequence[float]) -> None:
        """Go on from a `state`."""
        self.clear()
        *sums, steps, tokens, left_out = state
        self.steps, self._tokens, self.left_out = int(steps), int(tokens), int(left_out)
        self._sums = torch.tensor(sums) if steps else None

    def add(self, losses: Losses, grad_norm: Tensor, finite: Tensor, tokens: int) -> None:
        """Count one step; one that was skipped (`finite` is 0) counts as skipped only."""
        unbroken = torch.ones_like(grad_norm) if self._sums is None else (self._sums[-1] == self.steps)
        values = torch.stack(
            [
                losses.answer_sum,
                losses.answer_count,
                losses.cot_sum,
                losses.cot_count,
                grad_norm.detach(),
                torch.ones_like(grad_norm),
                unbroken.to(grad_norm),
            ]
        ).float()
        values = torch.where(finite, values, torch.zeros_like(values))
        self._sums = values if self._sums is None else self._sums.to(values.device) + values
        self.steps += 1
        self._tokens += tokens

    def _read_sums(self) -> list[float]:
        return [0.0] * 7 if self._sums is None else self._sums.tolist()

    def before_skipped(self) -> int | None:
        """Steps of the window before the first that was skipped, None when none was. Waits for the device."""
        unbroken = round(self._read_sums()[-1])
        return None if unbroken == self.steps else unbroken

    def read(self) -> Reading:
        """The means since the last `clear`. Where every step was skipped or left out they are NaN."""
        answer, answers, cot, cots, norm, good, _ = self._read_sums()
        left_out, self.left_out = self.left_out, 0
        nan = float("nan")
        return Reading(
            loss=(answer + cot) / (answers + cots) if good else nan,
            loss_answer=answer / answers if good else nan,
            loss_cot=cot / cots if cots else None,
            grad_norm=norm / good if good else nan,
            steps=self.steps,
            skipped=self.steps - round(good),
            before_skipped=self.before_skipped(),
            left_out=left_out,
            tokens_per_second=self._tokens / self.seconds if self.seconds else 0.0,
            steps_per_second=self.steps / self.seconds if self.seconds else 0.0,
        )
