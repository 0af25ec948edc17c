"""Held-out examples as text: a row each, one of them closer, and what they come to. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from textual.content import Content

from stepwise_tui.answers import Answers, Cell, Pair, aligned, by_place, table
from stepwise_tui.glyphs import Glyphs
from stepwise_tui.text import accuracy, clean, clip, clip_alike, clip_question, wrapped
from stepwise_tui.widgets.lines import FAINT, GONE, Piece, fit
from stepwise_tui.widgets.replies import thought_of
from stepwise_tui.widgets.system import sparkline
from trainer.events import ShownExample

WRONG = "bold reverse $error"
TRUE, QUESTION, GIVEN, SHOULD_BE = "true", "question", "given", "should be"
COT, COT_SHORT = "CoT: removed, spoken", "CoT"
LEAST_QUESTION, LEAST_THOUGHT = 12, 8
"""Cells, below which there is no point."""


class Layout(NamedTuple):
    """Cells of each column: verdict, question, true answer, each given answer, each CoT. 0: there is none."""

    verdict: int
    question: int
    true: int
    given: int
    thought: int


def layout(pairs: Sequence[Pair], names: Sequence[str], width: int, glyphs: Glyphs) -> Layout:
    """The columns of rows of `width` cells. names: of the models."""
    verdict = max(cell_len(glyphs.right), cell_len(glyphs.wrong))
    every = [shown for pair in pairs for shown in pair.answers]
    question = max((len(QUESTION), *(cell_len(_question(shown, glyphs)) for shown in every)))
    given = max((0, *(len(text) for shown in every for text in (clean(shown.given), shown.answer))))
    if len(names) > 1:
        named = max(given, *(cell_len(name) - verdict - 1 for name in names))
        width -= cell_len(glyphs.differs)
        found = _layout_of_two(verdict, question, given, named, width)
        left = width - 1 - found.question - 2 * (found.given + verdict + 3) - (found.true + 2)
        return found._replace(thought=_room_for_thoughts(every, left // 2 - 2))
    wrong = any(pair.wrong for pair in pairs)
    given = max(len(GIVEN), min(given, width // 4))
    true = max(given, len(SHOULD_BE)) if wrong else 0
    left = width - verdict - given - (true + 2 if true else 0) - 5
    # A question gives up what its CoT needs, and half of the room at most.
    thought = max(LEAST_THOUGHT, min(_room_for_thoughts(every, left), left // 2))
    question = min(question, max(LEAST_QUESTION, left - thought))
    return Layout(verdict, question, true, given, _room_for_thoughts(every, left - question))


def _room_for_thoughts(every: Sequence[ShownExample], room: int) -> int:
    """Cells for a CoT, of so many that are left; 0 where that is too little."""
    longest = max((len(s.cot) + sum(len(token) + 1 for token in s.spoken) for s in every), default=0)
    return min(room, max(longest, len(COT))) if room >= LEAST_THOUGHT else 0


def _layout_of_two(verdict: int, question: int, given: int, named: int, width: int) -> Layout:
    """Question, true answer, and both given, as wide as the names above them; less where there is no room."""
    room = width - 1 - 2 * (verdict + 3)
    true = max(given, len(TRUE))
    for cells in (named, given):
        left = room - 2 * cells - true - 2
        if left >= LEAST_QUESTION:
            return Layout(verdict, min(question, left), true, cells, 0)
    given = max(2, min(given, (room - LEAST_QUESTION) // 2))
    return Layout(verdict, min(question, room - 2 * given), 0, given, 0)


def _question(shown: ShownExample, glyphs: Glyphs) -> str:
    return clean(shown.question).replace("×", glyphs.times)


def head(sides: Sequence[Answers], columns: Layout, glyphs: Glyphs) -> Content:
    """What stands in which column."""
    question = _cells(QUESTION, columns.question)
    if len(sides) == 1:
        parts = [_cells("", columns.verdict), " ", question, "  ", _cells(GIVEN, columns.given, right=True)]
        if columns.true:
            parts += ["  ", _cells(SHOULD_BE, columns.true)]
        if columns.thought:
            cot = COT if columns.thought >= len(COT) else COT_SHORT
            parts += ["  ", _cells(cot, columns.thought)]
    else:
        parts = [_cells("", cell_len(glyphs.differs)), " ", question]
        if columns.true:
            parts += ["  ", _cells(TRUE, columns.true, right=True)]
        room = columns.given + 1 + columns.verdict
        parts += [text for side in sides for text in ("  ", _cells(side.name, room, right=True))]
        if columns.thought:
            parts += [text for side in sides for text in ("  ", _cells(f"CoT, {side.name}", columns.thought))]
    return Content.styled("".join(parts), FAINT)


def row(pair: Pair, columns: Layout, glyphs: Glyphs) -> Content:
    """An example in a line, as `columns` says. A wrong digit is reversed, and what it should be stands beside
    it."""
    first = pair.answers[0]
    asked = clip_question(clean(first.question), columns.question).replace("×", glyphs.times)
    question = Content.styled(_cells(asked, columns.question), "bold")
    if len(pair.answers) == 1:
        parts: list[Content | str] = [_verdict(first, columns.verdict, glyphs), " ", question]
        parts += ["  ", _given(first, columns.given)]
        if columns.true:
            parts += ["  ", _cells("" if first.correct else _should_be(first, columns.given), columns.true)]
        if columns.thought:
            parts += ["  ", thought_of(first, columns.thought, glyphs)]
        return Content.assemble(*parts)
    sign = glyphs.differs if pair.differs else ""
    parts = [Content.styled(_cells(sign, cell_len(glyphs.differs)), "bold $warning"), " ", question]
    if columns.true:
        true, *_ = clip_alike([clean(first.answer), *(clean(s.given) for s in pair.answers)], columns.true)
        parts += ["  ", _cells(true, columns.true, right=first.answer.isdecimal())]
    for shown in pair.answers:
        parts += ["  ", _given(shown, columns.given), " ", _verdict(shown, columns.verdict, glyphs)]
    if columns.thought:
        for shown in pair.answers:
            thought = thought_of(shown, columns.thought, glyphs)
            parts += ["  ", thought, " " * (columns.thought - thought.cell_length)]
    return Content.assemble(*parts)


def _verdict(shown: ShownExample, width: int, glyphs: Glyphs) -> Content:
    sign, style = (glyphs.right, "$success") if shown.correct else (glyphs.wrong, "$error")
    return Content.styled(_cells(sign, width), f"bold {style}")


def _given(shown: ShownExample, width: int) -> Content:
    """What was answered, its wrong digits or words reversed; numbers flush right."""
    said, wanted = aligned(shown.given, shown.answer)
    digits = shown.answer.isdecimal()
    gap = "" if digits and max(map(len, said)) <= 1 else " "
    pieces = [
        Content.styled(x or " ", "" if x.strip() == y.strip() else WRONG)
        for x, y in zip(said, wanted, strict=True)
        if x or not gap
    ]
    text = Content(gap).join(pieces)
    if text.cell_length > width:
        text = _cut(text, clip_alike((text.plain, clean(shown.answer)), width)[0])
    pad = Content(" " * (width - text.cell_length))
    return pad + text if digits else text + pad


def _cut(text: Content, to: str) -> Content:
    """`text` with its styles, of which `to` shows a part between ellipses."""
    part = to.strip("…")
    place = to.index(part)
    start = text.plain.rindex(part) if place else 0
    return Content.assemble(to[:place], text[start : start + len(part)], to[place + len(part) :])


def _should_be(shown: ShownExample, width: int) -> str:
    """The true answer with a dash for each digit that is right anyway; words in `width` cells, cut as the
    given ones are."""
    said, wanted = aligned(shown.given, shown.answer)
    if not shown.answer.isdecimal() or max(map(len, said)) > 1:
        return clip_alike((clean(shown.given), clean(shown.answer)), width)[1]
    return "".join("-" if x == y else y for x, y in zip(said, wanted, strict=True))


def _cells(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly so many cells, as `right` says flush."""
    text = clip(text, width)
    while cell_len(text) > width:  # of double width
        text = text[:-1]
    pad = " " * (width - cell_len(text))
    return pad + text if right else text + pad


