"""What the trainer says happened: one table of typed events and their one codec.

An event is a frozen dataclass with a registered name. `encode` makes one JSON line of it, `decode` the
event again; the journal, the socket and plain mode all use these two. Every event carries where the run
stood when it happened (`At`). Non-finite numbers, which JSON lacks, travel as "nan", "inf" and "-inf".

A reader skips fields it does not know and takes defaults for fields it misses, so adding a field or an
event never invalidates an old journal; renaming or removing one does and is not done.

This module imports nothing heavy: `stepwise runs` reads journals without torch.
"""

from __future__ import annotations

import contextlib
import json
import math
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

RunState = Literal["starting", "training", "paused", "evaluating", "finished", "interrupted", "crashed"]
Split = Literal["valid", "test"]
Cause = Literal["schedule", "operator", "watch", "rollback", "start"]
SaveCause = Literal["stage", "manual", "time", "best", "final", "stop"]


@dataclass(frozen=True, slots=True)
class At:
    """Where a run stood.

    step: optimiser steps taken on this line of history.
    branch: line of history, from 1; a roll back opens the next.
    stage: stage of the curriculum, 0…stages (nothing is left to remove at `stages`).
    scheduled: removals the schedule has called for; keeps counting after all is gone (paper, Figure 3).
    removed: tokens really removed, at most the longest CoT.
    time: seconds since the epoch.
    """

    step: int = 0
    branch: int = 1
    stage: int = 0
    scheduled: int = 0
    removed: int = 0
    time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. `seq` counts journalled events from 1; a transient event has seq 0."""

    at: At = field(default_factory=At)
    seq: int = 0
    transient: ClassVar[bool] = False


EVENTS: dict[str, type[Event]] = {}
E = TypeVar("E", bound=type[Event])
Built = TypeVar("Built")


def _event(cls: E) -> E:
    """Register under the class name in snake case; the names are part of the journal's format."""
    name = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")
    assert name not in EVENTS
    EVENTS[name] = cls
    return cls


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A process took up the run: the first start, or a resume (then `checkpoint` names where from).

    sources: of data that were read; data that are made have none. longest: None in journals of before.
    """

    name: str
    title: str = ""
    method: str = ""
    task: str = ""
    model: str = ""
    device: str = ""
    parameters: int = 0
    train_examples: int = 0
    stages: int = 0
    steps_per_epoch: int = 0
    checkpoint: str | None = None
    pid: int = 0
    host: str = ""
    sources: tuple[Source, ...] = ()
    longest: Longest | None = None


@dataclass(frozen=True, slots=True)
class Longest:
    """What asking a model takes of its training data, in tokens: its longest question with the EOS, CoT, and
    new tokens that suffice to answer; steps: of a CoT."""

    question: int
    cot: int
    steps: int
    room: int


@dataclass(frozen=True, slots=True)
class Source:
    """What a split was read from. digest: of its examples, whatever the bytes of the file."""

    split: str
    name: str
    examples: int
    digest: str


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Event):
    state: RunState


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """A line for the log that asks nothing of anyone: what was chosen, what is kept, what is slow.

    of_step: whether the step itself says it, and says it again when it is done again.
    """

    message: str
    level: Literal["info", "warning", "error"] = "info"
    of_step: bool = False


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class StageEntered(Event):
    """The curriculum moved to `at.stage`; `text` says it for people ("3 of 9 CoT tokens removed").

    why: what let the schedule move, where that was not the time alone.
    """

    text: str
    cause: Cause
    optimizer_reset: bool = False
    why: str = ""


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics(Event):
    """Means over the `steps` optimiser steps since the last one.

    loss, loss_answer, loss_cot: nats per token over all labels, over the labels from #### on, over the
    CoT labels (None when no CoT label was left). grad_norm: before clipping. skipped: steps left out
    because their loss or gradient was not finite; before_skipped: steps before the first of these, None when
    there is none. left_out: batches, or accumulated parts of one, with a
    row longer than data.max_len_train; they are no steps.
    """

    loss: float
    loss_answer: float
    loss_cot: float | None
    grad_norm: float
    lr: float
    steps: int
    steps_per_second: float
    tokens_per_second: float
    epoch: float
    skipped: int = 0
    before_skipped: int | None = None
    left_out: int = 0


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class StepsRepeated(Event):
    """Steps of a process that was killed are made again, as far as this one; what was told of them is not
    told twice. upto: the step that the journal tells of last.
    """

    upto: int
    transient: ClassVar[bool] = True


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    """Greedy exact match on a held-out split.

    cot_tokens, generated_tokens: the CoT's alone and all that was written, mean per example. cot_match:
    share of examples whose CoT is exactly what is left of the true one, None where nothing is. None, too, in
    journals of before.
    foretold: examples that were not decoded, since one pass told what decoding writes; disagreed: of such
    that were decoded as well, how many came out otherwise, so that in the end all were decoded.
    """

    split: Split
    accuracy: float
    token_accuracy: float
    correct: int
    n: int
    cot_tokens: float
    seconds: float
    cause: Cause = "schedule"
    cot_match: float | None = None
    generated_tokens: float | None = None
    foretold: int = 0
    disagreed: int = 0


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class Probed(Event):
    """Whether the stage is learnt, for a schedule that goes by it (`gate`).

    accuracy: share of n validation examples of which every token that is left is the likeliest one, given the
    true ones before it. mean: of this and the probes before that count. target: the mean at which the next
    removal comes; at_once: the stages that it will take. careful: stages that are still gone through slowly.
    """

    accuracy: float
    n: int
    mean: float
    target: float
    at_once: int
    careful: int
    seconds: float


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplesShown(Event):
    """A few held-out examples as the model just answered them, in the task's own text."""

    examples: tuple[ShownExample, ...]


