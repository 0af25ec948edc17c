"""Commands, as a part of the cockpit: asking first, sending them, telling what became of them.

What a key, a dialog or the chat wants of the run goes through `Steering.request`; the answer comes as an
event, and `Steering.tell` says it. What only looks at the run is not here, nor is leaving it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from textual.app import App
from textual.driver import Driver

from stepwise_tui import returns
from stepwise_tui.history import History
from stepwise_tui.link import Link
from stepwise_tui.log import Tone
from stepwise_tui.on_terminal import Departure
from stepwise_tui.screens.page import Page
from stepwise_tui.widgets.chat import ChatPanel
from stepwise_tui.words import outcome
from trainer import runs
from trainer.control import QUESTIONS, Command, CommandError, decide, parse
from trainer.events import AlarmCleared, CommandAcknowledged, CommandReceived, Event, Notice
from trainer.paths import named, shortest
from trainer.record.digest import is_question

if TYPE_CHECKING:
    from stepwise_tui.screens.main import Main
    from trainer.record.lineage import CheckpointRef


class Steering(App[Departure]):
    """Actions upon the run; each says that it was asked for, or why it cannot be."""

    link: Link
    history: History
    main: Main
    key_names: Mapping[str, str]

    def __init__(self, driver_class: type[Driver] | None = None) -> None:
        super().__init__(driver_class=driver_class)
        self._questions: set[str] = set()
        """Ids of those that were asked from here."""

    def tick(self) -> None:
        """Take in what has happened since the last time."""
        raise NotImplementedError

    def request(self, text: str) -> Command | None:
        """Send a command; say so at once, or say why it cannot be sent. The command, where it was."""
        if not self._may():
            return None
        try:
            command = parse(text)
        except CommandError as problem:
            self.say(str(problem), "warning")
            return None
        if command.name not in QUESTIONS:  # which the chat shows
            self.say(f"requested: {text}", "faint")
        self.link.send(command)
        self.tick()
        return command

    def _may(self) -> bool:
        """Whether there is a run to ask; a word where it is gone, or has not told its first event."""
        if self.history.gone is not None:
            self.say(self.history.gone.advice, "warning")
            return False
        if self.history.started is None:
            self.say("the run is still starting", "warning")
        return self.history.started is not None

    def _outlook(self, text: str) -> str | None:
        """What a command would do, by the function that will decide it; None, and a word, when it cannot."""
        if not self._may():
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
        asked_at = self.history.at

        def text() -> str | None:
            at = self.history.at
            if (at.branch, at.stage) != (asked_at.branch, asked_at.stage):
                self.say(f"stage {at.stage} came meanwhile; nothing more was asked for", "warning")
                return None
            return self._advance_text()

        self._confirm("advance", text, "advance")

    def _advance_text(self) -> str | None:
        outlook = self._outlook("advance")
        if outlook is None:
            return None
        method = self.history.config.method
        goes = "CoT token" if method.counted == "token" else "step of the CoT"
        reset = " The optimiser is reset." if method.reset_optimizer else ""
        text = f"The next {goes} goes now, before its time: {outlook}.{reset}\nAccuracy will dip"
        if entries := returns.targets(self.history.facts):
            text += (
                f"; {self.key_names['roll_back']} brings this stage back as it was at step "
                f"{entries[0].step:,}, or, with k there, with what was learnt since"
            )
        return f"{text}."

    def action_roll_back(self) -> None:
        if self._outlook("rollback") is None:
            return
        from stepwise_tui.screens.dialogs import ChooseRollback

        def send(commands: tuple[str, ...] | None) -> None:
            for command in commands or ():
                self.request(command)

        self.push_screen(ChooseRollback(self.history), send)

    def roll_back_to(self, checkpoint: CheckpointRef) -> None:
        """Ask whether to return to a checkpoint, and do it."""
        command = f"rollback {checkpoint.id}"

        def text() -> str | None:
            outlook = self._outlook(command)
            return outlook and f"{outlook[0].upper()}{outlook[1:]}."

        self._confirm(command, text, "roll back")

    def action_restart(self) -> None:
        """Ask whether to begin the same anew with another seed; another process does it."""
        from stepwise_tui import detached
        from stepwise_tui.screens.dialogs import Confirm

        folder = self.link.folder
        if not self.link.local:
            self.say(
                f"on its own machine `stepwise restart {named(folder)} --seed fresh` does that", "warning"
            )
            return
        new = runs.new_folder(folder.parent, None, folder.name)

        def text() -> str:
            stops = "" if self.history.ended else "This run is saved and stopped. "
            return (
                f"{stops}{new.name} begins the same anew with another seed; in a minute\n"
                f"stepwise attach {named(new)}\nshows it."
            )

        def begin(yes: bool | None) -> None:
            if yes:
                log = detached.restart(folder, new.name)
                self.say(f"{new.name} begins: {shortest(log)}", "good")

        self.push_screen(Confirm("other seed", text, "begin anew"), begin)

    def action_run_steps(self) -> None:
        if self._outlook("run 1") is not None:
            from stepwise_tui.screens.dialogs import RunSteps

            self.push_screen(RunSteps(), self._send)

    def action_change_setting(self) -> None:
        if self._may():
            from stepwise_tui.screens.dialogs import ChangeSetting

            self.push_screen(ChangeSetting(self.history), self._send)

    def _confirm(self, command: str, text: Callable[[], str | None], does: str) -> None:
        """Send the command if the answer is yes, and what `text` says of it holds until then."""
        from stepwise_tui.screens.dialogs import Confirm

        def answered(yes: bool | None) -> None:
            if yes:
                self.tick()  # what came since the last one
                if text() is not None:
                    self.request(command)

        if text() is not None:
            self.push_screen(Confirm(does, text, does), answered)

    def _send(self, text: str | None) -> None:
        if text is not None:
            self.request(text)

    def on_chat_panel_asked(self, message: ChatPanel.Asked) -> None:
        sent = [self.request(command) for command in message.commands]
        self._questions.update(command.id for command in sent if command is not None)
        if not any(sent):
            self.main.query_one(ChatPanel).give_back(message.text)

    def action_leave_chat(self) -> None:
        """Cut short the answer to this person that is being written; leave the chat where none is."""
        streams = any(turn.streams and turn.id in self._questions for turn in self.history.chat)
        self._questions.clear()
        if streams:
            self.request("interrupt")
        else:
            self.main.leave_chat()

    def tell(self, event: Event) -> None:
        """Say what an event answers to the person, if it does."""
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
