"""The charts of the screen: which quantities, which part of the run, and what the cursor reads."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TypeVar

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.events import MouseDown, MouseMove, MouseScrollDown, MouseScrollUp, MouseUp
from textual.message import Message
from textual.widgets import Static

from stepwise_tui.beside import Other
from stepwise_tui.charts import curves, traces
from stepwise_tui.charts.chart import Picture
from stepwise_tui.charts.curves import BESIDE, BESIDE_SIGN, Beside, Reading
from stepwise_tui.charts.quantities import Quantity, following
from stepwise_tui.charts.view import SMOOTHINGS, WINDOWS, X_AXES, Extent, View, frame, panned, zoomed
from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History, apply
from stepwise_tui.looks import CHARTS, Look
from stepwise_tui.text import clean, clip_start, clock
from stepwise_tui.widgets.lines import FAINT

T = TypeVar("T")

THREE = 132
"""Columns from which on a third chart has room."""
CLOSER, WIDER = 0.5, 2.0
STRIDE = 0.25
"""Of what is in view: how far one pan goes."""

WINDOW_WORDS = {
    "all": "charts of the whole run",
    "recent": "charts of the newest samples",
    "stage": "charts of this stage",
}
SMOOTHING_WORDS = {"off": "not smoothed", "light": "smoothed lightly", "strong": "smoothed strongly"}


class ChartPanel(Static, can_focus=True):
    """One chart. Drawn anew only when the numbers, the size or the view have changed."""

    ALLOW_SELECT = False  # dragging moves along x

    class Zoomed(Message):
        """The wheel was turned over x."""

        def __init__(self, factor: float, x: float | None) -> None:
            super().__init__()
            self.factor, self.x = factor, x

    class Dragged(Message):
        """The chart was drawn aside by a share of its width."""

        def __init__(self, share: float) -> None:
            super().__init__()
            self.share = share

    class Pointed(Message):
        """Someone clicked at x."""

        def __init__(self, quantity: Quantity, x: float) -> None:
            super().__init__()
            self.quantity, self.x = quantity, x

    def __init__(self, quantity: Quantity, id: str) -> None:
        """id: after what it shows at first."""
        super().__init__(id=id, classes="panel")
        self.quantity = quantity
        self._history = History()
        self._view = View()
        self._beside: Beside | None = None
        self._key: tuple[object, ...] = ()
        self._titles = ("", "")
        self._picture = Picture(Content(""))
        self._held: int | None = None
        self._dragging = False

    def on_mount(self) -> None:
        self._retitle()

    def on_resize(self) -> None:
        self._retitle()  # how much of it fits

    def show(self, history: History, view: View, beside: Beside | None) -> None:
        """Take up the numbers as they are now."""
        self._history, self._view, self._beside = history, view, beside
        if self._key[:-1] != self._numbers:
            self._retitle()
            self.refresh()

    @property
    def _numbers(self) -> tuple[object, ...]:
        """What the picture is made from, but for the size."""
        other = (self._beside.name, self._beside.history.drawn) if self._beside is not None else None
        return self._history.drawn, self._view, self.quantity, other

    def render(self) -> Content:
        size = (self.content_size.width, self.content_size.height)
        key = (*self._numbers, size)
        if key != self._key:
            self._key = key
            self._picture = curves.chart(self.quantity, self._history, size, self._view, self._beside)
        return self._picture.text

    @property
    def stride(self) -> float:
        """How much of x one cell shows; 0 without a chart."""
        low, high = self._picture.x_range
        return (high - low) / (self._picture.columns - 1) if self._picture.columns > 1 else 0.0

    def _retitle(self) -> None:
        titles = (self._legend(), self._caption())
        named = (titles[0].markup, titles[1].markup)
        if named != self._titles:
            self._titles = named
            self.border_title, self.border_subtitle = titles

    def _legend(self) -> Content:
        """What it shows, with each curve's name, or its value at the cursor; in as many words as fit."""
        quantity, view = self.quantity, self._view
        title = Content(f"{quantity.title} · log" if quantity.id in view.logs else quantity.title)
        values = {r.curve.name: f" {self._value(r)}" for r in curves.readings(self._history, quantity, view)}
        names = [
            (self._stroke(curve.sign), curve.name + values.get(curve.name, ""), curve.style)
            for curve in reversed(quantity.curves)
        ]
        if self._beside is not None:
            name = clip_start(self._beside.name, 16)
            names.insert(0, (self._stroke(BESIDE_SIGN), name, BESIDE))  # never cut off
        whole = [Content.styled(stroke + text, style) for stroke, text, style in names]
        measured = Content.styled(self._measured_at(), FAINT)
        long = Content("  ").join([title, *whole, measured] if measured else [title, *whole])
        if not values or long.cell_length <= self.size.width - 4:
            return long
        if view.braille:  # the colour says which it is
            whole = [Content.styled(text, style) for _, text, style in names]
        return Content(" ").join([*whole, measured])

    def _value(self, reading: Reading) -> str:
        return "not yet" if reading.step is None else self.quantity.read(reading.value)

    def _measured_at(self) -> str:
        """The step of the values at the cursor, where they were measured before it."""
        readings = curves.readings(self._history, self.quantity, self._view)
        at = curves.sample(self._history, self._view)
        steps = [reading.step for reading in readings if reading.step is not None]
        return f"@{steps[-1]:,}" if at is not None and steps and steps[-1] != at.step else ""

    def _stroke(self, sign: str) -> str:
        return "━ " if self._view.braille else f"{sign} "

    def _caption(self) -> Content:
        """Which part it shows and how; with a cursor, where that is."""
        view = self._view
        at = curves.sample(self._history, view)
        if at is not None:
            return Content(f"step {at.step:,} · stage {at.stage} · {clock(at.time)}")
        parts = []
        if view.span is not None:
            parts.append("zoom, live" if view.span.follows else "zoom, frozen")
        elif view.window != "all":
            parts.append("recent" if view.window == "recent" else f"stage {self._history.at.stage}")
        if self.quantity.smooth and view.smoothing != "off":
            parts.append("smoothed" if view.smoothing == "light" else "smoothed strongly")
        return Content.styled(" · ".join(parts), FAINT)

    # Mouse --------------------------------------------------------------------------------------------

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.post_message(self.Zoomed(CLOSER, self._under(event.x)))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.post_message(self.Zoomed(WIDER, self._under(event.x)))

    def on_mouse_down(self, event: MouseDown) -> None:
        self._held, self._dragging = event.screen_x, False
        self.capture_mouse()

    def on_mouse_move(self, event: MouseMove) -> None:
        if self._held is not None and (moved := event.screen_x - self._held) and self._picture.columns:
            self._held, self._dragging = event.screen_x, True
            self.post_message(self.Dragged(-moved / self._picture.columns))

    def on_mouse_up(self, event: MouseUp) -> None:
        self.release_mouse()
        if self._held is not None and not self._dragging and (x := self._under(event.x)) is not None:
            self.post_message(self.Pointed(self.quantity, x))
        self._held = None

    def _under(self, column: int) -> float | None:
        return self._picture.x_at(column - self.gutter.left)


