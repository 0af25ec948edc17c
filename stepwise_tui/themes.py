"""What colours the screen has, and how it does without any."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.color import Color
from textual.filter import LineFilter, Monochrome, NoColor
from textual.theme import Theme

from stepwise_tui.glyphs import ASCII, Glyphs, colours, plain

if TYPE_CHECKING:
    from stepwise_tui.settings import Settings

THEMES = (
    Theme(
        name="dark",
        primary="#4FA3E3",
        secondary="#7C93B8",
        accent="#F2B456",
        success="#6FC276",
        warning="#F0913A",
        error="#D9534F",
        foreground="#D8DEE6",
        background="#0E1217",
        surface="#151B22",
        panel="#1C252F",
    ),
    Theme(
        name="light",
        primary="#1F6FB2",
        secondary="#4A5F80",
        accent="#8A5000",
        success="#2E7D32",
        warning="#A84A00",
        error="#B3261E",
        foreground="#1B1F24",
        background="#FBFBF8",
        surface="#F1F1EC",
        panel="#E3E5E4",
        dark=False,
        variables={"surface-lighten-2": "#A9B0B7"},
    ),
    Theme(
        name="high-contrast",
        primary="#66C2FF",
        secondary="#C8D2FF",
        accent="#FFD24A",
        success="#7CFF7C",
        warning="#FFA630",
        error="#FF7B7B",
        foreground="#FFFFFF",
        background="#000000",
        surface="#000000",
        panel="#1A1A1A",
        variables={
            "foreground-muted": "#DDDDDD",
            "foreground-disabled": "#A8A8A8",
            "surface-lighten-2": "#BBBBBB",
        },
    ),
    Theme(
        name="terminal",
        ansi=True,
        primary="ansi_blue",
        secondary="ansi_cyan",
        accent="ansi_magenta",
        success="ansi_green",
        warning="ansi_yellow",
        error="ansi_red",
        foreground="ansi_default",
        background="ansi_default",
        surface="ansi_default",
        panel="ansi_default",
        boost="ansi_default",
        variables={
            "ansi-background": "ansi_black",
            "ansi-foreground": "ansi_white",
            "foreground-muted": "ansi_default",
            "foreground-disabled": "ansi_bright_black",
            "surface-lighten-2": "ansi_bright_black",
            "block-cursor-text-style": "reverse",
            "input-cursor-text-style": "reverse",
        },
    ),
)
"""The first is the one that nobody has to choose."""
NAMES = tuple(theme.name for theme in THEMES)
CHOSEN = Style(reverse=True)
STANDS_OUT = 0.25
"""By so much brightness a background tells something."""
DESCRIPTIONS = {
    "dark": "colours on near black",
    "light": "colours on near white",
    "high-contrast": "bright colours on black",
    "terminal": "the sixteen colours of the terminal itself",
}


def dress(app: App[Any], settings: Settings, glyphs: Glyphs) -> None:
    """Give a screen its themes; take its colours away where the person wants none, and what is not ASCII
    where the terminal takes nothing else."""
    for theme in THEMES:
        app.register_theme(theme)
    app.theme = settings.theme
    app._filters = [f for f in app._filters if not isinstance(f, Monochrome | NoColor)]
    if not colours():
        app._filters.insert(0, NoColours())
        app.add_class("-colourless")
    if glyphs is ASCII:
        app._filters.append(AsciiOnly())
        app.add_class("-ascii")


def theme_style(app: App[Any], style: str) -> str:
    """A style that names a colour of the theme, such as "bold $success", as Rich takes it."""

    def colour(word: str) -> str:
        if not word.startswith("$"):
            return word
        return Color.parse(app.theme_variables[word[1:]].partition(" ")[0]).rich_color.name

    return " ".join(map(colour, style.split()))


class NoColours(LineFilter):
    """Take every colour away, so that none is written; Textual's own writes greys, or the default's code.

    What stood out by its background is reversed instead.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(text, style and _without(style, background), control) for text, style, control in segments
        ]


class AsciiOnly(LineFilter):
    """The nearest ASCII sign for every other: in texts, borders and whatever Textual draws itself."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(plain(text), style, control) for text, style, control in segments]


@lru_cache(4096)
def _without(style: Style, background: Color) -> Style:
    plain = style.without_color
    if style.bgcolor is None or style.bgcolor.triplet is None:
        return plain
    ground = Color.from_rich_color(style.bgcolor)
    return plain + CHOSEN if abs(ground.brightness - background.brightness) > STANDS_OUT else plain
