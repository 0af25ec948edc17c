"""What this machine offers, and what to do about each lack. Never raises, never waits longer than 3 s."""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import locale
import os
import platform
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from trainer.terminals import DUMB, SMALLEST

HUB_SECONDS = 3.0
DISK_BYTES = 2 * 1024**3
MEMORY_BYTES = 2 * 1024**3
OURS = "stepwise-tui"
MODULES = ("trainer", "stepwise_tui")
LIBRARIES = ("torch", "transformers", "textual")
EXTRAS = {
    "matplotlib": ("report and --save", "'stepwise-tui[figures]'"),
    "submitit": ("sweep --on slurm", "'stepwise-tui[cluster]'"),
    "peft": ("model.lora_rank", "'stepwise-tui[lora]'"),
    "bitsandbytes": ("optim.moments = 8bit", "'stepwise-tui[memory]'"),
    "tensorboard": ("export --metrics tensorboard", "tensorboard"),
}
"""Modules that nothing needs but what refuses without, and what pip installs for them."""

Verdict = Literal["good", "lacking", "broken"]


class Finding(NamedTuple):
    """One thing looked at. remedy: what to do about it; "" when nothing needs doing.

    lacking: something works less well; broken: `stepwise run preset mult2x2` cannot work.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(out: Path) -> list[Finding]:
    """Look at everything; `out` is where runs would be written."""
    looks: tuple[Callable[[], Iterable[Finding]], ...] = (
        _python,
        _libraries,
        _extras,
        _devices,
        _memory,
        _cores,
        lambda: _disk(out),
        lambda: terminal(sys.stdout.isatty(), shutil.get_terminal_size(), os.environ, _encoding()),
        _hub,
        lambda: conflicts(_installed()),
    )
    return [finding for look in looks for finding in look()]


def exit_code(findings: Iterable[Finding]) -> int:
    """1 when something is broken, else 0."""
    return int(any(finding.verdict == "broken" for finding in findings))


def _python() -> Iterable[Finding]:
    yield Finding("python", "good", f"{platform.python_version()} at {sys.executable}")


def _libraries() -> Iterable[Finding]:
    for library in LIBRARIES:
        try:
            yield Finding(library, "good", importlib.metadata.version(library))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(library, "broken", "not installed", f"pip install {library}")


def _extras() -> Iterable[Finding]:
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    if not missing:
        yield Finding("extras", "good", "all that commands ask for")
        return
    without = "; ".join(f"{EXTRAS[name][0]} needs {name}" for name in missing)
    yield Finding(
        "extras", "lacking", without, f"pip install {' '.join(EXTRAS[name][1] for name in missing)}"
    )


def _devices() -> Iterable[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("device", "broken", f"torch does not load: {error}", "install it again")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            size = f"{properties.total_memory / 1024**3:.0f} GiB"
            yield Finding(f"cuda:{index}", "good", f"{properties.name}, {size}")
        return
    remedy = "mult2x2 needs no GPU; the presets of the paper do"
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        remedy = "there is an NVIDIA driver, but this torch is CPU-only: pip install torch, from PyPI"
    elif torch.version.cuda is not None and _has_driver():
        remedy = "torch was built for CUDA but finds no GPU: compare `nvidia-smi` with torch.version.cuda"
    yield Finding("device", "lacking", "no GPU, cpu only", remedy)


def _has_driver() -> bool:
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    try:
        return subprocess.run([command, "-L"], capture_output=True, timeout=HUB_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _memory() -> Iterable[Finding]:
    memory = psutil.virtual_memory()
    found = f"{memory.available / 1024**3:.1f} GiB free of {memory.total / 1024**3:.1f}"
    if memory.available < MEMORY_BYTES:
        yield Finding("memory", "lacking", found, "close something: torch and a small run want 2 GiB")
    else:
        yield Finding("memory", "good", found)


def _cores() -> Iterable[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    found = f"{usable} usable" + (f", OMP_NUM_THREADS={threads}" if threads else "")
    if threads and threads.isdigit() and int(threads) > usable:
        yield Finding("cores", "lacking", found, f"unset OMP_NUM_THREADS, or set it to at most {usable}")
    else:
        yield Finding("cores", "good", found)


def _disk(out: Path) -> Iterable[Finding]:
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if not there.is_dir():
        yield Finding(
            "disk", "broken", f"{there} is a file, and --out wants a folder", "choose another --out"
        )
        return
    usage = shutil.disk_usage(there)
    found = f"{usage.free / 1024**3:.1f} GiB free for {out}"
    if not os.access(there, os.W_OK):
        yield Finding("disk", "broken", f"{there} cannot be written", "choose another folder with --out")
    elif usage.free < DISK_BYTES:
        yield Finding("disk", "lacking", found, "free some space, or choose another folder with --out")
    else:
        yield Finding("disk", "good", found)


def _encoding() -> str:
    return (getattr(sys.stdout, "encoding", None) or locale.getpreferredencoding(False)).lower()


def terminal(
    is_terminal: bool, size: tuple[int, int], environment: Mapping[str, str], encoding: str
) -> Iterable[Finding]:
    """The terminal: whether there is one, its size, colours and characters. size: columns, rows."""
    columns, rows = size
    if not is_terminal:
        yield Finding("terminal", "lacking", "none, but a file or pipe", "runs print plain lines here")
    elif (kind := environment.get("TERM")) in DUMB:
        remedy = "runs print plain lines here; if it can do more, export TERM=xterm-256color"
        yield Finding("terminal", "lacking", f"TERM={kind}", remedy)
    elif columns < SMALLEST[0] or rows < SMALLEST[1]:
        yield Finding(
            "terminal",
            "lacking",
            f"{columns}×{rows}",
            f"make it {SMALLEST[0]}×{SMALLEST[1]} at least; 80×24 shows more",
        )
    else:
        yield Finding("terminal", "good", f"{columns}×{rows}, TERM={environment.get('TERM', 'not set')}")
    yield _colours(environment)
    if encoding.replace("-", "") == "utf8":
        yield Finding("characters", "good", "UTF-8")
    else:
        remedy = "export LANG=C.UTF-8, or the charts and the removal bar show question marks"
        yield Finding("characters", "lacking", encoding, remedy)


def _colours(environment: Mapping[str, str]) -> Finding:
    kind = environment.get("TERM", "")
    if environment.get("NO_COLOR"):
        return Finding("colours", "good", "off, as NO_COLOR asks")
    if environment.get("COLORTERM") in ("truecolor", "24bit"):
        return Finding("colours", "good", "16 million")
    if "256" in kind:
        return Finding("colours", "good", "256")
    if kind in ("", *DUMB):
        return Finding("colours", "lacking", "none", "set TERM, for example export TERM=xterm-256color")
    return Finding("colours", "lacking", "8 or 16", "export COLORTERM=truecolor if your terminal can")


def _hub() -> Iterable[Finding]:
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "on", "yes"):
        yield Finding("hub", "lacking", "switched off by HF_HUB_OFFLINE", "unset it to download models")
        return
    trouble = _reach(address)
    if trouble is None:
        yield Finding("hub", "good", f"{address} answers")
    else:
        remedy = (
            "mult2x2 and the other presets from scratch need no download; for the rest give a local folder "
            "with --set model.init=FOLDER, or train from scratch with --set model.init=scratch "
            "--set model.vocab=task"
        )
        yield Finding("hub", "lacking", f"{address} does not answer: {trouble}", remedy)


def _reach(address: str) -> str | None:
    """Why a web address does not answer; None when it does.

    In a thread of its own, since looking up a name knows no time limit.
    """
    trouble = [f"nothing within {HUB_SECONDS:.0f} s"]

    def probe() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
                trouble.clear()
        except urllib.error.URLError as error:
            trouble[0] = str(error.reason)
        except (OSError, ValueError, http.client.HTTPException) as error:
            trouble[0] = str(error) or type(error).__name__

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return trouble[0] if trouble else None


def _installed() -> dict[str, set[str]]:
    """Distributions by what they install of the names we use."""
    claims: dict[str, set[str]] = {"command stepwise": set()}
    claims |= {f"module {name}": set() for name in MODULES}
    for distribution in importlib.metadata.distributions():
        name = distribution.name
        for entry in distribution.entry_points:
            if entry.group == "console_scripts" and entry.name == "stepwise":
                claims["command stepwise"].add(name)
        for file in distribution.files or ():
            if file.parts[0] in MODULES and len(file.parts) > 1:
                claims[f"module {file.parts[0]}"].add(name)
    return claims


def conflicts(claims: Mapping[str, Iterable[str]]) -> Iterable[Finding]:
    """Distributions other than ours that install something of our name. claims: what → distributions."""
    clashes = {what: sorted(set(names) - {OURS}) for what, names in claims.items()}
    for what, others in clashes.items():
        for other in others:
            yield Finding("packages", "broken", f"{other} also installs the {what}", f"pip uninstall {other}")
    if not any(clashes.values()):
        yield Finding("packages", "good", "no other package installs `stepwise` or `trainer`")
