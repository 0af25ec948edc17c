"""Dialogs: each asks one thing and gives back a command line, or None when nothing is to be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from stepwise_tui import returns
from stepwise_tui.history import History
from stepwise_tui.screens.page import Following
from stepwise_tui.text import accuracy, clean, clean_lines, wrapped
from trainer import config as configuration
from trainer.config import ConfigError
from trainer.control import CommandError, describe_rollback, parse
from trainer.events import DISK, CheckpointSaved
from trainer.record.lineage import CheckpointRef

Leaving = Literal["stop", "leave", "stay"]
ROOM = 66
"""Columns of a list in a wide dialog at 80 columns."""


class Confirm(Following[bool]):
    """Says what will happen and asks whether it shall."""

    BINDINGS: ClassVar = [("escape,n", "answer(False)", "no"), ("y", "answer(True)", "yes")]

    def __init__(self, title: str, text: Callable[[], str | None], yes: str) -> None:
        """text: what will happen as things stand; None where it is not to be asked any more."""
        super().__init__()
        self._title, self._text, self._yes = title, text, yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = self._title
            yield Static(id="asked", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(f"{self._yes} (y)", id="yes", variant="warning")
                yield Button("cancel (n)", id="no")

    @property
    def ready(self) -> bool:
        return bool(self.query("#asked"))

    def on_screen_resume(self) -> None:
        """It is there, or what lay over it is gone."""
        self._ask()

    def show(self, history: History) -> None:
        if self.on_top:
            self._ask()

    def _ask(self) -> None:
        text = self._text()
        if text is None:
            self.dismiss(False)
        else:
            self.query_one("#asked", Static).update(clean_lines(text))

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


class Leave(Following[Leaving]):
    """What becomes of the run when the person leaves."""

    BINDINGS: ClassVar = [
        ("k,q", "answer('leave')", "keep training"),
        ("escape,c", "answer('stay')", "stay"),
        ("s", "answer('stop')", "stop"),
    ]

    def __init__(self, history: History, again: str, further: str) -> None:
        """again, further: the commands that come back to the run, and that train it on once stopped."""
        super().__init__()
        self._history, self._again, self._further = history, clean(again), clean(further)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = "quit"
            yield Static(id="standing", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("keep training (k)", id="leave", variant="primary")
                yield Button("stop and save (s)", id="stop", variant="warning")
                yield Button("cancel (c)", id="stay")

    @property
    def ready(self) -> bool:
        return bool(self.query("#standing"))

    def on_mount(self) -> None:
        self.show(self._history)

    def show(self, history: History) -> None:
        if history.ended or history.gone:
            if self.on_top:
                self.dismiss("stay")  # there is nothing to be stopped any more
            return
        stopped = "it is saved first"
        if history.alarm is not None and history.alarm.kind == DISK:
            lost = f"what came after {clean(next(reversed(history.saves)))}" if history.saves else "all of it"
            stopped = f"{lost} is lost, since no checkpoint can be written now"
        self.query_one("#standing", Static).update(
            f"The run is {history.standing}. It needs no window; q or ctrl+c again leaves it to itself, too, "
            f"and `{self._again}` comes back to it.\n"
            f"Stopped, {stopped}; `{self._further}` goes on."
        )

    def action_answer(self, answer: Leaving) -> None:
        self.dismiss(answer)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        id = event.button.id
        self.dismiss("leave" if id == "leave" else "stop" if id == "stop" else "stay")


class RunSteps(ModalScreen[str]):
    """How many steps to train before the next pause."""

    BINDINGS: ClassVar = [("escape", "dismiss", "cancel")]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "run N steps, then pause"
            yield Input("100", type="integer", id="steps", select_on_focus=True)
            yield Label("", classes="problem", markup=False)
            yield Label("enter starts, escape cancels", classes="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        text = f"run {event.value}"
        try:
            parse(text)
        except CommandError as problem:
            self.query_one(".problem", Label).update(str(problem))
        else:
            self.dismiss(text)


class ChooseRollback(Following[tuple[str, ...]]):
    """Where to return to. Lists the entries of stages on this line of history; says what each would do.

    One is chosen at first, and the reason said; digits choose a stage. An alarm that suspects a setting has
    it taken back, too, unless the person says no. While it is open stages are entered and alarms raised: what
    is chosen stays chosen. The result: commands, one after the other.
    """

    BINDINGS: ClassVar = [
        ("escape", "dismiss", "cancel"),
        ("k", "toggle_weights", "keep the weights"),
        ("t", "toggle_undo", "take the setting back"),
    ]

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history
        self._entries: list[CheckpointRef] = []
        self._undo = ""
        self._take_back = True
        self._keep = False
        self._typed = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = "roll back"
            yield OptionList(markup=False)
            yield Static(id="outlook", markup=False)
            yield Static(id="keep", markup=False)
            yield Static(id="undo", markup=False)
            yield Label("enter rolls back, a number goes to that stage, escape cancels", classes="hint")

    @property
    def ready(self) -> bool:
        return bool(self.query(OptionList))

    def on_mount(self) -> None:
        self.show(self._history)
        self.query_one(OptionList).focus()

    def show(self, history: History) -> None:
        alarm = history.alarm
        preferred, self._undo = (alarm.target, alarm.undo) if alarm is not None else ("", "")
        self._facts = history.facts
        self._offer = returns.offered(history, preferred)
        entries, choices = returns.targets(self._facts, preferred), self.query_one(OptionList)
        if entries != self._entries:
            before, self._entries = self._entries, entries
            chosen = self._offer.entry if choices.highlighted is None else before[choices.highlighted]
            choices.set_options([Option(self._row(entry), id=entry.id) for entry in entries])
            choices.highlighted = entries.index(chosen) if chosen in entries else 0
        self._look_ahead()

    def _row(self, entry: CheckpointRef) -> str:
        saved = self._history.saves.get(entry.id)
        measured = None if saved is None else self._history.accuracy_at(saved.at)
        place = f"stage {entry.stage:>3}   step {entry.step:>7,}"
        return f"{place}   accuracy {accuracy(measured):>5}   {clean(entry.id)}"

    def on_key(self, event: Key) -> None:
        """A digit: the stage of that number, of several digits typed one after the other."""
        if event.key.isdecimal():
            event.stop()
            longer = self._typed + event.key
            self._typed = longer if int(longer) <= self._facts.at.stage else event.key
            choices = self.query_one(OptionList)
            choices.highlighted = returns.nearest(self._entries, int(self._typed))

    def action_toggle_weights(self) -> None:
        self._keep = not self._keep
        self._look_ahead()

    def action_toggle_undo(self) -> None:
        self._take_back = not (self._take_back and self._undo)
        self._look_ahead()

    def on_option_list_option_highlighted(self) -> None:
        self._look_ahead()

    def _look_ahead(self) -> None:
        chosen = self.query_one(OptionList).highlighted
        if chosen is not None:
            entry = self._entries[chosen]
            outlook = f"{clean(describe_rollback(entry, self._keep, self._facts))}. "
            outlook += "The data order will be a fresh one."
            if entry == self._offer.entry and self._offer.reason:
                outlook = f"{self._offer.reason[0].upper()}{self._offer.reason[1:]}.\n{outlook}"
            self.query_one("#outlook", Static).update(outlook)
            kept = "yes, only the CoT comes back" if self._keep else "no, those of the checkpoint"
            self.query_one("#keep", Static).update(f"[k] keep the present weights: {kept}")
        undo = self.query_one("#undo", Static)
        undo.display = bool(self._undo)
        taken = "yes" if self._take_back else "no, it stays as it is"
        undo.update(f"[t] {clean(self._undo)}, as it was: {taken}")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        keep = " --keep-weights" if self._keep else ""
        undo = (self._undo,) if self._undo and self._take_back else ()
        self.dismiss((f"rollback {event.option.id}{keep}", *undo))


class ChooseWeights(ModalScreen[tuple[str, ...]]):
    """Some weights: ids of checkpoints, "" for the current ones. Several only where `both` may be chosen."""

    BINDINGS: ClassVar = [("escape", "dismiss", "cancel"), ("b", "both", "this one and the live weights")]

    def __init__(self, history: History, title: str, enter: str, *, both: bool = False) -> None:
        """enter: what that key does. both: whether one may choose a checkpoint and the current weights."""
        super().__init__()
        self._history, self._title, self._enter, self._both = history, title, enter, both
        self._saves = list(reversed(history.saves.values()))

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide") as box:
            box.border_title = self._title
            yield OptionList("the live weights", *map(self._row, self._saves), markup=False)
            yield Label(
                "A checkpoint is loaded for its answers only; training waits for it.",
                classes="hint",
                markup=False,
            )
            both = "b this one and the live weights, " if self._both else ""
            yield Label(f"enter {self._enter}, {both}escape cancels", classes="hint")

    def _row(self, save: CheckpointSaved) -> str:
        at, measured = save.at, self._history.accuracy_at(save.at)
        place = f"stage {at.stage:>3}   step {at.step:>7,}   accuracy {accuracy(measured):>5}"
        return f"{place}   {clean(save.checkpoint)}"

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        choices.highlighted = 0
        choices.focus()

    def _chosen(self) -> str:
        index = self.query_one(OptionList).highlighted or 0
        return self._saves[index - 1].checkpoint if index else ""

    def action_both(self) -> None:
        chosen = self._chosen()
        if self._both:
            self.dismiss(("", chosen) if chosen else ("",))

    def on_option_list_option_selected(self) -> None:
        self.dismiss((self._chosen(),))


class ChangeSetting(ModalScreen[str]):
    """A live setting and its new value: typed as `key value`, the key chosen from the list or completed."""

    BINDINGS: ClassVar = [
        ("escape", "dismiss", "cancel"),
        ("down,up", "list", "choose"),
        ("pageup", "page(-1)", "settings before"),
        ("pagedown", "page(1)", "more settings"),
    ]

    def __init__(self, history: History) -> None:
        super().__init__()
        self._config = history.config
        self._rows = [row for row in configuration.table() if row.live]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide tall") as box:
            box.border_title = "change a setting while training"
            yield Input(placeholder="key value, for example optim.lr 1e-4", id="assignment")
            yield Label("", classes="problem", markup=False)
            yield OptionList(id="settings", markup=False)
            yield Label(
                "enter takes the key, then the value; pgup, pgdn scroll; escape cancels", classes="hint"
            )

    def on_mount(self) -> None:
        self._narrow("")

    def _narrow(self, typed: str) -> None:
        """List the settings that what was typed may mean."""
        word = typed.split(" ")[0]
        rows = [row for row in self._rows if word in row.key] or self._rows
        choices = self.query_one(OptionList)
        choices.clear_options()
        for row in rows:
            now = configuration.get(self._config, row.key)
            value, default = configuration.shown(now), configuration.shown(row.default)
            text = row.description if value == default else f"default {default}; {row.description}"
            head = f"{row.key:<26} {value:<8} {row.allowed}"
            choices.add_option(Option(f"{head}\n{wrapped(f'    {text}', ROOM, 4)}", id=row.key))

    def on_input_changed(self, event: Input.Changed) -> None:
        self._narrow(event.value)
        self.query_one(".problem", Label).update("")

    def action_list(self) -> None:
        self.query_one(OptionList).focus()

    def action_page(self, direction: Literal[-1, 1]) -> None:
        choices = self.query_one(OptionList)
        (choices.scroll_page_up if direction < 0 else choices.scroll_page_down)(animate=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._take_key(str(event.option.id))

    def _take_key(self, key: str) -> None:
        field = self.query_one(Input)
        field.value = f"{key} "
        field.focus()
        field.action_end()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        key, _, value = event.value.strip().partition(" ")
        if not value:
            matching = [row.key for row in self._rows if key and key in row.key]
            if len(matching) == 1:
                self._take_key(matching[0])
                return
        try:
            command = parse(f"set {event.value.strip()}")
            configuration.changed(self._config, command.key, command.value)
        except (CommandError, ConfigError) as problem:
            self.query_one(".problem", Label).update(str(problem))
        else:
            self.dismiss(command.text)
