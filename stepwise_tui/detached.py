"""A run that no terminal holds: started in a session of its own, found again by `attach`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import typer

from stepwise_tui.output import block
from trainer import config as configuration
from trainer import status, wire
from trainer.config import Config
from trainer.files import replace_text
from trainer.paths import named

POLL_SECONDS = 0.1


def start(config: Config, folder: Path) -> None:
    """Begin a new run in `folder`; return when it trains. Exits as it did when it could not."""
    file = wire.address(folder).with_suffix(".toml")
    replace_text(file, configuration.dumps(config), durable=False)
    try:
        _launch(["run", "config", str(file), "--out", str(folder.parent), "--name", folder.name], folder)
    finally:
        file.unlink(missing_ok=True)


def resume(config: Config, folder: Path, *, paused: bool, assignments: Iterable[str]) -> None:
    """Take up a run; return when it trains. Exits as it did when it could not."""
    where = ["--device", config.device, "--gpus", str(config.gpus)]
    changes = [word for text in assignments for word in ("--set", text)]
    _launch(["resume", str(folder), *where, *changes, *(["--paused"] if paused else [])], folder)


def rescue(folder: Path, device: str | None) -> None:
    """Bring a lost run back; return when it trains. Exits as it did when it could not."""
    _launch(["rescue", str(folder), "--yes", *(["--device", device] if device else [])], folder)


def restart(folder: Path, name: str) -> Path:
    """Begin a run anew with another seed, once it is stopped, without waiting; where that is told.

    name: of the new run.
    """
    log = wire.address(folder).with_suffix(".restart.log")
    with log.open("wb") as out:
        subprocess.Popen(
            [
                *(sys.executable, "-m", "stepwise_tui", "restart", str(folder)),
                *("--name", name, "--yes", "--detach"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    return log


def _launch(arguments: list[str], folder: Path) -> None:
    log = wire.address(folder).with_suffix(".log")
    began = time.time()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "stepwise_tui", *arguments, "--plain"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    typer.echo(f"{folder.name}: loading torch …", err=True)
    while not _trains(folder, process.pid, began):
        if (code := process.poll()) is not None:
            block(log.read_text(encoding="utf-8", errors="replace").rstrip(), err=True)
            raise typer.Exit(code)
        time.sleep(POLL_SECONDS)
    typer.echo(f"{folder.name} trains in process {process.pid}\nstepwise attach {named(folder)}")


def _trains(folder: Path, pid: int, since: float) -> bool:
    found = status.read(folder)
    return found is not None and found.pid == pid and found.heartbeat >= since and found.state != "starting"
