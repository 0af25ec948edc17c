"""Commands that draw: runs beside each other, accuracy against speed, the papers' tables."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stepwise_tui import output
from stepwise_tui.commands.options import RUNS, AnyRun, Checkpoint, Json, Out
from stepwise_tui.output import explained

Save = Annotated[
    Path | None, typer.Option("--save", metavar="FILE", help="Also write a picture, .png or .svg.")
]


def compare(
    run: Annotated[list[str], typer.Argument(metavar="RUN…", help="Runs or sweeps: folders, or names.")],
    out: Out = RUNS,
    save: Save = None,
    as_json: Json = False,
) -> None:
    """Accuracy against tokens removed, several runs in one figure."""
    with explained():
        from stepwise_tui.render import compare, picture, screen
        from trainer import runs
        from trainer.analysis import compare as analysis

        if save is not None:
            picture.check(save)
        folders = [folder for one in run for folder in runs.find_all(one, out)]
        groups = analysis.compare(folders or [runs.find(run[0], out)])
        if save is not None:
            picture.save(save, partial(compare.plot, groups))
        if as_json:
            output.document([asdict(group) for group in groups])
        else:
            compare.show(groups, screen.Screen())


def frontier(
    run: AnyRun,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many test examples a checkpoint.")
    ] = None,
    out: Out = RUNS,
    save: Save = None,
    as_json: Json = False,
) -> None:
    """Accuracy against speed, per stage."""
    with explained():
        from trainer import runs

        folder = runs.find(run, out)
        if save is not None:
            from stepwise_tui.render import picture

            picture.check(save)
        from stepwise_tui.render import frontier, screen
        from trainer import config as configuration
        from trainer.analysis import frontier as analysis
        from trainer.analysis import measure

        counted = configuration.build(configuration.load(folder / runs.CONFIG_FILE)).method.counted
        chosen, problems = measure.measurable(folder)
        for problem in problems:
            output.block(f"left out: {problem}", err=True)
        points = []
        for number, point in enumerate(measure.measure(folder, chosen, limit), start=1):
            points.append(point)
            output.progress(f"measured {number} of {len(chosen)} checkpoints")
        output.progress("")
        points = analysis.marked(points)
        try:
            analysis.keep(folder, points)
        except OSError as error:
            typer.echo(f"{folder / analysis.FILE} cannot be written: {error.strerror}", err=True)
        if save is not None:
            picture.save(save, partial(frontier.plot, points, counted))
        if as_json:
            output.document([asdict(point) for point in points])
        else:
            frontier.show(points, counted, screen.Screen())


def thoughts(
    run: Annotated[
        str, typer.Argument(metavar="RUN|DIR", help="A run, a checkpoint's folder, or an exported one.")
    ],
    example: Annotated[
        list[int] | None,
        typer.Option(
            "--example", min=1, metavar="N", help="Draw the search of this test example; repeatable."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many test examples.")
    ] = None,
    checkpoint: Checkpoint = None,
    out: Out = RUNS,
    save: Save = None,
    as_json: Json = False,
) -> None:
    """What a model's thoughts hold: the search of a graph, and what it says when made to speak."""
    with explained():
        from stepwise_tui.render import picture

        if save is not None:
            picture.check(save)
        from stepwise_tui.render import screen, thoughts
        from trainer.analysis import measure_thoughts
        from trainer.asking import inspection

        loaded = inspection.open_checkpoint(run, checkpoint, out)
        found = measure_thoughts.measure(loaded, limit, example or [], output.progress)
        output.progress("")
        if save is not None:
            picture.save(save, partial(thoughts.plot, found))
        if as_json:
            output.document(asdict(found))
        else:
            thoughts.show(found, screen.Screen())


def paper(
    out: Out = RUNS,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Also write the tables, .md or .tex.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The papers' tables, their figures beside those of your runs."""
    with explained():
        from stepwise_tui.render import paper, screen, sheet
        from trainer.analysis import paper as analysis

        if save is not None:
            sheet.check(save)
        tables = analysis.tables(out)
        if save is not None:
            sheet.save(save, paper.sheets(tables), paper.SOURCES)
        if as_json:
            output.document(asdict(tables))
        else:
            paper.show(tables, screen.Screen())


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where to; `report` in the run's if not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """One page about a run, with its curves, and these as PNG."""
    with explained():
        from stepwise_tui.render import picture
        from trainer import runs

        folder = runs.find(run, RUNS)
        picture.check_installed("report")
        from stepwise_tui.render import report as pages

        to = folder / pages.FOLDER if out is None else out
        if to.exists() and not to.is_dir():
            raise ValueError(f"--out {to}: is a file, and a folder is wanted")
        if to.resolve() == folder.resolve().parent:  # what --out means to the other commands
            raise ValueError(f"--out {to}: runs live there; the page wants a folder of its own")
        written = [str(path) for path in pages.write(pages.read(folder), to)]
        output.document(written) if as_json else output.block("\n".join(written))


def stages(name: str) -> None:
    """What a preset does to one example, and how it smooths: the paper's figures 1 and 2b, as comments."""
    from stepwise_tui import glyphs
    from stepwise_tui.render import stages
    from trainer import presets
    from trainer.analysis.stages import example

    config = presets.resolve(name)
    width = shutil.get_terminal_size((80, 24)).columns
    typer.echo(stages.text(config, example(config), width, glyphs.detect()), nl=False)
