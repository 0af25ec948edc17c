"""What a person was looking at: kept from one cockpit of a run to the next, through detach and lost lines.

One small file a run in the user's state folder. Nothing depends on it: one that is missing, old or damaged
costs what it would have told, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from platformdirs import user_state_path

from stepwise_tui.charts.quantities import ACCURACY, GRADIENT, LOSS, QUANTITIES, Quantity
from stepwise_tui.charts.view import SMOOTHINGS, WINDOWS, X_AXES, Span, View
from trainer.files import replace_text

T = TypeVar("T")

Tab = Literal["charts", "log", "chat", "system"]
TABS: tuple[Tab, ...] = ("charts", "log", "chat", "system")
CHARTS = ("loss", "accuracy", "gradient")
"""Ids of the panels of charts, after what each shows at first."""
PANELS = (*CHARTS, "log", "chat")
"""Ids of those that the focus goes round."""
MOST = 200
"""Runs of which that is kept."""


class Look(NamedTuple):
    """What one looks at. tab: where panels take turns. focus, large: ids of `PANELS`, "" for none. system:
    whether the machine stands beside the log. quantities: of the charts in their order. beside: the folder
    of the run that is drawn too, "" without one."""

    view: View = View()
    tab: Tab = "charts"
    focus: str = ""
    large: str = ""
    system: bool = False
    quantities: tuple[Quantity, ...] = (LOSS, ACCURACY, GRADIENT)
    beside: str = ""


def encode(look: Look) -> str:
    """As a line of JSON. The cursor is not kept, nor what depends on the terminal."""
    view = look.view
    told = {
        "x_axis": view.x_axis,
        "window": view.window,
        "smoothing": view.smoothing,
        "logs": sorted(view.logs),
        "span": view.span,
        "tab": look.tab,
        "focus": look.focus,
        "large": look.large,
        "system": look.system,
        "quantities": [quantity.id for quantity in look.quantities],
        "beside": look.beside,
    }
    return json.dumps(told) + "\n"


def decode(text: str) -> Look:
    """What can be understood of it; the rest is as it comes."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return Look()
    if not isinstance(told, dict):
        return Look()
    usual, known = Look(), {quantity.id: quantity for quantity in QUANTITIES}
    shown = [known[id] for id in _strings(told.get("quantities")) if id in known]
    complete = len(shown) == len(set(shown)) == len(CHARTS)
    view = View(
        x_axis=_one_of(X_AXES, told.get("x_axis"), "step"),
        window=_one_of(WINDOWS, told.get("window"), "all"),
        smoothing=_one_of(SMOOTHINGS, told.get("smoothing"), "light"),
        logs=frozenset(id for id in _strings(told.get("logs")) if id in known),
        span=_span(told.get("span")),
    )
    beside = told.get("beside")
    return Look(
        view,
        tab=_one_of(TABS, told.get("tab"), "charts"),
        focus=_one_of(PANELS, told.get("focus"), ""),
        large=_one_of(PANELS, told.get("large"), ""),
        system=told.get("system") is True,
        quantities=tuple(shown) if complete else usual.quantities,
        beside=beside if isinstance(beside, str) and "\0" not in beside else "",
    )


def _one_of(choices: Sequence[T], told: object, usual: T) -> T:
    return next((choice for choice in choices if choice == told), usual)


def _strings(told: object) -> list[str]:
    return [word for word in told if isinstance(word, str)] if isinstance(told, list) else []


def _span(told: Any) -> Span | None:
    match told:
        case [int() | float() as low, int() | float() as high, bool(follows)]:
            with contextlib.suppress(OverflowError):
                low, high = float(low), float(high)
                if math.isfinite(high - low) and low < high:
                    return Span(low, high, follows)
    return None


def load(name: str, folder: Path) -> Look | None:
    """What was looked at last of a run, by its name on the screen and its folder; None where nothing is kept
    of it."""
    try:
        return decode(_file(name, folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def save(name: str, folder: Path, look: Look) -> None:
    """Keep it, where that is possible; of the runs looked at longest ago it goes."""
    file = _file(name, folder)
    with contextlib.suppress(OSError, ValueError):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, encode(look), durable=False)
        others = sorted(file.parent.iterdir(), key=lambda other: other.stat().st_mtime)
        for other in others[:-MOST]:
            other.unlink()


def _file(name: str, folder: Path) -> Path:
    of = f"{name}\n{folder.absolute()}".encode("utf-8", "surrogateescape")
    return user_state_path("stepwise") / "looks" / hashlib.blake2b(of, digest_size=10).hexdigest()
