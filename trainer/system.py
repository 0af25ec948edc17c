"""How the machine that trains is doing: looked at every two seconds, told to who listens, never journalled.

A thread of its own does it, beside the host. What this machine or its driver does not tell is None.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

from trainer.events import Event, Gpu, SystemSampled

SECONDS = 2.0


class Needs(NamedTuple):
    """What a run uses. device: as torch names it. disk: bytes that its checkpoints may still take. trained:
    seconds of training so far."""

    device: str
    disk: int
    trained: float


class Watched(Protocol):
    """A run, as far as this module is concerned."""

    folder: Path

    def needs(self) -> Needs | None:
        """What it uses now; None while nothing is loaded."""
        ...

    def pass_on(self, event: Event) -> None:
        """Tell those who listen. Never waits."""
        ...


class Sampler:
    """Looks at this process and its machine, from `start` to `stop`."""

    def __init__(self, run: Watched) -> None:
        self._run = run
        self._closing = threading.Event()
        self._process = psutil.Process()
        self._process.cpu_percent()  # it measures from one call to the next
        self._gpus: dict[str, Callable[[], Gpu] | None] = {}

    def start(self) -> None:
        threading.Thread(target=self._go, name="stepwise-system", daemon=True).start()

    def stop(self) -> None:
        self._closing.set()

    def _go(self) -> None:
        while not self._closing.wait(SECONDS):
            try:
                self._run.pass_on(self.sample())
            except (OSError, psutil.Error):
                continue  # the next look may work

    def sample(self) -> SystemSampled:
        """One look. Raises OSError and psutil.Error."""
        with self._process.oneshot():
            cpu, rss = self._process.cpu_percent(), self._process.memory_info().rss
        memory = psutil.virtual_memory()
        needs = self._run.needs()
        return SystemSampled(
            gpus=self._look_at_gpu(needs.device) if needs else (),
            cpu=cpu,
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            rss=rss,
            ram_used=memory.total - memory.available,
            ram_total=memory.total,
            disk_free=shutil.disk_usage(self._run.folder).free,
            disk_wanted=needs.disk if needs else None,
            trained=needs.trained if needs else None,
        )

    def _look_at_gpu(self, device: str) -> tuple[Gpu, ...]:
        if device not in self._gpus:
            self._gpus[device] = gpu(device)
        look = self._gpus[device]
        return (look(),) if look is not None else ()


def gpu(device: str) -> Callable[[], Gpu] | None:
    """A way to look at the GPU that torch calls `device`; None where it is none, or where nobody can be asked
    about it: without nvidia-ml-py (extra `gpu`), or where that knows no such GPU."""
    if not device.startswith("cuda"):
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
        name = str(pynvml.nvmlDeviceGetName(handle))
    except pynvml.NVMLError:
        return None

    def ask(question: Callable[..., Any], *more: Any) -> Any:
        try:
            return question(handle, *more)
        except pynvml.NVMLError:
            return None  # not of this GPU, or not at this moment

    def look() -> Gpu:
        memory = ask(pynvml.nvmlDeviceGetMemoryInfo)
        rates = ask(pynvml.nvmlDeviceGetUtilizationRates)
        power, cap = ask(pynvml.nvmlDeviceGetPowerUsage), ask(pynvml.nvmlDeviceGetEnforcedPowerLimit)
        degrees = ask(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU)
        return Gpu(
            name,
            utilisation=None if rates is None else float(rates.gpu),
            memory_used=None if memory is None else int(memory.used),
            memory_total=None if memory is None else int(memory.total),
            power=None if power is None else power / 1000,
            power_cap=None if cap is None else cap / 1000,
            temperature=None if degrees is None else float(degrees),
        )

    return look


def _uuid(device: str) -> str:
    """NVML's own name of it: an index would not do, CUDA_VISIBLE_DEVICES counts otherwise."""
    import torch

    index = torch.device(device).index or 0
    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"
