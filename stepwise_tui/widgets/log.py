"""The operator log: stages, commands, alarms, as they come."""

from __future__ import annotations

from itertools import islice

from rich.segment import Segment
from rich.text import Text
from textual.events import Resize
from textual.selection import Selection
from textual.strip import Strip
from textual.theme import Theme
from textual.widgets import RichLog

from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History
from stepwise_tui.log import LogLine, Tone
from stepwise_tui.text import clock, wrapped
from stepwise_tui.themes import theme_style

COLOURS: dict[Tone, str] = {
    "plain": "foreground",
    "faint": "foreground",
    "stage": "secondary",
    "operator": "accent",
    "good": "success",
    "warning": "warning",
    "error": "error",
}


class LogPanel(RichLog):
    """The newest line at the bottom. It follows only who is at the end: whoever reads further up stays there,
    and the border says how many lines are new."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(
            id="log",
            classes="panel",
            wrap=True,
            max_lines=2_000,
            min_width=10,
            markup=False,
            auto_scroll=False,
        )
        self.border_title = "log"
        self._glyphs = glyphs
        self._written = 0
        self._seen = 0
        self._width = 0
        self._history = History()
        self._follows = True

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, self._recolour)

    def show(self, history: History) -> None:
        """Add what is new. While the panel is hidden it has no width to wrap to, so it waits."""
        self._history = history
        new = history.log_total - self._written
        if not new or not self._width:
            return
        kept, cut = len(history.log), self._start_line
        if not self._written and history.log_total > kept:
            earlier = f"… {history.log_total - kept:,} earlier lines are in journal.jsonl"
            self.write(Text(earlier, "dim"), width=self._width)
        for line in islice(history.log, max(0, kept - new), kept):
            self.write(self._line(line), width=self._width)
        self._written = history.log_total
        if self._follows:
            self.scroll_end(animate=False)
        elif cut := self._start_line - cut:  # of the oldest lines; what is being read moves up by as many
            self.scroll_to(y=max(0, self.scroll_y - cut), animate=False)
        self._count()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._follows = new_value >= self.max_scroll_y
        self._count()

    def _count(self) -> None:
        """Say in the border what has come since the end was last seen."""
        if self._follows:
            self._seen = self._written
        new = self._written - self._seen
        said = f"{self._glyphs.down} {new:,} new" if new else ""
        if self.border_subtitle != said:
            self.border_subtitle = said

    def _line(self, line: LogLine) -> Text:
        """The time, then the text beside it."""
        # What this window itself says has no time in the run.
        stamp = f"{clock(line.time) if line.time else '':<8}  "
        text = Text(wrapped(stamp + line.text, self._width, len(stamp)))
        weight = {"error": "bold ", "faint": "dim "}.get(line.tone, "")
        text.stylize(theme_style(self.app, f"{weight}${COLOURS[line.tone]}"), len(stamp))
        text.stylize("dim", 0, len(stamp))
        return text

    def on_resize(self, event: Resize) -> None:
        width = self.scrollable_content_region.width
        if width != self._width:
            self._width = width
            self._rewrite()

    def _recolour(self, theme: Theme) -> None:
        self._rewrite()

    def _rewrite(self) -> None:
        """Write everything anew. Who reads further up stays there, about: lines wrap otherwise now."""
        follows, place, seen = self._follows, self.scroll_y / max(1, len(self.lines)), self._seen
        self.clear()
        self._written = 0
        self._follows = False
        self.show(self._history)
        self._follows, self._seen = follows, seen
        if follows:
            self.call_after_refresh(self.scroll_end, animate=False)
        else:
            there = round(place * len(self.lines))
            self.call_after_refresh(self.scroll_to, y=there, animate=False)
        self._count()

    # Selecting with the mouse, which Textual's own log lacks ------------------------------------------------

    def render_line(self, y: int) -> Strip:
        scroll_x, scroll_y = self.scroll_offset
        line = super().render_line(y)
        selection = self.text_selection
        span = None if selection is None else selection.get_span(scroll_y + y)
        if span is not None:
            length = line.cell_length
            start, end = span[0], length if span[1] == -1 else min(span[1], length)
            chosen = self.screen.get_component_rich_style("screen--selection")
            inside = Segment.apply_style(line.crop(start, end), post_style=chosen)
            line = Strip.join([line.crop(0, start), Strip(inside), line.crop(end, length)])
        return line.apply_offsets(scroll_x, scroll_y + y)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selection.extract("\n".join(strip.text.rstrip() for strip in self.lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()
