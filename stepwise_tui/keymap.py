"""The keys of the cockpit: one table. Bindings, footer, help screen and command palette are made from it,
and what a person maps otherwise is checked against it."""

from __future__ import annotations

import difflib
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.keys import Keys, _character_to_key, key_to_character

from trainer.control import COMMANDS

Group = Literal["steer", "look", "talk", "leave"]
Page = Literal["", "examples", "timeline"]


class Key(NamedTuple):
    """One row. key: Textual's name of it; shown: a person's. action: of the app. title: in the palette.

    label: in the footer. help: a sentence. rank: the lower, the longer it stays in a footer that is too
    narrow for all. also: keys that do the same everywhere, even while typing. page: over which page it acts,
    "" for the cockpit's screen; the page has the name of the action that opens it.
    """

    key: str
    shown: str
    action: str
    title: str
    label: str
    help: str
    group: Group
    rank: int
    also: str = ""
    page: Page = ""


def _steer(key: str, shown: str, action: str, title: str, label: str, rank: int, *commands: str) -> Key:
    """A key that sends a command: its help is the command's own."""
    text = "; ".join(COMMANDS[name].help for name in commands)
    return Key(key, shown, action, title, label, text, "steer", rank)


def _look(key: str, shown: str, action: str, title: str, label: str, rank: int, text: str) -> Key:
    return Key(key, shown, action, title, label, text, "look", rank)


def _over(page: Page, key: str, action: str, title: str, label: str, rank: int, text: str) -> Key:
    return Key(key, key, action, title, label, text, "look", rank, page=page)


KEYS: tuple[Key, ...] = (
    _steer("space", "space", "pause_or_resume", "Pause or resume", "pause", 1, "pause", "resume"),
    _steer("s", "s", "save", "Save a checkpoint", "save", 5, "save"),
    _steer("a", "a", "advance", "Advance a stage", "advance", 4, "advance"),
    _steer("r", "r", "roll_back", "Roll back", "roll back", 3, "rollback"),
    _steer("h", "h", "hold_or_release", "Hold or release the schedule", "hold", 6, "hold", "release"),
    _steer("e", "e", "evaluate", "Evaluate", "evaluate", 8, "evaluate"),
    _steer("n", "n", "run_steps", "Run N steps", "run N", 9, "run"),
    Key("f", "f", "restart", "Begin anew with another seed", "other seed",
        "save and stop this run, and begin the same anew with another seed", "steer", 33),
    _steer("comma", ",", "change_setting", "Change a setting", "set", 10, "set"),
    Key(
        "c", "c", "chat", "Chat", "chat",
        "ask the live weights, or with ctrl+o a checkpoint; /quiz 100: so many random held-out questions, "
        "with a score; escape leaves, or stops the answer that is being written", "talk", 2,
    ),
    _look("x", "x", "examples", "Examples", "examples", 11, "held-out examples digit by digit; two models "
          "side by side"),
    _look("t", "t", "timeline", "Timeline", "timeline", 12, "stages, branches, checkpoints, what was done"),
    _look("g", "g", "system", "System", "system", 16, "the machine that trains, and how long all takes"),
    _look("y", "y", "log_scale", "Logarithmic scale", "log y", 13, "the chosen chart on a logarithmic scale"),
    _look("b", "b", "x_axis", "Charts by …", "by x", 14, "charts by step, by what is removed, by time"),
    _look("w", "w", "window", "Window", "window", 18, "charts of the whole run, the newest, this stage"),
    _look("m", "m", "smoothing", "Smoothing", "smooth", 19, "curves smoothed lightly, strongly, or not"),
    _look("v", "v", "quantity", "Other quantity", "shows", 20, "what the chosen chart shows: loss, accuracy, "
          "gradient norm, learning rate, tokens/s"),
    _look("o", "o", "next_chart", "Next chart", "chart", 21, "choose the next chart, for y and v"),
    _look("plus", "+", "zoom_in", "Zoom in", "closer", 22, "closer, at the cursor or the newest"),
    _look("minus", "-", "zoom_out", "Zoom out", "wider", 23, "wider; the mouse wheel does both"),
    _look("0", "0", "zoom_off", "Zoom off", "all", 24, "the whole run again"),
    _look("shift+left", "shift+left", "pan_back", "Earlier", "earlier", 25, "what was before"),
    _look("shift+right", "shift+right", "pan_on", "Later", "later", 26, "what came after; or drag"),
    _look("left", "left", "cursor_back", "Cursor back", "cursor", 27,
          "one sample back: reads all curves; click too. "
          "Below the curves: ▲ alarm, ← roll back, ● command, ◆ save, ✗ no number"),
    _look("right", "right", "cursor_on", "Cursor on", "cursor on", 28, "the cursor one sample on"),
    _look("escape", "esc", "drop_cursor", "Drop the cursor", "no cursor", 29, "no cursor any more"),
    _look("z", "z", "large", "Panel large", "large", 27, "the chosen chart, or the log, alone; again: all"),
    _look("k", "k", "beside", "Beside another run", "beside", 30, "another run drawn beside, or none"),
    _look("tab", "tab", "next_panel", "Next panel", "next", 7, "the next panel: charts, log, chat"),
    Key(
        "p", "p", "picture", "Picture of the screen", "picture",
        "the screen as an SVG file, beside the run", "look", 31, "f12",
    ),
    _look("question_mark", "?", "help", "Help", "help", 0, "the keys, and what is to be read where"),
    _look("ctrl+p", "ctrl+p", "command_palette", "Palette", "palette", 15, "all of this by name"),
    Key("d", "d", "detach", "Detach", "detach", "give the shell back; the run goes on", "leave", 17),
    Key("ctrl+z", "ctrl+z", "suspend", "Suspend", "suspend", "the shell, until fg", "leave", 18),
    Key(
        "q", "q", "leave", "Quit", "quit", f"leave, or {COMMANDS['stop'].help}", "leave", 0, "ctrl+q,ctrl+c"
    ),
)  # fmt: skip

