"""A running mean for curves: exponential, over the distance in x, and honest where a curve begins anew."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stepwise_tui.charts.canvas import Floats


def smoothed(x: Floats, y: Floats, begins: NDArray[np.bool_], half: float) -> Floats:
    """The mean at each point of all points up to it, each with half the weight for every `half` of x that it
    lies back. It begins anew wherever `begins` is true and after each value that is not finite, which stays a
    gap. Bias-corrected: the weights of a mean add up to one from its first point on.
    """
    means = np.full(len(y), np.nan)
    decay = np.exp2(-np.maximum(np.diff(x, prepend=x[:1]), 0.0) / half) if len(x) else x
    total = weight = 0.0
    rows = zip(y.tolist(), decay.tolist(), (begins | ~np.isfinite(y)).tolist(), strict=True)
    for index, (value, kept, new) in enumerate(rows):
        if new:
            total = weight = 0.0
            if not math.isfinite(value):
                continue
        total, weight = kept * total + value, kept * weight + 1.0
        means[index] = total / weight
    return means
