"""The points of a line before they are drawn: cut to what is in view, and no more than can be seen."""

from __future__ import annotations

import numpy as np

from stepwise_tui.charts.canvas import Floats

GAP_COLUMNS = 8
"""Columns for each gap of a line that has more points than columns."""


def cut(x: Floats, y: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    """A line from `low` to `high`, with the next point on either side moved to the edge along the line.

    Where x goes back no part of the line joins, so there the caller has left a gap.
    """
    inside = (x >= low) & (x <= high)
    kept = inside | ~np.isfinite(x)
    kept[:-1] |= inside[1:]
    kept[1:] |= inside[:-1]
    crossing = np.flatnonzero((x[:-1] < low) & (x[1:] > high))
    kept[crossing] = kept[crossing + 1] = True
    x, y = x[kept], y[kept]
    _move_to_edge(x, y, low, high)
    outside = ~((x >= low) & (x <= high))
    x[outside] = y[outside] = np.nan
    return x, y


def _move_to_edge(x: Floats, y: Floats, low: float, high: float) -> None:
    """Move points beyond the edges to them, along the line to their neighbour."""
    if len(x) < 2:
        return
    left = np.flatnonzero((x[:-1] < low) & (x[1:] >= low))
    right = np.flatnonzero((x[:-1] <= high) & (x[1:] > high))
    old_x, old_y = x.copy(), y.copy()
    for points, others, edge in ((left, left + 1, low), (right + 1, right, high)):
        share = (edge - old_x[points]) / (old_x[others] - old_x[points])
        x[points] = edge
        y[points] = old_y[points] + share * (old_y[others] - old_y[points])


def reduced(x: Floats, y: Floats, columns: int) -> tuple[Floats, Floats]:
    """At most two points for each of `columns`: the lowest and the highest, in their order.

    What is drawn is then the same as if all points were, and a million cost what a few hundred do. A
    column in which no value is finite stays a gap; so does each gap, where they are few: many would shred
    the line.
    """
    if len(x) <= 2 * columns:
        return x, y
    edges = np.unique(np.linspace(0, len(x), columns + 1).astype(np.int64))
    starts, ends = edges[:-1], edges[1:]
    finite = np.isfinite(y)
    lows = np.minimum.reduceat(np.where(finite, y, np.inf), starts)
    highs = np.maximum.reduceat(np.where(finite, y, -np.inf), starts)
    bucket = np.repeat(np.arange(len(starts)), ends - starts)
    at_low = _first(y == lows[bucket], bucket, starts)
    at_high = _first(y == highs[bucket], bucket, starts)
    gaps = np.flatnonzero(~finite)
    few = gaps if len(gaps) * GAP_COLUMNS <= columns else gaps[:0]
    kept = np.unique(np.concatenate([at_low, at_high, few]))
    return x[kept], y[kept]


def _first(chosen: np.ndarray, bucket: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The first chosen index of each bucket; its start where none is chosen."""
    indices = np.flatnonzero(chosen)
    result = starts.copy()
    result[bucket[indices][::-1]] = indices[::-1]
    return result