PAGE_KEYS: tuple[Key, ...] = (
    _over("examples", "w", "only_wrong", "Only the wrong ones", "wrong", 1,
          "only what was answered wrongly, or all"),
    _over("examples", "d", "only_differing", "Only where they differ", "differing", 2,
          "of two models, only where the answers differ, or all"),
    _over("examples", "c", "compare_with", "Compare with …", "compare", 3,
          "another checkpoint, or the live weights, beside these; the same again: no more"),
    _over("examples", "o", "whose", "Whose answers", "whose", 4, "of the live weights, or of a checkpoint"),
    _over("examples", "e", "answer_now", "Answer them now", "answer now", 5, COMMANDS["examples"].help),
    _over("timeline", "enter", "return_to", "Roll back to it", "roll back", 1,
          "return to the chosen checkpoint, after asking"),
    _over("timeline", "c", "chat_with", "Chat with it", "chat", 2, "ask the chosen checkpoint"),
    _over("timeline", "e", "evaluate_it", "Evaluate it", "evaluate", 3,
          "the validation accuracy of the chosen checkpoint; the journal has it"),
    _over("timeline", "x", "compare_it", "Compare it", "compare", 4,
          "its answers beside those of the live weights"),
)  # fmt: skip
"""Of the pages over the cockpit. `CLOSES` close each, and so does the key that opened it."""

CLOSES = "escape,q"
CLOSING = Key("escape", "esc", "dismiss", "Close", "close", "back", "leave", 0, page="examples")
"""In the footer of every page."""

PAGES: tuple[Page, ...] = ("examples", "timeline")

TITLES: dict[Group, str] = {"steer": "Steer", "talk": "Talk", "look": "Look", "leave": "Leave"}

OTHERWISE = {"ctrl+c": "copy_or_leave"}
"""Keys that do something else first: copy, where anything is selected."""

TAKEN = ("escape", "enter", "up", "down", "left", "right", "home", "end", "pageup", "pagedown")
"""Keys that choose, scroll and close everywhere, and can be given to no action."""


class KeysError(ValueError):
    """Keys that cannot be had so. action: the one at fault."""

    def __init__(self, action: str, reason: str) -> None:
        super().__init__(reason)
        self.action = action


