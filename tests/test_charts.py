"""Charts: any numbers at any size, and honest about them."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from textual.content import Content

from stepwise_tui.charts import ticks
from stepwise_tui.charts.chart import Axes, Line, Mark, draw
from stepwise_tui.charts.curves import Beside, chart, positive
from stepwise_tui.charts.points import reduced
from stepwise_tui.charts.quantities import ACCURACY, LOSS, QUANTITIES, RATE, Quantity
from stepwise_tui.charts.view import SMOOTHINGS, WINDOWS, X_AXES, Span, View
from stepwise_tui.history import History, replay
from tests import scripted
from tests.scripted import SCRIPTED
from trainer.config import build, merge
from trainer.events import AlarmCleared, At, Metrics
from trainer.record.thinning import LIMIT, RECENT

ANY = arrays(np.float64, st.integers(0, 40), elements=st.floats(width=64))


def line(*values: float, style: str = "red") -> Line:
    return Line(np.arange(len(values), dtype=np.float64), np.array(values, dtype=np.float64), style)


@pytest.mark.parametrize("braille", [True, False])
def test_equal_lines_that_lie_on_each_other_are_all_seen(braille: bool) -> None:
    three = [
        Line(np.arange(9.0), np.full(9, 0.5), style, sign, equal=True)
        for style, sign in (("red", "*"), ("green", "o"), ("blue", "x"))
    ]
    chart = draw([line(0.5, 0.5, style="dim"), *three], [], (60, 9), Axes("x", (0.0, 1.0)), braille=braille)
    cells = dict.fromkeys(("dim", "red", "green", "blue"), 0)
    for span in chart.spans:
        if str(span.style) in cells:
            cells[str(span.style)] += span.end - span.start
    shares = [cells[style] for style in ("red", "green", "blue")]
    assert cells["dim"] == 0 and max(shares) - min(shares) <= 2 and min(shares) > 15
    if not braille:
        assert "**ooxx**ooxx" in chart.plain


def loss_chart(history: History, size: tuple[int, int], view: View) -> Content:
    return chart(LOSS, history, size, view).text


def accuracy_chart(history: History, size: tuple[int, int], view: View) -> Content:
    return chart(ACCURACY, history, size, view).text


def drawn(text: str) -> int:
    """Braille signs in a chart."""
    return sum("\u2800" < sign <= "\u28ff" for sign in text)


@settings(max_examples=300)
@given(ANY, ANY, st.booleans(), st.booleans(), st.integers(0, 130), st.integers(0, 40), st.lists(st.floats()))
def test_any_numbers_give_a_chart_of_exactly_the_size_asked_for(
    x: np.ndarray, y: np.ndarray, log: bool, braille: bool, width: int, height: int, marks: list[float]
) -> None:
    n = min(len(x), len(y))
    lines = [Line(np.sort(x[:n]), y[:n], "red"), line(1.0, 2.0)]
    stages = [Mark(mark, "3") for mark in marks]
    chart = draw(lines, stages, (width, height), Axes("step", log=log), braille=braille)
    if width and height:
        rows = chart.plain.split("\n")
        assert [len(row) for row in rows] == [width] * height


@pytest.mark.parametrize(
    "values",
    [
        [],
        [math.nan],
        [math.nan, math.inf, -math.inf],
        [0.0],
        [0.0, 0.0, 0.0],
        [1e308, -1e308],
        [5e-324, 1.0],
        [1e15, 1e15 + 1],
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_odd_numbers_draw(values: list[float], log: bool) -> None:
    for size in ((20, 5), (20, 24), (80, 24)):
        assert draw([line(*values)], [], size, Axes("step", log=log)).plain


def test_a_gap_stays_a_gap() -> None:
    whole = draw([line(*[1.0] * 60)], [], (40, 10), Axes(y_range=(0, 2)))
    holed = draw([line(*[1.0] * 20, *[math.nan] * 20, *[1.0] * 20)], [], (40, 10), Axes(y_range=(0, 2)))
    assert drawn(holed.plain) <= 0.75 * drawn(whole.plain)


def test_a_lone_point_between_gaps_is_seen() -> None:
    chart = draw([line(math.nan, 1.0, math.nan)], [], (40, 10), Axes())
    assert drawn(chart.plain) == 1


def test_zero_and_less_are_gaps_on_a_logarithmic_scale() -> None:
    with_zero = draw([line(1.0, 0.1, 0.0, -1.0, 0.01)], [], (40, 10), Axes(log=True))
    assert drawn(with_zero.plain)
    assert "0.01" in with_zero.plain
    nothing = draw([line(0.0, -1.0)], [], (40, 10), Axes(log=True), empty="nothing to show")
    assert "nothing to show" in nothing.plain


def test_a_million_points_cost_little_and_keep_their_spike() -> None:
    values = np.zeros(1_000_000)
    values[654_321] = 1.0
    before = time.perf_counter()
    chart = draw([Line(np.arange(1e6), values, "red")], [], (100, 20), Axes(y_range=(0, 1)))
    assert time.perf_counter() - before < 2
    top = chart.plain.split("\n")[0]
    assert drawn(top)


@given(arrays(np.float64, st.integers(1, 3_000), elements=st.floats(-1e6, 1e6) | st.just(math.nan)))
def test_reducing_keeps_the_extremes_and_the_order(values: np.ndarray) -> None:
    x = np.arange(len(values), dtype=np.float64)
    fewer_x, fewer_y = reduced(x, values, 50)
    assert len(fewer_y) <= max(100, len(values) if len(values) <= 100 else 0)
    assert (np.diff(fewer_x) > 0).all()
    if np.isfinite(values).any():
        assert np.nanmin(fewer_y) == np.nanmin(values)
        assert np.nanmax(fewer_y) == np.nanmax(values)


def test_later_lines_cover_earlier_ones() -> None:
    chart = draw([line(1.0, 1.0, style="blue"), line(1.0, 1.0, style="red")], [], (40, 10), Axes())
    styles = {span.style for span in chart.spans}
    assert "red" in styles
    assert "blue" not in styles


def test_without_braille_a_chart_is_plain_ascii() -> None:
    history = replay(scripted.saved().events, SCRIPTED)
    view = View(braille=False)
    for text in (loss_chart(history, (60, 16), view), accuracy_chart(history, (60, 16), view)):
        assert text.plain.isascii()
        assert "*" in text.plain


def test_each_stage_is_marked_and_the_last_one_says_that_all_is_gone() -> None:
    history = replay(scripted.finished().events, SCRIPTED)
    top = accuracy_chart(history, (120, 16), View("removed")).plain.split("\n")[0]
    assert top.split() == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "all", "gone"]


def test_the_axis_says_what_it_shows() -> None:
    history = replay(scripted.training().events, SCRIPTED)
    for x_axis, word in (("step", "step"), ("removed", "tokens removed"), ("time", "seconds")):
        assert word in loss_chart(history, (80, 16), View(x_axis)).plain  # type: ignore[arg-type]
    history.config = build(merge(SCRIPTED.model_dump(), {"method": {"unit": "step"}}))
    assert " steps removed" in loss_chart(history, (80, 16), View("removed")).plain


def test_an_abandoned_branch_is_dim_and_stays() -> None:
    before = accuracy_chart(replay(scripted.lost().events, SCRIPTED), (80, 16), View())
    after = accuracy_chart(replay(scripted.saved().events, SCRIPTED), (80, 16), View())
    dim = "$foreground-disabled"
    assert dim not in {span.style for span in before.spans}
    assert dim in {span.style for span in after.spans}


def test_what_was_abandoned_high_above_does_not_flatten_the_live_line() -> None:
    x = np.arange(60.0)
    gone, live = Line(x, 600.0 + x, "dim", behind=True), Line(x, 2.0 - x / 60, "bright")
    shown = draw([gone, live], [], (60, 14), Axes(steady=True)).plain
    assert {text.split("┤")[0].strip() for text in shown.split("\n") if "┤" in text} == {"1.0", "1.5", "2.0"}
    assert "600" in draw([gone], [], (60, 14), Axes(steady=True)).plain  # alone it is all there is


def test_before_the_first_number_a_chart_says_so() -> None:
    assert "no loss yet" in loss_chart(History(), (40, 10), View()).plain
    assert "not evaluated yet" in accuracy_chart(History(), (40, 10), View()).plain


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12), st.integers(1, 12))
def test_ticks_are_round_and_within(low: float, span: float, count: int) -> None:
    high = low + span
    if high - low < 1e-6 * max(abs(low), abs(high)):
        return
    marks, step = ticks.linear(low, high, count)
    assert len(marks) <= count + 2
    assert all(low - step * 1e-6 <= mark <= high + step * 1e-6 for mark in marks)
    assert f"{step:.0e}"[0] in "125"


# What part of a run is drawn, and what stands beside it ---------------------------------------------------


def metrics(step: int, value: float, time: float = 1.0, stage: int = 0) -> Metrics:
    return Metrics(
        at=At(step, 1, stage, stage, stage, time), loss=value, loss_answer=value, loss_cot=None,
        grad_norm=value, lr=value, steps=1, steps_per_second=1.0, tokens_per_second=value, epoch=0.0,
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.floats(width=32), st.floats(0, 1e15)), max_size=30),
    st.sampled_from(QUANTITIES),
    st.builds(
        View,
        st.sampled_from(X_AXES),
        st.sampled_from(WINDOWS),
        st.sampled_from(SMOOTHINGS),
        st.sampled_from([frozenset(), frozenset(q.id for q in QUANTITIES)]),
        st.none() | st.builds(Span, st.floats(-1e9, 1e9), st.floats(2e9, 1e12), st.booleans()),
        st.none() | st.integers(0, 10**9),
        st.booleans(),
    ),
    st.sampled_from([(20, 5), (20, 24), (60, 16), (400, 60), (7, 3)]),
)
def test_any_run_draws_in_any_view(
    rows: list[tuple[int, float, float]], quantity: Quantity, view: View, size: tuple[int, int]
) -> None:
    history = replay([metrics(step, value, time) for step, value, time in rows])
    picture = chart(quantity, history, size, view, Beside("itself", history))
    assert [len(row) for row in picture.text.plain.split("\n")] == [size[0]] * size[1]


def test_a_closer_look_draws_only_its_part_and_costs_no_more() -> None:
    x = np.arange(1e6)
    wave = Line(x, np.sin(x / 50), "red")
    text = draw([wave], [], (100, 20), Axes(x_range=(500_000.0, 500_010.0))).plain
    assert drawn(text) and "500,005" in text
    between = draw([line(0.0, 8.0)], [], (40, 10), Axes(x_range=(0.4, 0.6), whole=False))
    assert drawn(between.plain), "a line that only crosses the part is seen"


def test_the_newest_points_have_all_their_detail_on_a_long_run() -> None:
    history = replay([metrics(step, step % 2) for step in range(60_000)])
    columns = history.branch.loss_answer.columns
    newest = columns.step >= 60_000 - RECENT
    assert newest.sum() == RECENT
    assert len(columns.step) < RECENT + 4 * LIMIT + 2


def test_what_happened_is_marked_below_the_curves() -> None:
    script = scripted.lost()
    script.train_to(1_700).command("set optim.lr 0.001", "set")
    script.train_to(1_900).save("manual")
    script.say(metrics(script.step + 100, math.nan, script.at.time + 5, stage=script.stage))
    lost = replay(script.events, SCRIPTED)
    script.roll_back(3, 1_000).say(AlarmCleared(at=script.at, kind="dip", message="rolled back"))
    saved = replay(script.train_to(1_700).events, SCRIPTED)
    for history, view, wanted in (
        (lost, View(), "▲●◆✗"),
        (lost, View(braille=False), "!osx"),
        (saved, View(), "←"),
        (saved, View(braille=False), "<"),
        (saved, View("time"), "▲●◆←"),
    ):
        row = chart(LOSS, history, (120, 16), view).text.plain.split("\n")[-2]
        assert [sign for sign in row if sign in "▲●◆✗←!osx<"] == list(wanted), row


def test_time_is_told_in_what_suits_it() -> None:
    for length, word in ((30, "seconds"), (600, "minutes"), (40_000, "hours"), (600_000, "days")):
        history = replay([metrics(step, 1.0, 1e9 + step * length / 50) for step in range(51)])
        bottom = chart(LOSS, history, (90, 16), View("time")).text.plain.split("\n")[-1]
        assert bottom.rstrip().endswith(word)
        assert all(len(number) <= 4 for number in bottom.split()[:-1])


def test_a_curve_is_smoothed_over_its_faint_self_and_begins_anew_at_each_removal() -> None:
    history = replay(scripted.training().events, SCRIPTED)
    styles = {str(span.style) for span in loss_chart(history, (120, 30), View()).spans}
    assert {"bold $accent", "$accent 35%"} <= styles
    styles = {str(span.style) for span in loss_chart(history, (120, 30), View(smoothing="off")).spans}
    assert "bold $accent" in styles and not any("35%" in style for style in styles)
    styles = {str(span.style) for span in accuracy_chart(history, (120, 30), View()).spans}
    assert not any("35%" in style for style in styles), "accuracy is shown as it was measured"


def test_another_run_is_drawn_in_one_other_style() -> None:
    history, other = (replay(s.events, SCRIPTED) for s in (scripted.training(), scripted.lost()))
    picture = chart(ACCURACY, history, (120, 16), View(), Beside("other", other))
    assert "$primary" in {str(span.style) for span in picture.text.spans}
    assert picture.x_range[1] >= other.at.step


def test_only_what_is_above_zero_can_be_on_a_logarithmic_scale() -> None:
    assert positive(replay([metrics(1, 0.5)]), LOSS)
    assert not positive(replay([metrics(1, 0.0), metrics(2, math.nan)]), RATE)


def test_a_place_under_the_mouse_is_the_x_that_is_drawn_there() -> None:
    history = replay(scripted.training().events, SCRIPTED)
    picture = chart(LOSS, history, (100, 16), View())
    assert picture.x_at(picture.left) == picture.x_range[0]
    assert picture.x_at(picture.left + picture.columns - 1) == picture.x_range[1]
    assert picture.x_at(picture.left - 1) is None and picture.x_at(100) is None
