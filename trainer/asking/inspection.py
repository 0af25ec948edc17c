"""Looking into models without a run: open one, measure it, ask it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from trainer import methods, presets, runs
from trainer.answering.evaluate import evaluate
from trainer.answering.report import Report
from trainer.answering.speed import ONE_BY_ONE, one_at_a_time
from trainer.asking.chat import answer_question
from trainer.computing.compute import Compute
from trainer.config import Config, MethodConfig
from trainer.control import ONE_WAY, THOUGHTLESS, thoughtless
from trainer.data import NotUnderstood, Task, files, load_task, sources
from trainer.data.layout import Line, encode_lines, separator_id
from trainer.data.made import MadeTask
from trainer.data.text import SHOWN, is_few
from trainer.data.typed import Typed
from trainer.events import At, ChatAnswered, Longest, Split
from trainer.methods.base import Examples, Model
from trainer.models import official, origin
from trainer.models.model import resolve_device
from trainer.models.origin import Origin
from trainer.parts import Parts, assemble
from trainer.paths import named
from trainer.saving import checkpoint
from trainer.saving.checkpoint import CheckpointError

SHOWN_PROBLEMS = 5
FOREIGN_ROOM = 800
"""New tokens that a model of unknown training may write (official code's default)."""


class InspectionError(ValueError):
    """A request that cannot be met; the message says what is allowed."""


class DamagedError(ValueError):
    """A checkpoint whose files are not what was saved; the message names the others of its run."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory, in evaluation mode, with its task and method.

    id: of a run's checkpoint, else the folder. config: of its run, or the preset whose task it is
    given; None where it has neither, and questions are put as they are typed. origin: where it comes from,
    for an exported folder and where the run's data are not here; lacking: then why. staged: whether it is
    known how it was trained, so that `at` tells its stage. compute: how it was trained, which is how it is
    asked.
    """

    id: str
    at: At
    parts: Parts
    config: Config | None = None
    origin: Origin | None = None
    lacking: str = ""
    staged: bool = True
    compute: Compute = field(default_factory=Compute)


def open_checkpoint(
    run_or_folder: str,
    id: str | None,
    out: Path,
    *,
    base: str | None = None,
    preset: str | None = None,
    without_data: bool = False,
) -> Loaded:
    """Open a run's checkpoint (the last, if `id` is None), a checkpoint's folder, or a model without a run.

    A model without a run is a Hugging Face folder, one that `stepwise export` made, or a checkpoint of an
    official code, which takes architecture and tokenizer from `base`. preset: the task of such a model.
    without_data: also a checkpoint whose run's data cannot be read; it has no splits then.

    Raises `RunsError` when there is nothing of that name, `InspectionError` for what does not go together,
    `DamagedError` when a checkpoint is not what was saved, and what `official.load` and `parts.assemble`
    raise.
    """
    folder = Path(run_or_folder).expanduser()
    if not runs.is_run(folder) and (official.is_model(folder) or official.is_official(folder)):
        if id is not None:
            raise InspectionError(f"--checkpoint {id}: {folder} is one model and no run")
        return _open_folder(folder, base, preset)
    path = _find(run_or_folder, id, out)
    for option, value in (("--base", base), ("--preset", preset)):
        if value is not None:
            raise InspectionError(f"{option} {value}: {path} is a run's checkpoint, which knows its own")
    return _open_run(path, without_data)


def _open_run(path: Path, without_data: bool) -> Loaded:
    run = path.parent.parent
    try:
        checkpoint.verify(path)
        state = checkpoint.load_state(path)
    except CheckpointError as error:
        raise DamagedError(f"{error}. {_others(run, path.name)}") from None
    # Whatever it was trained on, it is looked at on what this machine has.
    config = presets.configure(run / runs.CONFIG_FILE, device="auto")
    model = checkpoint.model_folder(path)
    longest, lacking = None, ""
    try:
        parts = assemble(config, model, sources.of_run(run), training=False)
    except files.DataError as error:
        longest = sources.longest_of_run(run)
        if longest is None:
            way_out = f"without them its model still answers: stepwise chat {named(model)}"
            raise InspectionError(f"{error}; {way_out}") from None
        if not without_data:
            ways = f"stepwise eval {named(run)} --data FILE, or stepwise chat {named(run)}"
            raise InspectionError(f"{error}; what needs no data of its own: {ways}") from None
        plain, lacking = official.load_plain(str(model)), str(error)
        parts = _bare(*plain, config.method, _typed(config), longest)
    parts.model.eval()
    at = At(
        step=state.step,
        branch=state.branch,
        stage=state.stage,
        scheduled=state.scheduled,
        removed=parts.method.removed(state.scheduled),
    )
    known = origin.of(path.name, at, longest) if longest is not None else None
    return Loaded(path.name, at, parts, config, known, lacking, compute=state.compute)


def _open_folder(folder: Path, base: str | None, preset: str | None) -> Loaded:
    """A model without a run, and without its training data."""
    config, known = origin.read(folder)
    if config is not None and preset is not None:
        raise InspectionError(f"--preset {preset}: {folder} knows its task already ({origin.CONFIG_FILE})")
    if preset is not None:
        config = presets.resolve(preset)
    model, tokenizer = official.load(folder, base)
    # Multiplication understands what is typed; of text a task knows only the examples, which are not here.
    task: Task = Typed()
    if config is not None:
        task = load_task(config) if config.data.task == "multiplication" else _typed(config)
    method = MethodConfig(name="explicit_cot") if known is None or config is None else config.method
    longest = Longest(0, 0, 1, FOREIGN_ROOM)
    if known is not None:
        longest = Longest(known.longest_question, known.longest_cot, known.longest_steps, known.room)
    parts = _bare(model, tokenizer, method, task, longest)
    name = str(folder)
    if known is None:
        return Loaded(name, At(), parts, config, staged=False)
    at = At(known.step, known.branch, known.stage, known.scheduled, known.removed)
    return Loaded(name, at, parts, config, known)


def _typed(config: Config) -> Typed:
    """In the place of a task whose examples are not here."""
    return Typed(numbered=isinstance(load_task(config), MadeTask))


def _bare(
    model: Model, tokenizer: PreTrainedTokenizerBase, method: MethodConfig, task: Task, longest: Longest
) -> Parts:
    """What a model is asked with where its training data are not here."""
    device = resolve_device("auto")
    return Parts(
        device=device,
        task=task,
        tokenizer=tokenizer,
        splits={},
        model=model.to(device).eval(),
        method=methods.build(method, tokenizer, _stand_in(longest), separator_id(tokenizer)),
        room=longest.room,
    )


def _stand_in(longest: Longest) -> Examples:
    """One row in the place of training data that are not here: a method asks them for the longest CoT, in
    tokens and in steps."""
    cot, steps = longest.cot, longest.steps
    return Examples(
        torch.zeros(1, cot + 3, dtype=torch.int32),
        torch.tensor([1]),
        torch.tensor([cot]),
        torch.tensor([cot + 3]),
        torch.tensor([[*range(1, steps), cot]]),
    )


def evaluate_checkpoint(
    loaded: Loaded,
    *,
    data: Path | None = None,
    split: Split = "test",
    limit: int | None = None,
    explicit: bool = False,
    told: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure on a held-out split, or on the examples of a file.

    limit: at most so many examples, the first. explicit: with all of the CoT, of a model that answers both
    ways. told: gets what of the file is left out. Raises `InspectionError` for a file of bad lines, a model
    that answers one way only, and one without a task of its own where no file is given, and what reading the
    data raises.
    """
    parts, scheduled = loaded.parts, loaded.at.scheduled
    check_explicit(loaded, explicit)
    examples = held_out(loaded, split)[:limit] if data is None else read_examples(data, parts, limit, told)
    method, model = parts.method, parts.model
    with loaded.compute.answering(model):
        result = evaluate(method, model, examples, scheduled, parts.tokenizer, explicit=explicit)
        assert result is not None  # nobody interrupts it
        timing = one_at_a_time(method, model, examples[:ONE_BY_ONE], scheduled, explicit=explicit)
    return Report(
        accuracy=result.accuracy,
        token_accuracy=result.token_accuracy,
        cot_match=result.cot_match if loaded.staged else None,
        cot_tokens=result.cot_tokens,
        generated_tokens=result.generated_tokens,
        thoughts=result.thoughts or None,
        examples_per_second=result.n / result.seconds,
        examples_per_second_batch1=timing.per_second,
        speed=timing.relative,
        n=result.n,
        split=split if data is None else None,
        checkpoint=loaded.id,
        stage=loaded.at.stage if loaded.staged else None,
    )


def caveats(loaded: Loaded) -> list[str]:
    """What a person should know before believing what this model is measured or asked for."""
    changed = loaded.parts.changed
    found = [f"{changed}: what it has learnt may be among what is held out now"] if changed else []
    if loaded.lacking:
        found.append(f"{loaded.lacking}; without its data nobody knows what it has learnt, and what is right")
    if not loaded.staged and (caveat := official.caveat(loaded.parts.tokenizer)):
        found.append(caveat)
    return found


def check_explicit(loaded: Loaded, explicit: bool) -> None:
    """Raise `InspectionError` where all of the CoT is asked for of a model that answers one way only."""
    if explicit and not loaded.parts.method.answers_both_ways:
        raise InspectionError(f"--explicit: {ONE_WAY}")


def greeting(loaded: Loaded) -> str:
    """What is asked here, and how."""
    parts = loaded.parts
    what = f"a {parts.model.config.model_type} model, nobody knows how far its CoT is removed"
    if loaded.staged:
        what = parts.method.describe(loaded.at.stage)
    how = ""
    try:
        parts.task.understand("")
    except NotUnderstood as reason:
        how = str(reason).removeprefix("There was no question.").strip()
    return f"{loaded.id}, {what}. {how}"


def check_thoughts(loaded: Loaded, thoughts: int | None) -> None:
    """Raise `InspectionError` where a model without thoughts is told how many to think."""
    if thoughts is not None and not loaded.parts.method.thinks:
        why = loaded.config and thoughtless(loaded.config.method)
        raise InspectionError(f"--thoughts: {why or THOUGHTLESS}")


def ask(loaded: Loaded, text: str, *, explicit: bool = False, thoughts: int | None = None) -> ChatAnswered:
    """One question as a person types it, answered by the model. explicit: with all of its CoT. thoughts:
    after so many; None for as many as at its stage."""
    with loaded.compute.answering(loaded.parts.model):
        turn = answer_question(
            loaded.parts,
            loaded.at.scheduled,
            text,
            id="",
            at=loaded.at,
            explicit=explicit,
            thoughts=thoughts,
        )
    return replace(turn, checkpoint=loaded.id)


def read_lines(file: Path, told: Callable[[str], None] = lambda _: None) -> list[Line]:
    """The examples of a file. told: gets what is left out. Raises as `read_examples`."""
    contents = files.read(file)
    _leave_out(file, {broken.line: broken.reason for broken in contents.broken}, len(contents.lines), told)
    return contents.lines


def read_examples(
    file: Path, parts: Parts, limit: int | None = None, told: Callable[[str], None] = lambda _: None
) -> Examples:
    """The examples of a file, tokenised: the first `limit` that this model can read. told: gets what is left
    out before the last of them.

    Raises `InspectionError` where more lines are bad than are left out of training data, with their numbers
    and what is wrong with them, and what `files.read` raises.
    """
    contents = files.read(file)
    numbers = contents.numbers
    problems = {broken.line: broken.reason for broken in contents.broken}
    lines = [parts.task.tidied(line) for line in contents.lines]
    good = len(lines)
    examples = _encoded(lines[:limit], parts)
    if examples is None:
        taken: list[int] = []
        for place, line in enumerate(lines):
            if len(taken) == limit:
                break
            if reason := _unreadable(line, parts):
                problems[numbers[place]] = reason
                good -= 1
            else:
                taken.append(place)
        examples = _encoded([lines[place] for place in taken], parts)
        lines, numbers = [lines[place] for place in taken], [numbers[place] for place in taken]
    if limit is not None and len(lines) >= limit:
        problems = {number: reason for number, reason in problems.items() if number < numbers[limit - 1]}
    _leave_out(file, problems, good, told)
    assert examples is not None
    return examples


def _encoded(lines: Sequence[Line], parts: Parts) -> Examples | None:
    """These lines, tokenised; None where this model cannot read all of them."""
    try:
        examples = encode_lines(lines, parts.tokenizer)
    except ValueError:
        return None
    positions = parts.model.config.max_position_embeddings
    return None if len(examples) and parts.method.positions(examples) > positions else examples


def _unreadable(line: Line, parts: Parts) -> str:
    """Why this model cannot read a line, "" where it can."""
    positions = parts.model.config.max_position_embeddings
    try:
        length = parts.method.positions(encode_lines([line], parts.tokenizer))
    except ValueError as error:
        return str(error)
    more = f"{length} tokens are more than the {positions} positions this model has"
    return more if length > positions else ""


def _leave_out(file: Path, problems: Mapping[int, str], good: int, told: Callable[[str], None]) -> None:
    """Tell of bad lines, by number, of a file with so many others. Raises `InspectionError` for more than
    training would leave out."""
    if not problems:
        return
    listed = [f"line {number}: {problems[number]}" for number in sorted(problems)]
    if not is_few(len(listed), good):
        more = len(listed) - SHOWN_PROBLEMS
        tail = [f"and {more} more bad lines"] if more > 0 else []
        raise InspectionError("\n".join([f"{file}, {line}" for line in listed[:SHOWN_PROBLEMS]] + tail))
    tail = [f"and {len(listed) - SHOWN:,} more"] if len(listed) > SHOWN else []
    told(f"{file}: left out are {'; '.join(listed[:SHOWN] + tail)}")


def held_out(loaded: Loaded, split: Split) -> Examples:
    """A held-out split of the model's task: its run's, or made as its run's was where that needs no file.

    Raises `InspectionError` for a model without a task, or without the file that its data came from.
    """
    parts, config = loaded.parts, loaded.config
    if split in parts.splits:
        return parts.splits[split]
    if config is None:
        raise InspectionError(
            f"{loaded.id} is a model without a run; --data FILE or --preset NAME says what to measure it on"
        )
    if config.data.train_file is not None:
        raise InspectionError(
            f"{loaded.id} comes without its data, {config.data.train_file}; --data FILE of stepwise eval "
            "says what to measure it on"
        )
    sizes = {"valid": config.data.valid, "test": config.data.test}
    return load_task(config).splits(sizes, config.seed, parts.tokenizer)[split]


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
        if any((run / checkpoint.FOLDER).glob("b*")):
            raise InspectionError(f"{run}: its checkpoints cannot be read; another version wrote them")
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