def mapped(wanted: Mapping[str, object]) -> tuple[Key, ...]:
    """The table, keys of pages too, with other keys for some actions: one, or several with blanks between.

    Raises `KeysError` for an action or a key that is none, for two actions of a page with one key, and
    for an action that would have none.
    """
    everything = (*KEYS, *PAGE_KEYS)
    actions = [key.action for key in everything]
    for action, keys in wanted.items():
        if action not in actions:
            near = difflib.get_close_matches(action, actions, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise KeysError(action, f"{action} is no action; {hint}`stepwise keys` lists them")
        if not isinstance(keys, str) or not keys.split():
            raise KeysError(action, f'{action} = {keys!r}: a key is wanted, such as "f5" or "ctrl+s"')
    table = tuple(_with_keys(key, wanted[key.action]) if key.action in wanted else key for key in everything)
    owners: dict[tuple[str, str], str] = {
        (page, name): "closing the page" for page in PAGES for name in CLOSES.split(",")
    }
    for key in sorted(table, key=lambda key: key.action in wanted):
        for page, name in _places(key):
            if (page, name) in owners:
                other = owners[page, name]
                reason = f"{shown(name)} is the key of {other}; give that one another key, too"
                raise KeysError(key.action, f"{key.action} = {wanted[key.action]!r}: {reason}")
            owners[page, name] = key.action
    return table


def _places(key: Key) -> Iterator[tuple[str, str]]:
    """Where it acts, and by which keys: what opens a page closes it, too."""
    for name in key.key.split(","):
        yield key.page, name
        if key.action in PAGES:
            yield key.action, name
    for name in filter(None, key.also.split(",")):
        yield from ((page, name) for page in ("", *PAGES))


def _with_keys(key: Key, keys: object) -> Key:
    names = []
    for word in str(keys).split():
        name = _character_to_key(word) if len(word) == 1 else word.lower()
        if name in TAKEN:
            raise KeysError(key.action, f"{key.action} = {keys!r}: {word} closes, chooses or scrolls already")
        plain = name.removeprefix("alt+")
        if len(word) > 1 and plain not in NAMES and (plain == name or len(plain) > 1):
            hint = "f5, ctrl+s, space, x and ? are, for example"
            raise KeysError(key.action, f"{key.action} = {keys!r}: {word} is no key; {hint}")
        names.append(name)
    return key._replace(key=",".join(names), shown=" ".join(map(shown, names)))


NAMES = frozenset(key.value for key in Keys) | {_character_to_key(c) for c in string.punctuation} | {"space"}


def shown(name: str) -> str:
    """A key as people write it: ? for question_mark."""
    character = key_to_character(name)
    return character if character is not None and character.isprintable() and character != " " else name


def names(keys: Sequence[Key]) -> dict[str, str]:
    """How a person writes the key of each action."""
    return {key.action: key.shown for key in keys}


def bindings() -> list[BindingType]:
    """Of the cockpit's screen; the app itself has `urgent`. Other keys come by `App.set_keymap`."""
    return [_binding(key, f"app.{key.action}") for key in KEYS]


def page_bindings(page: Page) -> list[BindingType]:
    """Of a page over it, with those that close it."""
    (opener,) = (key for key in KEYS if key.action == page)
    own = [_binding(key, key.action) for key in PAGE_KEYS if key.page == page]
    return [*own, Binding(CLOSES, "dismiss", CLOSING.label), _binding(opener, "dismiss")]


def _binding(key: Key, action: str) -> Binding:
    return Binding(key.key, action, key.label, id=key.action, tooltip=key.help)


def urgent() -> list[BindingType]:
    """Keys that act everywhere, over a dialog and while typing too, whatever is mapped."""
    return [
        Binding(also, OTHERWISE.get(also, key.action), key.label, priority=True, show=False)
        for key in KEYS
        for also in key.also.split(",")
        if also
    ]


TYPING = (
    ("enter", "ask"),
    ("ctrl+n", "a question"),
    ("ctrl+o", "whom"),
    ("up", "earlier ones"),
    ("esc", "leave"),
)
"""Keys that act while a question is typed, when those of the table do not; they cannot be had otherwise."""


def typing_footer() -> Content:
    """What stands in the footer's place while a question is typed."""
    return Content("  ").join([Content.assemble((key, "bold $accent"), f" {does}") for key, does in TYPING])


def footer(width: int, labels: dict[str, str], keys: Sequence[Key] = KEYS) -> Content:
    """As many keys as fit, the most useful ones first; in the table's order. A click does what the key does.

    labels: other words for some actions, as they would act now ("resume" for "pause").
    """
    chosen: set[Key] = set()
    room = width + 2  # no gap before the first
    for key in sorted(keys, key=lambda key: key.rank):
        length = len(f"  {key.shown} {labels.get(key.action, key.label)}")
        if length <= room:
            chosen.add(key)
            room -= length
    parts = []
    for key in keys:
        if key in chosen:
            word = labels.get(key.action, key.label)
            name = Content(key.shown).markup
            owner = "screen" if key.page else "app"
            parts.append(f"[@click={owner}.{key.action}][b $accent]{name}[/] {word}[/]")
    return Content.from_markup("  ".join(parts))
