"""How the machine that trains is doing: looked at, told to who listens, and shown."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from stepwise_tui.app import Cockpit
from stepwise_tui.glyphs import ASCII, UNICODE
from stepwise_tui.history import History, replay
from stepwise_tui.link import SocketLink
from stepwise_tui.widgets import lines, system
from stepwise_tui.widgets.system import SystemPanel
from tests import scripted
from tests.scripted import ScriptedLink
from tests.terminal import until
from tests.test_cockpit import tell, text_of
from tests.tiny import tiny_config
from trainer import system as sampling
from trainer.events import Event, Gpu, SystemSampled
from trainer.host import Host
from trainer.record import journal
from trainer.run import Run
from trainer.system import Needs, Sampler

GIB = 1024**3
H200 = Gpu("NVIDIA H200", 61.0, 18 * GIB, 139 * GIB, 412.0, 700.0, 54.0)
BUSY = SystemSampled(
    gpus=(H200,),
    cpu=230.0,
    cores=16,
    rss=3 * GIB,
    ram_used=22 * GIB,
    ram_total=128 * GIB,
    disk_free=812 * 10**9,
    disk_wanted=3 * 10**9,
    trained=120.0,
)


def shown(*events: Event, width: int = 48) -> str:
    return system.panel(replay([*scripted.training().events, *events]), width, UNICODE).plain


class Idle:
    """A run that has nothing loaded, or a device by name."""

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self.folder = folder
        self._needs = None if device is None else Needs(device, 10**9, 7.0)
        self.told: list[Event] = []

    def needs(self) -> Needs | None:
        return self._needs

    def pass_on(self, event: Event) -> None:
        self.told.append(event)


def test_a_look_at_this_machine(tmp_path: Path) -> None:
    found = Sampler(Idle(tmp_path, "cpu")).sample()
    assert found.gpus == ()
    assert found.cpu is not None and found.cpu >= 0
    assert found.rss is not None and found.ram_total is not None and 10**6 < found.rss < found.ram_total
    assert found.cores and found.disk_free
    assert (found.disk_wanted, found.trained) == (10**9, 7.0)
    assert found.transient, "it is no part of the record"
    assert Sampler(Idle(tmp_path)).sample().disk_wanted is None


def test_who_attaches_hears_how_the_training_machine_is_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "SECONDS", 0.05)
    run = Run(tiny_config(stop__steps=100_000), tmp_path / "run")
    run.start()
    try:
        with Host(run):
            link = SocketLink(run.folder)
            heard: list[Event] = []

            def sampled() -> bool:
                heard.extend(link.drain())
                return any(isinstance(e, SystemSampled) and e.trained for e in heard)

            until(sampled)
            last = [e for e in heard if isinstance(e, SystemSampled)][-1]
            assert last.seq == 0
            assert last.rss and last.disk_wanted
    finally:
        run.close()
    assert not any(isinstance(e, SystemSampled) for e in journal.read(run.folder))


def nvml(*, mute: tuple[str, ...] = ()) -> types.ModuleType:
    """A driver that knows one GPU, and does not answer what is named in `mute`."""
    module = types.ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def handle(uuid: str) -> str:
        if uuid != "GPU-abc":
            raise NVMLError
        return uuid

    answers = {
        "Name": "NVIDIA H200",
        "MemoryInfo": types.SimpleNamespace(used=18 * GIB, total=139 * GIB),
        "UtilizationRates": types.SimpleNamespace(gpu=61, memory=3),
        "PowerUsage": 412_000,
        "EnforcedPowerLimit": 700_000,
        "Temperature": 54,
    }

    def answer(name: str) -> object:
        def ask(handle: str, *more: int) -> object:
            if name in mute:
                raise NVMLError
            return answers[name]

        return ask

    module.NVMLError = NVMLError  # type: ignore[attr-defined]
    module.NVML_TEMPERATURE_GPU = 0  # type: ignore[attr-defined]
    module.nvmlInit = lambda: None  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByUUID = handle  # type: ignore[attr-defined]
    for name in answers:
        setattr(module, f"nvmlDeviceGet{name}", answer(name))
    return module


def test_a_gpu_is_asked_as_its_driver_allows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sampling, "_uuid", lambda device: "GPU-abc")
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    assert Sampler(Idle(tmp_path, "cuda:0")).sample().gpus == (H200,)
    monkeypatch.setitem(sys.modules, "pynvml", nvml(mute=("PowerUsage", "Temperature", "UtilizationRates")))
    (quiet,) = Sampler(Idle(tmp_path, "cuda")).sample().gpus
    assert (quiet.utilisation, quiet.power, quiet.temperature) == (None, None, None)
    assert quiet.memory_used == 18 * GIB
    monkeypatch.setattr(sampling, "_uuid", lambda device: "GPU-other")
    assert Sampler(Idle(tmp_path, "cuda")).sample().gpus == ()


def test_without_the_drivers_library_there_is_no_gpu_and_no_fuss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Sampler(Idle(tmp_path, "cuda:0")).sample().gpus == ()


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("\x1b[31m", "�[31m"),
        ("", "GPU"),
    ],
)
def test_a_gpu_has_a_short_name(name: str, short: str) -> None:
    assert system.short_name(name) == short


def test_the_panel_says_all_that_is_known() -> None:
    text = shown(BUSY)
    for part in (
        "H200  61 %",
        "18 of 139 GiB  13%",
        "412 W of 700 · 54 °C",
        "2.3 of 16 cores",
        "22 of 128 GiB",
        "812 GB free, 3 GB to come",
        "21k tok/s",
        "a removal in 0s",
        "all gone in",
        "at the latest",
    ):
        assert part in " ".join(text.split()) or part in text, part


def test_what_is_not_known_is_a_dash() -> None:
    text = shown()
    assert [
        row.split()[-1] for row in text.splitlines() if row.startswith(("cpu", "process", "ram", "disk"))
    ] == ["–"] * 4
    bare = SystemSampled(gpus=(Gpu("X"),))
    assert "– · –" in shown(bare)
    assert replay(scripted.finished().events).steps_to_end is None
    assert "end      –" in system.panel(replay(scripted.finished().events), 40, UNICODE).plain
    assert system.panel(History(), 40, ASCII).plain.isascii()


def test_the_end_is_the_first_of_steps_epochs_and_hours() -> None:
    history = replay([*scripted.training().events, BUSY])
    assert history.metrics is not None
    left = lines.seconds_to_end(history)
    assert left == pytest.approx((200 * 111 - history.at.step) / history.metrics.steps_per_second)
    late = replay([*scripted.training().events, SystemSampled(trained=24 * 3600 - 5.0)])
    assert lines.seconds_to_end(late) == 5.0


def test_a_sparkline_shows_the_last_values_and_leaves_gaps() -> None:
    assert system.sparkline([0.0, 50.0, 100.0, None, 200.0], 4, UNICODE) == "▅█ █"
    assert system.sparkline([0.0, 50.0, 100.0], 5, UNICODE) == "▁▅█"
    assert system.sparkline([1.0], 0, UNICODE) == system.sparkline([], 5, UNICODE) == ""


@pytest.mark.parametrize("width", [0, 1, 9, 20, 60])
def test_no_row_is_longer_than_the_panel(width: int) -> None:
    assert all(len(row) <= max(width, 1) for row in shown(BUSY, width=width).splitlines())


async def test_the_status_line_has_the_gpu_and_g_the_panel() -> None:
    link = ScriptedLink([*scripted.training().events, BUSY])
    app = Cockpit(link, glyphs=UNICODE)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert "H200 61% 18/139 GiB" in text_of(app, "#status")
        panel = app.main.query_one(SystemPanel)
        assert not panel.display or not panel.region
        await pilot.press("g")
        await pilot.pause()
        assert "412 W of 700" in text_of(app, "#system")
        await pilot.press("g")
        await pilot.pause()
        assert not panel.region


async def test_g_is_a_tab_where_there_is_little_room() -> None:
    app = Cockpit(ScriptedLink([*scripted.training().events, BUSY]), glyphs=UNICODE)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("g")
        await pilot.pause()
        assert "412 W of 700" in text_of(app, "#system")
        assert app.main.query_one("#system").region.height > 10
        await pilot.press("g")
        assert app.main.query_one("#charts").display


async def test_what_was_heard_long_ago_is_shown_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from stepwise_tui import app as module

    app = Cockpit(ScriptedLink(scripted.training().events), glyphs=UNICODE)
    async with app.run_test(size=(120, 40)) as pilot:
        await tell(app, pilot, BUSY)
        assert "H200" in text_of(app, "#status")
        monkeypatch.setattr(module, "SILENCE_SECONDS", -1.0)
        await tell(app, pilot)
        assert "H200" not in text_of(app, "#status")