def closer(pair: Pair, names: Sequence[str], width: int, glyphs: Glyphs) -> Content:
    """One example, token under token: the truth, then what each model wrote, with a mark under what is wrong.

    names: of the models.
    """
    first = pair.answers[0]
    true, rows = table(pair, glyphs.dot)
    sign = max(cell_len(glyphs.right), cell_len(glyphs.wrong))
    lead = min(24, max(map(len, (TRUE, *names))))
    room = max(10, width - lead - sign - 3)
    parts = [Content.styled(wrapped(f"{pair.number}. {_question(first, glyphs)}", width, 3), "bold")]
    for start, end, widths in _blocks([true, *rows], room):
        if start:
            parts.append(Content(""))
        parts.append(_line(TRUE, lead, true[start:end], widths))
        for name, cells, shown in zip(names, rows, pair.answers, strict=True):
            line = _line(name, lead, cells[start:end], widths)
            if end == len(true):
                line = Content.assemble(line, " ", _verdict(shown, sign, glyphs))
            parts.append(line)
            if any(cell.wrong for cell in cells[start:end]):
                parts.append(_marks(lead, cells[start:end], widths))
    return Content("\n").join(parts)


def _blocks(rows: Sequence[Sequence[Cell]], room: int) -> Iterator[tuple[int, int, list[int]]]:
    """Columns from … to … that fit side by side, and the cells that each takes."""
    columns = zip(*rows, strict=True)
    widths = [min(room, max(1, *(cell_len(cell.text) for cell in column))) for column in columns]
    start, taken = 0, 0
    for place, width in enumerate(widths):
        if place > start and taken + width > room:
            yield start, place, widths[start:place]
            start, taken = place, 0
        taken += width + 1
    yield start, len(widths), widths[start:]


