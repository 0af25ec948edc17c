"""What plain `stepwise` opens: runs and presets, and Enter on any of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from textual.widgets import DataTable, Static

from stepwise_tui import launcher
from stepwise_tui.glyphs import ASCII, UNICODE
from stepwise_tui.launcher import Launcher, Seen, arguments, look, trend
from tests import scripted
from tests.terminal import Terminal, until
from tests.tiny import endless, kill, tiny_config
from trainer import config as configuration
from trainer import presets, registry, runs
from trainer.events import Evaluated, RunState, encode
from trainer.runs import RunRow


def row(name: str, state: RunState, *, host: str | None = None, updated: str = "") -> RunRow:
    updated = updated or "2026-11-21T12:00:00+00:00"
    return RunRow(name, f"/somewhere/{name}", state, 100, 4, 9, 1, 0.95, 10**6, updated, host)


@pytest.mark.parametrize(
    ("state", "does"),
    [
        ("training", "attach"),
        ("paused", "attach"),
        ("interrupted", "resume"),
        ("crashed", "resume"),
        ("finished", "chat"),
    ],
)
def test_enter_attaches_resumes_or_asks_as_the_run_is(state: RunState, does: str) -> None:
    assert arguments(Seen(row("one", state), ())) == [does, "/somewhere/one"]


def test_the_trend_is_of_the_last_validation_accuracies(tmp_path: Path) -> None:
    events = [e for e in scripted.training().events if isinstance(e, Evaluated)]
    other = Evaluated(
        split="test", accuracy=0.5, token_accuracy=0.5, correct=1, n=2, cot_tokens=1.0, seconds=1.0
    )
    lines = [encode(event) for event in (*events, other)]
    (tmp_path / "journal.jsonl").write_text("\n".join(lines) + '\n{"seq":9,"event":"evaluated","st')
    assert trend(tmp_path) == tuple(event.accuracy for event in events[-launcher.TREND :])
    assert trend(tmp_path / "nowhere") == ()


def test_runs_are_found_here_and_wherever_one_has_begun_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_folder", lambda: tmp_path / "state")
    for folder in (tmp_path / "runs" / "here", tmp_path / "elsewhere" / "there"):
        folder.mkdir(parents=True)
        (folder / runs.CONFIG_FILE).write_text(configuration.dumps(tiny_config()))
        registry.note(folder)
    assert sorted(seen.row.name for seen in look(tmp_path / "runs")) == ["here", "there"]


async def shown(app: Launcher, *keys: str, size: tuple[int, int] = (80, 24)) -> tuple[str, list[str] | None]:
    """The screen after some keys, and what it gave back."""
    async with app.run_test(size=size) as pilot:
        while app._seen is None:
            await pilot.pause(0.02)
        await pilot.pause()
        await pilot.press(*keys)
        await pilot.pause()
        text = "\n".join("".join(s.text for s in strip) for strip in app.screen._compositor.render_strips())
    return text, app.return_value


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    rows = [
        Seen(row("brisk-otter", "training"), (0.1, 0.5, 0.95)),
        Seen(row("[red]wise\x1b[31m-bee", "interrupted"), ()),
        Seen(row("far", "paused", host="box"), ()),
    ]
    monkeypatch.setattr(launcher, "look", lambda out: rows)
    return rows


async def test_runs_are_listed_with_state_trend_size_and_what_enter_does(listed: list[Seen]) -> None:
    text, chosen = await shown(Launcher(Path("runs"), glyphs=UNICODE))
    assert "3 runs" in text
    for part in ("brisk-otter", "training", "4/9", ".950", "▁▅█", "1.0 MB", "[red]wise�[31m-b"):
        assert part in text, part
    assert "enter shows it and steers it: stepwise attach /somewhere/brisk-otter" in text
    assert chosen is None


async def test_runs_grow_older_while_one_looks(listed: list[Seen], monkeypatch: pytest.MonkeyPatch) -> None:
    app = Launcher(Path("runs"))
    async with app.run_test(size=(80, 24)) as pilot:
        while app._seen is None:
            await pilot.pause(0.02)
        born = datetime.fromisoformat(listed[0].row.updated).timestamp()
        monkeypatch.setattr(launcher.time, "time", lambda: born + 3_723)
        app.take(list(listed))
        assert str(app.query_one("#runs", DataTable).get_row_at(0)[-1]) == "1h02m"


async def test_a_long_name_gives_way_to_what_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    large = {"stage": 1_204, "stages": 2_500, "bytes": 999_900_000}
    rows = [replace(row(f"{'m' * 60}{number}", "interrupted", host="box"), **large) for number in range(20)]
    monkeypatch.setattr(launcher, "look", lambda out: [Seen(one, (0.5,) * 16) for one in rows])
    born = datetime.fromisoformat(rows[0].updated).timestamp()
    monkeypatch.setattr(launcher.time, "time", lambda: born + 80_000)
    text, _ = await shown(Launcher(Path("runs"), glyphs=UNICODE))
    for part in ("mmm…", "interrupted?", "1204/2500", "22h13m"):
        assert part in text, part
    text, _ = await shown(Launcher(Path("runs"), glyphs=UNICODE), size=(200, 60))
    assert all(one.name in text for one in rows)


async def test_where_there_is_little_room_a_column_goes_and_none_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 60 columns the size was "493.7", without its unit, and the age was not seen."""
    rows = [replace(row("mult2x2-breaks", "interrupted"), bytes=493_700)]
    monkeypatch.setattr(launcher, "look", lambda out: [Seen(one, (0.5,) * 16) for one in rows])
    born = datetime.fromisoformat(rows[0].updated).timestamp()
    monkeypatch.setattr(launcher.time, "time", lambda: born + 80_000)
    text, _ = await shown(Launcher(Path("runs"), glyphs=UNICODE), size=(60, 18))
    assert "493.7 kB" in text and "22h13m" in text and "▄" not in text
    text, _ = await shown(Launcher(Path("runs"), glyphs=UNICODE), size=(50, 18))
    assert "493" not in text and "22h13m" in text


