"""What one looks at: one panel large, and all of it kept from one cockpit of a run to the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot

from stepwise_tui import looks
from stepwise_tui.app import Cockpit
from stepwise_tui.charts.quantities import QUANTITIES
from stepwise_tui.charts.view import SMOOTHINGS, WINDOWS, X_AXES, Extent, Span, View, frame
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.looks import CHARTS, PANELS, TABS, Look
from stepwise_tui.widgets.charts import ChartPanel, Charts
from tests import scripted
from tests.scripted import ScriptedLink
from tests.test_cockpit import text_of
from tests.test_looking import other_run

LARGE = (200, 60)

numbers = st.floats(-1e12, 1e12)
spans = st.tuples(numbers, numbers).filter(lambda ends: ends[0] < ends[1])
views = st.builds(
    View,
    x_axis=st.sampled_from(X_AXES),
    window=st.sampled_from(WINDOWS),
    smoothing=st.sampled_from(SMOOTHINGS),
    logs=st.frozensets(st.sampled_from([quantity.id for quantity in QUANTITIES])),
    cursor=st.none(),
    braille=st.just(True),
    span=st.none() | st.builds(lambda ends, follows: Span(*ends, follows), spans, st.booleans()),
)
kept = st.builds(
    Look,
    view=views,
    tab=st.sampled_from(TABS),
    focus=st.sampled_from(["", *PANELS]),
    large=st.sampled_from(["", *PANELS]),
    system=st.booleans(),
    quantities=st.permutations(QUANTITIES).map(lambda all: tuple(all[: len(CHARTS)])),
    beside=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(PANELS),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*Look._fields, *View._fields]), inner)
    ),
)


@given(kept)
def test_a_look_is_read_as_it_was_written(look: Look) -> None:
    assert looks.decode(looks.encode(look)) == look


@given(json_values.map(json.dumps) | st.text())
def test_whatever_a_file_holds_a_look_comes_of_it(text: str) -> None:
    look = looks.decode(text)
    assert looks.decode(looks.encode(look)) == look


def test_what_is_damaged_costs_only_itself() -> None:
    told = json.loads(looks.encode(Look(View(window="stage"), tab="log", large="loss")))
    told |= {"tab": "moon", "span": [2, 1, True], "quantities": ["loss", "loss", "speed"], "logs": 7}
    assert looks.decode(json.dumps(told)) == Look(View(window="stage"), large="loss")
    assert looks.decode("[" * 100_000) == Look()
    assert looks.decode(looks.encode(Look(tab="log"))[:-9]) == Look()


def test_files_are_per_run_few_and_never_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "MOST", 3)
    assert looks.load("otter", tmp_path) is None
    for name in ("a", "b", "c", "otter"):
        looks.save(name, tmp_path, Look(tab="log"))
    assert looks.load("otter", tmp_path) == Look(tab="log")
    assert looks.load("otter on far", tmp_path) is looks.load("otter", tmp_path / "else") is None
    file = looks._file("otter", tmp_path)
    assert len(list(file.parent.iterdir())) == 3
    file.write_bytes(b"\xff\xfe\0")
    assert looks.load("otter", tmp_path) is None
    file.unlink()
    file.mkdir()
    looks.save("otter", tmp_path, Look())
    assert looks.load("otter", tmp_path) is None


def test_a_zoom_on_what_another_run_of_that_name_had_shows_all() -> None:
    new = Extent(end=300.0, newest=300.0)
    assert frame(View(span=Span(5_000.0, 6_000.0, False)), new) == frame(View(), new)
    assert frame(View(span=Span(100.0, 200.0, False)), new) == (100.0, 200.0)


async def left_after(pilot: Pilot[None], *keys: str) -> Look:
    """The look that is kept when the person detaches after those keys."""
    await pilot.press(*keys)
    await pilot.pause()
    app = pilot.app
    assert isinstance(app, Cockpit)
    app.exit("leave")
    return looks.decode(looks.encode(app.look))


def cockpit(look: Look | None = None, folder: Path = Path("runs/brisk-otter")) -> Cockpit:
    return Cockpit(ScriptedLink(scripted.saved().events, folder), glyphs=UNICODE, look=look)


def panels(app: Cockpit) -> list[str]:
    return [id for id in (*PANELS, "system") if app.main.query_one(f"#{id}").region.area]


async def test_all_is_as_it_was_when_one_comes_back(tmp_path: Path) -> None:
    other = other_run(tmp_path)
    folder = tmp_path / "brisk-otter"
    app = cockpit(folder=folder)
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("k", "enter")
        keys = ["tab", "tab", "v", "y", "b", "w", "m", "plus", "plus", "shift+left", "g"]
        look = await left_after(pilot, *keys)
        view = app.main.query_one(Charts).view
    app = cockpit(look, folder)
    async with app.run_test(size=LARGE) as pilot:
        await pilot.pause()
        charts = app.main.query_one(Charts)
        assert charts.view == view and view.x_axis == "removed" and view.span is not None
        assert [panel.quantity.id for panel in charts.panels] == ["loss", "rate", "gradient"]
        assert app.focused is not None and app.focused.id == "accuracy"
        assert look.beside == str(other) and charts.beside
        assert "system" in panels(app)
        assert await left_after(pilot) == look


async def test_the_tab_comes_back_and_a_question_can_be_typed_on(tmp_path: Path) -> None:
    app = cockpit()
    async with app.run_test(size=(80, 24)) as pilot:
        assert "new here?" in text_of(app, "#message")
        look = await left_after(pilot, "v", "c", *"12")
    assert [quantity.id for quantity in look.quantities] == ["gradient", "accuracy", "loss"]
    app = cockpit(look._replace(beside=str(tmp_path / "gone")))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert panels(app) == ["chat"]
        assert app.focused is not None and app.focused.id == "question"
        assert not app.main.query_one(Charts).beside
        assert "new here?" not in text_of(app, "#message")


async def test_a_panel_alone_and_all_again() -> None:
    app = cockpit()
    async with app.run_test(size=LARGE) as pilot:
        await pilot.pause()
        everything = panels(app)
        assert everything == ["loss", "accuracy", "gradient", "log", "chat"]
        for keys, seen in (
            (["z"], ["loss"]),
            (["o"], ["accuracy"]),
            (["o"], ["gradient"]),
            (["z"], everything),
            (["tab", "z"], ["log"]),
            (["tab"], everything),  # the question has the focus
            (["escape", "z"], ["loss"]),
            (["g"], [*everything, "system"]),
            (["g", "z", "c"], everything),
        ):
            await pilot.press(*keys)
            await pilot.pause()
            assert panels(app) == seen, keys
        assert app.focused is not None and app.focused.id == "question"


async def test_a_large_chart_follows_the_terminal_and_the_tabs() -> None:
    app = cockpit()
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("o", "o", "o", "z")
        for size in ((80, 24), (120, 40)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert panels(app) == ["gradient"], size
        await pilot.resize_terminal(80, 24)
        await pilot.press("tab", "z")
        assert panels(app) == ["log"]
        await pilot.press("tab", "escape", "z")
        await pilot.pause()
        assert panels(app) == ["loss", "accuracy"]


async def test_the_third_chart_has_its_curve_as_soon_as_there_is_room_for_it() -> None:
    """Before, it said that there was no gradient yet, until the charts were drawn anew seconds later."""
    app = Cockpit(ScriptedLink(scripted.training().events), glyphs=UNICODE, frugal=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.resize_terminal(*LARGE)
        await pilot.pause()
        gradient = app.main.query_one("#" + CHARTS[2], ChartPanel)
        assert "step" in str(gradient.render()) and "gradient yet" not in str(gradient.render())
