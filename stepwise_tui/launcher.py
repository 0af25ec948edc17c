"""What plain `stepwise` opens on a terminal: the runs and the presets, and Enter on any of them.

It neither trains nor attaches: it says what is to be done, and the caller does that in a process of its own.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.coordinate import Coordinate
from textual.events import Resize
from textual.widgets import DataTable, Static

from stepwise_tui.glyphs import Glyphs, detect
from stepwise_tui.settings import Settings, load
from stepwise_tui.text import accuracy, clean, clip, clip_start, duration, size, wrapped
from stepwise_tui.themes import dress, theme_style
from stepwise_tui.widgets.lines import FAINT, STATE_STYLES
from stepwise_tui.widgets.system import sparkline
from trainer import presets, registry, runs
from trainer.paths import named
from trainer.record import journal
from trainer.runs import RunRow

LOOK_SECONDS = 2.0
TREND = 16
"""Evaluations in a sparkline."""
TAIL = 1 << 20
"""Bytes of a journal's end that are looked through for them."""
MEASURED = re.compile(rb'"event":"evaluated".*?"split":"valid","accuracy":([\d.e-]+)')


class Seen(NamedTuple):
    """A run as it is listed. trend: its last validation accuracies."""

    row: RunRow
    trend: tuple[float, ...]


def look(out: Path) -> list[Seen]:
    """The runs under `out` and those this user has begun elsewhere, the latest first.

    Raises `RunsError` where `out` cannot be listed.
    """
    here = runs.list_runs(out)
    known = {row.path for row in here}
    here += runs.rows(f for f in registry.folders() if str(f) not in known and runs.is_run(f))
    here.sort(key=lambda row: row.updated, reverse=True)
    return [Seen(row, trend(Path(row.path))) for row in here]


def trend(run: Path) -> tuple[float, ...]:
    """The last validation accuracies, as far as the end of the journal tells them."""
    file = run / journal.FILE
    try:
        return _trend(file, file.stat().st_size)
    except OSError:
        return ()


@lru_cache(512)
def _trend(file: Path, length: int) -> tuple[float, ...]:
    """Of a journal of that length: most do not grow any more, and all are looked at every two seconds."""
    found: deque[float] = deque(maxlen=TREND)
    with file.open("rb") as lines:
        lines.seek(max(0, length - TAIL))
        for line in lines:
            if (measured := MEASURED.search(line)) is not None:
                found.append(float(measured[1]))
    return tuple(found)


def arguments(seen: Seen) -> list[str]:
    """What `stepwise` is called with for a run: attach to one that trains, else go on with it, or ask it."""
    row = seen.row
    if row.state == "finished":
        return ["chat", row.path]
    if row.state in runs.ENDED:
        return ["resume", row.path]
    return ["attach", row.path]


def explanation(preset: str) -> str:
    """What the head of a preset's file says of it."""
    head = itertools.takewhile(lambda line: line.startswith("#"), presets.source(preset).splitlines())
    return " ".join(line.lstrip("# ") for line in head)


HEAD = ("name", "state", "stage", "acc", "", "size", "   age")
"""Of the table of runs. The last column has room for an age that grows longer while it is looked at."""
FRAME = 4
"""Columns of the border and the scrollbar."""
LEAST_NAME = 10
SPARE = (4, 5)
"""Places in `HEAD` of the trend and the size, which go, one after the other, where a name would have less."""
DOES = {"chat": "asks the model", "resume": "goes on with it", "attach": "shows it and steers it"}


