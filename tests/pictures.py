"""A screen as text, to be compared with what it was: what stands in each cell, and below, how it is drawn.

Everything that can be seen is in it, and nothing else: a blank has no colour of its own, only a ground.
"""

from __future__ import annotations

import string
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

SEEN_ON_BLANKS = ("underline", "reverse", "strike")
WEIGHTS = ("bold", "dim", "italic")
SIGNS = string.ascii_letters + string.digits


class Look(NamedTuple):
    """How a cell is drawn. weights: underlined, bold and the like."""

    weights: str
    colour: str
    ground: str

    def __str__(self) -> str:
        return " ".join(filter(None, [self.weights, self.colour, f"on {self.ground}"]))


class PictureExtension(SingleFileSnapshotExtension):
    """A file of text for each picture."""

    _file_extension = "txt"
    _write_mode = WriteMode.TEXT


def picture(rows: Iterable[Iterable[Segment]]) -> str:
    """The rows; then a sign in the place of each cell for how it is drawn, blank for what most are."""
    rows = [list(row) for row in rows]
    texts = ["".join(segment.text for segment in row).rstrip() for row in rows]
    drawn = [list(_looks(row)) for row in rows]
    ((common, _),) = Counter(look for row in drawn for look in row).most_common(1)
    signs = {common: " "}
    for look in sorted({look for row in drawn for look in row} - {common}):
        # Its sign does not hang on the others, where it can be: one more changes no other row.
        at = zlib.crc32(str(look).encode()) % len(SIGNS)
        signs[look] = next(sign for sign in SIGNS[at:] + SIGNS[:at] if sign not in signs.values())
    cells = ["".join(signs[look] for look in row).rstrip() for row in drawn]
    return "\n".join([*texts, "", *cells, "", *(f"{sign} {look}" for look, sign in signs.items()), ""])


def _looks(row: Iterable[Segment]) -> Iterator[Look]:
    """How each cell is drawn; a blank as what stands before it, where that shows no difference."""
    before = None
    for text, style, _ in row:
        style = style or Style()
        ground = style.bgcolor.name if style.bgcolor is not None else ""
        seen = tuple(name for name in SEEN_ON_BLANKS if getattr(style, name))
        for character in text:
            if not character.isspace() or seen:
                weights = seen + tuple(name for name in WEIGHTS if getattr(style, name))
                before = Look(" ".join(weights), style.color.name if style.color is not None else "", ground)
            elif before is None or before.ground != ground or set(before.weights.split()) & {*SEEN_ON_BLANKS}:
                before = Look("", "", ground)
            yield from [before] * cell_len(character)
