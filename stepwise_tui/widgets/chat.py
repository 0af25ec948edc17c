"""The conversation with the model."""

from __future__ import annotations

from itertools import groupby
from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.events import Paste
from textual.message import Message
from textual.widgets import Input, Static

from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History, Turn
from stepwise_tui.text import wrapped
from stepwise_tui.widgets import replies
from stepwise_tui.widgets.lines import FAINT
from stepwise_tui.widgets.readouts import same
from trainer.control import CommandError, thoughtless, thoughts
from trainer.events import At

SHOWN_TURNS = 40
ASK_FACTORS = ("ask, e.g. 12*34", "Ask as you would a person, digits in the usual order.")
ASK_NUMBER = (
    "ask, or 7 for the seventh",
    "Ask as its examples do; 7 stands for the seventh held-out question.",
)
ASK_TEXT = ("ask", "Ask as its examples do.")
ASKING = {"multiplication": ASK_FACTORS, "prosqa": ASK_NUMBER, "prontoqa": ASK_NUMBER}
"""How a task's questions are asked: in the empty line, and in the empty conversation. ASK_TEXT of others."""
LIVE = ("",)
"""The current weights alone, as those who are asked."""


class ChatPanel(Vertical):
    """A conversation with the current weights, with those of a checkpoint, or with both at once.

    It follows only who is at its end.
    """

    BINDINGS: ClassVar = [
        ("pageup", "page(-1)", "earlier turns"),
        ("pagedown", "page(1)", "later turns"),
        ("up", "recall(1)", "the question before"),
        ("down", "recall(-1)", "the question after"),
        ("ctrl+n", "offer", "a held-out question"),
    ]

    class Asked(Message):
        """The person asked something. commands: what that is to the trainer. text: as it was typed."""

        def __init__(self, commands: list[str], text: str) -> None:
            super().__init__()
            self.commands = commands
            self.text = text

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="chat", classes="panel")
        self.border_title = "chat"
        self._glyphs = glyphs
        self._shown = Content("")
        self._history = History()
        self._explicit = False
        self._thoughts: int | None = None
        self._whom: tuple[str, ...] = LIVE
        self._place, self._draft = 0, ""
        self._offered = 0

    def compose(self) -> ComposeResult:
        yield Turns()
        # The focus may arrive after the first keys: it must not select what was typed by then.
        yield ChatInput(placeholder=self._asking[0], id="question", select_on_focus=False)

    def show(self, history: History) -> None:
        """Take up the conversation as it is now."""
        self._history = history
        self.query_one(ChatInput).placeholder = self._asking[0]
        turns = self.query_one(Turns)
        width = turns.scrollable_content_region.width
        if not width:
            return
        conversation = self._conversation(history, width)
        if not same(conversation, self._shown):
            self._shown = conversation
            self.query_one("#conversation", Static).update(conversation)
            turns.take(history.chat_total)
            self.say_new()

    def say_new(self) -> None:
        """Say in the border what came below, while the person reads further up."""
        new = self.query_one(Turns).new
        said = "" if new is None else f"{self._glyphs.down} {f'{new} ' if new else ''}new"
        if self.border_subtitle != said:
            self.border_subtitle = said

    # Whom one asks ------------------------------------------------------------------------------------------

    def name_weights(self, at: At) -> None:
        """Say whom one asks. Costs the whole panel a redraw, so not at every step."""
        if any(id and id not in self._history.saves for id in self._whom):
            self._whom = LIVE  # it was let go
        between = self._glyphs.between
        live = f"step {at.step:,}{between}stage {at.stage}"
        title = (
            f"chat{between}{' + '.join(id or ('live' if len(self._whom) > 1 else live) for id in self._whom)}"
        )
        if self._both_ways:
            title += f"{between}{'with CoT' if self._explicit else 'answer alone'}"
        if self._thoughts is not None:
            title += f"{between}{self._thoughts} thought{'' if self._thoughts == 1 else 's'}"
        if self.border_title != title:
            self.border_title = title

    def ask_of(self, whom: tuple[str, ...] | None) -> None:
        """Ask these from now on: ids of checkpoints, "" for the current weights. None changes nothing."""
        if whom is not None:
            self._whom = whom
            self.name_weights(self._history.at)

    @property
    def _both_ways(self) -> bool:
        return self._history.config.method.explicit_share > 0

    def switch_way(self) -> bool:
        """Ask for the whole CoT from now on, or for the answer alone again; whether the model can do both."""
        if self._both_ways:
            self._explicit = not self._explicit
            self.name_weights(self._history.at)
        return self._both_ways

    # What was said ------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        self.show(self._history)

    def _conversation(self, history: History, width: int) -> Content:
        if not history.chat:
            return self._introduction(width)
        method = history.config.method
        recent = list(history.chat)[-SHOWN_TURNS:]
        parts = []
        if earlier := history.chat_total - len(recent):
            parts += [Content.styled(f"… {earlier:,} earlier turns are in journal.jsonl", FAINT)]
        before: Turn | None = None
        for turn in recent:
            # The same question to others stands under the first answer.
            again = before is not None and before.asked == turn.asked and before.checkpoint != turn.checkpoint
            written = replies.turn(turn, method, width, self._glyphs, again=again)
            if again:
                parts[-1] = Content("\n").join([parts[-1], written])
            else:
                parts.append(written)
            before = turn
        return Content("\n\n").join(parts)

    @property
    def _asking(self) -> tuple[str, str]:
        return ASKING.get(self._history.config.data.task, ASK_TEXT)

    def _introduction(self, width: int) -> Content:
        keys = [
            ("ctrl+n", "a held-out question"),
            ("ctrl+o", "whom you ask: live weights, a checkpoint, both"),
            ("/quiz 100", "so many random questions, with a score"),
            ("up, down", "earlier questions"),
            ("pgup, pgdn", "scroll"),
            ("escape", "stops the answer that is being written; leaves"),
        ]
        if self._both_ways:
            keys.insert(2, ("ctrl+t", "with all of the CoT, or the answer alone"))
        if thoughtless(self._history.config.method) is None:
            keys.insert(3, ("/thoughts 3", "answer after so many; without a number, as the stage has"))
        answer = "The weights of this moment answer at the next step, also while paused."
        text = f"{self._asking[1]} {answer}"
        rows = [Content.styled(wrapped(text, width), FAINT), Content("")]
        for key, meaning in keys:
            row = wrapped(f"{key:<12}{meaning}", width, 12)
            rows.append(Content.styled(row, FAINT).stylize("bold", 0, len(key)))
        return Content("\n").join(rows)

    def action_page(self, direction: Literal[-1, 1]) -> None:
        turns = self.query_one(Turns)
        (turns.scroll_page_up if direction < 0 else turns.scroll_page_down)(animate=False)

    # The line one types in ----------------------------------------------------------------------------------

    def action_recall(self, back: Literal[-1, 1]) -> None:
        """Earlier questions of this run, one by one; after the last one, what was being typed."""
        asked = [text for text, _ in groupby(turn.asked for turn in self._history.chat)]
        field = self.query_one(ChatInput)
        if self._place == 0:
            self._draft = field.value
        place = min(len(asked), max(0, self._place + back))
        if place != self._place:
            self._place = place
            self._write(asked[-place] if place else self._draft)

    def action_offer(self) -> None:
        """Put a held-out question into the line, another one each time."""
        shown = self._history.shown
        if not shown:
            self.notify(replies.none_yet(self._history), severity="warning")
            return
        self._write(shown[self._offered % len(shown)].question)
        self._offered += 1

    def _write(self, text: str) -> None:
        field = self.query_one(ChatInput)
        field.value = text
        field.action_end()

    def give_back(self, text: str) -> None:
        """Put a question that could not be asked into the line again, where nothing else was begun there."""
        if not self.query_one(ChatInput).value:
            self._write(text)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        text = " ".join(event.value.split())
        if text and text.partition(" ")[0] == "/thoughts":
            event.input.value = ""
            self._choose_thoughts(text.partition(" ")[2])
        elif text:
            event.input.value = ""
            self._place = 0
            self.query_one(Turns).follow()
            self.post_message(self.Asked([self._command(text, id) for id in self._whom], text))

    def _choose_thoughts(self, number: str) -> None:
        """Ask after so many thoughts from now on; without a number, as many as the stage has."""
        if why := thoughtless(self._history.config.method):
            self.notify(why, severity="warning")
            return
        try:
            self._thoughts = thoughts(number) if number else None
        except CommandError as error:
            self.notify(str(error), severity="warning")
        self.name_weights(self._history.at)

    def _command(self, text: str, checkpoint: str) -> str:
        """What the line asks of a checkpoint, "" for the current weights."""
        options = f"--at {checkpoint} " if checkpoint else ""
        if text.partition(" ")[0] == "/quiz":
            return f"{text[1:]} {options}".strip()
        if self._thoughts is not None:
            options += f"--thoughts {self._thoughts} "
        return f"ask {'--explicit ' if self._explicit else ''}{options}{text}"


