"""What the operator can ask of a run, and what each request does: a table, a parser, one pure function.

`COMMANDS` is the only list of commands; keys, palette, help and `send` are made from it. `parse` turns a
line into a `Command`; `decide` turns a command into a new `Control` and effects for the loop to carry
out, or into the reason why not. Neither touches a model, a file or a clock, so both are property-tested.
"""

from __future__ import annotations

import difflib
import math
import re
import shlex
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from trainer import config as configuration
from trainer.config import LATENT, Config, ConfigError, MethodConfig
from trainer.events import At, CommandAcknowledged, Event, RolledBack, RunFinished, StateChanged
from trainer.record.lineage import CheckpointRef, Lineage


class CommandError(ValueError):
    """A request that cannot be understood; the message says what is allowed."""


class CommandSpec(NamedTuple):
    """One row of the table. usage: as typed. help: what its key does. dangerous: ask before doing."""

    name: str
    usage: str
    help: str
    dangerous: bool = False


COMMANDS: dict[str, CommandSpec] = {
    spec.name: spec
    for spec in (
        CommandSpec("pause", "pause", "finish the step under way, then wait"),
        CommandSpec("resume", "resume", "go on training"),
        CommandSpec("run", "run N", "train N steps, then pause"),
        CommandSpec("save", "save", "save a checkpoint that is kept for good"),
        CommandSpec("advance", "advance [N]", "remove the next token (or step) now", dangerous=True),
        CommandSpec("hold", "hold", "freeze the schedule: train on at this stage"),
        CommandSpec("release", "release", "give the schedule back"),
        CommandSpec(
            "rollback",
            "rollback [STAGE | CHECKPOINT] [--keep-weights] [--seed fresh|replay]",
            "return to the entry of a stage",
            dangerous=True,
        ),
        CommandSpec("set", "set KEY VALUE", "change a setting while training, for example optim.lr"),
        CommandSpec("evaluate", "evaluate", "measure validation accuracy now"),
        CommandSpec(
            "ask",
            "ask [--explicit] [--thoughts N] [--at CHECKPOINT] TEXT",
            "ask the current weights a question; --explicit: for the whole CoT, where they answer both ways; "
            "--thoughts: after so many thoughts, where they think; --at: ask a saved checkpoint instead",
        ),
        CommandSpec(
            "quiz",
            "quiz [N] [--at CHECKPOINT]",
            "ask N random held-out questions (100), and count the right answers",
        ),
        CommandSpec(
            "examples",
            "examples [--at CHECKPOINT]",
            "have the current weights, or a saved checkpoint, answer the held-out examples, to look at",
        ),
        CommandSpec("interrupt", "interrupt", "cut short what is being answered"),
        CommandSpec("stop", "stop", "save and end the run; `stepwise resume` goes on later", dangerous=True),
    )
}


ONE_WAY = "this model answers one way only; method.explicit_share trains one that answers both"
"""Why it cannot be asked for its whole CoT."""

THOUGHTLESS = "this model has no thoughts to be counted; method.name = coconut or pause trains one that has"
ABLATED = "this model has no thoughts to be counted; it was trained with method.no_thought = true"
"""Why it cannot be told how many thoughts to think."""

SETTING = re.compile(r"([^\s=]+)(?:\s*=\s*|\s+)(\S.*)", re.DOTALL)
"""As in the usage of `set`, or with an equals sign, as `--set` has it."""

MOST_THOUGHTS = 1_000

QUIZ = 100
"""Questions of a quiz, where nobody says how many."""

LONGEST = 4_000
"""Characters of a command. Python reads no number of more than 4,300 digits."""

QUESTIONS = ("ask", "quiz")
"""Commands that the chat shows."""

HARMLESS = (*QUESTIONS, "examples", "interrupt")
"""Commands that change nothing of the run."""

AFTER_THE_END = (*HARMLESS, "evaluate", "stop")
"""Commands that make sense when the run trains no more."""


@dataclass(frozen=True, slots=True)
class Command:
    """A request. text: as one would type it, name included. source: who asked (cockpit, send, …). within:
    seconds that a stop may take, however long the disk needs for the last checkpoint."""

    name: str
    text: str
    n: int = 1
    key: str = ""
    value: Any = None
    target: str = ""
    keep_weights: bool = False
    seed: Literal["fresh", "replay"] = "fresh"
    question: str = ""
    explicit: bool = False
    thoughts: int | None = None
    checkpoint: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    source: str = "cockpit"
    within: float = math.inf


