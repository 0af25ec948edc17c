"""Commands about a trained model: measure it, ask it, hand it on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from stepwise_tui import output
from stepwise_tui.commands.options import RUNS, Checkpoint, Json, Out
from stepwise_tui.output import explained

RunOrModel = Annotated[
    str,
    typer.Argument(
        metavar="RUN|DIR",
        help="A run, a checkpoint's folder, a Hugging Face folder, or an official code's checkpoint.",
    ),
]
RunOrName = Annotated[
    str,
    typer.Argument(
        metavar="RUN|DIR",
        help="As for chat; with --few-shot a Hugging Face folder or name, or a model's name at --endpoint.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL|DIR",
        help="Architecture and tokenizer of an official code's checkpoint, e.g. gpt2.",
    ),
]
Preset = Annotated[
    str | None, typer.Option("--preset", metavar="NAME", help="The task of a model that comes without a run.")
]
Explicit = Annotated[
    bool, typer.Option("--explicit", help="Ask for all of the CoT, of a model that answers both ways.")
]


def evaluate(
    run: RunOrName,
    checkpoint: Checkpoint = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FILE", help="Measure on its examples: text, JSON or JSON lines; .gz."
        ),
    ] = None,
    split: Annotated[
        Literal["valid", "test"], typer.Option("--split", help="Measure on this held-out split.")
    ] = "test",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many examples.")] = None,
    explicit: Explicit = False,
    base: Base = None,
    preset: Preset = None,
    few_shot: Annotated[
        int | None,
        typer.Option(
            "--few-shot",
            metavar="K",
            min=1,
            help="Prompt a model as it is with K examples; --data or --preset gives them.",
        ),
    ] = None,
    no_cot: Annotated[
        bool, typer.Option("--no-cot", help="With --few-shot: examples without their CoT.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="With --few-shot: which examples are shown; 0.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="URL",
            help="With --few-shot: an OpenAI-compatible address; its key is in STEPWISE_API_KEY.",
        ),
    ] = None,
    out: Out = RUNS,
    as_json: Json = False,
) -> None:
    """Measure a model: accuracy, CoT, tokens, speed."""
    with explained():
        if few_shot is None:
            _refuse("only with --few-shot", {"--no-cot": no_cot, "--seed": seed, "--endpoint": endpoint})
            from trainer.asking import inspection

            loaded = inspection.open_checkpoint(
                run, checkpoint, out, base=base, preset=preset, without_data=data is not None
            )
            for caveat in inspection.caveats(loaded):
                output.complain(caveat)
            report = inspection.evaluate_checkpoint(
                loaded, data=data, split=split, limit=limit, explicit=explicit, told=output.complain
            )
        else:
            _refuse(
                "not with --few-shot, which prompts a model as it is",
                {"--checkpoint": checkpoint, "--explicit": explicit, "--base": base},
            )
            if (data is None) == (preset is None):
                raise ValueError("--few-shot takes its examples from one of --data FILE and --preset NAME")
            from trainer import presets
            from trainer.asking import inspection, prompting

            config = None if preset is None else presets.resolve(preset)
            if config is not None:
                asked = prompting.from_task(config, split, few_shot, seed or 0, limit)
            else:
                assert data is not None
                asked = prompting.from_lines(
                    inspection.read_lines(data, output.complain), few_shot, seed or 0, limit
                )
            report = prompting.evaluate(
                run,
                asked,
                cot=not no_cot,
                split=split if config is not None else None,
                endpoint=endpoint,
                told=lambda done, of: output.progress(f"{done} of {of} answered"),
            )
            output.progress("")
            if report.unread:
                empty = f", {report.empty:,} of them no text at all" if report.empty else ""
                what = f"{report.unread:,} of {report.n:,} answers have no ####{empty}"
                output.complain(f"{what}; they count as wrong")
        output.document(asdict(report)) if as_json else output.block(output.report(report))


def chat(
    run: RunOrModel,
    checkpoint: Checkpoint = None,
    explicit: Explicit = False,
    thoughts: Annotated[
        int | None,
        typer.Option("--thoughts", metavar="N", min=0, help="Answer after N thoughts, not the stage's."),
    ] = None,
    base: Base = None,
    preset: Preset = None,
    out: Out = RUNS,
) -> None:
    """Ask a trained model; from a pipe, one question a line."""
    with explained():
        from stepwise_tui import session

        session.chat(run, checkpoint, out, explicit=explicit, thoughts=thoughts, base=base, preset=preset)


def export(
    run: RunOrModel,
    to: Annotated[Path, typer.Argument(metavar="OUT", help="A new or an empty folder.")],
    checkpoint: Checkpoint = None,
    base: Base = None,
    preset: Preset = None,
    metrics: Annotated[
        Literal["csv", "tensorboard"] | None,
        typer.Option("--metrics", help="Write the numbers of the run's journal too."),
    ] = None,
    out: Out = RUNS,
) -> None:
    """Write a model as a plain Hugging Face folder."""
    with explained():
        from trainer.exporting import export
        from trainer.paths import named

        caveats = export.export(run, to, id=checkpoint, out=out, base=base, preset=preset, numbers=metrics)
        for caveat in caveats:
            output.complain(caveat)
        typer.echo(f"{to}\nstepwise chat {named(to)}")


def _refuse(why: str, options: dict[str, object]) -> None:
    """Raise ValueError for the options that were given."""
    given = [name for name, value in options.items() if value not in (None, False)]
    if given:
        raise ValueError(f"{' and '.join(given)}: {why}")
