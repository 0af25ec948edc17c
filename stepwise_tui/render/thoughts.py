"""What thoughts hold: the search of a question, how parallel it is, what is said when made to speak."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from stepwise_tui.output import table
from stepwise_tui.render import picture
from stepwise_tui.render.screen import Screen
from stepwise_tui.search import tree_lines
from stepwise_tui.text import accuracy
from trainer.analysis.thoughts import PERCENTILES, TOP, Path, Thoughts

HEADS: dict[Path, str] = {
    "correct path": "shortest",
    "longer path": "longer",
    "wrong target": "other",
    "unfinished": "unfinished",
    "hallucination": "made up",
    "right answer": "right",
    "wrong answer": "wrong",
}
WAYS = (
    "shortest, longer: ways that it told to the target; other: to another end;\n"
    "unfinished: one that stops before; made up: one with an edge that is not there;\n"
    "right, wrong: the answer alone"
)


def show(found: Thoughts, out: Screen) -> None:
    """All of it as text."""
    blocks = ["\n".join(remarks)] if (remarks := list(_remarks(found))) else []
    blocks += ["\n".join(tree_lines(tree, out.glyphs, what=found.what)) for tree in found.trees]
    if found.parallel:
        head = (found.what, "questions", *(f"top {top}" for top in TOP))
        by_thoughts: dict[int, dict[int, Any]] = {}
        for row in found.parallel:
            by_thoughts.setdefault(row.thoughts, {})[row.top] = row
        rows = [
            (str(k), str(own[TOP[0]].n), *(f"{own[top].mean:.2f}" for top in TOP))
            for k, own in by_thoughts.items()
        ]
        blocks.append("Probability of the likeliest nodes together, mean\n\n" + table(head, rows))
    if found.heights:
        head = (found.what, "height", "leads to the target", "others")
        blocks.append(
            "Probability of a node by its height, mean (nodes)\n\n" + table(head, list(_heights(found)))
        )
    ways = list(found.forced[0].paths)
    head = (found.what, "accuracy", *(HEADS[way] for way in ways))
    rows = [
        (str(one.thoughts), accuracy(one.accuracy), *(f"{share:.0%}" for share in one.paths.values()))
        for one in found.forced
    ]
    title = f"Made to speak after so many {found.what}, {found.n} test examples"
    blocks.append("\n".join([title, *([WAYS] if ways else []), "", table(head, rows)]))
    out.print("\n\n".join(blocks))


def _remarks(found: Thoughts) -> Iterator[str]:
    """What the tables cannot tell, or tell of what was never learnt."""
    if not found.graphs:
        yield f"No question of {found.n} tells of a graph, so there is no search to be shown."
    elif found.graphs < found.n:
        few = f"Questions that tell of no graph: {found.n - found.graphs} of {found.n}"
        yield f"{few}; search and ways are those of the other {found.graphs}."
    never = []
    for trained, rows in groupby(found.forced, lambda row: row.trained):
        first, *others = (row.thoughts for row in rows)
        if not trained:
            never.append(f"{first} to {others[-1]}" if others else str(first))
    if found.per_step > 1:
        never.append(f"any that is no multiple of {found.per_step}")
    if never:
        yield f"Never trained to speak after so many {found.what}: {', '.join(never)}."


def _heights(found: Thoughts) -> Iterator[tuple[str, ...]]:
    by_height: dict[tuple[int, int], dict[bool, str]] = {}
    for row in found.heights:
        cell = f"{row.mean:.2f} ({row.n})"
        by_height.setdefault((row.thoughts, row.height), {})[row.leads] = cell
    for (k, height), cells in by_height.items():
        yield str(k), str(height), cells.get(True, ""), cells.get(False, "")


def plot(found: Thoughts, axes: Any) -> None:
    """Parallelism, value by height, and accuracy when made to speak, side by side on matplotlib's figure."""
    figure = axes.figure
    axes.remove()
    figure.set_size_inches(picture.INCHES[0] * 1.7, picture.INCHES[1])
    left, middle, right = figure.subplots(1, 3)
    _plot_parallel(found, left)
    _plot_heights(found, middle)
    right.plot(
        [o.thoughts for o in found.forced], [o.accuracy for o in found.forced], "-o", color=picture.COLOURS[0]
    )
    for counted in (middle, right):
        counted.xaxis.get_major_locator().set_params(integer=True)
    right.set(xlabel=f"{found.what} before it speaks", ylabel="accuracy", ylim=(-0.02, 1.05))


def _plot_parallel(found: Thoughts, axes: Any) -> None:
    first_two = sorted({row.thoughts for row in found.parallel})[:2]
    what = found.what.removesuffix("s")
    for row in found.parallel:
        if row.thoughts in first_two:
            label = f"top {row.top}, {what} {row.thoughts}"
            style = picture.DASHES[first_two.index(row.thoughts)]
            colour = picture.COLOURS[TOP.index(row.top)]
            axes.plot(PERCENTILES, row.percentiles, linestyle=style, color=colour, label=label)
    axes.set(xlabel="percentile of questions", ylabel="probability together", ylim=(-0.02, 1.05))
    if found.parallel:
        axes.legend(fontsize=7)


def _plot_heights(found: Thoughts, axes: Any) -> None:
    what = found.what.removesuffix("s")
    first_two = sorted({row.thoughts for row in found.heights})[:2]
    for thoughts, style, marker in zip(first_two, picture.DASHES, "o^", strict=False):
        for leads in (True, False):
            rows = [row for row in found.heights if (row.thoughts, row.leads) == (thoughts, leads)]
            axes.plot(
                [row.height for row in rows],
                [row.mean for row in rows],
                marker=marker,
                markerfacecolor=None if leads else "none",
                linestyle=style,
                color=picture.COLOURS[0 if leads else 1],
                label=f"{'leads to the target' if leads else 'others'}, {what} {thoughts}",
            )
    axes.set(xlabel="height above a leaf", ylabel="probability of a node", ylim=(-0.02, 1.05))
    if found.heights:
        axes.legend(fontsize=7)