class Launcher(App[list[str]]):
    """Gives back the arguments that `stepwise` is to be called with; None when the person only looked."""

    CSS_PATH = "styles.tcss"
    TITLE = "stepwise"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape,ctrl+q,ctrl+c", "quit", "leave", priority=True),
    ]

    def __init__(self, out: Path, *, settings: Settings | None = None, glyphs: Glyphs | None = None) -> None:
        """out: where runs lie."""
        super().__init__()
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]
        self.glyphs = glyphs or detect()
        dress(self, settings or Settings(), self.glyphs)
        self._out = out
        self._seen: list[Seen] | None = None
        self._trouble = ""
        self._presets = presets.listing()
        self._left = threading.Event()
        self._width = 80

    def compose(self) -> ComposeResult:
        with Vertical(id="launcher"):
            yield Static(id="status")
            yield DataTable(id="runs", classes="panel", cursor_type="row")
            yield DataTable(id="presets", classes="panel", cursor_type="row")
            yield Static(id="detail")
            yield Static(id="keys")

    def on_mount(self) -> None:
        self.query_one("#runs").border_title = "runs"
        self.query_one("#presets").border_title = "presets"
        self.query_one("#keys", Static).update(_keys())
        self._fill_presets()
        self.query_one("#presets").focus()
        threading.Thread(target=self._keep_looking, name="stepwise-runs", daemon=True).start()

    def on_unmount(self) -> None:
        self._left.set()

    def _keep_looking(self) -> None:
        while not self._left.is_set():
            try:
                seen, trouble = look(self._out), ""
            except (ValueError, OSError) as error:
                seen, trouble = [], str(error)
            self.call_later(self.take, seen, trouble)
            self._left.wait(LOOK_SECONDS)

    def take(self, seen: list[Seen], trouble: str = "") -> None:
        """Show the runs as they are now."""
        first = self._seen is None
        if seen != self._seen or trouble != self._trouble:
            self._seen, self._trouble = seen, trouble
            self._fill_runs()
        else:
            self._tell_ages()
        if first and seen:
            self.query_one("#runs").focus()

    def on_resize(self, event: Resize) -> None:
        self._width = event.size.width
        self._fill_presets()
        self._fill_runs()
        self._describe()

    def _fill_runs(self) -> None:
        table: DataTable[Text] = self.query_one("#runs", DataTable)
        wide, place = self._width >= 100, table.cursor_row
        before = self._chosen_run()
        rows = {seen.row.path: self._cells(seen, wide) for seen in self._seen or ()}
        widths = [width + 2 * table.cell_padding for width in _widths(HEAD, rows)]
        places, room = list(range(len(HEAD))), self._width - FRAME - 2 * table.cell_padding - sum(widths[1:])
        for spare in SPARE:
            if room < LEAST_NAME:
                places.remove(spare)
                room += widths[spare]
        for seen in self._seen or ():
            rows[seen.row.path][0] = Text(_name(clean(seen.row.name), max(LEAST_NAME, room)))
        kept = {path: [cells[place] for place in places] for path, cells in rows.items()}
        _fill(table, [HEAD[place] for place in places], kept)
        paths = [seen.row.path for seen in self._seen or ()]
        table.move_cursor(row=paths.index(before) if before in paths else max(0, min(place, len(paths) - 1)))
        self._head()
        self._describe()

    def _tell_ages(self) -> None:
        """Runs grow older though nothing happens to them."""
        table: DataTable[Text] = self.query_one("#runs", DataTable)
        for place, seen in enumerate(self._seen or ()):
            cell, age = Coordinate(place, len(table.columns) - 1), _age(seen)
            if table.get_cell_at(cell) != age:
                table.update_cell_at(cell, age)

    def _cells(self, seen: Seen, wide: bool) -> list[Text]:
        row, glyphs = seen.row, self.glyphs
        style = theme_style(self, STATE_STYLES[row.state])
        return [
            Text(""),  # its name, in what room the others leave
            Text(f"{row.state}{'?' if row.host else ''}", style),
            Text(f"{row.stage}/{row.stages}", justify="right"),
            Text(accuracy(row.accuracy), justify="right"),
            Text(sparkline(seen.trend, TREND if wide else TREND // 2, glyphs, top=1.0)),
            Text(size(row.bytes), justify="right"),
            _age(seen),
        ]

    def _fill_presets(self) -> None:
        table: DataTable[Text] = self.query_one("#presets", DataTable)
        place = table.cursor_row
        room = max(20, self._width - max((len(preset.name) for preset in self._presets), default=0) - 8)
        rows = {preset.name: [Text(preset.name), Text(clip(preset.title, room))] for preset in self._presets}
        _fill(table, ("name", "what it trains"), rows)
        table.move_cursor(row=place)

    def _head(self) -> None:
        number = len(self._seen or ())
        there = f"{number} run{'' if number == 1 else 's'}" if number else "no run yet"
        said = clean(self._trouble) or there
        self.query_one("#status", Static).update(
            Content.assemble(("stepwise", "bold"), "   ", (said, "$warning" if self._trouble else FAINT))
        )

    # What enter would do ------------------------------------------------------------------------------------

    def _chosen_run(self) -> str | None:
        table = self.query_one("#runs", DataTable)
        if not table.row_count:
            return None
        return str(table.coordinate_to_cell_key(Coordinate(table.cursor_row, 0)).row_key.value)

    def _aim(self) -> list[str] | None:
        """The arguments that enter stands for."""
        if self.focused is None:
            return None
        if self.focused.id == "presets":
            return ["run", "preset", self._presets[self.query_one("#presets", DataTable).cursor_row].name]
        chosen = self._chosen_run()
        seen = next((seen for seen in self._seen or () if seen.row.path == chosen), None)
        return arguments(seen) if seen is not None else None

    def _describe(self) -> None:
        aim, width = self._aim(), max(20, self._width - 2)
        if aim is None:
            lines = ["Enter on a preset starts it." if not self._seen else ""]
        elif aim[0] == "run":
            preset = next(p for p in self._presets if p.name == aim[2])
            lines = [preset.title, f"cost: {preset.cost}", f"enter starts it: stepwise {shlex.join(aim)}"]
            lines += ["", explanation(preset.name)]
        else:
            lines = [f"enter {DOES[aim[0]]}: stepwise {aim[0]} {named(Path(aim[1]))}"]
            host = next(seen.row.host for seen in self._seen or () if seen.row.path == aim[1])
            lines += (
                [f"it was begun on {host}; whether it still trains cannot be told from here"] if host else []
            )
        text = "\n".join(wrapped(clean(line), width) for line in lines)
        self.query_one("#detail", Static).update(Content(text))

    def on_data_table_row_highlighted(self) -> None:
        self._describe()

    def on_descendant_focus(self) -> None:
        self._describe()

    def on_data_table_row_selected(self) -> None:
        aim = self._aim()
        if aim is not None:
            self.exit(aim)


def _fill(table: DataTable[Text], head: Sequence[str], rows: Mapping[str, Sequence[Text]]) -> None:
    """Rows by their keys. Widths are given: those that a table finds itself come late, and it may keep what
    it has drawn before."""
    table.clear(columns=True)
    for label, width in zip(head, _widths(head, rows), strict=True):
        table.add_column(label, width=width)
    for key, cells in rows.items():
        table.add_row(*cells, key=key)


def _widths(head: Sequence[str], rows: Mapping[str, Sequence[Text]]) -> list[int]:
    """Of each column: that of the longest in it."""
    return [
        max([len(label), *(cells[place].cell_len for cells in rows.values())])
        for place, label in enumerate(head)
    ]


def _age(seen: Seen) -> Text:
    """How long ago it was last heard of."""
    since = time.time() - datetime.fromisoformat(seen.row.updated).timestamp()
    return Text(duration(since), justify="right")


def _name(name: str, width: int) -> str:
    """A name in at most `width` columns. Those of one sweep begin alike: of these the end is shown."""
    return clip_start(name, width) if "/" in name else clip(name, width)


def _keys() -> Content:
    rows = (("enter", "go"), ("tab", "runs or presets"), ("q", "leave"))
    return Content("  ").join([Content.assemble((key, "bold $accent"), f" {does}") for key, does in rows])


def open_screen() -> None:
    """Show it, and become what the person has chosen. Raises `SettingsError`."""
    chosen = Launcher(Path("runs"), settings=load()).run()
    if chosen is not None:
        # Anew, in this process: the screen has had threads, and training forks before it has any.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], *chosen])
