"""The page of what happened: stages, branches, checkpoints, alarms; and what one does with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Static

from stepwise_tui import keymap
from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History
from stepwise_tui.keymap import Key
from stepwise_tui.screens.page import Page
from stepwise_tui.text import clean, clip, clock
from stepwise_tui.themes import theme_style
from stepwise_tui.timeline import Happening
from trainer.record.lineage import CheckpointRef, Fork

COLUMNS = ("time", "step", "branch", "stage", "checkpoint", "what")
LEAST_TOLD = 12
"""Cells for what happened, however wide the rest is."""
DEEPEST = 6
"""Branches of branches that are set in further than those they hang on."""
Wish = Literal["roll back", "chat", "evaluate", "compare"]
COLOURS = {
    "start": "foreground",
    "stage": "secondary",
    "save": "foreground",
    "operator": "accent",
    "branch": "warning",
    "alarm": "error",
    "end": "success",
}


class Timeline(Page):
    """The newest at the bottom. It follows only who is there."""

    page: ClassVar[keymap.Page] = "timeline"
    BINDINGS: ClassVar[list[BindingType]] = keymap.page_bindings("timeline")

    class Chosen(Message):
        """Something shall be done with a checkpoint."""

        def __init__(self, wish: Wish, checkpoint: CheckpointRef) -> None:
            super().__init__()
            self.wish: Wish = wish
            self.checkpoint = checkpoint

    def __init__(self, history: History, glyphs: Glyphs, keys: Sequence[Key]) -> None:
        super().__init__(history, keys)
        self._glyphs = glyphs
        self._rows: list[Happening] = []
        self._room = 0
        self._checkpoints: dict[str, CheckpointRef] = {}

    def compose(self) -> ComposeResult:
        with Vertical(classes="page whole") as box:
            box.border_title = "timeline"
            yield DataTable(cursor_type="row", zebra_stripes=True)
            yield Static(id="row", markup=False)
            yield from self.feet()

    def on_mount(self) -> None:
        table: DataTable[Text] = self.query_one(DataTable)
        table.add_columns(*COLUMNS)
        table.focus()
        self.show(self._history)

    def show(self, history: History) -> None:
        self._history = history
        table: DataTable[Text] = self.query_one(DataTable)
        rows, room = history.timeline, self.size.width - 4 - table.styles.scrollbar_size_vertical
        if not rows or not table.columns or (rows, room) == (self._rows, self._room):
            return
        before, place = self._rows, table.cursor_row
        self._rows, self._checkpoints = rows, {c.id: c for c in history.lineage.checkpoints}
        self._room = room
        table.clear()
        cells = list(map(self._cells, rows, limbs(rows, history.forks, self._glyphs.limb)))
        widths = [max(map(cell_len, column)) for column in zip(COLUMNS[:-1], *cells, strict=True)]
        left = max(LEAST_TOLD, room - sum(widths) - 2 * table.cell_padding * len(COLUMNS))
        for row, line in zip(rows, cells, strict=True):
            style = theme_style(self.app, f"${COLOURS[row.kind]}")
            table.add_row(*(Text(cell, style) for cell in (*line, clip(row.text, left))))
        stays = place < len(before) - 1 and before[place] in rows
        table.move_cursor(row=rows.index(before[place]) if stays else len(rows) - 1)

    def _cells(self, row: Happening, limb: str) -> tuple[str, ...]:
        """All but what happened."""
        return (
            clock(row.at.time),
            f"{row.at.step:>7,}",
            limb,
            str(row.at.stage),
            clean(row.checkpoint if row.checkpoint in self._checkpoints else ""),
        )

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """All that the chosen row says; its column may be too narrow for it."""
        if event.cursor_row < len(self._rows):
            self.query_one("#row", Static).update(self._rows[event.cursor_row].text)

    def on_data_table_row_selected(self) -> None:
        self._wish("roll back")

    def action_return_to(self) -> None:
        self._wish("roll back")

    def action_chat_with(self) -> None:
        self._wish("chat")

    def action_evaluate_it(self) -> None:
        self._wish("evaluate")

    def action_compare_it(self) -> None:
        self._wish("compare")

    def _wish(self, wish: Wish) -> None:
        place = self.query_one(DataTable).cursor_row
        row = self._rows[place] if place < len(self._rows) else None
        chosen = self._checkpoints.get(row.checkpoint) if row is not None else None
        if chosen is None:
            self.say("no checkpoint is kept of this row; choose one that names it", "warning")
        else:
            self.post_message(self.Chosen(wish, chosen))


def limbs(rows: Sequence[Happening], forks: Mapping[int, Fork], sign: str) -> list[str]:
    """The branch of each row, set in as deep as it hangs, with a sign where it begins."""
    seen: set[int] = set()
    written = []
    for row in rows:
        branch = parent = row.at.branch
        depth = 0
        while parent in forks and depth < DEEPEST:
            parent, depth = forks[parent].parent, depth + 1
        begins = sign if branch not in seen else " "
        seen.add(branch)
        written.append(f"{'  ' * (depth - 1)}{begins} {branch}" if depth else str(branch))
    return written
