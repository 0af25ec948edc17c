"""Tables as a file: Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

Cells = tuple[str, ...]


class Sheet(NamedTuple):
    """One table. The last column may be long."""

    title: str
    head: Cells
    rows: list[Cells]


class SheetError(ValueError):
    """A file that tables cannot be written to; the message says what can be."""


def check(path: Path) -> None:
    """Raise `SheetError` where `save` could not succeed: to be asked before the work, not after it."""
    if path.suffix.lower() not in WRITERS:
        raise SheetError(f"--save {path}: a file that ends in {' or '.join(WRITERS)} is expected")
    if not path.absolute().parent.is_dir():
        raise SheetError(f"--save {path}: there is no folder {path.parent}")


def save(path: Path, sheets: Sequence[Sheet], notes: Sequence[str]) -> None:
    """Write tables, and notes beneath them, in the form that the file's name asks for. Raises OSError."""
    path.write_text(WRITERS[path.suffix.lower()](sheets, notes), encoding="utf-8")


def _markdown(sheets: Sequence[Sheet], notes: Sequence[str]) -> str:
    text = ""
    for sheet in sheets:
        rows = [sheet.head, ("---",) * len(sheet.head), *sheet.rows]
        cells = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
        text += "\n".join([f"**{sheet.title}**", "", *cells]) + "\n\n"
    return text + "\n\n".join(notes) + "\n"


def _latex(sheets: Sequence[Sheet], notes: Sequence[str]) -> str:
    text = "% \\usepackage{booktabs}\n"
    for title, head, rows in sheets:
        longest = max((len(row[-1]) for row in rows), default=0)
        columns = "l" * (len(head) - 1) + ("l" if longest < LONG else r"p{7cm}")
        first, *others = (" & ".join(map(_escaped, row)) + r" \\" for row in (head, *rows))
        body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", first, r"\midrule", *others, r"\bottomrule"]
        text += "\n".join([f"% {title}", *body, r"\end{tabular}"]) + "\n\n"
    return text + "".join(f"% {note}\n" for note in notes)


def _escaped(cell: str) -> str:
    """A cell as LaTeX has it."""
    return "".join(LATEX.get(sign, sign) for sign in cell)


LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"×": r"$\times$", "Δ": r"$\Delta$", "–": "--"}
LONG = 40
"""Characters; a longer last column is broken into lines."""
WRITERS = {".md": _markdown, ".tex": _latex}
