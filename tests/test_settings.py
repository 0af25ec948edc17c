"""What a person wants of every cockpit: keys and theme, from one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.color import Color
from textual.theme import Theme
from typer.testing import CliRunner

from stepwise_tui import keymap, settings
from stepwise_tui.app import Cockpit
from stepwise_tui.cli import app as command_line
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.screens.help import Help
from stepwise_tui.screens.main import Main
from stepwise_tui.settings import Settings, SettingsError
from stepwise_tui.themes import NAMES, THEMES
from tests import scripted
from tests.scripted import ScriptedLink
from tests.test_cockpit import sent, text_of

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Puts a text into the person's file."""
    file = tmp_path / "config" / "cockpit.toml"
    monkeypatch.setattr(settings, "path", lambda: file)

    def put(text: str) -> Path:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return put


def test_without_a_file_all_is_as_it_comes(write: Write) -> None:
    assert settings.load() == Settings()
    assert keymap.mapped({}) == (*keymap.KEYS, *keymap.PAGE_KEYS)


def test_other_keys_and_another_theme(write: Write) -> None:
    write('theme = "light"\n[keys]\nsave = "ctrl+s f5"\nhelp = "h"\nhold_or_release = "?"\n')
    found = settings.load()
    assert found.theme == "light"
    table = {key.action: key for key in keymap.mapped(found.keys)}
    assert (table["save"].key, table["save"].shown) == ("ctrl+s,f5", "ctrl+s f5")
    assert (table["help"].key, table["hold_or_release"].shown) == ("h", "?")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[keys\n", 1, "Expected"),
        ('theme = "pink"\n', 1, "dark, light, high-contrast, terminal"),
        ('\ncolour = "red"\n', 2, "colour is not known"),
        ("keys = 3\n", 1, "a table is wanted"),
        ('[keys]\n\nsvae = "x"\n', 3, "did you mean save?"),
        ('[keys]\nsave = "a"\n', 2, "a is the key of advance"),
        ('[keys]\nsave = "ctrl+q"\n', 2, "ctrl+q is the key of leave"),
        ('[keys]\nsave = "j"\nevaluate = "j"\n', 3, "j is the key of save"),
        ('[keys]\nsave = "ctl+s"\n', 2, "ctl+s is no key"),
        ('[keys]\nhelp = ""\n', 2, "a key is wanted"),
        ("[keys]\nleave = []\n", 2, "a key is wanted"),
        ('[keys]\nhelp = "escape"\n', 2, "closes, chooses or scrolls already"),
        ('[keys]\nsave = "enter"\n', 2, "closes, chooses or scrolls already"),
    ],
)
def test_what_cannot_be_is_refused_with_file_and_line(
    write: Write, text: str, line: int, reason: str
) -> None:
    file = write(text)
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert str(caught.value).startswith(f"{file}")
    assert f"line {line}" in str(caught.value)
    assert reason in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from([key.action for key in (*keymap.KEYS, *keymap.PAGE_KEYS)]),
        st.text(st.sampled_from("abqz?, f5ctrl+"), max_size=9),
        max_size=4,
    )
)
def test_whatever_is_mapped_quit_and_help_are_reachable_and_no_key_means_two_things(
    wanted: dict[str, str],
) -> None:
    try:
        table = keymap.mapped(wanted)
    except keymap.KeysError as error:
        assert error.action in wanted
        return
    for page in ("", *keymap.PAGES):
        here = [key for key in table if key.page == page or key.action == page]
        names = [name for key in here for name in key.key.split(",")]
        names += [name for key in table for name in key.also.split(",") if name]
        assert len(names) == len(set(names))
    assert all(key.key for key in table)
    assert {"ctrl+c", "ctrl+q"} <= set(names)


