"""What the screen knows of a run: a fold over its events, and nothing else.

`apply(history, event)` is the only thing that changes a `History`. It looks at no clock, file or widget,
so a journal gives the same charts, log and chat again, in one go or piece by piece. It changes the history
in place: a copy for each of a run's events would be quadratic. What grows with a run is thinned or let go,
and by rules of the events alone: told only what `trainer.record.digest` keeps of a journal, it is the same.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from stepwise_tui.log import LogLine, log_lines
from stepwise_tui.series import Branch, Kept
from stepwise_tui.text import clean
from stepwise_tui.timeline import Happening, happening, with_saves
from trainer import config as configuration
from trainer.config import Config, ConfigError
from trainer.control import Control, Facts, parse
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    At,
    ChatAnswered,
    ChatToken,
    CheckpointRemoved,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    Evaluated,
    Event,
    ExamplesAnswered,
    ExamplesShown,
    HistoryTold,
    Metrics,
    Probed,
    QuizTaken,
    ReachChanged,
    RolledBack,
    RunCrashed,
    RunFinished,
    RunStarted,
    RunState,
    SettingChanged,
    ShownExample,
    StageEntered,
    StateChanged,
    StepsRepeated,
    SystemSampled,
    WatchPlanned,
)
from trainer.pacing import caution, schedule
from trainer.pacing.schedule import Pace, Progress
from trainer.record.digest import LINES, TURNS, is_question
from trainer.record.lineage import CheckpointRef, Fork, Lineage

ANSWERED = 6
"""Weights of which the answers to the held-out examples are kept."""

LOADS = 150
"""Of the machine that trains: five minutes, at a look every two seconds."""


@dataclass(slots=True)
class Turn:
    """One question of the chat.

    checkpoint: which one is asked, "" for the current weights. explicit: for its whole CoT. cot, answer:
    what has streamed in so far; `answered` is the whole turn, once it is there. refused: why it could not
    be asked.
    """

    id: str
    asked: str
    checkpoint: str = ""
    explicit: bool = False
    cot: str = ""
    answer: str = ""
    answered: ChatAnswered | QuizTaken | None = None
    refused: str = ""

    @property
    def streams(self) -> bool:
        """Whether an answer is being written."""
        return bool(self.cot or self.answer) and self.answered is None and not self.refused


@dataclass
class History:
    """A run as its events tell it.

    names: how the person at this screen writes the key of each action. config: as it is now. answered: the
    held-out examples as some weights answered them when asked, by the name of these. plan: what the watch
    will do by itself. again: the step up to which those of a killed process are made again, None where none
    are. control: what the operator holds. pending: commands received and not yet acknowledged.
    gone: what is known of a run that is not reached, None while it is. counted_from: the step from which
    steps count towards the next removal. log_total, chat_total: lines the log and turns the chat have ever
    had. evaluated, measured: the last evaluation while training, and the last of any split. shown: examples
    of the evaluation `shown_of`. probed: the last probe of this stage. born: the time of the first event.
    sampled: how the machine that trains is doing. loads: of late, how much its GPU computed, or its cores
    where it uses none, in per cent. drawn: changes whenever a chart would.
    """

    config: Config = field(default_factory=Config)
    names: Mapping[str, str] = field(default_factory=dict)
    started: RunStarted | None = None
    at: At = field(default_factory=At)
    state: RunState = "starting"
    control: Control = field(default_factory=Control)
    counted_from: int = 0
    metrics: Metrics | None = None
    evaluated: Evaluated | None = None
    measured: Evaluated | None = None
    probed: Probed | None = None
    shown: tuple[ShownExample, ...] = ()
    shown_of: Evaluated | None = None
    answered: dict[str, ExamplesAnswered] = field(default_factory=dict)
    alarm: AlarmRaised | None = None
    plan: str = ""
    again: int | None = None
    gone: ReachChanged | None = None
    pending: dict[str, CommandReceived] = field(default_factory=dict)
    branches: dict[int, Branch] = field(default_factory=dict)
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LINES))
    log_total: int = 0
    chat: deque[Turn] = field(default_factory=lambda: deque(maxlen=TURNS))
    chat_total: int = 0
    happenings: deque[Happening] = field(default_factory=lambda: deque(maxlen=LINES))
    saves: dict[str, CheckpointSaved] = field(default_factory=dict)
    forks: dict[int, Fork] = field(default_factory=dict)
    finished: RunFinished | None = None
    crashed: RunCrashed | None = None
    born: float = 0.0
    sampled: SystemSampled = field(default_factory=SystemSampled)
    loads: deque[float | None] = field(default_factory=lambda: deque(maxlen=LOADS))
    drawn: int = 0
    kept: Kept = field(default_factory=Kept)

    def __post_init__(self) -> None:
        self.open_branch(1)

    def open_branch(self, number: int) -> Branch:
        """The branch of that number, a new one if need be."""
        if number not in self.branches:
            self.branches[number] = Branch(number, self.kept)
        return self.branches[number]

    @property
    def stages(self) -> int:
        """The stage at which nothing is left to remove."""
        return self.started.stages if self.started else 0

    @property
    def ended(self) -> bool:
        """Whether the run trains no more."""
        return self.finished is not None or self.crashed is not None

    @property
    def standing(self) -> str:
        """The state as far as it is known."""
        return self.state if self.gone is None or self.ended else str(self.gone.gone)

    @property
    def branch(self) -> Branch:
        """The live line of history."""
        return self.branches[self.at.branch]

    @property
    def lineage(self) -> Lineage:
        """Checkpoints and branches."""
        refs = (
            CheckpointRef(e.checkpoint, e.at.branch, e.at.step, e.at.stage, e.cause)
            for e in self.saves.values()
        )
        return Lineage(tuple(refs), self.forks)

    @property
    def timeline(self) -> list[Happening]:
        """What happened, oldest first, with the checkpoints that are left."""
        return with_saves(self.happenings, self.saves.values())

    def accuracy_at(self, at: At) -> float | None:
        """The last accuracy measured on that branch up to there; None when there was none."""
        if at.branch not in self.branches:
            return None
        columns = self.branches[at.branch].accuracy.columns
        before = columns.value[columns.step <= at.step]
        return float(before[-1]) if len(before) else None

    @property
    def facts(self) -> Facts:
        """What `control.decide` needs to foretell what a command would do."""
        return Facts(self.at, self.stages, self.config, self.lineage, self.ended)

    @property
    def pace(self) -> Pace:
        """The schedule's pace at this stage, as it is set now."""
        pace = schedule.pace(
            self.config.schedule,
            self.started.steps_per_epoch if self.started else 1,
            start=self.config.method.start_from,
            stages=self.stages,
        )
        at = self.at
        return caution.paced(pace, Lineage((), self.forks), at.branch, at.stage, self.config.schedule)

    @property
    def careful(self) -> bool:
        """Whether a schedule that goes by steps is careful at this stage."""
        at = self.at
        return caution.careful(Lineage((), self.forks), at.branch, at.stage, self.config.schedule)

    @property
    def steps_to_next(self) -> int | None:
        """Steps to the next removal; None when none is due: all gone, held, no curriculum, the end."""
        if self.ended or self.gone or self.control.held or self.at.stage >= self.stages:
            return None
        return schedule.steps_to_next(self._progress, self.pace, step=self.at.step)

    @property
    def steps_to_none(self) -> int | None:
        """Steps until nothing is left; None when no removal is due."""
        if self.steps_to_next is None:
            return None
        return schedule.steps_to_none(self._progress, self.pace, step=self.at.step)

    @property
    def steps_to_end(self) -> float | None:
        """Steps until `[stop]` ends the run at the latest, by steps or epochs; inf where neither does, None
        when nothing is known of it."""
        if self.ended or self.started is None:
            return None
        stop = self.config.stop
        last = min(stop.epochs * self.started.steps_per_epoch, math.inf if stop.steps is None else stop.steps)
        return max(0.0, last - self.at.step)

    @property
    def _progress(self) -> Progress:
        counter = max(0, self.at.step - max(self.counted_from, self.pace.pretrain))
        return Progress(self.at.scheduled, counter)


