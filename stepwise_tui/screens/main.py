"""The screen under all others: lines on top, charts, log and chat in the middle, keys at the bottom."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Static

from stepwise_tui import keymap
from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History
from stepwise_tui.keymap import Key
from stepwise_tui.link import Link
from stepwise_tui.log import Tone
from stepwise_tui.looks import CHARTS, PANELS, TABS, Look, Tab
from stepwise_tui.text import clean, clip, wrapped
from stepwise_tui.widgets import closing, lines, replies, system
from stepwise_tui.widgets.charts import ChartPanel, Charts
from stepwise_tui.widgets.chat import ChatInput, ChatPanel
from stepwise_tui.widgets.lines import MESSAGE_STYLES
from stepwise_tui.widgets.log import LogPanel
from stepwise_tui.widgets.readouts import Readout
from stepwise_tui.widgets.system import SystemPanel
from trainer.terminals import SMALLEST

MESSAGE_SECONDS = 12.0
HINT_SECONDS = 60.0
now = time.time
HINT = (("pause_or_resume", "pauses"), ("chat", "asks the model something"), ("help", "explains everything"))


class Main(Screen[None]):
    """Shows a history. Knows the layout and the tabs; what keys do is the app's matter."""

    BINDINGS: ClassVar[list[BindingType]] = keymap.bindings()
    AUTO_FOCUS = ""

    def __init__(
        self,
        link: Link,
        glyphs: Glyphs,
        table: Sequence[Key],
        look: Look,
        beside: Path | None = None,
        *,
        hints: bool = True,
    ) -> None:
        """table: the keys, as the person has mapped them. look: what was looked at last. beside: another run,
        to compare with. hints: name some keys, for a while."""
        super().__init__()
        self._table, self._names = table, keymap.names(table)
        self._look, self._beside = look, beside
        self._link, self._glyphs = link, glyphs
        self._history = History()
        self._tab: Tab = look.tab
        self._large = look.large
        self._keys: tuple[object, ...] = ()
        self._forgetting: Timer | None = None
        self._hints = hints

    def compose(self) -> ComposeResult:
        glyphs, link, names = self._glyphs, self._link, self._names
        hint = [f"new here?  {names[action]} {does}" for action, does in HINT[:1]]
        hint += [f"{names[action]} {does}" for action, does in HINT[1:]]
        yield Static(id="too-small")
        with Vertical(id="cockpit"):
            yield Readout(self._status, id="status")
            yield Readout(lambda h, w: lines.removal_line(h, w, glyphs), id="removal")
            yield Readout(lambda h, w: replies.example_line(h, w, glyphs), id="example")
            yield Readout(lambda h, w: lines.alarm(h, w, glyphs, names), id="alarm")
            yield Static(id="tabs", classes="clickable")
            with Horizontal(id="body"):
                with Vertical(id="left"):
                    yield Charts(glyphs, self._look, self._beside)
                    with Horizontal(id="lower"):
                        yield LogPanel(glyphs)
                        yield SystemPanel(glyphs)
                yield ChatPanel(glyphs)
            yield Readout(lambda h, w: closing.closing(h, link, names), id="closing")
            yield Readout(lambda h, w: lines.pending(h, now()), id="pending")
            yield Static(Content(glyphs.between.join(hint) if self._hints else ""), id="message")
            yield Static(id="keys", classes="clickable")

    def on_mount(self) -> None:
        self._show_tab()
        self._show_large()
        self.set_class(self._look.system, "-with-system")
        self.call_after_refresh(self._focus_again)
        for static in self.query(".clickable").results(Static):
            static.auto_links = False  # a click works all the same; underlined keys are hard to read
        self._forgetting = self.set_timer(HINT_SECONDS, self._forget)

    # What the history says ----------------------------------------------------------------------------

    def show(self, history: History) -> None:
        """Let each widget look whether it reads differently now."""
        self._history = history
        for readout in self.query(Readout):
            readout.show(history)
        self.query_one(LogPanel).show(history)
        self.query_one(ChatPanel).show(history)
        self.query_one(SystemPanel).show(history)
        self.query_one("#closing").border_title = closing.title(history)
        self.set_class(history.crashed is not None, "-crashed")
        self._show_keys()
        if (history.ended or history.gone) and self._hints:
            self._forget()  # the hint is about a run that trains

    def _status(self, history: History, width: int) -> Content:
        return lines.status_line(history, self._link.name, width, self._glyphs, system.brief(history))

    def show_pending(self, history: History) -> None:
        """Say what was asked for and has not been done, and since when."""
        for readout in self.query("#pending").results(Readout):  # none while it is being taken down
            readout.show(history)

    def show_charts(self, history: History) -> None:
        self.query_one(Charts).show(history)
        self.query_one(ChatPanel).name_weights(history.at)

    def say(self, text: str, tone: Tone) -> None:
        """An answer to the person, in one row above the keys or in two, for a while."""
        text, width = clean(text), self.size.width - 2
        first, *more = wrapped(text, width).split("\n")
        if len(more) > 1:
            text = f"{first}\n{clip(' '.join(more), width)}"
        self.query_one("#message", Static).update(Content.styled(text, MESSAGE_STYLES.get(tone, "")))
        self._hints = False
        if self._forgetting is not None:
            self._forgetting.stop()
        self._forgetting = self.set_timer(MESSAGE_SECONDS, self._forget)

    def _forget(self) -> None:
        self._hints = False
        self.query_one("#message", Static).update("")

    # Layout -------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        size, needed = (f"{width}×{height}" for width, height in (self.size, SMALLEST))
        self.query_one("#too-small", Static).update(
            f"the terminal is too small ({size}); {needed} is needed.\nThe run goes on."
        )
        self._show_keys()

    @property
    def tabbed(self) -> bool:
        """Whether panels take turns, for want of room."""
        return not self.has_class("-wide")

    @property
    def look(self) -> Look:
        """What one looks at."""
        panel = next((node.id for node in self._focused_path if node.id in PANELS), "") or ""
        here = Look(tab=self._tab, focus=panel, large=self._large, system=self.has_class("-with-system"))
        return self.query_one(Charts).look(here)

    @property
    def _focused_path(self) -> Sequence[DOMNode]:
        return self.focused.ancestors_with_self if self.focused is not None else ()

    def _focus(self, panel: str) -> None:
        """The focus on a panel, as far as that is seen."""
        widget = self.query_one("#question" if panel == "chat" else f"#{panel}")
        if widget.focusable:
            self.set_focus(widget)

    def _focus_again(self) -> None:
        if self._look.focus and self.focused is None:
            self._focus(self._look.focus)

    def next_panel(self) -> None:
        """The next tab where panels take turns, else the focus on the next panel."""
        if self.tabbed:
            self.open(TABS[(TABS.index(self._tab) + 1) % len(TABS)])
        else:
            self._enlarge("")
            order = [*(f"#{panel.id}" for panel in self.query_one(Charts).panels), "#log", "#question"]
            focused = next((i for i, id in enumerate(order) if self.query_one(id).has_focus), -1)
            self.query_one(order[(focused + 1) % len(order)]).focus()

    def open(self, tab: Tab) -> None:
        """Bring a panel to the front and the focus to it."""
        self.query_one("#message", Static).update("")
        self._tab = tab
        self._show_tab()
        if not self.tabbed:
            self._enlarge("")
        if tab == "chat":
            # At once, not when the screen is next idle: who types on at once must hit no key.
            self.app.stylesheet.update(self)
            self.set_focus(self.query_one(ChatInput))
        else:
            self.set_focus(self.query_one(LogPanel) if tab == "log" else None)

    def toggle_system(self) -> None:
        """Show how the machine is doing, beside the log or as a tab; again, no more."""
        if self.tabbed:
            self.open("charts" if self._tab == "system" else "system")
        else:
            self._enlarge("")
            self.toggle_class("-with-system")

    def focus_chart(self, panel: ChartPanel) -> None:
        """The focus on a chart; where one is large, this one is."""
        if self._large in CHARTS:
            self._enlarge(panel.id or "")
        panel.focus()

    def toggle_large(self) -> None:
        """The panel that has the focus alone, else the first chart; again, all."""
        if self.tabbed and self._tab != "charts":
            self.say(f"the {self._tab} has the whole screen already", "plain")
        elif self._large:
            self._enlarge("")
        else:
            chosen = self.look.focus or self.query_one(Charts).chosen.id or ""
            self._enlarge(chosen)
            self._focus(chosen)
            self.say(f"{self._names['large']} shows all panels again", "plain")

    def _enlarge(self, panel: str) -> None:
        if panel != self._large:
            self._large = panel
            self._show_large()
            self.app.stylesheet.update(self)  # at once: the focus goes to nothing that is hidden

    def _show_large(self) -> None:
        """Put aside what is not large, if anything is."""
        large = self._large
        self.set_class(bool(large), "-one")
        for panel in self.query(".panel"):
            panel.set_class(bool(large) and panel.id != large, "-aside")
        for id, within in (("#charts", CHARTS), ("#lower", ("log",)), ("#left", (*CHARTS, "log"))):
            self.query_one(id).set_class(bool(large) and large not in within, "-aside")

    def leave_chat(self) -> None:
        self.open("charts")

    def _show_tab(self) -> None:
        for tab in TABS:
            self.set_class(tab == self._tab, f"show-{tab}")
        labels = [
            f"[reverse b] {tab} [/]" if tab == self._tab else f"[@click=app.open('{tab}')] {tab} [/]"
            for tab in TABS
        ]
        tab_key = self._names["next_panel"]
        self.query_one("#tabs", Static).update(f"{' '.join(labels)}   [$foreground-muted]{tab_key}: next[/]")

    def _show_keys(self) -> None:
        history = self._history
        labels = {
            "pause_or_resume": "resume" if history.state == "paused" else "pause",
            "hold_or_release": "release" if history.control.held else "hold",
        }
        typing, table = self.query_one(ChatInput).has_focus, self._table
        if history.gone:  # what would be refused is not offered
            table = [key for key in table if key.group not in ("steer", "talk")]
        elif history.ended:
            useful = {"evaluate", *(["pause_or_resume"] if history.state == "crashed" else [])}
            table = [key for key in table if key.group != "steer" or key.action in useful]
            labels["pause_or_resume"] = "take up again"
        key = (self.size.width, typing, history.ended, history.gone is None, *labels.values())
        if key != self._keys:
            self._keys = key
            self.query_one("#keys", Static).update(
                keymap.typing_footer() if typing else keymap.footer(self.size.width - 1, labels, table)
            )

    def on_descendant_focus(self) -> None:
        self._show_keys()

    def on_descendant_blur(self) -> None:
        self._show_keys()