@dataclass(frozen=True, slots=True)
class ShownExample:
    """question, answer: as a person writes them; given: the model's answer, likewise.

    cot: the tokens of the example's true CoT; removed: how many of them this stage removes, on `side`;
    spoken: the CoT tokens the model wrote.
    """

    question: str
    answer: str
    given: str
    correct: bool
    cot: tuple[str, ...]
    removed: int
    spoken: tuple[str, ...]
    side: Literal["left", "right"] = "left"


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(Event):
    checkpoint: str
    cause: SaveCause
    seconds: float
    bytes: int


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRemoved(Event):
    """Retention let this checkpoint go."""

    checkpoint: str


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class CommandReceived(Event):
    """Someone asked for something; `CommandAcknowledged` with the same id follows."""

    id: str
    command: str
    source: str


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class CommandAcknowledged(Event):
    """The command took effect at `at.step`, or could not and `message` says why."""

    id: str
    command: str
    source: str
    ok: bool
    message: str


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChanged(Event):
    key: str
    old: Any
    new: Any


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack(Event):
    """`at` is the new place on the new branch, which hangs on `parent`: the branch of the checkpoint.

    The steps of `from_branch` from there to `from_step` are abandoned.
    """

    checkpoint: str
    parent: int
    from_branch: int
    from_step: int
    keep_weights: bool = False
    seed: Literal["fresh", "replay"] = "fresh"


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class DipMeasured(Event):
    """What entering stage `of` did to accuracy, told when it is back, or when the stage was left without.

    entered: the step. before: the last accuracy before that was not part of a dip; lowest: of the evaluations
    since. loss_before, loss_worst: of the answer, in nats per token, likewise; None where nothing was logged.
    steps: from the entry to the evaluation that was back; None where none was.
    """

    of: int
    entered: int
    before: float
    lowest: float
    loss_before: float | None = None
    loss_worst: float | None = None
    steps: int | None = None


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPlanned(Event):
    """What the watch will do by itself (mode `auto`), and when; "" where nothing is to be done."""

    plan: str


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRaised(Event):
    """Something needs a person. `key` is the key that answers it, `remedy` what that key will do.

    Where no key can answer it (`key` is ""), `remedy` says what the person can do.

    target: what a roll back should return to. undo: the command that takes back the setting which may be why,
    since no roll back does; "" where none was changed. goes_on: what the schedule did then if nobody did
    anything, "" where that is no matter. pauses: whether training waits for the answer.
    """

    kind: str
    message: str
    remedy: str
    key: str
    target: str = ""
    undo: str = ""
    goes_on: str = ""
    pauses: bool = False

    @property
    def told(self) -> str:
        """What happened, and what would then happen."""
        return f"{self.message}; {self.goes_on}" if self.goes_on else self.message