def parse(text: str, *, id: str | None = None, source: str = "cockpit") -> Command:
    """The command a line means. Raises `CommandError` naming what was wrong and what is allowed."""
    if len(text) > LONGEST:
        raise CommandError(f"a command of {len(text):,} characters; {LONGEST:,} are allowed")
    name, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    spec = COMMANDS.get(name)
    if spec is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(COMMANDS)}"
        raise CommandError(f"there is no command {name!r}; {hint}")
    command = Command(name, f"{name} {rest}".strip(), source=source)
    if id is not None:
        command = replace(command, id=id)
    if name == "ask":
        return _parse_ask(command, rest, spec)
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise CommandError(f"{name}: {error}") from None
    if name == "run":
        if len(words) != 1:
            raise CommandError(f"run how many steps? {spec.usage}")
        return replace(command, n=_count(words[0], spec))
    if name == "advance":
        if len(words) > 1:
            raise CommandError(f"advance takes one number: {spec.usage}")
        return replace(command, n=_count(words[0], spec) if words else 1)
    if name in ("quiz", "examples"):
        command, words = _parse_at(command, words, spec)
    if name == "quiz" and len(words) <= 1:
        return replace(command, n=_count(words[0], spec) if words else QUIZ)
    if name == "set":
        setting = SETTING.fullmatch(rest)
        if setting is None:
            raise CommandError(f"set what to what? {spec.usage}")
        return replace(command, key=setting[1], value=configuration.parse_value(setting[2]))
    if name == "rollback":
        return _parse_rollback(command, words, spec)
    if words:
        hint = f"; examples {rest} measures a checkpoint" if name == "evaluate" and "--at" in words else ""
        raise CommandError(f"{name} takes nothing more, but {rest!r} was given{hint}")
    return command


def _count(word: str, spec: CommandSpec) -> int:
    if not (word.isascii() and word.isdigit() and 1 <= int(word) <= 10**12):
        raise CommandError(f"{spec.name}: {word!r} is not a whole number from 1; {spec.usage}")
    return int(word)


def _parse_ask(command: Command, rest: str, spec: CommandSpec) -> Command:
    """The options before the question, which goes on as it was typed."""
    while True:
        option, _, more = rest.partition(" ")
        if option == "--explicit":
            command, rest = replace(command, explicit=True), more.strip()
        elif option == "--at":
            checkpoint, _, more = more.strip().partition(" ")
            command, rest = replace(command, checkpoint=checkpoint), more.strip()
        elif option == "--thoughts":
            number, _, more = more.strip().partition(" ")
            command, rest = replace(command, thoughts=thoughts(number)), more.strip()
        elif not rest:
            raise CommandError(f"ask what? {spec.usage}")
        else:
            return replace(command, question=rest)


def thoughtless(method: MethodConfig) -> str | None:
    """Why a model so trained cannot be told how many thoughts to think; None where it can."""
    if method.name not in LATENT:
        return THOUGHTLESS
    return ABLATED if method.no_thought else None


def thoughts(word: str) -> int:
    """A number of thoughts. Raises `CommandError`."""
    if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word) <= MOST_THOUGHTS):
        raise CommandError(f"{word!r} thoughts: a whole number from 0 to {MOST_THOUGHTS:,} is allowed")
    return int(word)


def _parse_at(command: Command, words: list[str], spec: CommandSpec) -> tuple[Command, list[str]]:
    """With the checkpoint that is asked, and without the words that name it."""
    if "--at" not in words:
        return command, words
    place = words.index("--at")
    if place + 1 == len(words):
        raise CommandError(f"{spec.name} --at which checkpoint? {spec.usage}")
    return replace(command, checkpoint=words[place + 1]), words[:place] + words[place + 2 :]


