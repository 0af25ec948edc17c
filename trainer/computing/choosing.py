"""How steps shall be computed on this machine: by rule where one will do, by measurement where not.

Measured at a run's first start only; from then on its checkpoints say (`Compute`).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch

from trainer.computing.compute import Compute, Path, Precision
from trainer.computing.heap import ran_out, release
from trainer.computing.passes import Passes
from trainer.config import ComputeConfig
from trainer.methods.base import Batch, Method, Model

TRIALS = 5
"""Timed passes of each candidate, after one that is not counted."""
LONG_SECONDS = 1.0
"""A pass that takes so long is a large model's, which all cores serve well; or others have the cores."""
SERVED = 0.5
"""Share of its threads' time that a pass on a CPU gets where the cores serve it. With less, threads that wait
for each other on cores that others use can take a hundred times as long as one alone."""
WIDE = 128
"""Width from which a CPU's bf16 units pay on each kind: at 64 a step takes as long as in fp32 with AMX, three
quarters with AVX-512 (docs/log.md)."""
GAIN = 1.1
"""How much faster than the default something must prove to be taken."""
CLOSE = 0.1
"""How far its loss may be from the default's, by rounding and other dropout; further off it is wrong."""


class Trial(NamedTuple):
    """seconds: of a pass forward and backward. loss: of the last. served: share of its CPU threads' time that
    the machine gave; 1 on a GPU."""

    seconds: float
    loss: float
    served: float = 1.0


def precision(device: torch.device, width: int) -> tuple[Precision, str]:
    """The precision whose units a device has, where a model of that width gains by them; and why it is that.

    By rule, not by measurement: a seed shall give the same numbers on the same machine.
    """
    if device.type == "cuda":
        units = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        units = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    if not units:
        return "float32", "float32 since the device has no units for bfloat16"
    if device.type == "cpu" and width < WIDE:
        return "float32", f"float32 since a width of {width} is less than {WIDE}"
    return "bfloat16", "bfloat16 since the device has units for it"


def choose(
    config: ComputeConfig,
    device: torch.device,
    method: Method,
    model: Model,
    batch: Batch,
    moved: bool = False,
) -> tuple[Compute, str]:
    """What a run computes with from its first step on, and why, as a sentence.

    batch: to try on. moved: whether the run has trained before, on a device of another kind.
    Trying runs forward and backward and throws the gradients away: no weight and no random number changes. A
    batch that does not fit is tried in more parts. Raises what torch does where a row alone does not
    fit, `ValueError` where a new run has nothing to capture graphs on.
    """
    wanted, why = _precision(config, device, model)
    if config.path == "graphs" and device.type != "cuda":
        if not moved:
            raise ValueError(
                'compute.path = "graphs": graphs are captured on a GPU, and this run is on the CPU, where '
                '"auto", "eager" or "compiled" is allowed'
            )
        config = config.model_copy(update={"path": "eager"})
        why += ", eagerly since graphs (compute.path) are captured on a GPU only"
    path: Path = "eager" if config.path == "auto" else config.path
    threads = config.threads or torch.get_num_threads()
    rows = len(batch.length_B)
    chosen = Compute(path, wanted, threads, min(config.parts, rows), device.type)
    given = "compute.threads" if config.threads else "OMP_NUM_THREADS" if _by_environment() else ""
    if given:
        why += f", threads by {given}"
    others: list[Compute] = []
    if device.type == "cuda" and config.path == "auto" and method.one_pass:
        others = [replace(chosen, path="graphs"), replace(chosen, path="compiled")]
    elif device.type == "cpu" and not given and threads > 1:
        others = [replace(chosen, threads=n) for n in dict.fromkeys((threads // 2, 1))]
    if not others:
        return chosen, f"computed in {chosen}; {why}"
    chosen, reason = _fastest(chosen, others, lambda compute: _try(compute, method, model, batch), rows)
    return chosen, f"{reason}; {why}"


def _precision(config: ComputeConfig, device: torch.device, model: Model) -> tuple[Precision, str]:
    """The precision that is asked for, or as the weights are, or by rule; and in words which it is."""
    if config.precision != "auto":
        return config.precision, f"{config.precision} by compute.precision"
    if model.dtype == torch.bfloat16:
        return "bfloat16", "bfloat16 as its weights are"
    return precision(device, model.config.hidden_size)


def _by_environment() -> bool:
    """Whether $OMP_NUM_THREADS says how many threads; OpenMP minds nothing there but numbers from 1 on."""
    first, _, _ = os.environ.get("OMP_NUM_THREADS", "").partition(",")
    return first.strip().isdecimal() and int(first) > 0


def _fastest(
    default: Compute, others: list[Compute], tried: Callable[[Compute], Trial], rows: int
) -> tuple[Compute, str]:
    wanted, (default, (least, loss, served)) = default, _fitting(default, tried, rows)
    best, why = default, ""
    if default.parts > wanted.parts:
        why = f"; {rows} examples in fewer parts do not fit into the memory"
    others = [replace(other, parts=default.parts) for other in others]
    long = default.path == "eager" and least > LONG_SECONDS and default.threads > 1
    if long and served > SERVED:
        return default, f"computed in {default}: {least:.1f} s a pass{why}"
    told = [f"{least * 1e3:.1f} ms a pass"]
    for other in others:
        name = other.path if other.path != default.path else f"with {other.threads}"
        try:
            trial = tried(other)
        except Exception as error:  # whatever a compiler or a driver may raise: then it is not taken
            told.append(f"{name} failed ({type(error).__name__})")
            continue
        if not abs(trial.loss - loss) <= CLOSE * loss:
            told.append(f"{name} failed (its loss is {trial.loss:.3g}, not {loss:.3g})")
            continue
        told.append(f"{name} {trial.seconds * 1e3:.1f}")
        if trial.seconds * GAIN < least:
            best, least = other, trial.seconds
        elif long:
            break  # a large model after all: fewer threads still would take longer still
    trials = f"tried: {default.path} with {default.threads} {', '.join(told)}"
    return best, f"computed in {best}; {trials}{why}"


def _fitting(default: Compute, tried: Callable[[Compute], Trial], rows: int) -> tuple[Compute, Trial]:
    """The default in as many parts as a batch of so many rows needs to fit into the memory, and its trial."""
    while True:
        try:
            return default, tried(default)
        except (RuntimeError, MemoryError) as error:
            more = default.divided(rows)
            if not ran_out(error) or more is None:
                raise
        release()
        default = more


def _try(compute: Compute, method: Method, model: Model, batch: Batch) -> Trial:
    before = torch.get_num_threads()
    torch.set_num_threads(compute.threads)
    passes = Passes(method, model, compute)
    times, loss = [], float("nan")
    began, used = time.perf_counter(), time.process_time()
    try:
        for _ in range(TRIALS + 1):
            started = time.perf_counter()
            loss = passes(batch, 1.0).mean.item()  # waits for the device
            times.append(time.perf_counter() - started)
            if times[-1] > LONG_SECONDS and compute.path == "eager":
                break
    finally:
        passes.clear()
        torch.set_num_threads(before)
    served = 1.0
    if model.device.type == "cpu":
        served = (time.process_time() - used) / (compute.threads * (time.perf_counter() - began))
    return Trial(statistics.median(times[1:] or times), loss, served)
