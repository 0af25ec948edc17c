"""What pages over the cockpit have in common: they follow the run, and answer in a line of their own.

Some dialogs follow it, too: what they say would happen must be so when the answer comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, TypeVar

from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from stepwise_tui import keymap
from stepwise_tui.history import History
from stepwise_tui.keymap import Key
from stepwise_tui.log import Tone
from stepwise_tui.text import clean
from stepwise_tui.widgets.lines import MESSAGE_STYLES

T = TypeVar("T")


class Following(ModalScreen[T]):
    """What lies over the cockpit and follows the run."""

    @property
    def ready(self) -> bool:
        """Whether there is anything on it yet to show something in."""
        raise NotImplementedError

    @property
    def on_top(self) -> bool:
        """Whether nothing lies over it. `dismiss` takes away what is on top, whoever it is."""
        return self.app.screen is self

    def show(self, history: History) -> None:
        """Take up what has happened."""
        raise NotImplementedError


class Page(Following[None]):
    """A page with keys of its own, named in its last line."""

    page: ClassVar[keymap.Page]

    def __init__(self, history: History, keys: Sequence[Key]) -> None:
        """keys: those of this page, as the person has mapped them."""
        super().__init__()
        self._history, self._own_keys = history, keys

    def feet(self) -> Iterator[Widget]:
        """The last two lines: what came of a key, and the keys."""
        yield Static(id="said")
        yield Static(id="page-keys")

    @property
    def ready(self) -> bool:
        return bool(self.query("#page-keys"))

    def say(self, text: str, tone: Tone) -> None:
        """An answer to the person; it stays until the next."""
        if self.ready:
            said = Content.styled(clean(text), MESSAGE_STYLES.get(tone, ""))
            self.query_one("#said", Static).update(said)

    def key_of(self, action: str) -> str:
        """How the person writes the key of an action of this page."""
        return next(key.shown for key in self._own_keys if key.action == action)

    def on_resize(self) -> None:
        line = self.query_one("#page-keys", Static)
        line.auto_links = False  # a click works all the same; underlined keys are hard to read
        line.update(keymap.footer(self.size.width - 4, {}, [*self._own_keys, keymap.CLOSING]))
        self.show(self._history)
