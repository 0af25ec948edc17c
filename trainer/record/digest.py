"""What of a run's journal still matters to whoever comes late: its lines without those that later ones
supersede, in bounded memory. Pure, and light to import.

A screen that is told these lines shows what one shows that was told all: the same charts (`thinning`), the
last `LINES` lines of the log and rows of the timeline, the last `TURNS` turns of the chat, the checkpoints
that are left, the settings, and where the run stands. What gave the run its shape, its branches and its
stages, is all kept.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from trainer.control import QUESTIONS
from trainer.events import (
    EVENTS,
    AlarmCleared,
    AlarmRaised,
    ChatAnswered,
    CheckpointRemoved,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    DecodeError,
    DipMeasured,
    Evaluated,
    Event,
    HistoryTold,
    Metrics,
    Notice,
    QuizTaken,
    RolledBack,
    RunCrashed,
    RunFinished,
    RunStarted,
    SettingChanged,
    StageEntered,
    decode,
    encode,
)
from trainer.record import thinning
from trainer.record.thinning import Grid, Thinned

LINES = 1_000
"""Lines of the log, and rows of the timeline, that a late comer is told."""
TURNS = 200
"""Turns of the chat."""

HEAD = re.compile(
    rb'\{"seq":(\d+),"event":"(\w+)","step":(\d+),"branch":(\d+),"stage":(\d+),"scheduled":(\d+),'
    rb'"removed":\d+,"time":([^,}]+)'
)
NUMBERS = re.compile(
    rb',"loss":([^,]+),"loss_answer":([^,]+),"loss_cot":([^,]+),"grad_norm":([^,]+),"lr":([^,]+),"steps":\d+,'
    rb'"steps_per_second":[^,]+,"tokens_per_second":([^,]+),'
)
NAMES = ("loss", "loss_answer", "loss_cot", "grad_norm", "lr", "speed")
"""What is drawn of metrics: the losses, and what is drawn more coarsely."""
ORDINARY = b'"skipped":0,"before_skipped":null,"left_out":0}'
"""How metrics end that say nothing for the log: what is drawn of them is read without the rest."""
SUPERSEDED = (b"state_changed", b"examples_shown", b"probed", b"watch_planned")
"""Events of which only the last one matters."""
GONE = {b"null": float("nan"), b'"nan"': float("nan"), b'"inf"': float("inf"), b'"-inf"': float("-inf")}


class Line(NamedTuple):
    """One line of the journal, without its newline. said: how many lines of the log it makes. asks: whether
    it begins a turn of the chat."""

    seq: int
    text: bytes
    said: int = 0
    asks: bool = False


class Digest:
    """Add every line of a journal, or take in blocks of them, in order; have its `lines` at any time."""

    def __init__(self) -> None:
        self.seq = 0
        """The last event that was taken in."""
        self._grid, self._coarse, self._beyond = Grid(), Grid(thinning.COARSE), Grid()
        self._curves: dict[tuple[str, int], Thinned[Line]] = {}
        self._metrics: deque[Line] = deque(maxlen=thinning.RECENT)
        self._evaluations: deque[Line] = deque(maxlen=thinning.RECENT)
        self._reached: dict[int, int] = {}
        self._structure: list[Line] = []
        self._counting: deque[Line] = deque(maxlen=LINES)
        self._latest: dict[str, Line] = {}
        self._unanswered: dict[str, Line] = {}
        self._checkpoints: dict[str, deque[Line]] = {}
        self._removed: dict[int, Line] = {}
        self._most_removed = LINES
        self._log: deque[tuple[Line, ...]] = deque()
        self._rows: deque[Line] = deque(maxlen=LINES)
        self._turns: dict[str, list[Line]] = {}
        self._asked = 0
        self._said = 0
        self._scheduled = 0

    def add(self, text: bytes) -> None:
        """Take in a line; one that is no event is passed over."""
        text = text.rstrip(b"\n")
        head = HEAD.match(text)
        if head is None:
            try:
                text = encode(decode(text)).encode("utf-8", "backslashreplace")
            except DecodeError:
                return
            head = HEAD.match(text)
            assert head is not None
        self.seq = int(head[1])
        name, step, branch = head[2], int(head[3]), int(head[4])
        numbers = None
        if name == b"metrics" and text.endswith(ORDINARY):
            numbers = NUMBERS.match(text, head.end())
        if numbers is not None:
            line = Line(self.seq, text)
            self._place(line, head)
            self._measure(line, step, branch, *map(_number, numbers.groups()))
        elif name in SUPERSEDED:
            line = Line(self.seq, text)
            self._place(line, head)
            self._latest[name.decode()] = line
            if name == b"examples_shown" and "measured" in self._latest:
                self._latest["shown of"] = self._latest["measured"]
        elif name.decode() in EVENTS:
            try:
                event = decode(text)
            except DecodeError:
                return
            line = Line(self.seq, text, said(event))
            if not isinstance(event, CommandReceived | CheckpointSaved | CheckpointRemoved):
                self._place(line, head)  # these are told from outside the loop, or late
            self._take(line, event)

    def take(self, block: bytes) -> None:
        """Take in whole lines."""
        for line in block.split(b"\n"):
            self.add(line)

    def lines(self) -> list[bytes]:
        """What matters of all that was added, in order; the last line says how much was left out."""
        kept = self._kept()
        for seq in self._removed.keys() & kept.keys():
            kept[self._removed[seq].seq] = self._removed[seq]
        told = [kept[seq] for seq in sorted(kept)]
        end = HistoryTold(
            lines=self._said - sum(line.said for line in told),
            turns=self._asked - sum(line.asks for line in told),
        )
        return [*(line.text for line in told), encode(end).encode()]

    def _kept(self) -> dict[int, Line]:
        kept = {p.item.seq: p.item for curve in self._curves.values() for p in curve.points()}
        singles = (self._structure, self._counting, self._latest.values(), self._unanswered.values())
        saved = (lines[-1] for lines in self._checkpoints.values())
        newest = (self._metrics, self._evaluations, self._rows)
        more = (saved, *newest, *self._log, *self._turns.values())
        return kept | {line.seq: line for lines in (*singles, *more) for line in lines}

    def _place(self, line: Line, head: re.Match[bytes]) -> None:
        """Where the run stands, and what tells how far it is from the next removal."""
        if head[7] in (b"0.0", b"0"):
            return
        branch, stage, scheduled = (int(head[i]) for i in range(4, 7))
        self._latest["place"] = line
        if scheduled > self._reached.get(branch, -1):
            self._reached[branch] = scheduled
            self._counting.clear()
            if "hold" in self._latest:
                self._counting.append(self._latest["hold"])
            if scheduled > stage:
                # It counts on when all is gone, for ever.
                beyond = scheduled - stage
                self._beyond.reach(branch, beyond)
                self._curve("beyond", branch, self._beyond).add(beyond, 0.0, line)
            else:
                self._structure.append(line)
        elif scheduled != self._scheduled:
            self._counting.append(line)
        self._scheduled = scheduled

    def _measure(self, line: Line, step: int, branch: int, *values: float) -> None:
        self._metrics.append(line)
        self._grid.reach(branch, step)
        self._coarse.reach(branch, step)
        for name, value in zip(NAMES, values, strict=True):
            grid = self._grid if name.startswith("loss") else self._coarse
            self._curve(name, branch, grid).add(step, value, line)

    def _curve(self, name: str, branch: int, grid: Grid) -> Thinned[Line]:
        curve = self._curves.get((name, branch))
        if curve is None:
            curve = self._curves[name, branch] = grid.curve()
        return curve

    def _take(self, line: Line, event: Event) -> None:
        """Whatever comes seldom."""
        if isinstance(event, ChatAnswered | QuizTaken) or is_question(event):
            line = self._converse(line, event)
        match event:
            case Metrics():
                cot = float("nan") if event.loss_cot is None else event.loss_cot
                values = (
                    event.loss,
                    event.loss_answer,
                    cot,
                    event.grad_norm,
                    event.lr,
                    event.tokens_per_second,
                )
                self._measure(line, event.at.step, event.at.branch, *values)
            case Evaluated(split="valid"):
                self._evaluations.append(line)
                self._grid.reach(event.at.branch, event.at.step)
                for name, value in (("exact", event.accuracy), ("token", event.token_accuracy)):
                    self._curve(name, event.at.branch, self._grid).add(event.at.step, value, line)
                self._latest["evaluated"] = self._latest["measured"] = line
            case Evaluated():
                self._latest["measured"] = line
            case CheckpointSaved():
                # The same may be saved again; it then stands last.
                lines = self._checkpoints.pop(event.checkpoint, deque(maxlen=LINES))
                lines.append(line)
                self._checkpoints[event.checkpoint] = lines
            case CheckpointRemoved():
                self._remove(line, event)
            case SettingChanged():
                self._latest[f"set {event.key}"] = line
            case RolledBack():
                self._structure.append(line)
            case StageEntered():
                self._latest["probed"] = line  # what was probed is over
            case RunStarted():
                self._unanswered.clear()
                self._counting.append(line)
                self._latest["started"] = line
            case CommandReceived():
                self._unanswered[event.id] = line
            case CommandAcknowledged():
                self._unanswered.pop(event.id, None)
                self._obeyed(line, event)
            case AlarmRaised() | AlarmCleared():
                self._latest[f"{type(event).__name__} {event.kind}"] = line
            case RunFinished() | RunCrashed():
                self._latest[type(event).__name__] = line
            case _:
                pass
        if line.said:
            self._tell(line, event)
        if is_row(event):
            self._rows.append(line)

    def _remove(self, line: Line, event: CheckpointRemoved) -> None:
        for saved in self._checkpoints.pop(event.checkpoint, ()):
            self._removed[saved.seq] = line
        if len(self._removed) > self._most_removed:
            # Of those whose saving nobody is told, nobody need be told the end.
            kept = self._kept()
            self._removed = {seq: line for seq, line in self._removed.items() if seq in kept}
            self._most_removed = len(self._removed) + LINES

    def _obeyed(self, line: Line, event: CommandAcknowledged) -> None:
        name = event.command.partition(" ")[0]
        if event.ok and name in ("hold", "release"):
            self._latest["hold"] = line
            self._counting.append(line)
        elif event.ok and name in ("run", "pause", "resume", "stop"):
            self._latest["stop" if name == "stop" else "run"] = line

    def _converse(self, line: Line, event: Event) -> Line:
        assert isinstance(event, ChatAnswered | QuizTaken | CommandReceived | CommandAcknowledged)
        if event.id in self._turns:
            self._turns[event.id].append(line)
        elif isinstance(event, CommandReceived):
            line = line._replace(asks=True)
            self._asked += 1
            self._turns[event.id] = [line]
            if len(self._turns) > TURNS:
                del self._turns[next(iter(self._turns))]
        return line

    def _tell(self, line: Line, event: Event) -> None:
        self._said += line.said
        # The line about a stage quotes the accuracy before it.
        before = self._latest.get("evaluated") if isinstance(event, StageEntered) else None
        self._log.append((line,) if before is None else (before, line))
        if len(self._log) > LINES:
            self._log.popleft()


def _number(text: bytes) -> float:
    return GONE[text] if text in GONE else float(text)


def said(event: Event) -> int:
    """How many lines an event makes in the log; the rest is for the charts, the chat, or another line."""
    match event:
        case CommandAcknowledged(ok=False):
            return 1
        case CommandReceived() | CommandAcknowledged():
            return 0 if is_question(event) else 1
        case Metrics():
            return 1 if event.skipped or event.left_out else 0
        case CheckpointSaved():
            return 1 if event.cause in ("final", "stop") else 0
        case Evaluated():
            return 1 if event.split == "test" else 0
        case RunCrashed():
            return 1 + len(event.traceback.splitlines())
        case RolledBack() | StageEntered() | RunStarted() | Notice() | RunFinished():
            return 1
        case AlarmRaised() | AlarmCleared() | DipMeasured():
            return 1
        case _:
            return 0


def is_row(event: Event) -> bool:
    """Whether an event makes a row of the timeline that stays; a checkpoint's goes when it goes."""
    rows = (RunStarted, StageEntered, RolledBack, AlarmRaised, AlarmCleared, RunFinished, RunCrashed)
    return isinstance(event, rows) or (isinstance(event, CommandAcknowledged) and not is_question(event))


def is_question(event: Event) -> bool:
    """Whether it is about a question to the model, which the chat shows."""
    if not isinstance(event, CommandReceived | CommandAcknowledged):
        return False
    return event.command.partition(" ")[0] in QUESTIONS
