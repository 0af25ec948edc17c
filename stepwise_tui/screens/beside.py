"""A dialog: which other run shall be drawn beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList
from textual.widgets.option_list import Option

from stepwise_tui.text import accuracy, clean, clip_start
from trainer import runs
from trainer.runs import RunRow, RunsError

NONE = "none"


class ChooseRun(ModalScreen[tuple[Path | None] | None]):
    """Gives back the folder of a run, or None in its place for no other run; None when nothing changes."""

    BINDINGS: ClassVar = [
        ("escape", "dismiss", "cancel"),
        ("down", "move(1)", "the next"),
        ("up", "move(-1)", "the one before"),
    ]

    def __init__(self, run: Path, *, drawn: bool) -> None:
        """run: the folder of the one on the screen; runs are looked for beside it. drawn: whether another
        one is."""
        super().__init__()
        self._out, self._drawn = run.parent, drawn
        try:
            self._rows = [row for row in runs.list_runs(run.parent) if row.name != run.name]
        except RunsError:
            self._rows = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = "draw another run beside this one"
            yield OptionList(markup=False)
            yield Label("", classes="problem", markup=False)
            yield Input(placeholder="part of its name, or its folder", id="run")
            yield Label("enter draws the chosen one, escape cancels", classes="hint")

    def on_mount(self) -> None:
        self._list("")
        if not self.query_one(OptionList).option_count:
            self._tell_none()
        self.query_one(Input).focus()

    def _list(self, typed: str) -> None:
        """The runs whose names hold what was typed, the one touched last first."""
        choices = self.query_one(OptionList)
        choices.clear_options()
        if self._drawn and not typed:
            choices.add_option(Option("no other run", id=NONE))
        choices.add_options(Option(_told(row), id=row.path) for row in self._rows if typed in row.name)
        choices.can_focus = False
        choices.highlighted = 0 if choices.option_count else None

    def action_move(self, by: int) -> None:
        choices = self.query_one(OptionList)
        if by > 0:
            choices.action_cursor_down()
        else:
            choices.action_cursor_up()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._list(event.value.strip())
        self.query_one(".problem", Label).update("")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        chosen = self.query_one(OptionList).highlighted_option
        if chosen is not None:
            self._take(chosen)
        elif name := event.value.strip():
            try:
                self.dismiss((runs.find(name, self._out),))
            except RunsError as problem:
                self.query_one(".problem", Label).update(clean(str(problem)))
        else:
            self._tell_none()

    def _tell_none(self) -> None:
        self.query_one(".problem", Label).update(f"there is no other run in {clean(str(self._out))}")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._take(event.option)

    def _take(self, option: Option) -> None:
        self.dismiss((Path(option.id) if option.id and option.id != NONE else None,))


def _told(row: RunRow) -> str:
    place = f"stage {row.stage:>3}/{row.stages:<3}  acc {accuracy(row.accuracy):>5}"
    return f"{clip_start(clean(row.name), 28):<28}  {row.state:<11}  {place}"