DISK = "disk"
"""Kind of the alarm that the disk refuses what is written. A process says it of itself, not of a step."""


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmCleared(Event):
    kind: str
    message: str


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class ChatToken(Event):
    """One more piece of an answer under way to the command `id`."""

    id: str
    text: str
    part: Literal["cot", "answer"]
    transient: ClassVar[bool] = True


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswered(Event):
    """One turn of the chat, whole.

    asked: as typed. understood: whether it could be put to the model; if not, `note` says what can be
    asked. answer: as a person writes it; correct: None where the task cannot tell. note: a caveat, such
    as operands outside the trained range. checkpoint: which weights answered. cot_removed: CoT
    tokens removed where these were saved; None: as `at` says. saved: tokens of the whole CoT that were not
    written; None where nobody knows that. thoughts: the continuous thoughts before the answer, as each would
    be spoken. frontiers: of a question that tells of a graph, the nodes that one step leads to, two, …, as
    far as it was thought, and how likely the model, made to speak then, is to go on with each.
    """

    id: str
    asked: str
    understood: bool = True
    question: str = ""
    cot: tuple[str, ...] = ()
    answer: str = ""
    correct: bool | None = None
    expected: str = ""
    note: str = ""
    tokens: int = 0
    milliseconds: float = 0.0
    checkpoint: str = "current weights"
    cot_removed: int | None = None
    saved: int | None = None
    thoughts: tuple[Thought, ...] = ()
    frontiers: tuple[tuple[Candidate, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Thought:
    """A continuous thought read through the LM head: its likeliest tokens, the likeliest first."""

    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token as text, and its probability."""

    text: str
    probability: float


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class QuizTaken(Event):
    """Random questions of the validation split, answered.

    cot_tokens, saved: of the CoT, written and not written, mean per question. milliseconds: per question, of
    the batch. wrong: a few that were. checkpoint, cot_removed: as in `ChatAnswered`.
    """

    id: str
    n: int
    correct: int
    cot_tokens: float
    saved: float
    milliseconds: float
    wrong: tuple[ShownExample, ...] = ()
    checkpoint: str = "current weights"
    cot_removed: int | None = None


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplesAnswered(Event):
    """The held-out examples of evaluations, answered to be looked at. No journal has it: that has the score.

    n, correct: of all. examples: the first of them. cot_tokens: written, mean per example. checkpoint,
    cot_removed: as in `ChatAnswered`.
    """

    id: str
    n: int
    correct: int
    cot_tokens: float
    seconds: float
    examples: tuple[ShownExample, ...]
    checkpoint: str = "current weights"
    cot_removed: int | None = None
    transient: ClassVar[bool] = True


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class SystemSampled(Event):
    """How the machine that trains is doing at this moment. None: nobody can tell.

    gpus: the one that the run uses; of several, that of rank 0. cpu: of this process, in per cent of
    one core; cores: how many it may use. rss: its memory. ram_used, ram_total: of the machine. disk_free:
    where the run lies; disk_wanted: what its checkpoints may still take there. All in bytes. trained: seconds
    of training so far.
    """

    gpus: tuple[Gpu, ...] = ()
    cpu: float | None = None
    cores: int | None = None
    rss: int | None = None
    ram_used: int | None = None
    ram_total: int | None = None
    disk_free: int | None = None
    disk_wanted: int | None = None
    trained: float | None = None
    transient: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as far as its driver tells. utilisation: per cent of the time that it computed. memory_used,
    memory_total: bytes, of all its processes. power, power_cap: watts. temperature: °C."""

    name: str
    utilisation: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    power: float | None = None
    power_cap: float | None = None
    temperature: float | None = None


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryTold(Event):
    """Who came late has now been told what was before, without what no longer matters (`digest`).

    lines, turns: of the log and of the chat, that were left out; the journal has them.
    """

    lines: int = 0
    turns: int = 0
    transient: ClassVar[bool] = True


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class ReachChanged(Event):
    """Whether a run in another process is reached, told by who looks from outside; no journal has it.

    gone: what there is to say of it instead of its state, None when it is reached again. advice: what can be
    done.
    """

    gone: Literal["crashed", "not reached"] | None = None
    advice: str = ""
    transient: ClassVar[bool] = True


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The run came to its end. accuracy: on the test split, with n problems; None when not measured.

    limit: the setting that ended it, as `stop.steps`; "" where somebody did. unsaved: why the end could not
    be saved, "" where it was; `checkpoint` then is the one that stands.
    """

    reason: str
    state: Literal["finished", "interrupted"]
    accuracy: float | None
    n: int
    seconds: float
    checkpoint: str
    limit: str = ""
    unsaved: str = ""


@_event
@dataclass(frozen=True, slots=True, kw_only=True)
class RunCrashed(Event):
    """Training stopped on an error. checkpoint: the last good one, "" when there is none."""

    error: str
    traceback: str
    checkpoint: str


NON_FINITE = ("nan", "inf", "-inf")
NAMES: dict[type[Event], str] = {cls: name for name, cls in EVENTS.items()}


class DecodeError(ValueError):
    """A line that is not an event; the message says why."""


def encode(event: Event) -> str:
    """One JSON line, without its newline."""
    document = {"seq": event.seq, "event": NAMES[type(event)]} | plain(event.at)
    for f in fields(event):
        if f.name not in ("at", "seq"):
            document[f.name] = plain(getattr(event, f.name))
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def decode(line: str | bytes) -> Event:
    """The event of one line.

    Raises `DecodeError` for what is not JSON, not an event of the table, lacks a field that has no
    default, or carries a value of the wrong kind.
    """
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not a JSON line: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("event"), str):
        raise DecodeError('not an event: a JSON object with an "event" name is expected')
    cls = EVENTS.get(document["event"])
    if cls is None:
        raise DecodeError(f"unknown event {document['event']!r}")
    try:
        values = _fields_from(cls, document)
        values["at"] = At(**_fields_from(At, document))
        return cls(**values)
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError(f"{document['event']}: {error}") from None


def decoded(lines: Iterable[bytes]) -> list[Event]:
    """The events of lines; what is none is left out."""
    events = []
    for line in lines:
        with contextlib.suppress(DecodeError):
            events.append(decode(line))
    return events


def plain(value: Any) -> Any:
    """A value, or a dataclass of them, as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def built(cls: type[Built], document: dict[str, Any]) -> Built:
    """The dataclass of what `plain` made of one. Raises TypeError for a value of another kind."""
    return cls(**_fields_from(cls, document))


_READERS: dict[type, dict[str, tuple[type | None, Callable[[Any, str], Any]]]] = {}
"""Of each field of a class the kind of value that is taken as it is, where there is one, and how any other is
read. Looked up once: a long journal is read line by line."""


def _fields_from(cls: type, document: dict[str, Any]) -> dict[str, Any]:
    readers = _READERS.get(cls)
    if readers is None:
        hints = get_type_hints(cls)
        readers = _READERS[cls] = {
            f.name: (_kind(hints[f.name]), _reader(hints[f.name])) for f in fields(cls) if f.name != "at"
        }
    return {
        name: value if type(value := document[name]) is kind else read(value, name)
        for name, (kind, read) in readers.items()
        if name in document
    }


def _kind(hint: Any) -> type | None:
    """The kind of value that a field takes as JSON has it; None where each must be read."""
    union = get_origin(hint) in (typing.Union, types.UnionType)
    kinds = [o for o in (get_args(hint) if union else (hint,)) if o in (bool, int, float, str)]
    return kinds[0] if kinds else None


def _reader(hint: Any) -> Callable[[Any, str], Any]:
    """What takes a value of JSON and its field's name, and gives the value as the type of the field.

    It raises TypeError for another kind. Bool is not taken for int, nor int for bool.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value, name: float(value) if value in NON_FINITE else value
    if origin in (typing.Union, types.UnionType):
        read = _reader(next(o for o in arguments if o is not type(None)))
        return lambda value, name: None if value is None else read(value, name)
    if origin is tuple:
        item = _reader(arguments[0])
        return _checked(hint, lambda v: isinstance(v, list), lambda v, name: tuple(item(i, name) for i in v))
    if origin is Literal:
        return _checked(hint, lambda v: isinstance(v, str) and v in arguments)
    if is_dataclass(hint) and isinstance(hint, type):
        return _checked(hint, lambda v: isinstance(v, dict), lambda v, name: hint(**_fields_from(hint, v)))
    if hint is float:
        return _float
    return _checked(hint, lambda v: isinstance(v, hint) and isinstance(v, bool) == (hint is bool))


def _float(value: Any, name: str) -> float:
    if type(value) is float:
        return value
    if (isinstance(value, int) and not isinstance(value, bool)) or value in NON_FINITE:
        return float(value)
    raise _wrong(float, value, name)


def _checked(
    hint: Any, is_one: Callable[[Any], bool], made: Callable[[Any, str], Any] = lambda value, name: value
) -> Callable[[Any, str], Any]:
    def read(value: Any, name: str) -> Any:
        if not is_one(value):
            raise _wrong(hint, value, name)
        return made(value, name)

    return read


def _wrong(hint: Any, value: Any, name: str) -> TypeError:
    return TypeError(f"{name} = {value!r} is not of the kind {getattr(hint, '__name__', hint)}")
