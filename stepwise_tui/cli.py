"""The command line: parses, calls, prints; no logic.

Everything heavy is imported inside the commands, so that `stepwise --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from stepwise_tui import output
from stepwise_tui.commands import data, figures, keys, models, remedies, remote
from stepwise_tui.commands.options import (
    RUNS,
    AnyRun,
    Detach,
    Device,
    Frugal,
    Gpus,
    Json,
    Name,
    Out,
    Plain,
    Seed,
    Set,
)
from stepwise_tui.output import explained
from stepwise_tui.terminal import Terminal


class RunFirst(TyperGroup):
    """Typer lists groups of commands last; `run` is what a newcomer looks for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: name != "run")


# Plain help is twice as quick as rich help, and reads the same everywhere.
STYLE: dict[str, Any] = {"rich_markup_mode": None, "no_args_is_help": True}
app = typer.Typer(
    cls=RunFirst,
    **STYLE,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Train language models to internalise their chain of thought, and steer the run live.",
)
run_app = typer.Typer(**STYLE, help="Train, from a preset or from a file.")
app.add_typer(run_app, name="run")
data_app = typer.Typer(**STYLE, help="Examples: write them, look into a file of them.")
app.add_typer(data_app, name="data")
data_app.command()(data.render)
data_app.command()(data.make)
data_app.command()(data.check)


@run_app.command("preset")
def run_preset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="`stepwise presets` lists them.")],
    assignments: Set = None,
    out: Out = RUNS,
    run_name: Name = None,
    seed: Seed = None,
    device: Device = None,
    gpus: Gpus = None,
    plain: Plain = False,
    frugal: Frugal = False,
    detach: Detach = False,
) -> None:
    """Train a preset."""
    with explained():
        _start(name, name, assignments, out, run_name, seed, device, gpus, plain, frugal, detach)


@run_app.command("config")
def run_config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML, as `stepwise presets NAME` prints.")],
    assignments: Set = None,
    out: Out = RUNS,
    run_name: Name = None,
    seed: Seed = None,
    device: Device = None,
    gpus: Gpus = None,
    plain: Plain = False,
    frugal: Frugal = False,
    detach: Detach = False,
) -> None:
    """Train what a TOML file says."""
    with explained():
        _start(file, file.stem, assignments, out, run_name, seed, device, gpus, plain, frugal, detach)


def _start(
    base: str | Path,
    stem: str,
    assignments: list[str] | None,
    out: Path,
    run_name: str | None,
    seed: int | None,
    device: str | None,
    gpus: int | None,
    plain: bool,
    frugal: bool,
    detach: bool,
) -> None:
    from stepwise_tui import detached, session
    from trainer import presets, runs

    config = presets.configure(base, assignments or (), seed=seed, device=device, gpus=gpus)
    folder = runs.new_folder(out, run_name, stem)
    if detach:
        detached.start(config, folder)
    else:
        session.train(config, folder, plain=plain, frugal=frugal)


@app.command()
def resume(
    run: AnyRun,
    out: Out = RUNS,
    plain: Plain = False,
    frugal: Frugal = False,
    device: Device = None,
    gpus: Gpus = None,
    detach: Detach = False,
    paused: Annotated[bool, typer.Option("--paused", help="Wait before the first step.")] = False,
    assignments: Set = None,
) -> None:
    """Go on with a run from its last checkpoint; with other limits also one that came to its end."""
    with explained():
        from stepwise_tui import detached, session
        from trainer import presets, runs

        folder = runs.find_ended(run, out, finished=bool(assignments))
        config = presets.configure(folder / runs.CONFIG_FILE, device=device, gpus=gpus)
        first = session.changes(config, assignments or [])
        if detach:
            detached.resume(config, folder, paused=paused, assignments=assignments or [])
        else:
            session.train(config, folder, plain=plain, frugal=frugal, resume=True, paused=paused, first=first)


@app.command()
def presets(name: Annotated[str | None, typer.Argument(help="Print this one.")] = None) -> None:
    """List the presets, or print one with its explanation."""
    with explained():
        from trainer import presets

        if name is None:
            typer.echo(output.presets_table(presets.listing()))
        else:
            typer.echo(output.explanation(presets.explain(name)), nl=False)
            figures.stages(name)


@app.command()
def runs(out: Out = RUNS, as_json: Json = False) -> None:
    """List the runs, the latest first."""
    with explained():
        from trainer import runs

        rows = runs.list_runs(out)
        if as_json:
            output.document([asdict(row) for row in rows])
        elif rows:
            output.block(output.runs_table(rows))
        else:
            typer.echo(f"There is no run under {out} yet; `stepwise run preset mult2x2` starts one.")


@app.command()
def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML: presets, values, seeds (docs/sweeps.md).")
    ],
    on: Annotated[
        Literal["local", "slurm"], typer.Option("--on", help="This machine, or the queue of a cluster.")
    ] = "local",
    out: Out = RUNS,
) -> None:
    """Train presets × values × seeds; the same command goes on with what has not finished."""
    with explained():
        from trainer import sweep as sweeps

        asked = sweeps.read(file, out)
        if on == "slurm":
            from stepwise_tui import queued

            queued.submit(asked)
        else:
            from stepwise_tui import sweeping

            sweeping.run(asked)


app.command()(remote.attach)
app.command(hidden=True)(remote.relay)
app.command(context_settings={"ignore_unknown_options": True})(remote.send)
app.command()(remedies.rescue)
app.command()(remedies.restart)
app.command("eval")(models.evaluate)
app.command()(models.chat)
app.command()(models.export)
app.command()(figures.compare)
app.command()(figures.frontier)
app.command()(figures.thoughts)
app.command()(figures.paper)
app.command()(figures.report)
app.command()(keys.keys)


@app.command()
def doctor(out: Out = RUNS, as_json: Json = False) -> None:
    """What this machine offers, and what to do about each lack."""
    with explained():
        from trainer import doctor

        findings = doctor.examine(out)
        if as_json:
            output.document([finding._asdict() for finding in findings])
        else:
            output.block(output.findings(findings))
        raise typer.Exit(doctor.exit_code(findings))


@app.command(hidden=True)
def launcher() -> None:
    """What plain `stepwise` opens on a terminal: your runs, and the presets."""
    with explained():
        from stepwise_tui import launcher

        launcher.open_screen()


def main() -> None:
    """The command `stepwise`."""
    # Read when transformers is imported: its progress bars and advice would tear the screen.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    alone = len(sys.argv) == 1 and Terminal().whole
    app(["launcher"] if alone else None, prog_name="stepwise")
