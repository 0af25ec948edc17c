"""A dialog: which other run shall be drawn beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from stepwise_tui.text import clean
from trainer import runs
from trainer.runs import RunsError


class ChooseRun(ModalScreen[tuple[Path | None] | None]):
    """Gives back the folder of a run, or None in its place for no other run; None when nothing changes."""

    BINDINGS: ClassVar = [("escape", "dismiss", "cancel")]

    def __init__(self, out: Path) -> None:
        """out: the folder that runs live in."""
        super().__init__()
        self._out = out

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "draw another run beside this one"
            yield Input(placeholder="its name, or its folder", id="run")
            yield Label("", classes="problem", markup=False)
            yield Label("enter draws it, or none if the line is empty; escape cancels", classes="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        name = event.value.strip()
        try:
            self.dismiss((runs.find(name, self._out) if name else None,))
        except RunsError as problem:
            self.query_one(".problem", Label).update(clean(str(problem)))
