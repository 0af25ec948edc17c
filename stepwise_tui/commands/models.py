"""Commands about a trained model: measure it, ask it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from stepwise_tui import output
from stepwise_tui.commands.options import RUNS, Checkpoint, Json, Out, RunOrDir
from stepwise_tui.output import explained


def evaluate(
    run: RunOrDir,
    checkpoint: Checkpoint = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="Lines of question||CoT #### answer.")
    ] = None,
    split: Annotated[Literal["valid", "test"], typer.Option("--split", help="Held-out examples.")] = "test",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many examples.")] = None,
    out: Out = RUNS,
    as_json: Json = False,
) -> None:
    """Measure accuracy, speed and CoT tokens of a checkpoint."""
    with explained():
        from trainer import inspection

        loaded = inspection.open_checkpoint(run, checkpoint, out)
        report = inspection.evaluate_checkpoint(loaded, data=data, split=split, limit=limit)
        output.document(asdict(report)) if as_json else typer.echo(output.report(report))


def chat(run: RunOrDir, checkpoint: Checkpoint = None, out: Out = RUNS) -> None:
    """Ask a trained model; from a pipe, one question a line."""
    with explained():
        from stepwise_tui import session

        session.chat(run, checkpoint, out)
