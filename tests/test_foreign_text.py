"""What others wrote cannot steer a terminal: a model's output, an error, a name, a file, another client."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from textual.content import Content
from textual.widgets import DataTable, OptionList, Static

from stepwise_tui import answers, keymap, output, plain
from stepwise_tui.app import Cockpit
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.history import replay
from stepwise_tui.render.screen import Screen
from stepwise_tui.screens.dialogs import ChooseRollback
from stepwise_tui.screens.timeline import Timeline
from stepwise_tui.text import clean
from stepwise_tui.widgets import answers as drawn
from stepwise_tui.widgets import closing, lines, replies, system
from stepwise_tui.words import words
from tests.scripted import SCRIPTED, ScriptedLink
from trainer import presets, runs
from trainer.config import MethodConfig
from trainer.events import (
    EVENTS,
    AlarmRaised,
    At,
    ChatAnswered,
    CommandReceived,
    Event,
    ExamplesAnswered,
    RunCrashed,
    RunFinished,
    RunStarted,
)

EVIL = "\x1b]0;x\x07\x9b31m[red]r[/red]\u202e\u2066\n\rz\x00\u2028"
NAMES = keymap.names(keymap.KEYS)


def test_what_words_are_written_with_stays() -> None:
    for word in ("می\u200cخواهم", "क्\u200dष", "👩\u200d🔬"):
        assert clean(word) == word
    assert clean("\u200f\u2066\x1b") == "���"


def evil(hint: Any) -> Any:
    """A value of a field's kind, foreign text wherever there can be text."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return evil(next(a for a in arguments if a is not type(None)))
    if origin is typing.Literal:
        return arguments[-1]
    if origin is tuple:
        return (evil(arguments[0]),) * 2
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return hint(**{f.name: evil(hints[f.name]) for f in dataclasses.fields(hint)})
    return {int: 1, float: 0.5, bool: True}.get(hint, EVIL)


def events(*kinds: type[Event]) -> list[Event]:
    found = []
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        own = {f.name: evil(hints[f.name]) for f in dataclasses.fields(kind) if f.name not in ("at", "seq")}
        found.append(kind(at=At(step=1, time=1.0), **own))
    return found


def harmless(text: str, *, one_line: bool = False) -> bool:
    return all(line.isprintable() for line in ([text] if one_line else text.split("\n")))


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_each_event_is_one_harmless_line(kind: type[Event]) -> None:
    (event,) = events(kind)
    for text in (words(event), plain.line(event)):
        assert text is None or harmless(text, one_line=True)


def test_all_that_the_screen_is_made_of_is_harmless() -> None:
    others = [kind for kind in EVENTS.values() if kind not in (RunFinished, RunCrashed)]
    told = events(RunStarted, *others, AlarmRaised)
    history = replay(told, SCRIPTED)
    shown = [line.text for line in history.log]
    answered = next(event for event in told if isinstance(event, ExamplesAnswered))
    sides = [answers.Answers(EVIL, event.at, event.examples, 1, 2) for event in (answered, answered)]
    pair = answers.pairs(sides)[0]
    columns = drawn.layout([pair], [EVIL, EVIL], 300, UNICODE)
    there = ScriptedLink([], Path("runs") / EVIL)
    for pieces in (
        drawn.head(sides, columns, UNICODE),
        drawn.standing(sides[0], 300, UNICODE),
        Content(drawn.tally(sides, [pair], UNICODE)),
        drawn.row(pair, columns, UNICODE),
        drawn.closer(pair, [side.name for side in sides], 300, UNICODE),
        lines.pending(replay(events(RunStarted, CommandReceived), SCRIPTED), 1e12),
        lines.status_line(history, EVIL, 300, UNICODE),
        replies.example_line(history, 300, UNICODE),
        lines.alarm(history, 80, UNICODE, NAMES),
        system.panel(history, 300, UNICODE),
        system.brief(history) or Content(""),
        *(replies.turn(turn, MethodConfig(), 80, UNICODE) for turn in history.chat),
        closing.closing(replay([*told, *events(RunCrashed)], SCRIPTED), there, NAMES),
        closing.closing(replay([*told, *events(RunFinished)], SCRIPTED), there, NAMES),
    ):
        assert isinstance(pieces, Content)
        shown.append(pieces.plain)
    assert "[red]r[/red]" in "".join(shown)
    assert [text for text in shown if not harmless(text)] == []


async def test_names_of_checkpoints_are_harmless_in_timeline_and_dialog() -> None:
    told = events(RunStarted, EVENTS["checkpoint_saved"])
    told = [dataclasses.replace(event, cause="stage") if hasattr(event, "cause") else event for event in told]
    app = Cockpit(ScriptedLink(told))
    async with app.run_test(size=(100, 30)) as pilot:
        app.push_screen(Timeline(app.history, app.glyphs, app.page_keys))
        await pilot.pause()
        table = app.screen.query_one(DataTable)
        cells = [str(cell) for row in table.rows for cell in table.get_row(row)]
        app.push_screen(ChooseRollback(app.history))
        await pilot.pause()
        cells += [str(option.prompt) for option in app.screen.query_one(OptionList).options]
        cells += [str(app.screen.query_one("#outlook", Static).content)]
    assert any("[red]" in cell for cell in cells)
    assert all(map(harmless, cells))


def test_what_is_printed_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    (answered,) = events(ChatAnswered)
    assert isinstance(answered, ChatAnswered)
    output.block(EVIL)
    output.say(EVIL)
    output.complain(EVIL)
    kinds = typing.get_type_hints(runs.RunRow)
    own = {field.name: evil(kinds[field.name]) for field in dataclasses.fields(runs.RunRow)}
    row = runs.RunRow(**own | {"updated": "2026-01-01T00:00:00+00:00"})
    output.block(output.runs_table([row]))
    output.block(output.turn(answered))
    output.document({"text": EVIL})
    Screen().print(EVIL)
    written = capsys.readouterr()
    assert harmless(written.out) and harmless(written.err)


def test_json_says_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    output.document({"text": f"é×{EVIL}"})
    text = capsys.readouterr().out
    assert harmless(text) and "é×" in text
    assert json.loads(text) == {"text": f"é×{EVIL}"}


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/x", "..", "", "a\x1b[2J", "a\n", ".hidden", "-rf"])
def test_a_name_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(runs.RunsError, match="--name"):
        runs.new_folder(tmp_path, name, "mult2x2")


@pytest.mark.parametrize("name", ["../../pyproject", "/etc/passwd", "mult2x2/../mult2x2", ".", ".."])
def test_a_preset_is_one_of_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match="preset"):
        presets.configure(name)


def test_wide_characters_shift_no_column() -> None:
    assert output.table(["a", "b"], [["日本", "x"], ["e\u0301", "x"]]) == "a     b\n日本  x\ne\u0301     x"


def test_a_name_that_a_table_has_no_room_for_stands_above_its_row() -> None:
    rows = [["long-name", "done"], ["short", "done"]]
    assert output.table(["name", "state"], rows, 12) == "name   state\nlong-name\n       done\nshort  done"
    assert output.table(["name", "state"], rows).splitlines()[1] == "long-name  done"
