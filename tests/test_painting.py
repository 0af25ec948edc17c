"""What is sent to the terminal makes the same screen as all of it would."""

from __future__ import annotations

from random import Random

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.geometry import Region, Size
from textual.strip import Strip

from stepwise_tui.painting import Painting

WIDTH, HEIGHT, CUT = 24, 4, 10
CONSOLE = Console(color_system="truecolor", force_terminal=True, width=WIDTH)
STYLES = [Style.parse(style) for style in ("red on black", "bold green on black", "white on blue")]


def strip(chance: Random, width: int) -> Strip:
    """A strip of exactly that width, with a wide character now and then."""
    segments = []
    while width:
        sign = chance.choice("abc ⠛世" if width > 1 else "abc ⠛")
        cells = cell_len(sign)
        count = chance.randint(1, width // cells)
        segments.append(Segment(sign * count, chance.choice(STYLES)))
        width -= cells * count
    return Strip(segments)


def update_of(seed: int) -> CompositorUpdate:
    chance = Random(seed)
    if seed % 5 == 0:
        rows = [[strip(chance, WIDTH)] for _ in range(HEIGHT)]
        return LayoutUpdate(rows, Region(0, 0, WIDTH, HEIGHT))  # type: ignore[arg-type]
    row = chance.randrange(HEIGHT)
    chops: list[dict[int, Strip | None]] = [{0: None, CUT: None} for _ in range(HEIGHT)]
    spans = []
    for y in range(row, min(HEIGHT, row + 2)):
        chops[y] = {0: strip(chance, CUT), CUT: strip(chance, WIDTH - CUT)}
        spans.append((y, 0, WIDTH))
    return ChopsUpdate(chops, spans, [[CUT, WIDTH]] * HEIGHT)


UPDATES = st.integers(0, 10**6).map(update_of)


def shown(screen: pyte.Screen) -> list[list[tuple[str, str, str, bool]]]:
    """Each cell's sign, colours and weight."""
    cells = [[screen.buffer[y][x] for x in range(WIDTH)] for y in range(HEIGHT)]
    return [[(c.data, c.fg, c.bg, c.bold) for c in row] for row in cells]


@settings(max_examples=100, deadline=None)
@given(st.lists(UPDATES, max_size=8))
def test_changes_alone_make_the_same_screen(story: list[CompositorUpdate]) -> None:
    painting = Painting()
    whole, changed = pyte.Screen(WIDTH, HEIGHT), pyte.Screen(WIDTH, HEIGHT)
    everything, little = pyte.Stream(whole), pyte.Stream(changed)
    for update in story:
        everything.feed(update.render_segments(CONSOLE))
        little.feed(painting.only_changes(update, Size(WIDTH, HEIGHT)).render_segments(CONSOLE))
        assert shown(changed) == shown(whole)


@settings(max_examples=50, deadline=None)
@given(UPDATES)
def test_what_is_there_is_not_sent_again(update: CompositorUpdate) -> None:
    painting = Painting()
    first = painting.only_changes(update, Size(WIDTH, HEIGHT)).render_segments(CONSOLE)
    again = painting.only_changes(update, Size(WIDTH, HEIGHT)).render_segments(CONSOLE)
    assert first
    assert isinstance(update, LayoutUpdate) or again == ""
    painting.forget()
    assert painting.only_changes(update, Size(WIDTH, HEIGHT)).render_segments(CONSOLE) == first


def test_one_cell_costs_one_cell() -> None:
    painting, size = Painting(), Size(WIDTH, 1)
    for text in ("step 1,000" + " " * 14, "step 1,001" + " " * 14):
        chops: list[dict[int, Strip | None]] = [{0: Strip([Segment(text, STYLES[0])])}]
        update = ChopsUpdate(chops, [(0, 0, WIDTH)], [[WIDTH]])
        sent = painting.only_changes(update, size).render_segments(CONSOLE)
    assert "1" in sent and "step" not in sent
