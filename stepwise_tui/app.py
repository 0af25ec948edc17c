"""The cockpit: a run on one screen, to watch and to steer.

It holds a link and a history, nothing of the trainer. Four times a second it takes what the link has,
folds it into the history, and lets each widget look whether it reads differently now. A key sends a
command; what came of it arrives as an event like any other.

Here are the tick, its rhythm, the screens and leaving. Other parts of the cockpit have rooms of their own:
`Looking`, what the keys of the charts do; `Steering`, commands; `OnTerminal`, the terminal, and below it
`TypingAhead`, the order of the keys.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from rich.console import RenderableType
from textual.app import SystemCommand
from textual.binding import BindingType
from textual.screen import Screen
from textual.widgets import Input
from textual.widgets.input import Selection

from stepwise_tui import keymap
from stepwise_tui.glyphs import Glyphs, detect
from stepwise_tui.history import History, apply
from stepwise_tui.link import Link
from stepwise_tui.looking import Looking
from stepwise_tui.looks import Look, Tab
from stepwise_tui.on_terminal import Departure, OnTerminal
from stepwise_tui.screens.main import Main
from stepwise_tui.screens.page import Following, Page
from stepwise_tui.settings import Settings, remember_theme
from stepwise_tui.steering import Steering
from stepwise_tui.terminal import Terminal
from stepwise_tui.themes import DESCRIPTIONS, dress
from stepwise_tui.widgets.chat import ChatInput, ChatPanel
from trainer.control import ONE_WAY, parse
from trainer.events import (
    CheckpointRemoved,
    CheckpointSaved,
    Evaluated,
    Event,
    ExamplesShown,
    Metrics,
    Probed,
    StateChanged,
    StepsRepeated,
    SystemSampled,
)
from trainer.paths import shortest
from trainer.terminals import SMALLEST

if TYPE_CHECKING:
    from stepwise_tui.screens.examples import Examples
    from stepwise_tui.screens.timeline import Timeline

SILENCE_SECONDS = 10.0
"""After which what was heard of the machine that trains says nothing of it any more."""


EARLY = ("leave", "copy_or_leave", "detach", "suspend")
"""Actions that need no panel."""

ROUTINE = (
    CheckpointRemoved, CheckpointSaved, Evaluated, ExamplesShown, Metrics, Probed, StateChanged,
    StepsRepeated, SystemSampled,
)  # fmt: skip
"""What a run that trains on tells all the time: it can wait for the next drawing."""


class Rhythm(NamedTuple):
    """Seconds between two looks for what is new, and between two drawings: of all but the charts, where all
    that is new is `ROUTINE`, and of these.

    The trainer is a thread beside, and stands still for as long as a drawing takes (docs/log.md).
    """

    tick: float
    lines: float
    charts: float


USUAL, FRUGAL = Rhythm(0.25, 1.0, 2.0), Rhythm(2.0, 2.0, 10.0)


class Cockpit(Looking, OnTerminal, Steering):
    """A run's screen. Ends when the person leaves; what becomes of the run is the caller's matter."""

    CSS_PATH = "styles.tcss"
    TITLE = "stepwise"
    BINDINGS: ClassVar[list[BindingType]] = keymap.urgent()

    def __init__(
        self,
        link: Link,
        terminal: Terminal | None = None,
        *,
        glyphs: Glyphs | None = None,
        settings: Settings | None = None,
        beside: Path | None = None,
        frugal: bool = False,
        look: Look | None = None,
    ) -> None:
        """terminal: what it is drawn on; None in a test. settings: the person's, if there are any. beside:
        another run, to compare with. frugal: look for what is new, and draw it, less often. look: what was
        looked at last; None at the first time, when some keys are named."""
        settings = settings or Settings()
        table = keymap.mapped(settings.keys)
        self.keys = tuple(key for key in table if not key.page)
        self.page_keys = tuple(key for key in table if key.page)
        self.key_names = keymap.names(self.keys)
        self.COMMAND_PALETTE_BINDING = self.key_of("command_palette").key  # type: ignore[misc]
        super().__init__(terminal)
        self.set_keymap({key.action: key.key for key in table if key.action in settings.keys})
        self.HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (SMALLEST[0], "-narrow"), (120, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-flat"), (SMALLEST[1], "-short"), (34, "-tall")]
        self.link = link
        self.history = History(config=link.config, names=self.key_names)
        self.glyphs = glyphs or detect()
        dress(self, settings, self.glyphs)
        self._rhythm = FRUGAL if frugal else USUAL
        self.look = look or Look()
        """As it was at first; after the end, as it was then."""
        self.main = Main(link, self.glyphs, self.keys, self.look, beside, hints=look is None)
        self._opening = contextlib.ExitStack()
        self._leaving = False
        self._shown = self._charts_shown = 0.0
        self._stale = False
        self._sampled = 0.0

    def get_default_screen(self) -> Screen[None]:
        return self.main

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Textual's: whether a key acts. Before the screen stands, and when it is taken down, few do."""
        return action in EARLY or self._stands

    @property
    def _stands(self) -> bool:
        """Whether the screen is there, whole: it is put up, and taken down, piece by piece."""
        return self.main.is_running and bool(self.main.query(ChatInput))

    def on_load(self) -> None:
        self._opening.enter_context(self.batch_update())

    def on_ready(self) -> None:
        with self._opening:  # the first screen that is drawn is the whole one
            self.take(self.link.drain(), answer=False)
        self.set_interval(self._rhythm.tick, self.tick)

    # Events -------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take in what has happened since the last time."""
        if not self._stands or not self.attend():
            return
        events = self.link.drain()
        heard = self.history.sampled != SystemSampled()
        silent = heard and time.monotonic() - self._sampled > SILENCE_SECONDS
        if silent:
            events.append(SystemSampled())  # nothing is known of the machine any more
        self._fold(events)
        rested = time.monotonic() - self._shown >= self._rhythm.lines
        news = silent or not all(isinstance(event, ROUTINE) for event in events)
        if news or (self._stale and rested):
            self._show()
            return
        self.main.show_pending(self.history)
        if self._charts_due():
            self.show_charts()

    def keep_up(self) -> None:
        """Fold what has happened into the history, while nothing is drawn."""
        for event in self.link.drain():
            apply(self.history, event)

    def take(self, events: list[Event], *, answer: bool = True) -> None:
        """Fold events into the history and show what has changed. answer: say what came of requests."""
        self._fold(events, answer=answer)
        self._show()

    def _fold(self, events: list[Event], *, answer: bool = True) -> None:
        alarm = self.history.alarm
        if any(isinstance(event, SystemSampled) for event in events):
            self._sampled = time.monotonic()
        for event in events:
            apply(self.history, event)
            if answer:
                self.tell(event)
        if self.history.alarm is not None and self.history.alarm is not alarm:
            self.call(f"stepwise, {self.link.name}: {self.history.alarm.told}")
        self._stale = self._stale or bool(events)

    def _show(self) -> None:
        self._shown, self._stale = time.monotonic(), False
        self._retitle()
        self.main.show(self.history)
        for page in self.screen_stack:
            if isinstance(page, Following) and page.ready:
                page.show(self.history)
        if self._charts_due() or self.history.ended:
            self.show_charts()
        if self.history.ended and self._leaving:
            self.exit("stop")

    def _retitle(self) -> None:
        """Have the terminal's window, or its tab, say how the run is."""
        alarm = None if self.history.ended else self.history.alarm
        state = f"{self.glyphs.alarm} {alarm.message}" if alarm is not None else self.history.state
        self.name_window(f"{state}, {self.link.name}")

    def _charts_due(self) -> bool:
        return time.monotonic() - self._charts_shown >= self._rhythm.charts

    def show_charts(self) -> None:
        """Draw the charts anew, where there is anything new."""
        self._charts_shown = time.monotonic()
        self.main.show_charts(self.history)

    # Looking ------------------------------------------------------------------------------------------

    def action_chat(self) -> None:
        self.main.open("chat")

    def action_switch_way(self) -> None:
        """In the chat of a model that answers both ways: with all of the CoT, or the answer alone."""
        if not self.main.query_one(ChatPanel).switch_way():
            self.say(ONE_WAY, "warning")

    def action_choose_weights(self) -> None:
        """Whom the chat asks: the current weights, a checkpoint, or both."""
        from stepwise_tui.screens.dialogs import ChooseWeights

        dialog = ChooseWeights(self.history, "whom to ask", "asks this one", both=True)
        self.push_screen(dialog, self.main.query_one(ChatPanel).ask_of)

    def action_open(self, tab: Tab) -> None:
        self.main.open(tab)

    def action_next_panel(self) -> None:
        self.main.next_panel()

    def action_beside(self) -> None:
        from stepwise_tui.screens.beside import ChooseRun

        drawn = self.charts.beside
        self.push_screen(ChooseRun(self.link.folder, drawn=drawn), self._lay_beside)

    def _lay_beside(self, chosen: tuple[Path | None] | None) -> None:
        if chosen is not None:
            self.lay_beside(*chosen)

    def action_help(self) -> None:
        from stepwise_tui.screens.help import Help

        self.push_screen(Help((*self.keys, *self.page_keys), self.history.config.method))

    def action_examples(self) -> None:
        self._open_examples()

    def _open_examples(self, beside: str | None = None) -> None:
        """beside: a checkpoint, whose answers stand beside those of the live weights."""
        from stepwise_tui.screens.examples import Examples

        self.push_screen(Examples(self.history, self.glyphs, self._keys_of("examples"), beside))

    def on_examples_wanted(self, message: Examples.Wanted) -> None:
        for whose in message.whose:
            self.request(f"examples --at {whose}" if whose else "examples")

    def action_system(self) -> None:
        self.main.toggle_system()

    def action_timeline(self) -> None:
        from stepwise_tui.screens.timeline import Timeline

        self.push_screen(Timeline(self.history, self.glyphs, self._keys_of("timeline")))

    def on_timeline_chosen(self, message: Timeline.Chosen) -> None:
        """Do with a checkpoint what was wished."""
        checkpoint = message.checkpoint
        match message.wish:
            case "roll back":
                self.pop_screen()
                self.roll_back_to(checkpoint)
            case "chat":
                self.pop_screen()
                self.main.query_one(ChatPanel).ask_of((checkpoint.id,))
                self.main.open("chat")
            case "evaluate":
                self.request(f"examples --at {checkpoint.id}")
            case "compare":
                self._open_examples(checkpoint.id)

    def _keys_of(self, page: keymap.Page) -> tuple[keymap.Key, ...]:
        return tuple(key for key in self.page_keys if key.page == page)

    def action_picture(self) -> None:
        """Save the screen as SVG: beside the run where its folder is on this machine, else where one is."""
        name = time.strftime("screen-%Y%m%d-%H%M%S.svg")
        problem: OSError | None = None
        for folder in (self.link.folder, Path.cwd()):
            try:
                (folder / name).write_text(self.export_screenshot(title=self.link.name), encoding="utf-8")
            except OSError as error:
                problem = error
            else:
                self.say(f"the screen is saved: {shortest(folder / name)}", "good")
                return
        self.say(f"the screen cannot be saved: {problem}", "warning")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: every key of the table by name, those of the page first, and the themes."""
        if isinstance(screen, Page):
            for key in self._keys_of(screen.page):
                act = getattr(screen, f"action_{key.action}")
                yield SystemCommand(f"{key.title} ({key.shown})", key.help, act)
        for key in self.keys:
            if key.action != "command_palette":
                act = getattr(self, f"action_{key.action}")
                yield SystemCommand(f"{key.title} ({key.shown})", key.help, act)
        for name, description in DESCRIPTIONS.items():
            if name != self.theme:
                yield SystemCommand(f"Theme: {name}", description, partial(self._choose_theme, name))

    def _choose_theme(self, name: str) -> None:
        """Show it, and remember it for the next cockpits of this person."""
        self.theme = name
        try:
            remember_theme(name)
        except OSError as error:
            self.say(f"the theme is not remembered: {error}", "warning")

    def key_of(self, action: str) -> keymap.Key:
        return next(key for key in self.keys if key.action == action)

    # Leaving ------------------------------------------------------------------------------------------

    def exit(
        self, result: Departure | None = None, return_code: int = 0, message: RenderableType | None = None
    ) -> None:
        """Textual's: end. Before that, take down what is looked at."""
        if self._stands:
            self.look = self.main.look
        super().exit(result, return_code, message)

    def action_detach(self) -> None:
        """Leave the run to itself."""
        self.exit("leave")

    def action_leave(self) -> None:
        """Ask what becomes of the run; the same key over that dialog leaves it training, as `d` does.

        Only the key for it stops a run: who presses ctrl+c twice out of habit must not end a night's work.
        """
        from stepwise_tui.screens.dialogs import Leave

        if self.history.ended or self._leaving:
            self.exit("stop")
        elif self.history.gone:
            self.exit("leave")  # nobody is there who could stop it
        elif isinstance(self.screen, Leave):
            self.screen.dismiss("leave")
        else:
            again, further = self.link.command("attach"), self.link.command("resume")
            self.push_screen(Leave(self.history, again, further), self._leave)

    def action_copy_or_leave(self) -> None:
        """Copy what is selected to the terminal's clipboard, also over ssh; else ask whether to leave."""
        field = self.focused if isinstance(self.focused, Input) else None
        text = self.screen.get_selected_text() or (field.selected_text if field else "")
        if not text:
            self.action_leave()
            return
        self.copy_to_clipboard(text)
        self.screen.clear_selection()
        if field is not None:
            field.selection = Selection.cursor(field.cursor_position)
        self.say(f"copied {len(text):,} characters", "plain")

    def _leave(self, answer: str | None) -> None:
        if answer == "leave":
            self.exit("leave")
        if answer != "stop":
            return
        self._leaving = True
        if self.history.started is None:
            self.exit("stop")
            return
        self.say("saving, then leaving; q again leaves at once", "warning")
        self.link.send(parse("stop"))