def replay(events: list[Event], config: Config | None = None) -> History:
    """The history that a whole journal tells."""
    history = History(config=config or Config())
    for event in events:
        apply(history, event)
    return history


def apply(history: History, event: Event) -> None:
    """Take in one event."""
    _move(history, event)
    match event:
        case RunStarted():
            _take_up(history, event)
        case StateChanged():
            history.state = event.state
            history.control = replace(history.control, paused=event.state == "paused")
            history.again = None if event.state == "paused" else history.again
        case Metrics():
            history.metrics, history.again = event, None
            history.branch.measured(event)
            history.drawn += 1
        case StepsRepeated():
            history.again = event.upto
        case Evaluated():
            history.measured = event
            if event.split == "valid":
                history.evaluated = event
                history.branch.evaluated(event)
                history.drawn += 1
        case Probed():
            history.probed = event
        case StageEntered():
            history.probed = None
        case ExamplesShown():
            history.shown, history.shown_of = event.examples, history.measured
        case ExamplesAnswered():
            history.answered.pop(event.checkpoint, None)
            history.answered[event.checkpoint] = event
            if len(history.answered) > ANSWERED:
                del history.answered[next(iter(history.answered))]
        case CheckpointSaved():
            history.saves.pop(event.checkpoint, None)
            history.saves[event.checkpoint] = event
            history.drawn += 1
        case CheckpointRemoved():
            history.saves.pop(event.checkpoint, None)
            history.drawn += 1
        case RolledBack():
            _fork(history, event)
        case SettingChanged():
            _set(history, event)
        case CommandReceived():
            _receive(history, event)
        case CommandAcknowledged():
            _acknowledge(history, event)
        case ChatToken() | ChatAnswered() | QuizTaken():
            _hear(history, event)
        case AlarmRaised():
            history.alarm = event
        case WatchPlanned():
            history.plan = event.plan
        case AlarmCleared():
            if history.alarm is not None and history.alarm.kind == event.kind:
                history.alarm = None
        case RunFinished():
            history.finished = event
            history.control = replace(history.control, pause_at=None)
        case RunCrashed():
            history.crashed = event
        case SystemSampled():
            history.sampled = event
            history.loads.append(_load(event))
        case ReachChanged():
            history.gone = event if event.gone else None
        case HistoryTold():
            history.log_total += event.lines
            history.chat_total += event.turns
    for line in log_lines(event, history.names, history.evaluated):
        _write(history, line)
    if (row := happening(event, history.names)) is not None:
        history.happenings.append(row)
        history.drawn += 1


