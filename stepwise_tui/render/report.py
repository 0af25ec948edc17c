"""One run as a page: what was trained, its curves, what happened, how it answers, with what it was made."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stepwise_tui.history import History, Turn, replay
from stepwise_tui.render import curves, html, picture
from stepwise_tui.render.html import Markup, element, joined, pairs, section
from stepwise_tui.text import DASH, accuracy, duration
from stepwise_tui.timeline import Happening
from stepwise_tui.words import BY_CAUSE, words
from trainer import config as configuration
from trainer import presets, runs
from trainer.analysis import recovery
from trainer.analysis.compare import live_line
from trainer.analysis.recovery import Entry
from trainer.config import Config, MethodConfig, shown
from trainer.events import (
    ChatAnswered,
    Evaluated,
    Event,
    Notice,
    QuizTaken,
    RolledBack,
    RunFinished,
    RunStarted,
    ShownExample,
    StateChanged,
    decoded,
)
from trainer.files import replace_text
from trainer.record import journal
from trainer.record.digest import LINES, Digest
from trainer.runs import ENDED, RunRow

FOLDER, PAGE = "report", "index.html"
TOLD = (*recovery.TELLING, RunStarted, Notice, StateChanged, RunFinished)
LIBRARIES = ("stepwise-tui", "torch", "transformers", "tokenizers", "numpy")
TRAINS = {
    "stepwise": "losing its chain of thought {unit} by {unit}",
    "explicit_cot": "writing its whole chain of thought",
    "no_cot": "answering without a chain of thought",
    "coconut": "thinking continuous thoughts in the place of reasoning steps",
    "pause": "with pause tokens in the place of reasoning steps",
}
NO_THOUGHT = "with nothing in the place of reasoning steps"


@dataclass(frozen=True, slots=True)
class Story:
    """All that a page tells. begun: the configuration that the run began with; `history.config` is as it is
    now. told: the events of the kinds `TOLD`, all of them."""

    row: RunRow
    begun: Config
    history: History
    told: list[Event]


def read(folder: Path) -> Story:
    """What a run's folder tells, whatever the run does meanwhile. Raises `ConfigError`, OSError."""
    begun = presets.configure(folder / runs.CONFIG_FILE)
    row = runs.row(folder)
    digest, reader = Digest(), journal.Reader(folder)
    try:
        while block := reader.take():
            digest.take(block)
    finally:
        reader.close()
    history = replay(decoded(digest.lines()), begun)
    return Story(row, begun, history, list(journal.read(folder, journal.of(*TOLD))))