def _parse_rollback(command: Command, words: list[str], spec: CommandSpec) -> Command:
    rest = iter(words)
    for word in rest:
        if word == "--keep-weights":
            command = replace(command, keep_weights=True)
        elif word == "--seed":
            match next(rest, ""):
                case "fresh":
                    command = replace(command, seed="fresh")
                case "replay":
                    command = replace(command, seed="replay")
                case other:
                    raise CommandError(f"rollback: --seed {other}: fresh or replay is allowed")
        elif word.startswith("-"):
            raise CommandError(f"rollback: {word} is not known; {spec.usage}")
        elif command.target:
            raise CommandError(f"rollback takes one target, but {command.target} and {word} were given")
        else:
            command = replace(command, target=word)
    return command


@dataclass(frozen=True, slots=True)
class Control:
    """What the operator has asked for and still holds. pause_at: pause when this step is reached."""

    paused: bool = False
    pause_at: int | None = None
    held: bool = False
    stopping: bool = False


def replay(events: Iterable[Event]) -> Control:
    """What the operator still holds after a journal: a hold stays; a `run N` under way that was killed
    finishes, and one whose run was ended does not.

    A pause does not outlive its process: a resumed run trains, unless it is asked not to.
    """
    control = Control()
    for event in events:
        if isinstance(event, CommandAcknowledged) and event.ok:
            command = parse(event.command, id=event.id)
            match command.name:
                case "hold" | "release":
                    control = replace(control, held=command.name == "hold")
                case "run":
                    control = replace(control, pause_at=event.at.step + command.n)
                case "pause" | "resume":
                    control = replace(control, pause_at=None)
        elif isinstance(event, RolledBack | RunFinished) or (
            isinstance(event, StateChanged) and event.state == "paused"
        ):
            control = replace(control, pause_at=None)
    return control


class Facts(NamedTuple):
    """What a decision may look at. ended: the run has reached its end, or broke, and trains no more.

    waits: why training waits for the disk, "" when it does not.
    """

    at: At
    stages: int
    config: Config
    lineage: Lineage
    ended: bool = False
    waits: str = ""


@dataclass(frozen=True, slots=True)
class Save:
    pass


@dataclass(frozen=True, slots=True)
class Advance:
    """Enter `stage` now."""

    stage: int


@dataclass(frozen=True, slots=True)
class RollBack:
    checkpoint: CheckpointRef
    keep_weights: bool
    seed: Literal["fresh", "replay"]


@dataclass(frozen=True, slots=True)
class Change:
    """Go on with `config`, in which `key` has its new value."""

    config: Config
    key: str


@dataclass(frozen=True, slots=True)
class Evaluate:
    pass


@dataclass(frozen=True, slots=True)
class Ask:
    """checkpoint: None for the current weights. thoughts: None for as many as the stage has."""

    question: str
    explicit: bool
    checkpoint: CheckpointRef | None = None
    thoughts: int | None = None


@dataclass(frozen=True, slots=True)
class Quiz:
    """n: questions, at most. checkpoint: as for `Ask`."""

    n: int
    checkpoint: CheckpointRef | None = None


@dataclass(frozen=True, slots=True)
class Examine:
    """n: held-out examples, the first ones, as many as an evaluation takes. checkpoint: as for `Ask`."""

    n: int
    checkpoint: CheckpointRef | None = None


Effect = Save | Advance | RollBack | Change | Evaluate | Ask | Quiz | Examine


class Decision(NamedTuple):
    """The answer to a command: the control from now on, what the loop is to do, and a sentence."""

    control: Control
    effects: tuple[Effect, ...]
    ok: bool
    message: str


