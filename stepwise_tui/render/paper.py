"""The papers' tables with our figures beside the published ones, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from stepwise_tui.output import table
from stepwise_tui.render.screen import Screen
from stepwise_tui.render.sheet import Cells, Sheet
from stepwise_tui.text import accuracy, wrapped
from trainer.analysis.paper import Ours, Result, Statistics, Tables

NAME, FIGURES = 40, 14  # columns of the name and of each pair of figures
SOURCES = (
    "[P] Deng, Choi, Shieber: From Explicit CoT to Implicit CoT, arXiv 2405.14838",
    "[O] logs of its official repository, da03/Internalize_CoT_Step_by_Step",
    "[H] Hao et al.: Reasoning in a Continuous Latent Space, arXiv 2412.06769",
)
TITLES = (
    "Table 1. Data: examples, and median GPT-2 tokens of each part",
    "Table 2. Multiplication: accuracy / speed (batch 1, relative to no CoT)",
    "Table 3. GSM8K: accuracy",
    "Coconut, Table 1 and appendix B: accuracy / tokens / seconds per example",
    "Coconut, Figure 3: GSM8K by the thoughts of a step",
)
HEAD_1 = ("", "train / valid / test", "question", "CoT", "answer")
HEAD = ("task", "model, method", "published", "source", "ours", "from")
BESIDE = (("speed",), ("speed",), ("tokens", "seconds"), ("tokens", "seconds"))
"""What stands beside the accuracy in each table but the first."""


def sheets(tables: Tables) -> list[Sheet]:
    """The tables as cells, for `sheet.save`."""
    cells = [_cells(rows, beside) for rows, beside in zip(_with_methods(tables), BESIDE, strict=True)]
    heads = (("task", *HEAD_1), *[HEAD] * len(cells))
    return list(map(Sheet, TITLES, heads, map(list, (_datasets(tables.table_1), *cells))))


def _with_methods(tables: Tables) -> tuple[Sequence[Result], ...]:
    return tables.table_2, tables.table_3, tables.coconut_table_1, tables.coconut_figure_3


def _cells(results: Sequence[Result], beside: Sequence[str]) -> Iterator[Cells]:
    """A line for each of our figures, or for a published one that has none beside it."""
    for row in results:
        known = row.task, f"{row.model}, {row.method}", _published(row, beside), row.words or row.source
        if not row.ours:
            yield *known, "", ""
        for one in row.ours:
            origin = "; ".join([_origin(one), *one.apart])
            yield *known, _measured(one, beside), origin
            known = ("", "", "", "")


def show(tables: Tables, out: Screen) -> None:
    """All tables; where there is no figure there is nothing."""
    first, *others = TITLES
    blocks = [first, table(("", *HEAD_1), list(_datasets(tables.table_1)))]
    for title, rows, beside in zip(others, _with_methods(tables), BESIDE, strict=True):
        blocks += [title, "\n".join(_results(rows, beside, out.width))]
    blocks.append("\n".join(SOURCES))
    if tables.left_out:
        reasons = [wrapped(f"{run}: {reason}", out.width, 4) for run, reason in tables.left_out.items()]
        blocks.append("\n".join(["Runs in no table:", *reasons]))
    out.print("\n\n".join(blocks))


def _datasets(rows: Sequence[Statistics]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        known = row.published
        sizes = f"{known.train} / {known.valid} / {known.test}"
        yield known.task, "published", sizes, known.question, known.cot, known.answer
        if row.ours is None:
            yield "", "ours", "", "", "", ""
        else:
            train, valid, test, *tokens = row.ours
            yield "", "ours", f"{train:,} / {valid:,} / {test:,}", *map(str, tokens)


def _results(rows: Sequence[Result], beside: Sequence[str], width: int) -> Iterator[str]:
    figures = FIGURES + 6 * (len(beside) - 1)
    yield f"{'':{NAME}}{'published':<{figures}}ours".rstrip()
    for task, results in groupby(rows, key=lambda row: row.task):
        yield task
        for row in results:
            yield from _row(row, beside, figures, width)


def _row(row: Result, beside: Sequence[str], columns: int, width: int) -> Iterator[str]:
    """The name, both pairs of figures, and beneath them what a reader has to know of them."""
    name = f"  {row.model}, {row.method}"
    if len(name) >= NAME:
        yield name
        name = ""
    first = row.ours[0] if row.ours and not row.ours[0].apart else None
    figures = f"{_published(row, beside):<{columns}}{_measured(first, beside) if first else ''}"
    if line := f"{name:<{NAME}}{figures}".rstrip():
        yield line
    if row.words:
        yield wrapped(f"      {row.words}", width, 8)
    for apart, ours in groupby(row.ours, key=lambda one: one.apart):
        if apart:
            yield wrapped(f"    {', '.join(apart)}:", width, 6)
        for one in ours:
            if one is not first:
                yield f"{'':{NAME + columns}}{_measured(one, beside)}"
            yield wrapped(f"      {_origin(one)}", width, 8)


def _published(row: Result, beside: Sequence[str]) -> str:
    return "" if row.accuracy is None else _joined(_printed(row.accuracy), row, beside)


def _measured(one: Ours, beside: Sequence[str]) -> str:
    return _joined(accuracy(one.accuracy), one, beside)


def _joined(exact: str, of: Result | Ours, beside: Sequence[str]) -> str:
    """Accuracy and what there is beside it: .99 / 1.00."""
    values = [(name, value) for name in beside if (value := getattr(of, name)) is not None]
    return " / ".join([exact, *(UNITS[name](value) for name, value in values)])


def _printed(value: float) -> str:
    """With two figures after the point as in the paper, three where there are three."""
    return _short(f"{value:.{2 if round(value, 2) == value else 3}f}")


def _short(number: str) -> str:
    return number.removeprefix("0")


def _origin(one: Ours) -> str:
    """Where our figures are from, and what they are not."""
    parts = [f"{one.run}, {one.date}: n = {one.n:,}, seed {one.seed}, {one.step:,} steps"]
    if one.speed is not None:
        parts.append(f"speed measured {one.speed_date}")
    if one.steered:
        parts.append("steered by " + ", ".join(f"{name} {count}×" for name, count in one.steered.items()))
    if one.differs:
        parts.append("not as in the paper: " + ", ".join(one.differs))
    return "; ".join(parts)


UNITS: dict[str, Callable[[float], str]] = {
    "speed": lambda value: _short(f"{value:.2f}"),
    "tokens": lambda value: f"{value:.1f}",
    "seconds": lambda value: f"{_short(f'{value:.2f}')} s",
}
"""How each figure is printed."""
