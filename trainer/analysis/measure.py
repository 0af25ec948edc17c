"""Accuracy and speed of a run's checkpoints, stage by stage: what `frontier` is made of. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.analysis.frontier import Candidate, Point, candidates
from trainer.answering.evaluate import evaluate
from trainer.answering.speed import ONE_BY_ONE, one_at_a_time
from trainer.asking import inspection
from trainer.events import CheckpointRemoved, CheckpointSaved, RolledBack, StageEntered
from trainer.record import journal
from trainer.saving import checkpoint
from trainer.saving.checkpoint import CheckpointError

TOLD = journal.of(CheckpointSaved, CheckpointRemoved, RolledBack, StageEntered)


class MeasureError(ValueError):
    """A run of which nothing can be measured; the message says why."""

    exit_code = 1


def measurable(run: Path) -> tuple[list[Candidate], list[str]]:
    """The candidates whose files are what was saved, and what is wrong with the others.

    Raises `MeasureError` when none is left.
    """
    good, problems = [], []
    for candidate in candidates(journal.read(run, TOLD)):
        try:
            checkpoint.verify(run / checkpoint.FOLDER / candidate.id)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            good.append(candidate)
    if not good:
        raise MeasureError("\n".join(problems) or f"{run}: no checkpoint of a trained stage is there yet")
    return good, problems


def measure(run: Path, chosen: Sequence[Candidate], limit: int | None) -> Iterator[Point]:
    """Accuracy and speed of the chosen checkpoints on the test split, one after the other, in one process.

    limit: at most so many examples, the first. The data and the method are put together once.
    """
    loaded = inspection.open_checkpoint(str(run), chosen[0].id, run.parent)
    parts = loaded.parts
    method, model = parts.method, parts.model
    examples = parts.splits["test"][:limit]
    for candidate in chosen:
        path = run / checkpoint.FOLDER / candidate.id
        checkpoint.put_weights(checkpoint.read_weights(path, model), model)
        # An entry was saved after the model had been made ready for a stage that it had not trained at.
        removed = method.removed(candidate.stage)
        method.enter(model, method.removed(checkpoint.load_state(path).scheduled), removed)
        with loaded.compute.answering(model):
            result = evaluate(method, model, examples, candidate.stage, parts.tokenizer)
            assert result is not None  # nobody interrupts it
            timing = one_at_a_time(method, model, examples[:ONE_BY_ONE], candidate.stage)
        yield Point(
            checkpoint=candidate.id,
            step=candidate.step,
            stage=candidate.stage,
            removed=removed,
            cot_tokens=result.cot_tokens,
            accuracy=result.accuracy,
            n=result.n,
            speed=timing.relative,
            seconds=1 / timing.per_second,
        )