class Charts(Horizontal):
    """Two charts, or three where there is room, of one view. What keys do to them; each says what it did."""

    def __init__(self, glyphs: Glyphs, look: Look, beside: Path | None = None) -> None:
        """look: what they showed last. beside: another run, which is drawn instead of the one in `look`."""
        super().__init__(id="charts")
        self._history = History()
        self._quantities = look.quantities
        self.view = look.view._replace(braille=glyphs.braille)
        self._other: Other | None = None
        self._beside: Beside | None = None
        if beside is not None:
            self._other = Other(beside)
        elif look.beside:
            with contextlib.suppress(ValueError, OSError):  # it may be gone
                self._other = Other(Path(look.beside))

    def compose(self) -> ComposeResult:
        for quantity, id in zip(self._quantities, CHARTS, strict=True):
            yield ChartPanel(quantity, id)

    def on_mount(self) -> None:
        self.on_resize()

    def on_unmount(self) -> None:
        self._leave_other()

    def on_resize(self) -> None:
        two = self.size.width < THREE
        if two != self.has_class("-two"):
            self.set_class(two, "-two")
            self.show(self._history)  # the third was not told of anything while there was no room for it

    def show(self, history: History) -> None:
        """Take up the numbers as they are now, those of the other run too."""
        self._history = history
        if self._other is not None and (events := self._other.drain()):
            if self._beside is None:
                self._beside = Beside(clean(self._other.name), History(config=self._other.config))
            for event in events:
                apply(self._beside.history, event)
        for panel in self.panels:
            panel.show(history, self.view, self._beside)

    @property
    def panels(self) -> list[ChartPanel]:
        """Those for which there is room, whether or not another one is large."""
        panels = list(self.query(ChartPanel))
        return panels[:2] if self.has_class("-two") else panels

    @property
    def chosen(self) -> ChartPanel:
        """The one that has the focus, else the first that is seen."""
        panels = [panel for panel in self.query(ChartPanel) if panel.display] or self.panels
        return next((panel for panel in panels if panel.has_focus), panels[0])

    def look(self, look: Look) -> Look:
        """The same with what the charts show."""
        quantities = tuple(panel.quantity for panel in self.query(ChartPanel))
        beside = str(self._other.folder) if self._other is not None else ""
        return look._replace(view=self.view, quantities=quantities, beside=beside)

    def _see(self, view: View) -> None:
        self.view = view
        self.show(self._history)

    @property
    def next(self) -> ChartPanel:
        """The one after that which has the focus; the first where none has."""
        panels = self.panels
        index = next((i for i, panel in enumerate(panels) if panel.has_focus), -1)
        return panels[(index + 1) % len(panels)]

    def next_quantity(self) -> str:
        """Something else on the chosen chart, that no other shows."""
        panel = self.chosen
        before = panel.quantity
        taken = {other.quantity for other in self.panels if other is not panel}
        panel.quantity = following(before)
        while panel.quantity in taken:
            panel.quantity = following(panel.quantity)
        for other in self.query(ChartPanel):
            if other is not panel and other.quantity is panel.quantity:
                other.quantity = before  # there is no room for it now; when there is, no two show the same
        self.show(self._history)
        return f"this chart shows: {panel.quantity.title}"

    def next_window(self) -> str:
        window = _after(WINDOWS, self.view.window) if self.view.span is None else self.view.window
        self._see(self.view._replace(window=window, span=None))
        return WINDOW_WORDS[window]

    def next_smoothing(self) -> str:
        smoothing = _after(SMOOTHINGS, self.view.smoothing)
        self._see(self.view._replace(smoothing=smoothing))
        return SMOOTHING_WORDS[smoothing]

    def next_x_axis(self) -> str:
        """The same part of the run by something else."""
        view, axis = self.view, _after(X_AXES, self.view.x_axis)
        span = view.span
        if span is not None:
            span = traces.converted(self._history, span, view.x_axis, axis)
        self._see(view._replace(x_axis=axis, span=span))
        return f"charts by {curves.x_words(axis, self._history)}"

    def turn_scale(self) -> str:
        """The chosen chart on a logarithmic scale, or not any more. Raises ValueError where it cannot be."""
        quantity = self.chosen.quantity
        turned = self.view.logs ^ {quantity.id}
        if quantity.id in turned and not curves.positive(self._history, quantity):
            raise ValueError(f"no value of {quantity.title} is above zero: a logarithmic scale shows none")
        self._see(self.view._replace(logs=turned))
        return f"{quantity.title} on a {'logarithmic' if quantity.id in turned else 'linear'} scale"

    def zoom(self, factor: float, at: float | None = None) -> None:
        """Look closer or wider, around `at`, else around the cursor, else around the newest in view."""
        cursor = curves.sample(self._history, self.view)
        if at is None and cursor is not None:
            at = cursor.x
        self._see(zoomed(self.view, self._extent, factor, at))

    def zoom_off(self) -> str:
        self._see(self.view._replace(span=None, window="all"))
        return WINDOW_WORDS["all"]

    def pan(self, share: float) -> None:
        """Move along x. Raises ValueError when all is in view already."""
        view = panned(self.view, self._extent, share)
        if view is self.view:
            raise ValueError("the whole run is in view; + looks closer")
        self._see(view)

    def move_cursor(self, direction: int) -> None:
        """The cursor on the next sample that stands in another cell, which comes into view if need be."""
        panel = self.chosen
        stride = direction * max(panel.stride, 1e-9) * 0.999
        step = curves.next_step(self._history, panel.quantity, self.view, stride)
        if step is None:
            raise ValueError(panel.quantity.empty)
        self._point(step)

    def _point(self, step: int) -> None:
        view = self.view._replace(cursor=step)
        at = curves.sample(self._history, view)
        low, high = frame(view, self._extent)
        if at is not None and not low <= at.x <= high:
            view = panned(view, self._extent, (at.x - (low + high) / 2) / (high - low))
        self._see(view)

    def drop_cursor(self) -> None:
        self._see(self.view._replace(cursor=None))

    def lay_beside(self, folder: Path | None) -> str:
        """Draw another run too, or none any more. Raises ValueError when it cannot be read."""
        other = Other(folder) if folder is not None else None
        self._leave_other()
        self._other = other
        self.show(self._history)
        return "no other run" if folder is None else f"reading {clean(folder.name)} …"

    @property
    def beside(self) -> bool:
        """Whether another run is drawn, or read."""
        return self._other is not None

    def _leave_other(self) -> None:
        if self._other is not None:
            self._other.close()
        self._other = self._beside = None

    @property
    def _extent(self) -> Extent:
        others = [self._beside.history] if self._beside is not None else []
        return traces.extent(self._history, self.view.x_axis, others)

    def on_chart_panel_zoomed(self, message: ChartPanel.Zoomed) -> None:
        self._see(zoomed(self.view, self._extent, message.factor, message.x))

    def on_chart_panel_dragged(self, message: ChartPanel.Dragged) -> None:
        self._see(panned(self.view, self._extent, message.share))

    def on_chart_panel_pointed(self, message: ChartPanel.Pointed) -> None:
        step = curves.step_at(self._history, message.quantity, self.view, message.x)
        if step is not None:
            self._point(step)


def _after(choices: tuple[T, ...], now: T) -> T:
    return choices[(choices.index(now) + 1) % len(choices)]
