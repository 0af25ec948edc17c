"""The charts driven by keys and mouse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Label, OptionList, Static

from stepwise_tui.app import Cockpit
from stepwise_tui.charts.view import View, frame
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.screens.beside import ChooseRun
from stepwise_tui.screens.main import Main
from stepwise_tui.widgets.charts import ChartPanel, Charts
from tests import scripted
from tests.scripted import SCRIPTED, Script, ScriptedLink
from trainer import config as configuration
from trainer import runs
from trainer.events import encode

LARGE = (200, 60)


def cockpit(script: Script, folder: Path = Path("runs/brisk-otter")) -> Cockpit:
    return Cockpit(ScriptedLink(script.events, folder), glyphs=UNICODE)


def charts(app: Cockpit) -> Charts:
    return app.main.query_one(Charts)


def view(app: Cockpit) -> View:
    return charts(app).view


def limits(app: Cockpit) -> tuple[float, float]:
    return frame(view(app), charts(app)._extent)


def panel(app: Cockpit, id: str) -> ChartPanel:
    return app.main.query_one(f"#{id}", ChartPanel)


def said(app: Cockpit) -> str:
    return str(app.main.query_one("#message", Static).render())


def title(app: Cockpit, id: str) -> str:
    return str(panel(app, id)._border_title)


async def test_a_third_chart_where_there_is_room() -> None:
    for size, shown in ((LARGE, 3), ((180, 50), 3), ((140, 40), 2), ((80, 24), 2)):
        app = cockpit(scripted.training())
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            assert len(charts(app).panels) == shown, size


async def test_the_chosen_chart_shows_what_no_other_does() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        seen = []
        for _ in range(5):
            await pilot.press("v")
            seen.append(panel(app, "loss").quantity.id)
        assert seen == ["gradient", "rate", "speed", "loss", "gradient"]
        await pilot.press("o", "o", "v")
        assert panel(app, "accuracy").quantity.id == "rate"
        assert "learning rate" in title(app, "accuracy")
        assert "learning rate" in said(app)


async def test_a_logarithmic_scale_is_the_chosen_charts_and_refused_where_nothing_is_positive() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("tab", "tab", "tab", "y")
        assert "log" in title(app, "gradient") and "log" not in title(app, "loss")
        await pilot.press("y", "tab", "tab", "tab", "y")
        assert view(app).logs == {"loss"}
    script = Script().start()
    app = cockpit(script)
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("y")
        assert view(app).logs == frozenset()
        assert "no value of loss is above zero" in said(app)


async def test_windows_and_smoothing_go_round_and_say_so() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=LARGE) as pilot:
        seen = []
        for _ in range(3):
            await pilot.press("w")
            seen.append((view(app).window, limits(app)))
        assert [window for window, _ in seen] == ["recent", "stage", "all"]
        assert seen[1][1][0] == 1_200  # where stage 4 was entered
        assert str(panel(app, "loss")._border_subtitle) == "smoothed"
        await pilot.press("m", "w")
        assert str(panel(app, "loss")._border_subtitle) == "recent · smoothed strongly"
        assert str(panel(app, "accuracy")._border_subtitle) == "recent"
        await pilot.press("m")
        assert view(app).smoothing == "off"


async def test_zoom_by_keys_keeps_the_newest_and_follows_it() -> None:
    script = scripted.training()
    app = cockpit(script)
    async with app.run_test(size=LARGE) as pilot:
        whole = limits(app)
        await pilot.press("plus", "plus")
        low, high = limits(app)
        assert high - low == (whole[1] - whole[0]) / 4
        assert "live" in str(panel(app, "loss")._border_subtitle)
        told = len(script.events)
        app.take(script.train_to(3_000).events[told:])
        assert limits(app)[0] > low and limits(app)[1] >= 3_000
        await pilot.press("shift+left", "shift+left", "shift+left", "shift+left", "shift+left")
        frozen = limits(app)
        assert "frozen" in str(panel(app, "loss")._border_subtitle)
        told = len(script.events)
        app.take(script.train_to(3_200).events[told:])
        assert limits(app) == frozen
        await pilot.press("minus", "minus", "minus", "minus")
        assert view(app).span is None
        await pilot.press("shift+right")
        assert "the whole run is in view" in said(app)
        await pilot.press("plus", "0")
        assert view(app).span is None


async def test_the_same_part_of_the_run_stays_in_view_by_another_x() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("w", "w", "plus", "b")
        low, high = limits(app)
        assert view(app).x_axis == "removed" and 4 <= low < high <= 5.1
        await pilot.press("b", "b")
        assert view(app).x_axis == "step"
        assert 1_200 <= limits(app)[0] <= limits(app)[1] <= 1_400


async def test_the_cursor_reads_all_curves_on_all_charts() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("left")
        assert view(app).cursor == 1_340
        await pilot.press("left")
        step = view(app).cursor
        assert step is not None and step < 1_340
        await pilot.pause()
        answer = app.history.branch.loss_answer.columns
        value = answer.value[answer.step == step][0]
        assert f"answer {value:.3g}" in title(app, "loss")
        assert "CoT " in title(app, "loss") and "unclipped 0.8" in title(app, "gradient")
        measured = app.history.branch.accuracy.columns.step
        last = int(measured[measured <= step][-1])
        assert "exact ." in title(app, "accuracy")
        assert (f"@{last:,}" in title(app, "accuracy")) == (last != step)
        caption = str(panel(app, "accuracy")._border_subtitle)
        assert caption.startswith(f"step {step:,} · stage 4 · ")
        await pilot.press("right")
        assert view(app).cursor == 1_340
        await pilot.press("escape")
        assert view(app).cursor is None
        assert "@" not in title(app, "accuracy")


async def test_the_cursor_comes_into_view() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("plus", "plus", "plus", *["left"] * 30)
        cursor, (low, high) = view(app).cursor, limits(app)
        assert cursor is not None and low <= cursor <= high < 1_340


async def test_the_mouse_points_zooms_and_drags() -> None:
    app = cockpit(scripted.training())
    async with app.run_test(size=LARGE) as pilot:
        await pilot.click("#loss", offset=(30, 8))
        cursor = view(app).cursor
        assert cursor is not None and 0 < cursor < 1_340
        await pilot.press("escape")
        await _wheel(pilot, "#loss", 30)
        low, high = limits(app)
        assert low < cursor < high < 1_400
        await pilot.mouse_down("#loss", offset=(20, 8))
        await pilot.hover("#loss", offset=(30, 8))
        await pilot.mouse_up("#loss", offset=(30, 8))
        assert limits(app)[0] < low
        assert view(app).cursor is None


async def _wheel(pilot: Pilot[None], selector: str, x: int) -> None:
    from textual.events import MouseScrollUp

    widget = pilot.app.screen.query_one(selector)
    await pilot._post_mouse_events([MouseScrollUp], widget=widget, offset=(x, 8))
    await pilot.pause()


def other_run(folder: Path) -> Path:
    """A run's folder with the journal of a run that was lost."""
    run = folder / "wild-goose"
    run.mkdir()
    (run / runs.CONFIG_FILE).write_text(configuration.dumps(SCRIPTED))
    events = scripted.lost().events
    lines = [encode(replace(event, seq=seq)) for seq, event in enumerate(events, 1)]
    (run / "journal.jsonl").write_text("\n".join(lines) + "\n")
    return run


