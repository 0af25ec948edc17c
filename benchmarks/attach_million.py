"""How long `attach` takes, and what memory it and the host need, by the length of the journal.

    PYTHONPATH=. python benchmarks/attach_million.py --events 10000 100000 1000000

For each length a run is made whose journal has that many events (`long_journal`) and whose last checkpoint
is real. A host takes it up and trains on; `stepwise attach` shows it on a real pseudo-terminal, again and
again. Then the host is told 100,000 events more. `attach` and the host share the cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from benchmarks.arguments import positive, written
from tests.terminal import Terminal

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled

MORE = 100_000
SIZES = ((80, 24), (200, 60))
WATCHED_SECONDS = 6.0
"""From the start of `attach`; its first whole screen comes in this time."""

LINK = """
import json, sys, time
from pathlib import Path
from stepwise_tui.link import SocketLink
from stepwise_tui.history import replay
started = time.perf_counter()
link = SocketLink(Path(sys.argv[1]))
replay(link.drain(), link.config)
print(time.perf_counter() - started)
"""

HOST = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from trainer import config
from trainer.events import At, Metrics
from trainer.host import Host
from trainer.run import Run
folder = Path(sys.argv[1])
run = Run(config.build(config.load(folder / "config.toml")), folder, resume=True)
run.start()
with Host(run):
    print("ready", flush=True)
    for line in sys.stdin:
        for i in range(int(line)):
            at = run.at
            run.tell(Metrics(at=at, loss=0.1 + i % 7, loss_answer=0.1, loss_cot=0.2, grad_norm=1.0, lr=1e-3,
                     steps=1, steps_per_second=1.0, tokens_per_second=1.0, epoch=1.0))
        run.tell(Metrics(at=at, loss=0.1, loss_answer=0.1, loss_cot=0.2, grad_norm=1.0, lr=1e-3,
                 steps=1, steps_per_second=1.0, tokens_per_second=1.0, epoch=1.0), wait=True)
        print("told", flush=True)
run.close()
"""

PATCH = """
import hashlib, json, sys
from pathlib import Path
from benchmarks import long_journal
from trainer import config
from trainer.record import journal
from trainer.saving import checkpoint
from trainer.run import Run
folder, count = Path(sys.argv[1]), int(sys.argv[2])
run = Run(config.changed(long_journal.CONFIG, "stop.steps", 4), folder)
run.start(); run.wait(); run.close()
refs = checkpoint.list_checkpoints(folder)
checkpoint.remove(folder, [ref.id for ref in refs[:-1]])
last = None
with (folder / journal.FILE).open("w", encoding="utf-8") as file:
    for last in long_journal.events(count):
        file.write(long_journal.encode(last) + "\\n")
(folder / "config.toml").write_text(config.dumps(long_journal.CONFIG))
old = folder / checkpoint.FOLDER / refs[-1].id
state = json.loads((old / checkpoint.STATE).read_text())
at = last.at
state |= {"seq": count, "step": at.step, "branch": at.branch, "stage": at.stage, "scheduled": at.scheduled}
text = json.dumps(state)
(old / checkpoint.STATE).write_text(text)
manifest = json.loads((old / checkpoint.MANIFEST).read_text())
manifest[checkpoint.STATE] = {"size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
(old / checkpoint.MANIFEST).write_text(json.dumps(manifest))
old.rename(old.with_name(checkpoint.name(checkpoint.load_state(old))))
"""


class Row(NamedTuple):
    """Seconds and MB at one length. taken_up: until a host could be attached to. cpu: that `attach` used
    until its first full screen."""

    events: int
    journal_mb: float
    taken_up: float
    link: float
    screens: list[float]
    cpu: list[float]
    cockpit_mb: float
    host_mb: float
    host_after_mb: float


def python(code: str, *arguments: object, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, **more)  # type: ignore[call-overload, no-any-return]