def _move(history: History, event: Event) -> None:
    """Where the run stands, and how far it is from the next removal."""
    at, before = event.at, history.at
    if not at.time or isinstance(event, CommandReceived | CheckpointSaved | CheckpointRemoved):
        return  # a request is told from outside the loop, a save when it is written: later than it was
    history.at = at
    history.born = history.born or at.time
    branch = history.open_branch(at.branch)
    if at.scheduled > branch.scheduled:
        if at.scheduled > at.stage:
            history.kept.beyond.reach(at.branch, at.scheduled - at.stage)
            branch.beyond.add(at.scheduled - at.stage, 0.0, at)
        else:
            branch.stages.append(at)
        history.counted_from = at.step
        history.drawn += 1
    elif at.scheduled != before.scheduled:
        history.counted_from = branch.since(at)  # a process took the run up again, further back
    elif history.control.held and at.branch == before.branch:
        pretrain = history.pace.pretrain
        history.counted_from = max(history.counted_from, pretrain) + max(
            0, at.step - max(before.step, pretrain)
        )


def _load(event: SystemSampled) -> float | None:
    if event.gpus:
        return event.gpus[0].utilisation
    return event.cpu / event.cores if event.cpu is not None and event.cores else None


def _take_up(history: History, event: RunStarted) -> None:
    """A process started the run or took it up again; what the one before owed will not come any more."""
    history.started = event
    history.state = "starting"
    history.control = replace(history.control, paused=False, stopping=False)
    history.finished = history.crashed = history.again = None
    if history.metrics is not None and history.metrics.at.step > event.at.step:
        history.metrics = None  # it goes on from before that
    history.pending.clear()
    for turn in history.chat:
        if turn.answered is None and not turn.refused:
            turn.refused = "the run ended before the answer came"
    history.counted_from = history.branch.since(event.at)


def _fork(history: History, event: RolledBack) -> None:
    """The new branch goes on where its checkpoint was taken, in the middle of a stage it may be."""
    history.forks[event.at.branch] = Fork(event.parent, event.at.step, event.at.stage)
    history.alarm = history.evaluated = history.metrics = None
    history.shown = ()
    history.control = replace(history.control, pause_at=None)
    history.drawn += 1
    if not event.keep_weights and event.parent in history.branches:
        history.counted_from = history.branches[event.parent].since(event.at)


def _set(history: History, event: SettingChanged) -> None:
    try:
        history.config = configuration.changed(history.config, event.key, event.new)
    except ConfigError as error:
        # A journal of another version may know other keys; the rest of it still counts.
        _write(history, LogLine(event.at.time, clean(f"{event.key}: {error}"), "warning"))


def _receive(history: History, event: CommandReceived) -> None:
    history.pending[event.id] = event
    if is_question(event):
        asked = parse(event.command)
        text = asked.question if asked.name == "ask" else f"/quiz {asked.n}"
        _open_turn(history, Turn(event.id, clean(text), clean(asked.checkpoint), asked.explicit))


def _acknowledge(history: History, event: CommandAcknowledged) -> None:
    history.pending.pop(event.id, None)
    name, _, rest = event.command.partition(" ")
    if not event.ok:
        turn = _turn(history, event.id)
        if turn is not None:
            turn.refused = clean(event.message)
        return
    match name:
        case "hold" | "release":
            history.control = replace(history.control, held=name == "hold")
        case "run":
            history.control = replace(history.control, pause_at=event.at.step + int(rest))
        case "pause" | "resume":
            history.control = replace(history.control, pause_at=None)
        case "stop":
            history.control = replace(history.control, stopping=True)


def _hear(history: History, event: ChatToken | ChatAnswered | QuizTaken) -> None:
    turn = _turn(history, event.id)
    if turn is None:
        return  # so many came after it that it is not shown any more
    if isinstance(event, ChatToken):
        if event.part == "cot":
            turn.cot += clean(event.text)
        else:
            turn.answer += clean(event.text)
        return
    turn.answered, turn.cot, turn.answer, turn.refused = event, "", "", ""


def _open_turn(history: History, turn: Turn) -> None:
    history.chat.append(turn)
    history.chat_total += 1


def _turn(history: History, id: str) -> Turn | None:
    return next((turn for turn in reversed(history.chat) if turn.id == id), None)


def _write(history: History, line: LogLine) -> None:
    history.log.append(line)
    history.log_total += 1