async def test_enter_gives_back_what_is_to_be_done(listed: list[Seen]) -> None:
    assert (await shown(Launcher(Path("runs")), "enter"))[1] == ["attach", "/somewhere/brisk-otter"]
    resumed = (await shown(Launcher(Path("runs")), "down", "enter"))[1]
    assert resumed is not None and resumed[0] == "resume"
    text, _ = await shown(Launcher(Path("runs")), "down", "down")
    assert "it was begun on box" in text
    name = presets.names()[1]
    assert (await shown(Launcher(Path("runs")), "tab", "down", "enter"))[1] == ["run", "preset", name]


@pytest.mark.parametrize("key", ["q", "escape", "ctrl+c", "ctrl+q"])
async def test_leaving_does_nothing(listed: list[Seen], key: str) -> None:
    assert (await shown(Launcher(Path("runs")), key))[1] is None


async def test_without_runs_the_presets_are_there_with_their_cost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "_folder", lambda: tmp_path / "state")
    text, chosen = await shown(Launcher(tmp_path / "runs", glyphs=ASCII), "enter")
    first = presets.listing()[0]
    assert "no run yet" in text and text.isascii()
    assert first.name in text and "2x2 multiplication" in text
    assert chosen == ["run", "preset", first.name]


async def test_a_folder_that_cannot_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("a file")
    text, _ = await shown(Launcher(Path("runs")))
    assert "cannot be listed" in text


async def test_the_choice_stays_while_the_list_changes(listed: list[Seen]) -> None:
    app = Launcher(Path("runs"))
    async with app.run_test(size=(80, 24)) as pilot:
        while app._seen is None:
            await pilot.pause(0.02)
        await pilot.press("down")
        app.take([Seen(row("newest", "training"), ()), *listed])
        await pilot.pause()
        assert app.query_one("#runs", DataTable).cursor_row == 2
        assert "resume" in str(app.query_one("#detail", Static).render())


@pytest.mark.slow
def test_plain_stepwise_opens_it_on_a_terminal_and_attaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that trains, seen in the list and steered from there; then the shell."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "runs").mkdir()
    first = Terminal("run", "config", endless(tmp_path), "--name", "one", cwd=tmp_path)
    again: Terminal | None = None
    try:
        first.until("tok/s")
        first.press("d")
        assert first.leave() == 0
        again = Terminal(cwd=tmp_path)
        again.until("shows it and steers it")
        again.press("enter")
        again.until("TRAINING")
        again.press("q")
        again.until("stop and save")
        again.press("s")
        assert again.leave() == 0
        until(lambda: runs.row(tmp_path / "runs" / "one").state == "interrupted")
    finally:
        first.close()
        if again is not None:
            again.close()
        kill(tmp_path / "runs" / "one")