async def _until_drawn(pilot: Pilot[None], app: Cockpit, name: str) -> None:
    for _ in range(500):
        app.show_charts()
        await pilot.pause(0.01)
        styles = {str(span.style) for span in panel(app, "accuracy").render().spans}
        if name in title(app, "loss") and "$primary" in styles:
            return
    raise AssertionError("the other run never came")


async def test_another_run_is_chosen_and_drawn_beside(tmp_path: Path) -> None:
    other = other_run(tmp_path)
    before = sorted((path.name, path.stat().st_size) for path in other.iterdir())
    app = cockpit(scripted.training(), tmp_path / "brisk-otter")
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("k")
        assert isinstance(app.screen, ChooseRun)
        assert "wild-goose" in str(app.screen.query_one(OptionList).get_option_at_index(0).prompt)
        await pilot.press(*"nothing", "enter")
        assert "there is no run 'nothing'" in str(app.screen.query_one(".problem", Label).render())
        app.screen.query_one(Input).value = "goose"
        await pilot.press("enter")
        assert isinstance(app.screen, Main)
        await _until_drawn(pilot, app, "wild-goose")
        await pilot.press("k", "down", "up", "enter")
        await pilot.pause()
        assert "wild-goose" not in title(app, "loss")
        await pilot.press("k", "enter")
        await _until_drawn(pilot, app, "wild-goose")
    assert sorted((path.name, path.stat().st_size) for path in other.iterdir()) == before


async def test_where_there_is_no_other_run_it_says_so_and_takes_a_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = other_run(elsewhere)
    app = cockpit(scripted.training(), tmp_path / "brisk-otter")
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("k")
        assert "no other run" in str(app.screen.query_one(".problem", Label).render())
        await pilot.press("enter")
        assert "no other run" in str(app.screen.query_one(".problem", Label).render())
        app.screen.query_one(Input).value = str(other)
        await pilot.press("enter")
        await _until_drawn(pilot, app, "wild-goose")


@pytest.mark.parametrize("key", ["v", "y", "b", "w", "m", "plus", "minus", "0", "left", "right", "o"])
async def test_before_the_first_number_no_key_of_the_charts_does_harm(key: str) -> None:
    app = cockpit(Script())
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press(key, key, "shift+left", "shift+right", "escape")
        assert app.is_running
