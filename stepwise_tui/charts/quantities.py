"""What can be charted: each quantity with its curves, and how they are drawn and read."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from stepwise_tui.series import Branch, Series
from stepwise_tui.text import accuracy, figure, short


class Curve(NamedTuple):
    """How one line is drawn. name: what the legend calls it. sign: what it is drawn with without braille."""

    name: str
    of: Callable[[Branch], Series]
    style: str
    sign: str

    @property
    def faint(self) -> str:
        """The style of what lies beneath it when it is smoothed."""
        return f"{self.style.removeprefix('bold ')} {FAINT}"


FAINT = "35%"


class Quantity(NamedTuple):
    """One chart's worth of curves, of which the last counts most. empty: what is said before there is any.

    y_range: fixed limits; None follows the values. smooth: whether a mean of them says anything. read: a
    value as a person reads it.
    """

    id: str
    title: str
    curves: tuple[Curve, ...]
    empty: str
    read: Callable[[float], str]
    y_range: tuple[float, float] | None = None
    smooth: bool = True


LOSS = Quantity(
    "loss",
    "loss",
    (
        Curve("all", lambda branch: branch.loss, "$foreground-muted", "-"),
        Curve("CoT", lambda branch: branch.loss_cot, "$secondary", "o"),
        Curve("answer", lambda branch: branch.loss_answer, "bold $accent", "*"),
    ),
    "no loss yet",
    figure,
)
ACCURACY = Quantity(
    "accuracy",
    "accuracy",
    (
        Curve("token", lambda branch: branch.token_accuracy, "$secondary", "-"),
        Curve("exact", lambda branch: branch.accuracy, "bold $success", "*"),
    ),
    "not evaluated yet",
    accuracy,
    y_range=(0.0, 1.0),
    smooth=False,
)
GRADIENT = Quantity(
    "gradient",
    "gradient norm",
    (Curve("unclipped", lambda branch: branch.grad_norm, "bold $accent", "*"),),
    "no gradient yet",
    figure,
)
RATE = Quantity(
    "rate",
    "learning rate",
    (Curve("set", lambda branch: branch.lr, "bold $accent", "*"),),
    "no step yet",
    figure,
    smooth=False,
)
SPEED = Quantity(
    "speed",
    "tokens/s",
    (Curve("trained", lambda branch: branch.speed, "bold $accent", "*"),),
    "no speed yet",
    short,
)
QUANTITIES = (LOSS, ACCURACY, GRADIENT, RATE, SPEED)


def following(quantity: Quantity) -> Quantity:
    """The next one in the list, round and round."""
    return QUANTITIES[(QUANTITIES.index(quantity) + 1) % len(QUANTITIES)]