def write(story: Story, folder: Path) -> list[Path]:
    """Write the page and its pictures; their paths, the page first. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [folder / f"{quantity.id}.png" for quantity in curves.SHOWN]
    for path, quantity in zip(pictures, curves.SHOWN, strict=True):
        picture.save(path, partial(curves.plot, quantity, story.history))
    replace_text(folder / PAGE, page(story), durable=False)
    return [folder / PAGE, *pictures]


def page(story: Story) -> str:
    """The page, whole: it needs no other file."""
    history = story.history
    parts = [
        _head(story),
        section("Curves", _curves(history)),
        section("Stages", _stages(story)),
        section("Branches and roll backs", _branches(story)),
        section("Alarms", _happenings(history, "alarm", "No alarm was raised.")),
        section("Operator's commands", _happenings(history, "operator", "Nobody steered this run.")),
        section("Examples", _examples(history.shown)),
        section("Chat", _chat(history.chat)),
        section("Configuration", _configuration(story)),
        section("Environment", _environment(story)),
    ]
    return html.page(_title(story), joined(parts))


def _title(story: Story) -> str:
    return story.history.config.title or story.row.name


def _head(story: Story) -> Markup:
    row, history = story.row, story.history
    valid = [e for e in recovery.live_only(story.told) if isinstance(e, Evaluated)]
    best = max(valid, key=lambda e: e.accuracy, default=None)
    test = _test(story.told)
    stage = f", stage {row.stage} of {row.stages}" if row.stages else ""
    figures = [
        _figure("accuracy now", valid[-1].accuracy if valid else None, _measured(valid[-1:])),
        _figure("best", best.accuracy if best else None, f"at step {best.at.step:,}" if best else ""),
        _figure("test", test[0] if test else None, f"{test[1]:,} examples" if test else "not measured"),
    ]
    elsewhere = f" on {row.host}, not checked" if row.host else ""
    made = time.strftime("%Y-%m-%d %H:%M %Z")
    after = "" if row.state in ENDED else ", while the run went on"
    parts = [
        element("h1", _title(story)),
        element("p", f"{row.name}: {row.state}{elsewhere}, step {history.at.step or row.step:,}{stage}"),
        element("p", _trained(history.started, story.begun.method)),
        element("div", joined(figures), "figures"),
        element("p", f"Made {made}{after}. Accuracy is exact match of the whole answer.", "faint"),
    ]
    end = history.crashed or history.finished
    if end is not None:
        parts.insert(2, element("p", words(end) or ""))
    elif row.state == "crashed":
        parts.insert(2, element("p", "Its process is gone and said nothing."))
    return joined(parts)


def _figure(name: str, value: float | None, note: str) -> Markup:
    said = joined([element("b", accuracy(value)), element("span", name)])
    return element("div", joined([said, element("div", note, "faint")]))


def _measured(last: Sequence[Evaluated]) -> str:
    return f"{last[0].correct:,} of {last[0].n:,}, step {last[0].at.step:,}" if last else "not evaluated yet"


def _test(events: Iterable[Event]) -> tuple[float, int] | None:
    """The last accuracy on the test split, and of how many."""
    found = None
    for event in events:
        match event:
            case (
                Evaluated(split="test", accuracy=float(share), n=n) | RunFinished(accuracy=float(share), n=n)
            ):
                found = share, n
    return found


def _trained(started: RunStarted | None, method: MethodConfig) -> str:
    if started is None:
        return "No process has begun to train it."
    how = NO_THOUGHT if method.no_thought else TRAINS[method.name].format(unit=method.unit)
    stages = {0: "", 1: " in one stage"}.get(started.stages, f" in {started.stages} stages")
    return (
        f"A model ({started.model}, {started.parameters:,} parameters) that learns {started.task}, {how}, "
        f"from {started.train_examples:,} examples{stages}."
    )


def _curves(history: History) -> Markup:
    drawn = []
    for quantity in curves.SHOWN:
        if not any(len(quantity.curves[-1].of(b).columns.step) for b in history.branches.values()):
            drawn.append(element("p", f"{quantity.title.capitalize()}: {quantity.empty}."))
            continue
        svg = picture.inline(quantity.id, partial(curves.plot, quantity, history))
        last = f"as {quantity.id}.png beside this page"
        drawn.append(
            html.figure(svg, f"{quantity.title.capitalize()} by step, upright lines at removals; {last}")
        )
    return joined(drawn)


STAGES = (
    "stage",
    "removed",
    "entered at step",
    "why",
    "accuracy before",
    "lowest",
    "last",
    "steps to recovery",
)


def _stages(story: Story) -> Markup:
    rows = recovery.entries(story.told)
    if not rows:
        return element("p", "No stage was entered yet.")
    note = (
        "Those of the live line of history. Recovered: at the first evaluation within the stage that was "
        f"back at {recovery.BACK:.0%} of the accuracy before."
    )
    cells = [_stage(row, row is rows[-1] and story.row.state not in ENDED) for row in rows]
    return joined([html.table(STAGES, cells), element("p", note, "faint")])


def _stage(row: Entry, going_on: bool) -> list[str]:
    back = "not yet" if going_on else "not recovered"
    if row.recovered is not None:
        back = f"{row.recovered:,}"
    elif row.before is None or row.lowest is None:
        back = DASH
    measured = (accuracy(value) for value in (row.before, row.lowest, row.last))
    return [str(row.stage), row.text, f"{row.step:,}", BY_CAUSE[row.cause], *measured, back]


BRANCHES = ("branch", "from", "at step", "left", "abandoned steps", "weights", "now")


def _branches(story: Story) -> Markup:
    forks = [event for event in story.told if isinstance(event, RolledBack)]
    if not forks:
        return element("p", "One line of history: nobody rolled back.")
    live = live_line(story.told)
    rows = [
        (
            str(fork.at.branch),
            fork.checkpoint,
            f"{fork.at.step:,}",
            f"branch {fork.from_branch} at step {fork.from_step:,}",
            f"{max(0, fork.from_step - fork.at.step):,}",
            "kept" if fork.keep_weights else "those of the checkpoint",
            "live" if fork.at.branch in live else "abandoned",
        )
        for fork in forks
    ]
    return html.table(BRANCHES, rows)


def _happenings(history: History, kind: str, none: str) -> Markup:
    rows = [row for row in history.happenings if row.kind == kind]
    if not rows:
        return element("p", none)
    table = html.table(("when", "branch", "step", "what"), [_happening(row) for row in rows])
    if len(history.happenings) < LINES:
        return table
    return joined([table, element("p", f"Of the last {LINES:,} things that happened.", "faint")])


def _happening(row: Happening) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.at.time))
    return when, str(row.at.branch), f"{row.at.step:,}", row.text


EXAMPLES = ("question", "chain of thought written", "removed", "answered", "verdict", "right answer")


def _examples(examples: Sequence[ShownExample]) -> Markup:
    if not examples:
        return element("p", "None were shown since the run began, or since it was rolled back.")
    rows = [
        (
            one.question,
            " ".join(one.spoken).strip() or "none",
            f"{min(one.removed, len(one.cot))} of {len(one.cot)} tokens",
            one.given or DASH,
            "✓ right" if one.correct else "✗ wrong",
            one.answer,
        )
        for one in examples
    ]
    right = sum(one.correct for one in examples)
    note = f"Held-out examples of the last evaluation: {right} of these {len(examples)} right."
    return joined([html.table(EXAMPLES, rows), element("p", note, "faint")])


VERDICTS = {True: "✓ right", False: "✗ wrong", None: ""}


def _chat(turns: Iterable[Turn]) -> Markup:
    rows = [_turn(turn) for turn in turns]
    if not rows:
        return element("p", "Nobody asked it anything.")
    return html.table(("asked", "chain of thought written", "answer", "verdict", "by"), rows)


def _turn(turn: Turn) -> tuple[str, ...]:
    said = turn.answered
    if isinstance(said, QuizTaken):
        return turn.asked, f"{said.cot_tokens:.1f} tokens each", words(said) or "", "", said.checkpoint
    if isinstance(said, ChatAnswered) and said.understood:
        verdict = VERDICTS[said.correct]
        if said.correct is False:
            verdict = f"{verdict}, {said.expected} is right"
        answer = f"{said.answer or DASH} ({said.note})" if said.note else said.answer or DASH
        return turn.asked, " ".join(said.cot).strip() or "none", answer, verdict, said.checkpoint
    why = said.note if isinstance(said, ChatAnswered) else turn.refused or "no answer yet"
    return turn.asked, "", why, "", turn.checkpoint


def _configuration(story: Story) -> Markup:
    """What differs from the defaults, then everything. What was set since the start says so."""
    now = story.history.config
    rows = []
    for field in configuration.table():
        value, begun = (configuration.get(config, field.key) for config in (now, story.begun))
        since = "" if value == begun else f"was {shown(begun)} at the start"
        rows.append((value != field.default, (field.key, shown(value), shown(field.default), since)))
    differing = [cells for differs, cells in rows if differs]
    head = ("field", "value", "default", "since")
    first = html.table(head, differing) if differing else element("p", "Nothing differs from the defaults.")
    return joined([first, html.folded(f"All {len(rows)} fields", html.table(head, [c for _, c in rows]))])


def _environment(story: Story) -> Markup:
    started = story.history.started
    values: dict[str, str] = {}
    if started is not None:
        values = {"device": started.device, "host": started.host or DASH, "process": str(started.pid or DASH)}
        for source in started.sources:
            origin = f"{source.name}: {source.examples:,} examples, digest {source.digest}"
            values[f"{source.split} data"] = origin
    history = story.history
    if history.born:
        values["began"] = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(history.born))
        values["last heard of"] = f"{duration(history.at.time - history.born)} later"
    values["folder"] = story.row.path
    values |= dict(_installed())
    said = [element("li", notice) for notice in _first_notices(story.told)]
    parts = [pairs(values)]
    if said:
        parts += [
            element("p", "What the run said when its last process took it up:"),
            element("ul", joined(said)),
        ]
    return joined(parts)


def _installed() -> Iterator[tuple[str, str]]:
    """Versions where the page is made; the journal of a run names none."""
    yield "made with", f"Python {platform.python_version()}, {platform.machine()}"
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield name, f"{importlib.metadata.version(name)}, where this page was made"


def _first_notices(told: Iterable[Event]) -> list[str]:
    """How steps are computed, and what else is said before the first of a process."""
    said: list[str] = []
    beginning = False
    for event in told:
        if isinstance(event, RunStarted):
            said, beginning = [], True
        elif isinstance(event, StateChanged) and event.state != "starting":
            beginning = False
        elif isinstance(event, Notice) and beginning:
            said.append(words(event) or "")
    return said
