"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value, e.g. --set optim.lr=1e-3; repeatable."),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder that runs live in.")]
Name = Annotated[str | None, typer.Option("--name", help="The run's name; one is made up if not given.")]
Seed = Annotated[int | None, typer.Option("--seed", help="The same as --set seed=N.")]
Device = Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
Gpus = Annotated[
    int | None, typer.Option("--gpus", metavar="N", help="Train on so many GPUs (docs/several-gpus.md).")
]
Plain = Annotated[bool, typer.Option("--plain", help="One line per event instead of the cockpit.")]
Frugal = Annotated[bool, typer.Option("--frugal", help="Redraw seldom, for a slow or costly line.")]
Detach = Annotated[bool, typer.Option("--detach", help="Give the shell back once it trains.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
AnyRun = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name under --out.")]
RunOrDir = Annotated[str, typer.Argument(metavar="RUN|DIR", help="A run, or the folder of a checkpoint.")]
Checkpoint = Annotated[
    str | None, typer.Option("--checkpoint", metavar="ID", help="Which checkpoint; the last if not given.")
]
RUNS = Path("runs")
