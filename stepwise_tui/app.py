"""The cockpit: a run on one screen, to watch and to steer.

It holds a link and a history, nothing of the trainer. Four times a second it takes what the link has,
folds it into the history, and lets each widget look whether it reads differently now. A key sends a
command; what came of it arrives as an event like any other.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from rich.console import RenderableType
from textual._compositor import CompositorUpdate
from textual.app import SystemCommand
from textual.binding import BindingType
from textual.events import Resize
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Input
from textual.widgets.input import Selection

from stepwise_tui import keymap
from stepwise_tui.driver import Driver
from stepwise_tui.glyphs import Glyphs, detect
from stepwise_tui.history import History, Tone, apply
from stepwise_tui.link import Link
from stepwise_tui.looking import Looking
from stepwise_tui.looks import Look, Tab
from stepwise_tui.painting import Painting
from stepwise_tui.screens.main import Main
from stepwise_tui.screens.page import Page
from stepwise_tui.settings import Settings, remember_theme
from stepwise_tui.terminal import Terminal
from stepwise_tui.text import shortest
from stepwise_tui.themes import DESCRIPTIONS, dress
from stepwise_tui.typing_ahead import TypingAhead
from stepwise_tui.widgets.chat import ChatInput, ChatPanel
from stepwise_tui.words import outcome
from trainer.control import ONE_WAY, Command, CommandError, decide, parse
from trainer.events import (
    AlarmCleared,
    CheckpointRemoved,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    Evaluated,
    Event,
    ExamplesShown,
    Metrics,
    Notice,
    Probed,
    StateChanged,
    SystemSampled,
)
from trainer.record.digest import is_question

if TYPE_CHECKING:
    from stepwise_tui.screens.examples import Examples
    from stepwise_tui.screens.timeline import Timeline
    from trainer.record.lineage import CheckpointRef

SILENCE_SECONDS = 10.0
"""After which what was heard of the machine that trains says nothing of it any more."""


EARLY = ("leave", "copy_or_leave", "detach", "suspend")
"""Actions that need no panel."""

ROUTINE = (
    CheckpointRemoved, CheckpointSaved, Evaluated, ExamplesShown, Metrics, Probed, StateChanged, SystemSampled
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

Departure = Literal["stop", "leave"]
"""How a cockpit ended: the run shall end too, or go on without it."""


class _TerminalLostError(Exception):
    """It did not come back after a stop."""


class Cockpit(Looking, TypingAhead[Departure]):
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
        super().__init__(driver_class=Driver if terminal is not None else None)
        self.set_keymap({key.action: key.key for key in table if key.action in settings.keys})
        self._terminal = terminal
        self._asked: deque[Departure | Literal["suspend", "redraw"]] = deque()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (120, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-flat"), (16, "-short"), (34, "-tall")]
        self.link = link
        self.history = History(config=link.config, names=self.key_names)
        self.glyphs = glyphs or detect()
        dress(self, settings, self.glyphs)
        self.painting = Painting()
        self._rhythm = FRUGAL if frugal else USUAL
        self.look = look or Look()
        """As it was at first; after the end, as it was then."""
        self.main = Main(
            link.name, link.folder, self.glyphs, self.keys, self.look, beside, hints=look is None
        )
        self._opening = contextlib.ExitStack()
        self._titled = ""
        self._leaving = False
        self._shown = self._charts_shown = 0.0
        self._stale = False
        self._sampled = 0.0
        self._questions: set[str] = set()
        """Ids of those that were asked from here."""

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

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        """Textual's, for each update of the screen: send what differs, not what was drawn anew."""
        if isinstance(renderable, CompositorUpdate):
            renderable = self.painting.only_changes(renderable, self.size)
        super()._display(screen, renderable)

    # Down: events -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take in what has happened since the last time."""
        if not self._stands:
            return
        if self._asked:
            self._obey(self._asked.popleft())
        if self._terminal is not None and not self._terminal.there:
            self._abandon()
            return
        self._follow_terminal()
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

    def _follow_terminal(self) -> None:
        """Take up the terminal's size where the signal of a resize was lost, as it is on a busy machine."""
        if self.is_headless or sys.__stdout__ is None or not sys.__stdout__.isatty():
            return
        size = Size(*os.get_terminal_size(sys.__stdout__.fileno()))
        if size != self.size:
            self.post_message(Resize(size, size))

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
                self._answer(event)
        if self.history.alarm is not None and self.history.alarm is not alarm:
            self._call(self.history.alarm.message)
        self._stale = self._stale or bool(events)

    def _show(self) -> None:
        self._shown, self._stale = time.monotonic(), False
        self._retitle()
        self.main.show(self.history)
        for page in self.screen_stack:
            if isinstance(page, Page) and page.ready:
                page.show(self.history)
        if self._charts_due() or self.history.ended:
            self.show_charts()
        if self.history.ended and self._leaving:
            self.exit("stop")

    def _call(self, message: str) -> None:
        """Get the person's attention, who may be looking elsewhere."""
        self.bell()
        if isinstance(self._driver, Driver):
            self._driver.notify(f"stepwise, {self.link.name}: {message}")

    def _retitle(self) -> None:
        """Have the terminal's window, or its tab, say how the run is."""
        alarm = None if self.history.ended else self.history.alarm
        state = f"{self.glyphs.alarm} {alarm.message}" if alarm is not None else self.history.state
        title = f"{state}, {self.link.name}"
        if title != self._titled and isinstance(self._driver, Driver):
            self._titled = title
            self._driver.title(title)

    def _charts_due(self) -> bool:
        return time.monotonic() - self._charts_shown >= self._rhythm.charts

    def show_charts(self) -> None:
        """Draw the charts anew, where there is anything new."""
        self._charts_shown = time.monotonic()
        self.main.show_charts(self.history)

    def _answer(self, event: Event) -> None:
        match event:
            case CommandReceived() | CommandAcknowledged(ok=True) if is_question(event):
                return
            case CommandReceived():
                self.say(f"requested: {event.command}", "faint")
            case CommandAcknowledged():
                self.say(outcome(event), "good" if event.ok else "warning")
            case AlarmCleared():  # what was refused on its account is not so any more
                self.say(f"alarm over: {event.message}", "good")
            case Notice(level="warning" | "error"):
                self.say(event.message, "warning")

    def say(self, text: str, tone: Tone) -> None:
        """An answer to the person, on the page that lies over the cockpit, too."""
        self.main.say(text, tone)
        if isinstance(self.screen, Page):
            self.screen.say(text, tone)

    # Up: commands -------------------------------------------------------------------------------------

    def request(self, text: str) -> Command | None:
        """Send a command; say so at once, or say why it cannot be sent. The command, where it was."""
        if not self._may(text):
            return None
        try:
            command = parse(text)
        except CommandError as problem:
            self.say(str(problem), "warning")
            return None
        self.say(f"requested: {text}", "faint")
        self.link.send(command)
        self.tick()
        return command

    def _may(self, text: str) -> bool:
        """Whether there is a run to ask; before its first event there is none."""
        if self.history.started is None:
            self.say("the run is still starting", "warning")
        return self.history.started is not None

    def _outlook(self, text: str) -> str | None:
        """What a command would do, by the function that will decide it; None, and a word, when it cannot."""
        if not self._may(text):
            return None
        decision = decide(self.history.control, parse(text), self.history.facts)
        if not decision.ok:
            self.say(f"{text}: {decision.message}", "warning")
            return None
        return decision.message

    def action_pause_or_resume(self) -> None:
        self.request("resume" if self.history.state in ("paused", "crashed") else "pause")

    def action_save(self) -> None:
        self.request("save")

    def action_evaluate(self) -> None:
        self.request("evaluate")

    def action_hold_or_release(self) -> None:
        self.request("release" if self.history.control.held else "hold")

    def action_advance(self) -> None:
        outlook = self._outlook("advance")
        if outlook is None:
            return
        from stepwise_tui.screens.dialogs import Confirm

        method = self.history.config.method
        goes = "CoT token" if method.counted == "token" else "step of the CoT"
        reset = " The optimiser is reset." if method.reset_optimizer else ""
        text = (
            f"The next {goes} goes now, before its time: {outlook}.{reset}\n"
            f"Accuracy will dip; {self.key_names['roll_back']} brings this stage back."
        )
        self._ask(Confirm("advance", text, "advance"), "advance")

    def action_roll_back(self) -> None:
        alarm = self.history.alarm
        preferred = alarm.target if alarm is not None else ""
        if self._outlook("rollback") is None:
            return
        from stepwise_tui.screens.dialogs import ChooseRollback

        self.push_screen(ChooseRollback(self.history, preferred), self._send)

    def roll_back_to(self, checkpoint: CheckpointRef) -> None:
        """Ask whether to return to a checkpoint, and do it."""
        command = f"rollback {checkpoint.id}"
        outlook = self._outlook(command)
        if outlook is not None:
            from stepwise_tui.screens.dialogs import Confirm

            self._ask(Confirm("roll back", f"{outlook[0].upper()}{outlook[1:]}.", "roll back"), command)

    def action_restart(self) -> None:
        """Ask whether to begin the same anew with another seed; another process does it."""
        from stepwise_tui import detached
        from stepwise_tui.screens.dialogs import Confirm

        folder = self.link.folder
        if not self.link.local:
            self.say(f"on its own machine `stepwise restart {folder} --seed fresh` does that", "warning")
            return
        stops = "" if self.history.ended else "This run is saved and stopped. "
        text = (
            f"{stops}The same begins anew with another seed, in a run of its own; `stepwise runs` lists it."
        )

        def begin(yes: bool | None) -> None:
            if yes:
                log = detached.restart(folder)
                self.say(f"the run is begun anew: {shortest(log)} has its first lines", "good")

        self.push_screen(Confirm("other seed", text, "begin anew"), begin)

    def action_run_steps(self) -> None:
        if self._outlook("run 1") is not None:
            from stepwise_tui.screens.dialogs import RunSteps

            self.push_screen(RunSteps(), self._send)

    def action_change_setting(self) -> None:
        if self._may("set"):
            from stepwise_tui.screens.dialogs import ChangeSetting

            self.push_screen(ChangeSetting(self.history), self._send)

    def _ask(self, question: Screen[bool], command: str) -> None:
        """Send the command if the answer is yes."""
        self.push_screen(question, lambda yes: self._send(command if yes else None))

    def _send(self, text: str | None) -> None:
        if text is not None:
            self.request(text)

    def on_chat_panel_asked(self, message: ChatPanel.Asked) -> None:
        sent = [self.request(command) for command in message.commands]
        self._questions.update(command.id for command in sent if command is not None)
        if None in sent:
            self.main.query_one(ChatPanel).give_back(message.text)

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

    def action_leave_chat(self) -> None:
        """Cut short the answer to this person that is being written; leave the chat where none is."""
        streams = any(turn.streams and turn.id in self._questions for turn in self.history.chat)
        self._questions.clear()
        if streams:
            self.request("interrupt")
        else:
            self.main.leave_chat()

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

        self.push_screen(Help((*self.keys, *self.page_keys)))

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

    def ask(self, what: Departure | Literal["suspend", "redraw"]) -> None:
        """For signals and other threads: to be done at the next tick."""
        self._asked.append(what)

    def _obey(self, what: Departure | Literal["suspend", "redraw"]) -> None:
        match what:
            case "suspend":
                self.action_suspend()
            case "redraw" if isinstance(self._driver, Driver):
                self._driver.redraw()
                self.painting.forget()
                self.refresh(layout=True)
            case "stop" | "leave":
                self.exit(what)

    def action_suspend(self) -> None:
        """Give the shell back for a while, as ctrl+z does everywhere; the run goes on meanwhile."""
        if self._terminal is None:
            return
        with contextlib.suppress(_TerminalLostError), self.suspend():
            if not self._terminal.stop(self._keep_up):
                self._abandon()
                raise _TerminalLostError  # so that nothing is drawn again
        self.painting.forget()
        if self._asked and self._asked[0] == "redraw":
            self._asked.popleft()  # that was the signal which brought it back

    def _abandon(self) -> None:
        """End without the terminal, which is gone or the shell's."""
        assert self._terminal is not None
        assert isinstance(self._driver, Driver)
        self._terminal.give_up()
        self._driver.abandon()
        self.exit("stop" if "stop" in self._asked else "leave")

    def _keep_up(self) -> bool:
        """Take in what happens while nothing is drawn; False when the cockpit shall end."""
        for event in self.link.drain():
            apply(self.history, event)
        return not {"stop", "leave"}.intersection(self._asked)

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
        elif isinstance(self.screen, Leave):
            self.screen.dismiss("leave")
        else:
            self.push_screen(Leave(self.history.standing), self._leave)

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
