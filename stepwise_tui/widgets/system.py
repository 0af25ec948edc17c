"""How the machine that trains is doing, and how long everything will take: one line, and a panel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.content import Content
from textual.widgets import Static

from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History
from stepwise_tui.text import clean, clip, duration, short
from stepwise_tui.widgets import lines
from stepwise_tui.widgets.readouts import same
from trainer.events import Gpu, RunState
from trainer.saving.room import gigabytes

GIB = 1024**3
IDLE, FULL, HOT = 10.0, 0.95, 88.0
"""What stands out: a GPU that hardly computes while it trains (per cent), memory that is nearly full (share),
a GPU that is about to slow down (°C)."""
MAKERS = ("NVIDIA", "Tesla", "GeForce", "AMD", "Graphics", "Device")


def short_name(gpu: str) -> str:
    """H100 for "NVIDIA H100 80GB HBM3", RTX 4090 for "NVIDIA GeForce RTX 4090"."""
    words = [word for word in clean(gpu).replace("-", " ").split() if word not in MAKERS]
    first = next((i for i, word in enumerate(words) if any(map(str.isdigit, word))), len(words) - 1)
    return clip(" ".join(words[: first + 1]) or "GPU", 12)


def brief(history: History) -> Content | None:
    """The part of the status line: the GPU, or the process where it uses none; None when nothing is known."""
    now = history.sampled
    if now.gpus:
        gpu = now.gpus[0]
        load = "" if gpu.utilisation is None else f" {gpu.utilisation:.0f}%"
        return Content.assemble(
            short_name(gpu.name),
            (load, _busy(gpu.utilisation, history.state)),
            (_memory(gpu), _fullness(gpu.memory_used, gpu.memory_total)),
        )
    if now.cpu is None or now.rss is None:
        return None
    return Content.styled(f"cpu {now.cpu:.0f}% {gib(now.rss)} GiB", lines.FAINT)


def _memory(gpu: Gpu) -> str:
    if gpu.memory_used is None or gpu.memory_total is None:
        return ""
    return f" {gib(gpu.memory_used)}/{gib(gpu.memory_total)} GiB"


def gib(amount: float) -> str:
    """Bytes in GiB, without the unit: 0.4, 18, 139."""
    value = amount / GIB
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _busy(load: float | None, state: RunState) -> str:
    return "$warning" if load is not None and load < IDLE and state == "training" else ""


def _fullness(used: float | None, total: float | None) -> str:
    return "bold $warning" if used is not None and total and used / total > FULL else ""


def panel(history: History, width: int, glyphs: Glyphs) -> Content:
    """All that is known of it, a line each; a dash where nobody can tell."""
    rows = [*_machine(history, width, glyphs), *_times(history, glyphs)]
    written = []
    for name, value in rows:
        cells = Content.assemble((f"{name:<9}", lines.FAINT), value)
        written.append(cells if cells.cell_length <= width else cells[:width])
    return Content("\n").join(written)


def _machine(history: History, width: int, glyphs: Glyphs) -> Iterable[tuple[str, Content]]:
    now, dash = history.sampled, glyphs.dash
    trend = sparkline(history.loads, max(0, min(len(history.loads), width - 26)), glyphs)
    for gpu in now.gpus:
        load = dash if gpu.utilisation is None else f"{gpu.utilisation:.0f} %"
        yield (
            "gpu",
            Content.assemble(
                f"{short_name(gpu.name)} ", (f"{load:>5}", _busy(gpu.utilisation, history.state)), "  ", trend
            ),
        )
        yield "memory", _of(gpu.memory_used, gpu.memory_total, dash)
        heat = dash if gpu.temperature is None else f"{gpu.temperature:.0f} °C"
        watts = dash if gpu.power is None else f"{gpu.power:.0f} W"
        watts += "" if gpu.power_cap is None else f" of {gpu.power_cap:.0f}"
        hot = "bold $warning" if gpu.temperature is not None and gpu.temperature > HOT else ""
        yield "power", Content.assemble(watts, glyphs.between, (heat, hot))
    cores = "" if now.cores is None else f" of {now.cores} core{'' if now.cores == 1 else 's'}"
    load = dash if now.cpu is None else f"{now.cpu / 100:.1f}{cores}"
    yield "cpu", Content.assemble(load, "  ", trend if not now.gpus else "")
    rss = dash if now.rss is None else f"{gib(now.rss)} GiB"
    ram = _of(now.ram_used, now.ram_total, dash)
    yield "process", Content(rss)
    yield "ram", ram
    free = dash if now.disk_free is None else f"{gigabytes(now.disk_free)} free"
    wanted = "" if now.disk_wanted is None else f", {gigabytes(now.disk_wanted)} to come"
    scarce = now.disk_free is not None and now.disk_wanted is not None and now.disk_free < now.disk_wanted
    yield "disk", Content.assemble((f"{free}{wanted}", "bold $warning" if scarce else ""))


def _of(used: int | None, total: int | None, dash: str) -> Content:
    if used is None or not total:
        return Content(dash)
    return Content.assemble(
        (f"{gib(used)} of {gib(total)} GiB", _fullness(used, total)), (f"  {used / total:.0%}", lines.FAINT)
    )


def _times(history: History, glyphs: Glyphs) -> Iterable[tuple[str, Content]]:
    dash, metrics = glyphs.dash, history.metrics
    speed = dash
    if metrics is not None and not history.ended:
        speed = (
            f"{short(metrics.tokens_per_second)} tok/s{glyphs.between}{metrics.steps_per_second:.3g} steps/s"
        )
    yield "speed", Content(speed)
    if history.stages and history.at.stage >= history.stages:
        yield "next", Content("nothing is left to remove")
    else:
        when = f"{lines.in_or_within(history)} "
        yield "next", _in(lines.seconds_to_next(history), f"a removal {when}", dash)
        if lines.too_soon(history) is None:
            yield "all gone", _in(lines.seconds_to_none(history), when, dash)
        else:
            yield "all gone", Content(f"{lines.perhaps(history)}not before the end")
    yield "end", _in(lines.seconds_to_end(history), "in ", dash, " at the latest")


def _in(seconds: float | None, before: str, dash: str, after: str = "") -> Content:
    return Content(dash if seconds is None else f"{before}{duration(seconds)}{after}")


def sparkline(values: Sequence[float | None], width: int, glyphs: Glyphs, top: float = 100.0) -> str:
    """The last `width` values as bars up to `top`; a blank where there is none."""
    shown = list(values)[-width:] if width > 0 else []
    steps = glyphs.bars
    return "".join(
        " " if value is None else steps[min(len(steps) - 1, max(0, int(value / top * len(steps))))]
        for value in shown
    )


class SystemPanel(Static):
    """All of it, kept up to date."""

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__(id="system", classes="panel")
        self.border_title = "system"
        self._glyphs = glyphs
        self._history = History()
        self._shown: Content | None = None

    def show(self, history: History) -> None:
        """Take up what is known now."""
        self._history = history
        width = self.content_size.width
        text = panel(history, width, self._glyphs) if width else None
        if text is not None and not same(text, self._shown):
            self._shown = text
            self.update(text, layout=False)

    def on_resize(self) -> None:
        self.show(self._history)
