"""What the command line prints: tables, one JSON document, one block per error. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

import typer

from stepwise_tui.text import accuracy, clean, clean_lines, columns, duration, size

if TYPE_CHECKING:
    from trainer.answering.report import Report
    from trainer.doctor import Finding
    from trainer.events import ChatAnswered
    from trainer.presets import Preset
    from trainer.runs import RunRow

USER, FAILURE = 2, 1
WIDTH = 100
EXPLAINED = 44
"""The column in which `trainer.presets.explain` has the meaning of a value."""


def progress(text: str) -> None:
    """One line on a terminal's stderr that the next one takes the place of; "" takes it away."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{text}", err=True, nl=False)


def document(value: Any) -> None:
    """Print one JSON document on stdout."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    # What a terminal would obey, or cannot be written, stays JSON in its escaped form.
    typer.echo("".join(json.dumps(c)[1:-1] if c != "\n" and not c.isprintable() else c for c in text))


def block(text: str, *, err: bool = False) -> None:
    """Print lines that others may have written, without anything that a terminal would obey."""
    typer.echo(clean_lines(text), err=err)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], most: int = sys.maxsize) -> str:
    """Columns as wide as their longest cell; the last one is not padded.

    most: columns that there are. Where the table would be wider, what is long in its first one stands on a
    line of its own.
    """
    widths = [max(columns(line[i]) for line in (head, *rows)) for i in range(len(head))]
    too_wide = sum(widths) + 2 * (len(widths) - 1) - most
    if too_wide > 0:
        widths[0] = max(columns(head[0]), widths[0] - too_wide)
    lines = []
    for first, *rest in (head, *rows):
        if columns(first) > widths[0]:
            lines.append(first)
            first = ""
        padded = (
            cell + " " * (width - columns(cell)) for cell, width in zip((first, *rest), widths, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def pairs(values: Mapping[str, str]) -> str:
    """One name and value a line."""
    width = max(map(len, values))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in values.items())


def presets_table(presets: Sequence[Preset]) -> str:
    """Group by group, each preset with its cost beneath, or the group with the cost that all of it has."""
    from trainer.presets import GROUPS

    lines = []
    for heading, own in itertools.groupby(presets, lambda preset: GROUPS[preset.group]):
        members = list(own)
        shared = len(members) > 1 and len({preset.cost for preset in members}) == 1
        lines += ["", f"{heading}: {members[0].cost}" if shared else heading]
        for preset in members:
            lines.append(f"  {preset.name:<24}{preset.title}")
            if not shared:
                lines.append(f"{'':<26}{preset.cost}")
    return "\n".join(lines[1:])


def runs_table(rows: Sequence[RunRow]) -> str:
    """The runs for people; one on another machine says that nobody looked whether it still runs."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    return table(
        ("name", "state", "step", "stage", "branch", "accuracy", "size", "updated"),
        [
            (
                row.name,
                row.state + (f" on {row.host}, not checked" if row.host else ""),
                f"{row.step:,}",
                f"{row.stage}/{row.stages}",
                str(row.branch),
                accuracy(row.accuracy),
                size(row.bytes),
                f"{duration(time.time() - datetime.fromisoformat(row.updated).timestamp())} ago",
            )
            for row in rows
        ],
        columns,
    )


def report(measured: Report) -> str:
    """An evaluation for people; what nobody can tell is left out."""
    stage = "" if measured.stage is None else f" (stage {measured.stage})"
    if measured.few_shot is not None:
        stage = f", shown {measured.few_shot} examples {'with' if measured.cot else 'without'} CoT"
    rate = "" if measured.examples_per_second is None else f"{measured.examples_per_second:,.1f}, "
    tokens = None if measured.generated_tokens is None else f"{measured.generated_tokens:.2f} an example"
    if tokens and measured.cot_tokens is not None:
        tokens += f", {measured.cot_tokens:.2f} of them CoT"
    if tokens and measured.thoughts is not None:
        tokens += f", {measured.thoughts:.2f} thoughts"
    lines = {
        "model" if measured.stage is None else "checkpoint": f"{measured.checkpoint}{stage}",
        "examples": f"{measured.n:,} of {measured.split or 'the file'}",
        "accuracy": f"{measured.accuracy:.4f}",
        "token accuracy": _figure(measured.token_accuracy, "{:.4f}"),
        "CoT match": _figure(measured.cot_match, "{:.4f}"),
        "tokens": tokens,
        "examples/s": f"{rate}{measured.examples_per_second_batch1:,.1f} one at a time",
        "speed": _figure(measured.speed, "{:.2f} times that of the same model without CoT"),
    }
    return pairs({name: text for name, text in lines.items() if text is not None})


def _figure(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)


