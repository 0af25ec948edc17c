"""The graph that a ProsQA question tells: read from its sentences, and what can be told of its nodes.

    Tom is a terpus. Every terpus is a brimpus. … Is Tom a lempus or scrompus?

An edge leads from what something is said of to what is said of it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

EDGE = re.compile(r"(?:Every )?(\w+) is an? (\w+)\.\s*")
ASKED = re.compile(r"Is (\w+) an? (\w+) or (?:an? )?(\w+)\?\s*")
AN = re.compile(r"\ban (\w+)")


@dataclass(frozen=True, slots=True)
class Graph:
    """names: of the nodes, by number. edges: (node, what it is). root: the node asked about. asked: the two
    nodes it may be, in the order of the question. an: the names that "an" stands before; "a" before the
    others, as the published data have it. Names with a capital are people, who are told of without
    "Every"."""

    names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    root: int
    asked: tuple[int, int]
    an: frozenset[str] = frozenset()

    @property
    def children(self) -> list[list[int]]:
        """What each node is, in the order of the edges."""
        return adjacent(len(self.names), self.edges)

    @property
    def parents(self) -> list[list[int]]:
        """What is said to be each node."""
        return adjacent(len(self.names), [(child, node) for node, child in self.edges])

    @property
    def depth(self) -> dict[int, int]:
        """The shortest way from the root to each node that can be reached."""
        return distances(self.children, [self.root])

    @property
    def height(self) -> dict[int, int]:
        """The shortest way from each node down to any leaf (Coconut)."""
        leaves = [node for node, below in enumerate(self.children) if not below]
        return distances(self.parents, leaves)

    @property
    def target(self) -> int | None:
        """The one of the two asked for that the root is; None where it is neither or both."""
        depth = self.depth
        reached = [node for node in self.asked if node in depth]
        return reached[0] if len(reached) == 1 else None

    def reached(self, steps: int) -> list[int]:
        """The nodes that exactly so many steps lead to from the root."""
        children, nodes = self.children, {self.root}
        for _ in range(steps):
            nodes = {child for node in nodes for child in children[node]}
        return sorted(nodes)

    def frontiers(self, steps: int) -> list[list[str]]:
        """The names of those that one step leads to, two, …, at most so many, as far as there are any."""
        found = [[self.names[node] for node in self.reached(k)] for k in range(1, steps + 1)]
        return [names for names in found if names]

    def leading_to(self, target: int) -> dict[int, int]:
        """The nodes from which the target can be reached, with the shortest way to it."""
        return distances(self.parents, [target])

    def path(self, target: int) -> list[int]:
        """A shortest way from the root to the target, both with it. The target can be reached."""
        left, children = self.leading_to(target), self.children
        way = [self.root]
        while way[-1] != target:
            way.append(min((node for node in children[way[-1]] if node in left), key=left.__getitem__))
        return way

    def sentence(self, node: int, child: int) -> str:
        """What the question says of an edge."""
        name = self.names[node]
        return f"{name if name[0].isupper() else f'Every {name}'} is {self._one(child)}."

    def steps(self, target: int) -> list[str]:
        """The sentences on a shortest way to the target, which can be reached."""
        return [self.sentence(*edge) for edge in pairwise(self.path(target))]

    def answer(self, target: int) -> str:
        """What is said when the root is the target."""
        return f"{self.names[self.root]} is {self._one(target)}."

    def query(self) -> str:
        """The question after all sentences."""
        one, other = self.asked
        return f"Is {self.names[self.root]} {self._one(one)} or {self.names[other]}?"

    def _one(self, node: int) -> str:
        name = self.names[node]
        return f"{'an' if name in self.an else 'a'} {name}"


def read(question: str) -> Graph:
    """The graph of a question, its nodes numbered as they come. Raises `ValueError` for any other text."""
    numbers: dict[str, int] = {}
    edges = []
    at = 0
    while match := EDGE.match(question, at):
        node, child = (numbers.setdefault(name, len(numbers)) for name in match.groups())
        edges.append((node, child))
        at = match.end()
    asked = ASKED.fullmatch(question, at)
    if asked is None:
        raise ValueError(f"{question[at : at + 40]!r} is neither 'Every X is a Y.' nor 'Is X a Y or Z?'")
    missing = [name for name in asked.groups() if name not in numbers]
    if missing:
        raise ValueError(f"nothing is said of {missing[0]}, which is asked about")
    root, one, other = (numbers[name] for name in asked.groups())
    return Graph(tuple(numbers), tuple(edges), root, (one, other), frozenset(AN.findall(question)))


def adjacent(nodes: int, edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Where each node's edges lead."""
    found: list[list[int]] = [[] for _ in range(nodes)]
    for node, child in edges:
        found[node].append(child)
    return found


def distances(next_to: Sequence[Sequence[int]], starts: Iterable[int]) -> dict[int, int]:
    """The shortest way to each node that can be reached from any of `starts`."""
    found = dict.fromkeys(starts, 0)
    queue = list(found)
    for node in queue:  # which grows meanwhile
        for child in next_to[node]:
            if child not in found:
                found[child] = found[node] + 1
                queue.append(child)
    return found
