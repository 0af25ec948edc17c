"""What the keys of the charts do, as a part of the cockpit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stepwise_tui.widgets.charts import CLOSER, STRIDE, WIDER, Charts

if TYPE_CHECKING:
    from stepwise_tui.screens.main import Main


class Looking:
    """Actions upon the charts; each says what it did, or why it did nothing."""

    main: Main

    @property
    def charts(self) -> Charts:
        return self.main.query_one(Charts)

    def _look(self, act: Callable[[], str | None]) -> None:
        try:
            said = act()
        except ValueError as problem:
            self.main.say(str(problem), "warning")
            return
        if said:
            self.main.say(said, "plain")

    def action_quantity(self) -> None:
        self._look(self.charts.next_quantity)

    def action_next_chart(self) -> None:
        self.main.focus_chart(self.charts.next)

    def action_large(self) -> None:
        self.main.toggle_large()

    def action_log_scale(self) -> None:
        self._look(self.charts.turn_scale)

    def action_x_axis(self) -> None:
        self._look(self.charts.next_x_axis)

    def action_window(self) -> None:
        self._look(self.charts.next_window)

    def action_smoothing(self) -> None:
        self._look(self.charts.next_smoothing)

    def action_zoom_in(self) -> None:
        self._look(lambda: self.charts.zoom(CLOSER))

    def action_zoom_out(self) -> None:
        self._look(lambda: self.charts.zoom(WIDER))

    def action_zoom_off(self) -> None:
        self._look(self.charts.zoom_off)

    def action_pan_back(self) -> None:
        self._look(lambda: self.charts.pan(-STRIDE))

    def action_pan_on(self) -> None:
        self._look(lambda: self.charts.pan(STRIDE))

    def action_cursor_back(self) -> None:
        self._look(lambda: self.charts.move_cursor(-1))

    def action_cursor_on(self) -> None:
        self._look(lambda: self.charts.move_cursor(1))

    def action_drop_cursor(self) -> None:
        self.charts.drop_cursor()

    def lay_beside(self, folder: Path | None) -> None:
        """Draw another run's curves too, or those of none."""
        self._look(lambda: self.charts.lay_beside(folder))
