"""Pages over the cockpit: help, examples, timeline. The run goes on beneath them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History
from stepwise_tui.keymap import TITLES, Key
from stepwise_tui.text import clean, clip, clock, wrapped
from stepwise_tui.themes import theme_style
from stepwise_tui.widgets import lines
from trainer.lineage import CheckpointRef

CLOSE = "escape,q"


class Help(ModalScreen[None]):
    """What the screen shows and what each key does."""

    BINDINGS: ClassVar = [(CLOSE, "dismiss", "close"), Binding("question_mark", "dismiss", id="help")]

    def __init__(self, keys: Sequence[Key]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as box:
            box.border_title = "help"
            box.border_subtitle = "escape closes"
            yield Static(id="help")

    def on_resize(self) -> None:
        width = self.query_one(".page").scrollable_content_region.width
        self.query_one("#help", Static).update(help_text(width, self._keys))


def help_text(width: int, keys: Sequence[Key]) -> Content:
    """The key table, and how to read the screen, in lines of `width`."""
    parts: list[Content] = []
    for group, title in TITLES.items():
        parts.append(Content.styled(title, "bold"))
        for key in keys:
            if key.group != group:
                continue
            shown = f"{key.shown}, {key.also.replace(',', ', ')}" if key.also else key.shown
            parts.append(_row(shown, key.help, "bold $accent", width))
        parts.append(Content(""))
    parts.append(Content.styled("Read", "bold"))
    parts += [_row(name, text, "$secondary", width) for name, text in READING]
    return Content("\n").join(parts)


def _row(name: str, text: str, style: str, width: int) -> Content:
    head = f"  {name:<18}"
    lines = wrapped(head + text, width, len(head))
    return Content.styled(lines, "").stylize(style, 0, len(head))


READING = (
    ("removed", "CoT tokens the model no longer gets to see or say"),
    ("the third line", "a held-out example: a dot for each removed token, then what the model says"),
    ("vertical lines", "a token went there; its number stands above"),
    ("dim lines", "what a roll back abandoned"),
    ("dip", "accuracy falls at a removal; it should climb back before the next"),
)


class Examples(ModalScreen[None]):
    """Held-out examples as the model just answered them."""

    BINDINGS: ClassVar = [(CLOSE, "dismiss", "close"), Binding("x", "dismiss", id="examples")]

    def __init__(self, history: History, glyphs: Glyphs, evaluate: str) -> None:
        """evaluate: the key that asks for an evaluation."""
        super().__init__()
        self._history, self._glyphs, self._evaluate = history, glyphs, evaluate

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as box:
            box.border_subtitle = "escape closes"
            yield Static(id="examples")

    def on_mount(self) -> None:
        self.show(self._history)

    def on_resize(self) -> None:
        self.show(self._history)

    def show(self, history: History) -> None:
        """Take up the examples of the last evaluation."""
        box, at = self.query_one(".page"), history.shown_at
        if at is None:
            box.border_title = "examples"
            text = Content(f"None yet: they come with the first evaluation. {self._evaluate} asks for one.")
        else:
            right = sum(shown.correct for shown in history.shown)
            box.border_title = (
                f"held-out examples · step {at.step:,} · stage {at.stage} · "
                f"{right} of {len(history.shown)} right"
            )
            width = max(30, self.size.width - 12)
            text = Content("\n\n").join([lines.example(s, width, self._glyphs) for s in history.shown])
        self.query_one("#examples", Static).update(text)


class Timeline(ModalScreen[CheckpointRef]):
    """Stages, branches, checkpoints and what was done. Enter on a checkpoint offers to return to it."""

    BINDINGS: ClassVar = [(CLOSE, "dismiss", "close"), Binding("t", "dismiss", id="timeline")]

    def __init__(self, history: History) -> None:
        super().__init__()
        checkpoints = {c.id: c for c in history.lineage.checkpoints}
        self._rows = history.timeline
        self._checkpoints = checkpoints

    def compose(self) -> ComposeResult:
        with Vertical(classes="page") as box:
            box.border_title = "timeline"
            box.border_subtitle = "enter on a checkpoint rolls back to it · escape closes"
            yield DataTable(cursor_type="row", zebra_stripes=True)

    def on_mount(self) -> None:
        table: DataTable[Text] = self.query_one(DataTable)
        table.add_columns("time", "step", "br", "stage", "checkpoint", "what")
        for row in self._rows:
            held = row.checkpoint if row.checkpoint in self._checkpoints else ""
            style = theme_style(self.app, f"${COLOURS[row.kind]}")
            cells = (
                clock(row.at.time),
                f"{row.at.step:>7,}",
                str(row.at.branch),
                str(row.at.stage),
                clean(held),
                clip(row.text, 200),
            )
            table.add_row(*[Text(cell, style) for cell in cells])
        table.move_cursor(row=len(self._rows) - 1)
        table.focus()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        chosen = self._checkpoints.get(self._rows[event.cursor_row].checkpoint)
        if chosen is not None:
            self.dismiss(chosen)


COLOURS = {
    "start": "foreground",
    "stage": "secondary",
    "save": "foreground",
    "operator": "accent",
    "branch": "warning",
    "alarm": "error",
    "end": "success",
}
