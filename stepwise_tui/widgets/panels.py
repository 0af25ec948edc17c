"""The large parts of the screen beside the charts: log, chat."""

from __future__ import annotations

from itertools import islice
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.message import Message
from textual.widgets import Input, RichLog, Static

from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History, LogLine, Tone
from stepwise_tui.text import clock, wrapped
from stepwise_tui.widgets import lines
from stepwise_tui.widgets.readouts import same
from trainer.events import At

COLOURS: dict[Tone, str] = {
    "plain": "foreground",
    "faint": "foreground",
    "stage": "secondary",
    "operator": "accent",
    "good": "success",
    "warning": "warning",
    "error": "error",
}
SHOWN_TURNS = 40


class LogPanel(RichLog):
    """Stages, commands, alarms, as they come; the newest at the bottom."""

    def __init__(self) -> None:
        super().__init__(id="log", classes="panel", wrap=True, max_lines=2_000, min_width=10, markup=False)
        self.border_title = "log"
        self._written = 0
        self._width = 0
        self._history = History()

    def show(self, history: History) -> None:
        """Add what is new. While the panel is hidden it has no width to wrap to, so it waits."""
        self._history = history
        new = history.log_total - self._written
        if not new or not self._width:
            return
        kept = len(history.log)
        if not self._written and history.log_total > kept:
            earlier = f"… {history.log_total - kept:,} earlier lines are in journal.jsonl"
            self.write(Text(earlier, "dim"), width=self._width)
        for line in islice(history.log, max(0, kept - new), kept):
            self.write(self._line(line), width=self._width)
        self._written = history.log_total

    def _line(self, line: LogLine) -> Text:
        """The time, then the text beside it."""
        stamp = f"{clock(line.time)}  "
        text = Text(wrapped(stamp + line.text, self._width, len(stamp)))
        colour = self.app.theme_variables[COLOURS[line.tone]]
        weight = {"error": "bold ", "faint": "dim "}.get(line.tone, "")
        text.stylize(f"{weight}{colour}", len(stamp))
        text.stylize("dim", 0, len(stamp))
        return text

    def on_resize(self, event: Resize) -> None:
        """Wrap everything to the new width."""
        width = self.scrollable_content_region.width
        if width != self._width:
            self._width = width
            self.clear()
            self._written = 0
            self.show(self._history)
            self.call_after_refresh(self.scroll_end, animate=False)


class ChatPanel(Vertical):
    """A conversation with the current weights."""

    class Asked(Message):
        """The person asked something. explicit: for the whole CoT, of a model that answers both ways."""

        def __init__(self, text: str, explicit: bool) -> None:
            super().__init__()
            self.text = text
            self.explicit = explicit

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="chat", classes="panel")
        self.border_title = "chat"
        self._glyphs = glyphs
        self._shown = Content("")
        self._history = History()
        self._explicit = False

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="turns", can_focus=False):
            yield Static(id="conversation")
        # The focus may arrive after the first keys: it must not select what was typed by then.
        yield ChatInput(placeholder="ask, e.g. 12*34", id="question", select_on_focus=False)

    def show(self, history: History) -> None:
        """Take up the conversation as it is now."""
        self._history = history
        width = self.query_one("#turns").content_size.width
        if not width:
            return
        conversation = self._conversation(history, width)
        if not same(conversation, self._shown):
            self._shown = conversation
            self.query_one("#conversation", Static).update(conversation)
            self.query_one("#turns", VerticalScroll).scroll_end(animate=False)

    def name_weights(self, at: At) -> None:
        """Say whom one asks. Costs the whole panel a redraw, so not at every step."""
        title = f"chat · step {at.step:,} · stage {at.stage}"
        if self._both_ways:
            title += " · with CoT" if self._explicit else " · answer alone"
        if self.border_title != title:
            self.border_title = title

    @property
    def _both_ways(self) -> bool:
        return self._history.config.method.explicit_share > 0

    def switch_way(self) -> bool:
        """Ask for the whole CoT from now on, or for the answer alone again; whether the model can do both."""
        if self._both_ways:
            self._explicit = not self._explicit
            self.name_weights(self._history.at)
        return self._both_ways

    def on_resize(self) -> None:
        self.show(self._history)

    def _conversation(self, history: History, width: int) -> Content:
        if not history.chat:
            return Content.styled(
                "Ask as you would a person, digits in the usual order. The weights of this moment "
                "answer at the next step, also while paused. Escape leaves."
                + (" ctrl+t: with all of the CoT, or the answer alone." if self._both_ways else ""),
                lines.FAINT,
            )
        side = history.config.method.side
        recent = list(history.chat)[-SHOWN_TURNS:]
        turns = [lines.turn(turn, side, width, self._glyphs) for turn in recent]
        if earlier := history.chat_total - len(recent):
            turns.insert(0, Content.styled(f"… {earlier:,} earlier turns are in journal.jsonl", lines.FAINT))
        return Content("\n\n").join(turns)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        text = " ".join(event.value.split())
        if text:
            self.post_message(self.Asked(text, self._explicit))
            event.input.value = ""


class ChatInput(Input):
    """The line one types in. Its keys never steer: all but escape, tab and the urgent ones are letters."""

    BINDINGS: ClassVar = [
        ("escape", "app.leave_chat", "leave the chat"),
        ("ctrl+t", "app.switch_way", "ask with all of the CoT, or for the answer alone"),
    ]
