"""The page that explains the keys and the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from stepwise_tui.keymap import CLOSES, PAGES, TITLES, Key
from stepwise_tui.text import wrapped
from stepwise_tui.widgets.lines import LATENT_WORDS
from trainer.config import MethodConfig


class Help(ModalScreen[None]):
    """What the screen shows and what each key does."""

    BINDINGS: ClassVar = [(CLOSES, "dismiss", "close"), Binding("question_mark", "dismiss", id="help")]

    def __init__(self, keys: Sequence[Key], method: MethodConfig) -> None:
        """keys: all, as the person has mapped them. method: how the run is taught."""
        super().__init__()
        self._keys, self._method = keys, method

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="page") as box:
            box.border_title = "help"
            box.border_subtitle = "escape closes"
            yield Static(id="help")

    def on_resize(self) -> None:
        width = self.query_one(".page").scrollable_content_region.width
        self.query_one("#help", Static).update(help_text(width, self._keys, self._method))


def help_text(width: int, keys: Sequence[Key], method: MethodConfig) -> Content:
    """The key table, and how to read the screen, in lines of `width`."""
    parts: list[Content] = []
    for group, title in TITLES.items():
        parts.append(Content.styled(title, "bold"))
        for key in keys:
            if key.group != group or key.page:
                continue
            shown = f"{key.shown}, {key.also.replace(',', ', ')}" if key.also else key.shown
            parts.append(_row(shown, key.help, "bold $accent", width))
        parts.append(Content(""))
    for page in PAGES:
        parts.append(Content.styled(f"Over the page of the {page}", "bold"))
        parts += [_row(key.shown, key.help, "bold $accent", width) for key in keys if key.page == page]
        parts.append(Content(""))
    parts.append(Content.styled("Read", "bold"))
    parts += [_row(name, text, "$secondary", width) for name, text in _reading(method)]
    return Content("\n").join(parts)


def _row(name: str, text: str, style: str, width: int) -> Content:
    head = f"  {name:<18}"
    lines = wrapped(head + text, width, len(head))
    return Content.styled(lines, "").stylize(style, 0, len(head))


def _reading(method: MethodConfig) -> list[tuple[str, str]]:
    """What one sees of a run that is taught so."""
    unit, bar = method.counted, ("removed", f"CoT {method.counted}s the model no longer gets to see or say")
    if method.name in LATENT_WORDS and not method.no_thought:
        word = LATENT_WORDS[method.name]
        bar = (word, f"stages so far: at each, {word} stand for one step more of the CoT")
    return [
        bar,
        ("the third line", "a held-out example: a dot for each removed token, then what the model says"),
        ("vertical lines", f"a {unit} went there; its number stands above"),
        ("dim lines", "what a roll back abandoned"),
        ("dip", "accuracy falls at a removal; it should climb back before the next"),
    ]