def decide(control: Control, command: Command, facts: Facts) -> Decision:
    """What `command` does here. Never raises: what cannot be done is a decision that is not ok."""

    def done(message: str, *effects: Effect, **changes: Any) -> Decision:
        return Decision(replace(control, **changes), effects, True, message)

    def refused(message: str) -> Decision:
        return Decision(control, (), False, message)

    at = facts.at
    if control.stopping:
        return refused("the run is stopping")
    if facts.ended and command.name not in AFTER_THE_END:
        return refused(f"the run has ended; {', '.join(AFTER_THE_END)} still work")
    if facts.waits and (command.name in ("save", "advance") or command.keep_weights):
        return refused(f"it needs a checkpoint, and none can be written now: {facts.waits}")
    match command.name:
        case "resume" | "run" if facts.waits:
            pause_at = at.step + command.n if command.name == "run" else None
            return done(f"once there is room; {facts.waits}", paused=False, pause_at=pause_at)
        case "pause":
            return done(f"paused at step {at.step:,}", paused=True, pause_at=None)
        case "resume":
            return done("training goes on", paused=False, pause_at=None)
        case "run":
            until = at.step + command.n
            return done(f"training to step {until:,}, then a pause", paused=False, pause_at=until)
        case "save":
            return done("saved", Save())
        case "hold":
            return done(f"the schedule is held at stage {at.stage}", held=True)
        case "release":
            return done("the schedule goes on", held=False)
        case "advance":
            if at.stage >= facts.stages:
                return refused(f"nothing is left to remove: stage {at.stage} is the last")
            stage = min(at.stage + command.n, facts.stages)
            return done(f"stage {stage} of {facts.stages}", Advance(stage))
        case "rollback":
            target = find_target(command.target, facts)
            if isinstance(target, str):
                return refused(target)
            return done(
                describe_rollback(target, command.keep_weights, facts),
                RollBack(target, command.keep_weights, command.seed),
            )
        case "set":
            try:
                config = configuration.changed(facts.config, command.key, command.value)
            except ConfigError as error:
                return refused(str(error))
            new = configuration.get(config, command.key)
            return done(f"{command.key} = {configuration.shown(new)}", Change(config, command.key))
        case "evaluate":
            return done("evaluated", Evaluate())
        case "ask" | "quiz" | "examples":
            asked = _checkpoint(command.checkpoint, facts) if command.checkpoint else None
            if isinstance(asked, str):
                return refused(asked)
            if command.name == "quiz":
                return done("asked", Quiz(command.n, asked))
            if command.name == "examples":
                return done("answered", Examine(facts.config.eval.examples, asked))
            if command.explicit and not facts.config.method.explicit_share:
                return refused(ONE_WAY)
            if command.thoughts is not None and (why := thoughtless(facts.config.method)):
                return refused(why)
            return done("asked", Ask(command.question, command.explicit, asked, command.thoughts))
        case "interrupt":
            return done("nothing is being answered any more")
        case "stop":
            return done("saving and ending the run", stopping=True)
    raise AssertionError(command.name)


def find_target(target: str, facts: Facts) -> CheckpointRef | str:
    """The checkpoint a roll back to `target` (a stage, an id, or "" for the stage before) restores.

    A string is the reason why there is none, with what there is.
    """
    lineage, at = facts.lineage, facts.at
    if target == "" or (target.isascii() and target.isdigit()):
        stage = int(target) if target else max(at.stage - 1, 0)
        if stage > facts.stages:
            return f"there is no stage {stage}; the last is {facts.stages}. {_targets(facts)}"
        if stage > at.stage:
            return f"stage {stage} has not been reached yet; roll back goes back. {_targets(facts)}"
        entry = lineage.entry(at.branch, stage)
        return entry or f"no entry of stage {stage} or before is kept. {_targets(facts)}"
    return _checkpoint(target, facts)


def _checkpoint(id: str, facts: Facts) -> CheckpointRef | str:
    """The checkpoint of that name; a string is the reason why there is none."""
    found = next((checkpoint for checkpoint in facts.lineage.checkpoints if checkpoint.id == id), None)
    return found or f"there is no checkpoint {id!r}. {_targets(facts)}"


def describe_rollback(target: CheckpointRef, keep_weights: bool, facts: Facts) -> str:
    """What a roll back to `target` will do, for the dialog and the acknowledgement."""
    at = facts.at
    if keep_weights:
        return f"stage {target.stage} again with the present weights, from step {at.step:,} on"
    if target.branch == at.branch:
        steps = f"{at.step - target.step:,} steps become an abandoned branch"
    else:
        steps = f"branch {at.branch} is abandoned at step {at.step:,}"
    return f"back to stage {target.stage}, step {target.step:,} ({target.id}); {steps}"


def _targets(facts: Facts) -> str:
    lineage = facts.lineage
    if not lineage.checkpoints:
        return "There is no checkpoint yet"
    stages = sorted({c.stage for c in lineage.past(facts.at.branch) if c.is_entry})
    ids = ", ".join(c.id for c in lineage.checkpoints[-8:])
    return f"Stages: {', '.join(map(str, stages)) or 'none'}. Latest checkpoints: {ids}"
