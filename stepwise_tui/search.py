"""The search of a graph that thoughts can be read as, frontier by frontier: lines of text for any screen."""

from __future__ import annotations

from stepwise_tui.glyphs import Glyphs
from stepwise_tui.output import thoughts_of
from trainer import graph
from trainer.analysis.thoughts import Tree, tree
from trainer.events import ChatAnswered

BAR = 20  # columns of a probability of 1
WIDE = 72
"""Columns that a line with its bar takes at most."""


def tree_lines(tree: Tree, glyphs: Glyphs, width: int = WIDE, what: str = "thoughts") -> list[str]:
    """The search of one question, frontier by frontier: each node with its probability, and whether it leads
    to the target. Where `width` has no room for bars there are none. what: the search is read from."""
    goal = f", asked for {tree.target}" if tree.target else ""
    lines = [f"{tree.root}{goal}"]
    longest = max((len(c.name) for one in tree.frontiers for c in one.candidates), default=0)
    for one in tree.frontiers:
        lines.append(f"after {one.thoughts} {what if one.thoughts > 1 else what.removesuffix('s')}")
        for c in one.candidates:
            bar = f"{glyphs.full * round(c.probability * BAR):<{BAR}}  " if width >= WIDE else ""
            way = f"leads to {tree.target}" if c.leads and c.name != tree.target else ""
            way = "the target" if c.name == tree.target else way
            height = f"{c.height} above a leaf" if c.height else "a leaf"
            about = ", ".join(filter(None, ("no leaf below" if c.height is None else height, way)))
            lines.append(f"  {glyphs.limb} {c.name:<{longest}}  {c.probability:.2f}  {bar}{about}")
    return lines


def search_lines(answered: ChatAnswered, per_step: int, glyphs: Glyphs, width: int = WIDE) -> list[str]:
    """The search that the thoughts before an answer can be read as, where the question tells of a graph.
    per_step: thoughts in the place of a step."""
    if not answered.frontiers:
        return []
    held = [{one.text: one.probability for one in nodes} for nodes in answered.frontiers]
    return tree_lines(tree(answered.question, graph.read(answered.question), held, per_step), glyphs, width)


def below(answered: ChatAnswered, per_step: int, glyphs: Glyphs) -> list[str]:
    """What stands below an answer in a shell, set in: its thoughts, and the search as above."""
    return [*thoughts_of(answered), *(f"  {line}" for line in search_lines(answered, per_step, glyphs))]