class Turns(VerticalScroll, can_focus=False):
    """What was said. new: turns below that were not there when the end was last seen, 0 when one has only
    grown; None at the end."""

    def __init__(self) -> None:
        super().__init__(id="turns")
        self._total = self._seen = 0
        self._at_end, self._grown = True, False

    def compose(self) -> ComposeResult:
        yield Static(id="conversation")

    @property
    def new(self) -> int | None:
        return self._total - self._seen if self._grown else None

    def take(self, total: int) -> None:
        """What was said has changed; it has so many turns now."""
        self._total = total
        if self._at_end:
            self._seen = total
            self.scroll_end(animate=False)
        else:
            self._grown = True

    def follow(self) -> None:
        """Go to the end, and stay there."""
        self._at_end = True
        self.scroll_end(animate=False)

    def on_resize(self) -> None:
        if self._at_end:
            self.scroll_end(animate=False)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._at_end = new_value >= self.max_scroll_y
        if self._at_end and self._grown:
            self._seen, self._grown = self._total, False
            if isinstance(self.parent, ChatPanel):
                self.parent.say_new()


class ChatInput(Input):
    """The line one types in. Its keys never steer: all but escape, tab and the urgent ones are letters."""

    BINDINGS: ClassVar = [
        ("escape", "app.leave_chat", "stop the answer, or leave"),
        ("ctrl+o", "app.choose_weights", "whom one asks"),
        ("ctrl+t", "app.switch_way", "ask with all of the CoT, or for the answer alone"),
    ]

    def on_paste(self, event: Paste) -> None:
        """Several lines are one question; Textual keeps only the first."""
        event.text = " ".join(event.text.splitlines())