def _line(name: str, lead: int, cells: Sequence[Cell], widths: Sequence[int]) -> Content:
    parts = [Content.styled(_cells(name, lead), FAINT)]
    for cell, width in zip(cells, widths, strict=True):
        style = "bold $error" if cell.wrong else f"bold {GONE}" if cell.gone and name != TRUE else ""
        parts.append(Content.styled(_cells(cell.text, width), FAINT if cell.gone and name == TRUE else style))
    return Content.assemble(parts[0], "  ", Content(" ").join(parts[1:]))


def _marks(lead: int, cells: Sequence[Cell], widths: Sequence[int]) -> Content:
    signs = ["^" if cell.wrong else "" for cell in cells]
    marks = " ".join(sign.ljust(width) for sign, width in zip(signs, widths, strict=True))
    return Content.styled(" " * (lead + 2) + marks.rstrip(), "bold $error")


def standing(side: Answers, width: int, glyphs: Glyphs) -> Content:
    """Whose answers they are, and how many are right."""
    at, share = side.at, side.correct / max(1, side.n)
    split = " test" if side.split == "test" else ""
    pieces = [
        Piece(Content.styled(side.name, "bold"), 0),
        Piece(Content(f"step {at.step:,}{glyphs.between}stage {at.stage}"), 2),
        Piece(Content(f"branch {at.branch}" if at.branch > 1 else ""), 3),
        Piece(Content.assemble((accuracy(share), "bold"), f" ({side.correct}/{side.n}{split})"), 0),
    ]
    places = by_place(side.examples)
    if places:
        bars = sparkline(places, len(places), glyphs, top=1.0)
        pieces.append(Piece(Content.assemble(("by digit ", FAINT), bars), 1))
    return fit([piece for piece in pieces if piece.text], width)


def tally(sides: Sequence[Answers], pairs: Sequence[Pair], glyphs: Glyphs) -> str:
    """How many of the examples that are shown are right."""
    if len(sides) < 2:
        every = f"{len(pairs)} of {side.n:,}" if (side := sides[0]).n > len(pairs) else f"{len(pairs)}"
        return f"{every} shown, {sum(pair.wrong for pair in pairs)} of these wrong"
    right = [tuple(shown.correct for shown in pair.answers) for pair in pairs]
    one, other = (side.name for side in sides)
    counts = (
        f"both right {right.count((True, True))}",
        f"both wrong {right.count((False, False))}",
        f"only {one} {right.count((True, False))}",
        f"only {other} {right.count((False, True))}",
    )
    return f"{len(pairs)} shown: {', '.join(counts)}"
