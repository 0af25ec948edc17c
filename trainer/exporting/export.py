"""A model as a plain Hugging Face folder, whose `generate` answers as ours does, with a card that says how.

    config.json, model.safetensors, generation_config.json, the tokenizer's files    transformers loads these
    stepwise.toml, stepwise.json    where it comes from (`origin`), for `stepwise chat` and `stepwise eval`
    README.md                       a model card

Kept positions, where the model has a position table and all questions are of one length, are put into the
table; what else a method does that weights do not hold is said in the card (`card.caveats`).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from trainer import runs
from trainer.analysis import metrics
from trainer.asking.inspection import InspectionError, Loaded, open_checkpoint
from trainer.exporting import card
from trainer.files import share
from trainer.methods.base import Model
from trainer.methods.coconut import Coconut
from trainer.models import origin
from trainer.models.model import set_positions, set_tokens
from trainer.models.origin import Origin

MetricsKind = Literal["csv", "tensorboard"]


def export(
    run_or_folder: str,
    to: Path,
    *,
    id: str | None,
    out: Path,
    base: str | None = None,
    preset: str | None = None,
    numbers: MetricsKind | None = None,
) -> list[str]:
    """Write the model that `inspection.open_checkpoint` opens to the folder `to`, new or empty.

    numbers: also those of the run's journal, in that form. Returns what whoever asks the model must know
    beyond plain `generate`, one sentence each. Raises `InspectionError`, what `open_checkpoint` raises, and
    OSError; nothing half-written stays.
    """
    to = to.expanduser().resolve()
    if to.is_dir() and any(to.iterdir()):
        raise InspectionError(f"{to} is not empty; a new or an empty folder is wanted")
    if to.exists() and not to.is_dir():
        raise InspectionError(f"{to} is a file; a new or an empty folder is wanted")
    run = None
    if numbers is not None:
        run = _run_of(run_or_folder, out, numbers)
    if numbers == "tensorboard":
        metrics.writer_of_tensorboard()
    loaded = open_checkpoint(run_or_folder, id, out, base=base, preset=preset, without_data=True)
    temporary = to.parent / f".{to.name}.{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        caveats = write(loaded, temporary)
        if run is not None:
            found = metrics.rows(run)
            (metrics.write_csv if numbers == "csv" else metrics.write_tensorboard)(found, temporary)
        share(temporary)
        if to.is_dir():
            to.rmdir()
        temporary.rename(to)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return caveats


def write(loaded: Loaded, folder: Path) -> list[str]:
    """Write the model, its card and its origin into an empty folder; the caveats. Changes the model."""
    parts = loaded.parts
    question = _question_length(loaded)
    if _positions_fit_into_table(loaded):
        assert loaded.config is not None and question is not None
        put_positions_into_table(parts.model, question, loaded.at.removed)
        method = loaded.config.method.model_copy(update={"keep_positions": False})
        loaded = replace(loaded, config=loaded.config.model_copy(update={"method": method}))
    known = _origin(loaded) if loaded.staged else None
    set_tokens(parts.model, parts.tokenizer)
    _limit_new_tokens(loaded, known)
    parts.model.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    if loaded.config is not None:
        origin.write(folder, loaded.config, known)
    caveats = card.caveats(loaded.config, known, parts.tokenizer)
    (folder / "README.md").write_text(card.text(loaded, known, caveats), encoding="utf-8")
    return caveats


def put_positions_into_table(model: Model, question: int, removed: int) -> None:
    """Let position ids 0, 1, 2 … mean what kept positions mean after `removed` removals on the left.

    From the question's EOS on, at place `question` − 1, ids are higher by `removed` (paper, keep position).
    The rows of the table that are jumped over are taken out, so that the table ends where it ended.
    """
    table = model.base_model.wpe.weight.detach()
    set_positions(model, torch.cat([table[: question - 1], table[question - 1 + removed :]]))


def _positions_fit_into_table(loaded: Loaded) -> bool:
    """Whether the table can hold the kept positions: on the left, for questions of one length."""
    config, parts = loaded.config, loaded.parts
    return (
        config is not None
        and config.method.keep_positions
        and loaded.at.removed > 0
        and config.method.side == "left"
        and not parts.method.answers_both_ways  # the other way of answering keeps other positions
        and hasattr(parts.model.base_model, "wpe")
        and _question_length(loaded) is not None
    )


def _question_length(loaded: Loaded) -> int | None:
    """Tokens of every question with its EOS; None where they differ, or nobody knows."""
    lengths = {int(n) for split in loaded.parts.splits.values() for n in split.question_N.unique()}
    return lengths.pop() if len(lengths) == 1 else None


def _limit_new_tokens(loaded: Loaded, known: Origin | None) -> None:
    """Plain `generate` writes as many tokens as we do, and must not leave the positions."""
    parts = loaded.parts
    positions: int = parts.model.config.max_position_embeddings
    generation = parts.model.generation_config
    if known is None:
        # Nobody knows how long questions are: half of the positions are left to them.
        generation.max_new_tokens = min(parts.room, positions // 2)
        return
    assert loaded.config is not None
    fillers = known.removed if loaded.config.method.fillers else 0
    thoughts = parts.method.thoughts(known.scheduled) + 2 if isinstance(parts.method, Coconut) else 0
    asked = known.longest_question + fillers + thoughts + parts.method.answers_both_ways
    if asked + known.room <= positions:
        generation.max_new_tokens = known.room
    else:
        generation.max_length = positions


def _run_of(run_or_folder: str, out: Path, numbers: MetricsKind) -> Path:
    """The run whose journal is meant: that of a run, or of a checkpoint's folder."""
    folder = Path(run_or_folder).expanduser().resolve()
    if runs.is_run(folder.parent.parent):
        return folder.parent.parent
    if folder.is_dir() and not runs.is_run(folder):
        raise InspectionError(f"--metrics {numbers}: {run_or_folder} has no journal; runs have")
    return runs.find(run_or_folder, out)


def _origin(loaded: Loaded) -> Origin:
    if loaded.origin is not None:
        return loaded.origin
    return origin.of(loaded.id, loaded.at, loaded.parts.longest)