def turn(answered: ChatAnswered, thoughts: int | None = None) -> str:
    """One turn of a chat in one line. thoughts: so many were asked for; None: as many as the stage has."""
    if not answered.understood:
        return answered.note
    verdict = {True: " ✓", False: f" ✗ {answered.expected} is right", None: ""}[answered.correct]
    spoken = f"{' '.join(answered.cot)} → " if answered.cot else ""
    sign = "→" if any(map(str.isalpha, answered.question)) else "="
    parts = [
        f"{answered.question} {sign} {spoken}{answered.answer or 'no answer'}{verdict}",
        f"{len(answered.cot)} CoT tokens",
        "" if thoughts is None else f"after {so_many(thoughts)}",
        f"{answered.milliseconds:.0f} ms",
        answered.note,
    ]
    return clean(" · ".join(part for part in parts if part))


def so_many(thoughts: int) -> str:
    return f"{thoughts:,} thought{'' if thoughts == 1 else 's'}"


def thoughts_of(answered: ChatAnswered) -> list[str]:
    """The thoughts before an answer, one a line: what each would say, and how likely."""
    lines = []
    for number, thought in enumerate(answered.thoughts, 1):
        told = ((clean(one.text).strip() or "blank", accuracy(one.probability)) for one in thought.candidates)
        lines.append(f"  {number:>2} {'  '.join(map(' '.join, told))}")
    return lines


def findings(found: Sequence[Finding]) -> str:
    """What `doctor` saw, one thing a line, and what to do about a lack beneath it."""
    marks = {"good": "ok", "lacking": "!", "broken": "✗"}
    lines = []
    for finding in found:
        head = f"{marks[finding.verdict]:<3}{finding.name:<13}"
        lines.append(_wrapped(finding.found, sys.stdout, head, " " * 16))
        if finding.remedy:
            lines.append(_wrapped(finding.remedy, sys.stdout, " " * 16 + "→ ", " " * 18))
    return "\n".join(lines)


def say(message: str, *, err: bool = False) -> None:
    """One message, in lines of a readable length on a terminal."""
    typer.echo(_wrapped(clean(message), sys.stderr if err else sys.stdout, "", ""), err=err)


def complain(message: str) -> None:
    """One readable block on stderr. A message of several problems, one a line, becomes a list."""
    problems = message.strip().splitlines() or ["it failed without a reason"]
    if len(problems) == 1:
        text = _wrapped(f"stepwise: {problems[0]}", sys.stderr, "", "  ")
    else:
        items = (_wrapped(problem, sys.stderr, "  • ", "    ") for problem in problems)
        # Where only the first are named there are more than are listed.
        count = "problems" if problems[-1].startswith("and ") else f"{len(problems)} problems"
        text = "\n".join([f"stepwise: {count}", *items])
    block(text, err=True)


def explanation(text: str) -> str:
    """That of a preset; on a terminal its comments are broken into lines where they begin to explain."""
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size((80, 24)).columns
    indent = "#".ljust(EXPLAINED)
    return "".join(
        textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False) + "\n"
        if line.startswith("#   ") and len(line) > width
        else f"{line}\n"
        for line in text.splitlines()
    )


def _wrapped(text: str, out: TextIO, first: str, rest: str) -> str:
    """In lines that a terminal has room for, of `WIDTH` at most; elsewhere whole, for a script to search."""
    return textwrap.fill(
        text,
        min(WIDTH, shutil.get_terminal_size().columns) if out.isatty() else sys.maxsize,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn whatever goes wrong inside into one block on stderr and an exit code, never a traceback.

    A ValueError raised by our own code carries a sentence for the user: 2, or 1 where its class says
    `exit_code = 1`. Everything else is a failure: 1. The traceback of a defect goes to a file that the
    block names.
    """
    try:
        yield
    except ValueError as error:
        if not _is_ours(error):
            _defect(error)
        complain(str(error))
        raise typer.Exit(getattr(error, "exit_code", USER)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILURE) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}")
        raise typer.Exit(FAILURE) from None
    except (typer.Exit, typer.Abort, SystemExit):
        raise
    except Exception as error:
        if _ran_out(error):
            helps = "a smaller batch needs less, and --device cpu none of a GPU's"
            complain(f"there was not memory enough; {helps} ({str(error) or type(error).__name__})")
            raise typer.Exit(FAILURE) from None
        _defect(error)


def _ran_out(error: Exception) -> bool:
    """Whether there was not memory enough. It is not torch's while torch is not loaded, and then stays so."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError) or "torch" not in sys.modules:
        return False
    from trainer.computing.heap import ran_out

    return ran_out(error)


def _is_ours(error: BaseException) -> bool:
    """Whether it was raised in our own code, and not in a library that our code called."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals["__name__"]).startswith(("trainer.", "stepwise_tui."))


def _defect(error: Exception) -> None:
    """Say that something went wrong that nobody foresaw, and where the details are."""
    with tempfile.NamedTemporaryFile("w", prefix="stepwise-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    what = f"{type(error).__name__}: {error}".replace("\n", " ")
    complain(f"it failed in a way nobody foresaw: {what}. The details are in {file.name}")
    raise typer.Exit(FAILURE) from None
