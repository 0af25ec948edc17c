"""Commands for a run that went wrong: bring it back, or begin it anew with another seed."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from stepwise_tui import output
from stepwise_tui.commands.options import RUNS, AnyRun, Detach, Device, Frugal, Name, Out, Plain
from stepwise_tui.output import explained

Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
SEEDS = 2**31 - 1


def rescue(
    run: AnyRun,
    out: Out = RUNS,
    yes: Yes = False,
    plain: Plain = False,
    frugal: Frugal = False,
    detach: Detach = False,
    device: Device = None,
) -> None:
    """Bring a lost run back: from its last healthy stage, on a new branch, more slowly."""
    with explained():
        from stepwise_tui import detached, session
        from trainer import presets, runs
        from trainer.analysis.rescue import rescue as find
        from trainer.control import parse
        from trainer.paths import named
        from trainer.record import journal
        from trainer.saving import checkpoint

        folder = runs.find(run, out)
        name = named(folder)
        if (found := runs.lives(folder)) is not None:
            raise ValueError(
                f"{runs.taken(folder, found)}. While it trains, `stepwise send {name} rollback STAGE` "
                f"returns to a stage, and `stepwise send {name} set watch.mode auto` leaves it to the watch"
            )
        config = presets.configure(folder / runs.CONFIG_FILE, device=device)
        plan = find(journal.read(folder), config, checkpoint.list_checkpoints(folder), name)
        first = [parse(text, source="rescue") for text in plan.commands]
        for line in plan.evidence:
            output.say(line, err=True)
        _agree(f"Then: {', then '.join(plan.commands)}; and it trains on. Shall it?", yes)
        if detach:
            detached.rescue(folder, device)
        else:
            session.train(config, folder, plain=plain, frugal=frugal, resume=True, first=first)


def restart(
    run: AnyRun,
    seed: Annotated[str, typer.Option("--seed", help="fresh: one by chance; or a number.")] = "fresh",
    out: Out = RUNS,
    run_name: Name = None,
    yes: Yes = False,
    plain: Plain = False,
    frugal: Frugal = False,
    detach: Detach = False,
    device: Device = None,
) -> None:
    """Begin the configuration of a run anew, with another seed. One that still trains is stopped first."""
    with explained():
        from stepwise_tui import detached, session
        from trainer import presets, runs

        if seed != "fresh" and not seed.isdecimal():
            raise ValueError(f"--seed {seed}: fresh, or a whole number from 0")
        folder = runs.find(run, out)
        before = presets.configure(folder / runs.CONFIG_FILE).seed
        number = int(seed) if seed != "fresh" else _another(before)
        config = presets.configure(folder / runs.CONFIG_FILE, seed=number, device=device)
        new = runs.new_folder(folder.parent, run_name, folder.name)
        trains = runs.lives(folder) is not None
        stopped = f"{folder.name} still trains: it is saved and stopped. Then " if trains else ""
        question = f"{stopped}{new.name} begins the same with seed {number}, not {before}. Shall it?"
        _agree(question, yes)
        if trains:
            _stop(folder)
        if detach:
            detached.start(config, new)
        else:
            session.train(config, new, plain=plain, frugal=frugal)


def _another(seed: int) -> int:
    """A seed by chance that is not this one."""
    number = random.SystemRandom().randrange(SEEDS)
    return number if number < seed else number + 1


def _agree(question: str, yes: bool) -> None:
    """Ask whoever sits at the terminal; without one, `--yes` is wanted."""
    if yes:
        output.say(question.removesuffix(" Shall it?"), err=True)
    elif not sys.stdin.isatty():
        raise ValueError(f"{question} Nobody is there to be asked: --yes does it")
    elif not typer.confirm(question, err=True):
        raise typer.Exit(output.FAILURE)


def _stop(folder: Path) -> None:
    """Have a run that trains save and end, and wait until its process has."""
    from stepwise_tui.link import SocketLink
    from trainer import control, runs

    link = SocketLink(folder, history=False)
    link.send(control.parse("stop", source="restart"))
    while runs.lives(folder) is not None:
        link.drain()
        time.sleep(0.1)