def measure(count: int, out: Path, attempts: int) -> Row:
    folder = out / f"long{count}"
    assert python(PATCH, folder, count).wait() == 0
    size = (folder / "journal.jsonl").stat().st_size
    started = time.perf_counter()
    host = python(HOST, folder, stdin=subprocess.PIPE)
    assert host.stdout is not None and host.stdin is not None
    assert host.stdout.readline() == "ready\n"
    taken_up = time.perf_counter() - started
    links, screens, cpu, memory = [], [], [], 0.0
    try:
        for attempt in range(attempts):
            link = python(LINK, folder)
            assert link.stdout is not None
            links.append(float(link.stdout.readline()))
            link.wait()
            seconds, used, megabytes = first_screen(folder, *SIZES[attempt % len(SIZES)])
            screens.append(seconds)
            cpu.append(used)
            memory = max(memory, megabytes)
        before = resident(host.pid)
        host.stdin.write(f"{MORE}\n")
        host.stdin.flush()
        assert host.stdout.readline() == "told\n"
        time.sleep(3)
        after = resident(host.pid)
    finally:
        host.stdin.close()
        host.wait()
    return Row(count, size / 1e6, taken_up, median(links), screens, cpu, memory, before, after)


def first_screen(folder: Path, columns: int, rows: int) -> tuple[float, float, float]:
    """Seconds from starting `attach` to the whole screen, charts and all; those of them that it computed; the
    most memory it had, in MB.

    What it writes is noted with its time and shown on a screen afterwards: in use that screen is another
    machine's work.
    """
    started = time.perf_counter()
    terminal = Terminal("attach", str(folder), cwd=folder.parent, columns=columns, rows=rows)
    pieces: list[tuple[float, float, bytes]] = []
    try:
        process = psutil.Process(terminal.pid)
        while time.perf_counter() - started < WATCHED_SECONDS:
            if (data := terminal.receive(0.1)) is not None:
                times = process.cpu_times()
                pieces.append((time.perf_counter() - started, times.user + times.system, data))
        used = peak(terminal.pid)
        for seconds, cpu, data in pieces:
            terminal.take(data)
            if complete(terminal.text):
                return seconds, cpu, used
        raise SystemExit(f"no whole screen:\n{terminal.text}")
    finally:
        terminal.close()


def complete(screen: str) -> bool:
    """Whether state, charts with their axes and curves, and the keys are all there."""
    curves = sum("\u2801" <= sign <= "\u28ff" for sign in screen)
    return "TRAINING" in screen and "space pause" in screen and "└" in screen and curves > 30


def resident(pid: int) -> float:
    return _status(pid, "VmRSS")


def peak(pid: int) -> float:
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1e3


def report(rows: list[Row], command: str) -> str:
    lines = [
        "| events | journal | host ready | link complete | first full screen: median (worst) | of it CPU "
        f"| cockpit, peak | host | host, {MORE:,} events later |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.events:,} | {r.journal_mb:,.0f} MB | {r.taken_up:.1f} s | {r.link:.2f} s "
        f"| **{median(r.screens):.2f} s** ({max(r.screens):.2f}) | {median(r.cpu):.2f} s "
        f"| {r.cockpit_mb:.0f} MB | {r.host_mb:.0f} MB | {r.host_after_mb:.0f} MB |"
        for r in rows
    ]
    machine = f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores"
    return "\n".join([f"`{command}`", "", f"{machine}.", "", *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=positive, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--attempts", type=positive, default=6)
    parser.add_argument("--keep", type=Path, help="make the runs here and leave them")
    parser.add_argument("--json", type=written)
    options = parser.parse_args()
    out = options.keep or Path(tempfile.mkdtemp(prefix="attach"))
    try:
        rows = [measure(count, out, options.attempts) for count in options.events]
    finally:
        if not options.keep:
            shutil.rmtree(out, ignore_errors=True)
    print(report(rows, "python " + " ".join(sys.argv)))
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
