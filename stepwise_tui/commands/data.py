"""Commands about examples: write them, and look into a file of them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stepwise_tui import output
from stepwise_tui.commands.options import Json, Seed, Set
from stepwise_tui.output import explained
from stepwise_tui.text import clean

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.data.survey import Survey

SHOWN = 5  # broken lines that are named

Preset = Annotated[str, typer.Argument(metavar="PRESET|FILE", help="A preset, or a configuration in TOML.")]


def render(preset: Preset, assignments: Set = None) -> None:
    """Print the lines of pairs from stdin: 12 34, 12*34, or 2 1 * 4 3 as in the papers' files."""
    with explained():
        from trainer.data import making
        from trainer.data.layout import format_line

        for line in making.render(sys.stdin.buffer, _configure(preset, assignments, None)):
            typer.echo(format_line(line))


def make(
    preset: Preset,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="A new file; JSON if its name ends in .json, gzipped if in .gz."
        ),
    ],
    split: Annotated[
        Literal["train", "valid", "test"], typer.Option("--split", help="Which examples.")
    ] = "train",
    n: Annotated[int | None, typer.Option("--n", min=1, help="So many, the first; all if not given.")] = None,
    assignments: Set = None,
    seed: Seed = None,
) -> None:
    """Write the examples of a split, one a line, or as Coconut's JSON."""
    with explained():
        from trainer.data import making

        lines = making.make(_configure(preset, assignments, seed), split, n)
        making.write(lines, out)
        typer.echo(f"{out}: {len(lines):,} {split} examples")


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Examples as text or JSON, gzipped or not.")],
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", metavar="MODEL|DIR", help="Count in tokens of this model.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look into a file of examples, and propose a configuration.

    Prints TOML that `stepwise run config` takes, with what was found as comments.
    """
    with explained():
        from trainer.data import survey

        found = survey.survey(file, tokenizer)
        output.document(asdict(found)) if as_json else typer.echo(_told(found), nl=False)
        if found.configuration is None:
            raise typer.Exit(output.FAILURE)


def _configure(preset: str, assignments: list[str] | None, seed: int | None) -> Config:
    from trainer import presets

    base = Path(preset) if preset.endswith(".toml") else preset
    return presets.configure(base, assignments or (), seed=seed)


def _told(found: Survey) -> str:
    """The survey as comments, with the configuration beneath: a file that `stepwise run config` takes."""
    kind = found.format + (", gzipped" if found.gzipped else "")
    facts = {"file": f"{found.file} ({kind})", "examples": f"{found.examples:,}"}
    counts = {
        "broken lines": (len(found.broken), "left out"),
        "duplicates": (found.duplicates, "examples whose question stood before"),
        "ambiguous": (found.several_answers, "questions have several answers; one at most can be learnt"),
        "without CoT": (found.without_cot, "examples; they are trained on like the others"),
        "non-ASCII": (found.non_ascii, "examples"),
        "commas": (found.comma_answers, "answers lose theirs, as in the papers"),
        "#### twice": (found.marked_answers, "answers have it in them; all after the first is the answer"),
        "with EOS": (found.with_eos, "examples have the tokenizer's EOS in them; left out"),
    }
    facts |= {name: f"{count:,}".ljust(7) + f" {what}" for name, (count, what) in counts.items() if count}
    facts["words"] = f"{found.words:,} different ones"
    lines = [output.pairs(facts)]
    lines += [f"  line {broken['line']}: {broken['reason']}" for broken in found.broken[:SHOWN]]
    if len(found.broken) > SHOWN:
        lines.append(f"  and {len(found.broken) - SHOWN:,} more broken lines; --json tells all")
    lines.append("")
    if found.examples:
        head = (f"length in {found.unit}", *next(iter(found.lengths.values())))
        rows = [(part, *(f"{n:,}" for n in lengths.values())) for part, lengths in found.lengths.items()]
        lines += [output.table(head, rows), ""]
    if found.obstacle is not None:
        lines.append(f"There is no configuration for it: {found.obstacle}.")
    text = "".join(f"# {clean(line)}".rstrip() + "\n" for line in "\n".join(lines).split("\n"))
    return text + (found.configuration or "")