async def test_mapped_keys_act_and_are_shown_everywhere() -> None:
    link = ScriptedLink(scripted.lost().events)
    chosen = Settings(
        keys={"save": "j", "help": "f1", "evaluate": "s", "roll_back": "u", "hold_or_release": "i"}
    )
    app = Cockpit(link, glyphs=UNICODE, settings=chosen)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("j", "s", "r", "e", "question_mark")
        assert sent(link) == ["save", "evaluate"]
        assert isinstance(app.screen, Main)
        footer = text_of(app, "#keys")
        assert "j save" in footer and "s evaluate" in footer and "f1 help" in footer
        assert " u  roll back to stage 3" in text_of(app, "#alarm")
        assert " i  hold the schedule" in text_of(app, "#alarm")
        await pilot.press("f1")
        assert isinstance(app.screen, Help)
        assert "  j      " in str(app.screen.query_one("#help").render())
        await pilot.press("f1")
        assert isinstance(app.screen, Main), "its own key closes it"
        palette = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Save a checkpoint (j)", "Help (f1)"} <= palette


async def test_a_theme_is_chosen_in_the_palette_and_remembered(write: Write) -> None:
    file = write('# mine\n[keys]\nsave = "j"\n')
    app = Cockpit(ScriptedLink(scripted.saved().events), glyphs=UNICODE, settings=settings.load())
    async with app.run_test(size=(120, 40)) as pilot:
        commands = {c.title: c.callback for c in app.get_system_commands(app.screen)}
        assert "Theme: dark" not in commands
        for name in ("terminal", "high-contrast", "light"):
            commands[f"Theme: {name}"]()
            await pilot.pause()
            assert app.theme == name
    assert settings.load() == Settings("light", {"save": "j"})
    assert file.read_text().startswith("# mine\n")


def test_the_keys_are_printed_with_the_place_of_the_file(write: Write) -> None:
    file = write('[keys]\nsave = "j"\n')
    done = CliRunner().invoke(command_line, ["keys"])
    assert done.exit_code == 0
    assert "j *" in done.stdout and f"* as {file} says." in done.stdout
    assert all(key.action in done.stdout for key in keymap.KEYS)
    write('[keys]\nsave = "a"\n')
    refused = CliRunner().invoke(command_line, ["keys"])
    assert refused.exit_code == 2
    file.unlink()
    assert "does not exist yet" in CliRunner().invoke(command_line, ["keys"]).stdout


async def test_the_screen_is_saved_beside_the_run_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    app = Cockpit(ScriptedLink(scripted.training().events, run), glyphs=UNICODE)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("p")
        (picture,) = run.glob("screen-*.svg")
        assert "brisk-otter" in picture.read_text() and picture.read_text().startswith("<svg")
        assert f"run/{picture.name}" in text_of(app, "#message")
        await pilot.press("question_mark", "f12")
    app = Cockpit(ScriptedLink(scripted.training().events, tmp_path / "far away"), glyphs=UNICODE)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("p")
        assert len(list(tmp_path.glob("screen-*.svg"))) == 1
        monkeypatch.chdir("/proc")
        await pilot.press("p")
        assert "cannot be saved" in text_of(app, "#message")


def contrast(one: str, other: str) -> float:
    """The ratio of the WCAG; 4.5 is legible."""

    def luminance(text: str) -> float:
        parts = (
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in Color.parse(text).normalized
        )
        return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [t for t in THEMES if not t.ansi], ids=lambda theme: theme.name)
def test_every_colour_can_be_read_on_its_background(theme: Theme) -> None:
    least = 7.0 if theme.name == "high-contrast" else 4.5
    for colour in ("foreground", "primary", "secondary", "accent", "success", "warning", "error"):
        for ground in ("background", "surface"):
            found = contrast(getattr(theme, colour), getattr(theme, ground))
            assert found >= least - (0.5 if colour == "error" else 0), (colour, ground, found)


@pytest.mark.parametrize("name", NAMES)
async def test_every_theme_draws_every_screen(name: str) -> None:
    app = Cockpit(ScriptedLink(scripted.saved().chat().events), glyphs=UNICODE, settings=Settings(name))
    async with app.run_test(size=(120, 40)) as pilot:
        for key in ("x", "t", "question_mark", "r", "q"):
            await pilot.press(key)
            await pilot.pause()
            await pilot.press("escape")
        assert app.is_running
