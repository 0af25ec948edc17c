"""Looking into checkpoints without a run: open one, measure it, ask it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path

from trainer import checkpoint, presets, runs
from trainer.chat import answer_question
from trainer.checkpoint import CheckpointError
from trainer.data.layout import Line, encode_lines, parse_line
from trainer.evaluate import evaluate
from trainer.events import At, ChatAnswered, Split
from trainer.methods.base import Examples
from trainer.parts import Parts, assemble
from trainer.speed import one_at_a_time

ONE_BY_ONE = 20
"""Examples that the speed at batch 1 is measured on."""
SHOWN_PROBLEMS = 5


class InspectionError(ValueError):
    """A request that cannot be met; the message says what is allowed."""


class DamagedError(ValueError):
    """A checkpoint whose files are not what was saved; the message names the others of its run."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory, in evaluation mode, with the task and method of its run."""

    id: str
    at: At
    parts: Parts


@dataclass(frozen=True, slots=True)
class Report:
    """What `stepwise eval` measures; its fields are the keys of `--json`.

    Greedy decoding, exact match. cot_tokens, generated_tokens: written, mean per example. cot_match: share
    of examples whose CoT is exactly what is left of the true one. examples_per_second: batched;
    examples_per_second_batch1: one at a time, on the first few. speed: the latter relative to a no-CoT
    model of the same size (`speed.one_at_a_time`). split: None with `--data`.
    """

    accuracy: float
    token_accuracy: float
    examples_per_second: float
    examples_per_second_batch1: float
    speed: float
    cot_tokens: float
    cot_match: float
    generated_tokens: float
    n: int
    split: Split | None
    checkpoint: str
    stage: int


def open_checkpoint(run_or_folder: str, id: str | None, out: Path) -> Loaded:
    """Open a run's checkpoint (the last, if `id` is None), or the checkpoint whose folder is named.

    Raises `RunsError` when there is no such run, `InspectionError` when it has no such checkpoint,
    `DamagedError` when the files are not what was saved, and what `parts.assemble` raises.
    """
    path = _find(run_or_folder, id, out)
    run = path.parent.parent
    try:
        checkpoint.verify(path)
        state = checkpoint.load_state(path)
    except CheckpointError as error:
        raise DamagedError(f"{error}. {_others(run, path.name)}") from None
    # Whatever it was trained on, it is looked at on what this machine has.
    config = presets.configure(run / runs.CONFIG_FILE, device="auto")
    parts = assemble(config, checkpoint.model_folder(path))
    parts.model.eval()
    at = At(
        step=state.step,
        branch=state.branch,
        stage=state.stage,
        scheduled=state.scheduled,
        removed=parts.method.removed(state.scheduled),
    )
    return Loaded(path.name, at, parts)


def evaluate_checkpoint(
    loaded: Loaded,
    *,
    data: Path | None = None,
    split: Split = "test",
    limit: int | None = None,
    explicit: bool = False,
) -> Report:
    """Measure on a split of the run, or on the lines of a file.

    limit: at most so many examples, the first. explicit: with all of the CoT, of a model that answers both
    ways. Raises `InspectionError` for a file that cannot be read or has bad lines, and for a model that
    answers one way only.
    """
    parts, scheduled = loaded.parts, loaded.at.scheduled
    if explicit and not parts.method.answers_both_ways:
        raise InspectionError(
            "--explicit: this model answers one way only; method.explicit_share trains one that answers both"
        )
    examples = parts.splits[split] if data is None else read_examples(data, parts)
    if limit is not None:
        examples = examples[:limit]
    result = evaluate(parts.method, parts.model, examples, scheduled, parts.tokenizer, explicit=explicit)
    assert result is not None  # nobody interrupts it
    timing = one_at_a_time(parts.method, parts.model, examples[:ONE_BY_ONE], scheduled, explicit=explicit)
    return Report(
        accuracy=result.accuracy,
        token_accuracy=result.token_accuracy,
        examples_per_second=result.n / result.seconds,
        examples_per_second_batch1=timing.per_second,
        speed=timing.relative,
        cot_tokens=result.cot_tokens,
        cot_match=result.cot_match,
        generated_tokens=result.generated_tokens,
        n=result.n,
        split=split if data is None else None,
        checkpoint=loaded.id,
        stage=loaded.at.stage,
    )


def relative_speed(loaded: Loaded, examples: Examples) -> float:
    """Throughput at batch 1 relative to a no-CoT model of the same size, on the first few examples.

    How it is measured: `speed.one_at_a_time`.
    """
    parts = loaded.parts
    return one_at_a_time(parts.method, parts.model, examples[:ONE_BY_ONE], loaded.at.scheduled).relative


def ask(loaded: Loaded, text: str) -> ChatAnswered:
    """One question as a person types it, answered by the checkpoint."""
    turn = answer_question(loaded.parts, loaded.at.scheduled, text, id="", at=loaded.at)
    return replace(turn, checkpoint=loaded.id)


def read_examples(file: Path, parts: Parts) -> Examples:
    """The lines `question||CoT #### answer` of a file, tokenised. Empty lines are left out.

    Raises `InspectionError` with the bad lines, their numbers and what is wrong with them.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InspectionError(f"{file}: is not text in UTF-8") from None
    except OSError as error:
        raise InspectionError(f"{file}: cannot be read: {error.strerror}") from None
    lines: list[Line] = []
    problems: list[str] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        if not raw.strip():
            continue
        try:
            line = parse_line(raw)
            _check_length(encode_lines([line], parts.tokenizer), parts)
        except ValueError as error:
            problems.append(f"{file}, line {number}: {error}")
        else:
            lines.append(line)
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        tail = [f"and {more} more bad lines"] if more > 0 else []
        raise InspectionError("\n".join(problems[:SHOWN_PROBLEMS] + tail))
    if not lines:
        raise InspectionError(f"{file}: has no examples; one question||CoT #### answer per line is expected")
    return encode_lines(lines, parts.tokenizer).to(parts.device)


def _check_length(examples: Examples, parts: Parts) -> None:
    longest, positions = int(examples.length_N.max()), parts.model.config.max_position_embeddings
    if longest > positions:
        raise InspectionError(f"{longest} tokens are more than the {positions} positions this model has")


def _find(run_or_folder: str, id: str | None, out: Path) -> Path:
    folder = Path(run_or_folder).expanduser()
    if id is None and folder.resolve().parent.name == checkpoint.FOLDER:
        path = folder.resolve()
        if not runs.is_run(path.parent.parent):
            raise InspectionError(f"{folder}: the {runs.CONFIG_FILE} of its run is missing, two folders up")
        return path
    run = runs.find(run_or_folder, out)
    ids = [ref.id for ref in checkpoint.list_checkpoints(run)]
    if not ids:
        raise InspectionError(f"{run} has no checkpoint yet")
    if id is None:
        return run / checkpoint.FOLDER / ids[-1]
    if id not in ids:
        near = difflib.get_close_matches(id, ids, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InspectionError(f"{run.name} has no checkpoint {id!r}; {hint}it has {', '.join(ids)}")
    return run / checkpoint.FOLDER / id


def _others(run: Path, id: str) -> str:
    others = [ref.id for ref in checkpoint.list_checkpoints(run) if ref.id != id]
    return f"The others are {', '.join(others)}" if others else "There is no other"
