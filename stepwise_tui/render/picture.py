"""PNG and SVG by matplotlib, which is loaded only when a file is asked for."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Told apart also by the colour-blind (Okabe and Ito)."""
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (3, 2)))
"""Not the dots of what was abandoned."""
LOOKS = tuple((COLOURS[n % len(COLOURS)], DASHES[(n + n // 12) % len(DASHES)]) for n in range(24))
"""Lines that are many are told apart by their dashes as well."""
GREY = "#767676"
ENDINGS = (".png", ".svg")
INCHES = (6.4, 3.8)
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 200,
    # Text stays text, and the same rows give the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "stepwise",
}


class PictureError(ValueError):
    """A file that cannot be drawn; the message says what can be, or what is missing."""


INK, GRID = "#010203", "#040506"
"""Colours that `inline` gives to the page, which knows whether it is light or dark."""
PAGE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "grid.color": GRID,
}


def check(path: Path) -> None:
    """Raise `PictureError` where `save` could not succeed: to be asked before the work, not after it."""
    if path.suffix.lower() not in ENDINGS:
        raise PictureError(f"--save {path}: a file that ends in {' or '.join(ENDINGS)} is expected")
    if not path.absolute().parent.is_dir():
        raise PictureError(f"--save {path}: there is no folder {path.parent}")
    check_installed(f"--save {path}")


def check_installed(what: str) -> None:
    """Raise `PictureError` where there is no matplotlib to draw `what`."""
    if importlib.util.find_spec("matplotlib") is None:
        raise PictureError(
            f"{what}: pictures are drawn with matplotlib, which is not installed: "
            "pip install 'stepwise-tui[figures]'"
        )


def save(path: Path, plot: Callable[[Any], None]) -> None:
    """Write what `plot` draws on matplotlib's axes. Raises OSError."""
    _write(path, plot, {}, metadata={"Date": None} if path.suffix.lower() == ".svg" else {})


def inline(name: str, plot: Callable[[Any], None]) -> str:
    """The same as an SVG element for a page, in the page's colours. name: different for each of them."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    _write(file, plot, PAGE, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace(INK, "currentColor").replace(GRID, "var(--grid)").replace(GREY, "var(--faint)")


def _write(file: Path | io.StringIO, plot: Callable[[Any], None], style: Any, **how: Any) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE | style):
        figure = Figure(figsize=INCHES, layout="constrained")
        plot(figure.add_subplot())
        figure.savefig(file, **how)


def legend(axes: Any) -> None:
    """Above the axes, where no line can run through it; nothing where there is nothing to tell apart."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        longest = max(map(len, labels))
        columns = max(1, min(len(labels), 88 // (longest + 8)))
        axes.figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=3.2)
