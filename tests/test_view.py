"""Which part of a run the charts show, and its running mean."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stepwise_tui.charts.smoothing import smoothed
from stepwise_tui.charts.view import LEAST, PARTS, WINDOWS, Extent, Span, View, frame, panned, zoomed

SIZES = st.floats(1e-3, 1e9)


@st.composite
def extents(draw: st.DrawFn) -> Extent:
    end = draw(SIZES)
    newest = end * draw(st.floats(0.01, 1))
    recent, stage = newest * draw(st.floats(0, 1)), newest * draw(st.floats(0, 1))
    return Extent(0.0, end, newest, recent, stage, spacing=newest / draw(st.integers(1, 10_000)))


@settings(deadline=None)
@given(extents(), st.sampled_from(WINDOWS))
def test_every_window_shows_the_newest_point(extent: Extent, window: str) -> None:
    low, high = frame(View(window=window), extent)  # type: ignore[arg-type]
    assert low <= extent.newest <= high * (1 + 1e-9)
    if window == "all":
        assert high >= extent.end * (1 - 1e-9) and high <= 1.2 * extent.end + 1


@settings(deadline=None)
@given(extents(), st.lists(st.sampled_from([0.5, 2.0, "back", "on"]), max_size=12))
def test_zoom_and_pan_stay_within_the_run_and_keep_the_newest_while_it_is_in_view(
    extent: Extent, doings: list[float | str]
) -> None:
    view = View()
    start, end = extent.whole
    for doing in doings:
        low, high = frame(view, extent)
        if isinstance(doing, float):
            new = zoomed(view, extent, doing)
            first, last = frame(new, extent)
            if low <= extent.newest <= high:
                assert first <= extent.newest * (1 + 1e-9) and extent.newest <= last * (1 + 1e-9)
        else:
            new = panned(view, extent, -0.25 if doing == "back" else 0.25)
            first, last = frame(new, extent)
            assert np.isclose(last - first, high - low)
        assert first >= start - 1e-9 * end and last <= end * (1 + 1e-9)
        assert last - first >= min(LEAST * extent.spacing, end - start) * 0.99
        view = new


@settings(deadline=None)
@given(st.floats(0.0, 1e6), st.floats(1.0, 1e5), st.floats(0.0, 1e6))
def test_a_window_that_follows_moves_in_strides(low: float, width: float, beyond: float) -> None:
    view = View(span=Span(low, low + width, follows=True))
    first, last = frame(view, Extent(end=low + width + beyond, newest=low + width + beyond))
    strides = (first - low) / (width / PARTS)
    assert np.isclose(strides, round(strides), atol=1e-3)
    assert low + width + beyond <= last + 1e-3 and last - (low + width + beyond) <= width / PARTS + 1e-3


def test_cells_stand_still_most_of_the_time() -> None:
    """Of a thousand looks at a growing run few find other limits."""
    for window, most in (("all", 25), ("recent", 90), ("stage", 30)):
        seen = {
            frame(View(window=window), Extent(0, n, n, max(0, n - 200), 100, 1.0))  # type: ignore[arg-type]
            for n in range(1_000, 2_000)
        }
        assert len(seen) <= most, window


VALUES = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6) | st.just(float("nan")))


@settings(deadline=None)
@given(VALUES, st.floats(0.1, 100), st.data())
def test_a_mean_lies_between_what_it_is_the_mean_of_and_begins_anew(
    values: np.ndarray, half: float, data: st.DataObject
) -> None:
    x = np.cumsum(data.draw(arrays(np.float64, len(values), elements=st.floats(0.01, 10))))
    begins = data.draw(arrays(np.bool_, len(values)))
    means = smoothed(x, values, begins, half)
    assert (np.isnan(means) == np.isnan(values)).all()
    piece: list[float] = []
    for value, mean, new in zip(values, means, begins, strict=True):
        if new or np.isnan(value):
            piece = []
        if not np.isnan(value):
            piece.append(value)
            slack = 1e-6 * max(1.0, *map(abs, piece))
            assert min(piece) - slack <= mean <= max(piece) + slack
            assert len(piece) > 1 or mean == value


def test_a_mean_follows_the_distance_not_the_number_of_points() -> None:
    x = np.array([0.0, 1.0])
    near = smoothed(x, np.array([0.0, 1.0]), np.zeros(2, dtype=np.bool_), half=1.0)
    far = smoothed(10 * x, np.array([0.0, 1.0]), np.zeros(2, dtype=np.bool_), half=1.0)
    assert near[1] == 1 / 1.5
    assert far[1] > 0.99
