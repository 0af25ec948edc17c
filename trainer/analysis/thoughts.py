"""What thoughts hold: the nodes that the next step may begin at, with probabilities (Coconut, Figures 7–9).

After k thoughts a model that is made to speak says step k + 1, "Every X is a Y.": X is a node that k steps
lead to, and its probability says how promising the model holds it. So thoughts can be read as a breadth-first
search of the graph. Pure; `measure_thoughts` asks the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Literal, get_args

from trainer.graph import Graph

TOP = (1, 2, 3)
"""Of how many candidates Figure 8 adds up the probabilities."""
PERCENTILES = tuple(range(0, 101, 10))

Path = Literal[
    "correct path",
    "longer path",
    "wrong target",
    "unfinished",
    "hallucination",
    "right answer",
    "wrong answer",
]
PATHS: tuple[Path, ...] = get_args(Path)
"""What a model spoke of the way: a shortest way to the target, a longer one, a way to another end, one that
stops where it could go on, an edge that is not there; or the answer alone, right or wrong (Coconut, section
5, which has none that stop)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that the next step may begin at.

    depth: fewest steps from the root. height: fewest steps down to a leaf; None where there is none below.
    leads: whether the target can be reached from it. probability: that the model names it, among all words.
    """

    name: str
    depth: int
    height: int | None
    leads: bool
    probability: float


@dataclass(frozen=True, slots=True)
class Frontier:
    """After so many thoughts: the candidates, the likeliest first."""

    thoughts: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """The search that the thoughts about one question can be read as. target: "" where nobody knows it."""

    question: str
    root: str
    target: str
    frontiers: tuple[Frontier, ...]


@dataclass(frozen=True, slots=True)
class Parallel:
    """How the probability is spread after so many thoughts (Figure 8).

    top: of how many candidates it is added up. percentiles: of that sum over the examples, at PERCENTILES.
    """

    thoughts: int
    top: int
    n: int
    mean: float
    percentiles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class AtHeight:
    """Candidates of one height after so many thoughts: how many, and their probability (Figure 9)."""

    thoughts: int
    height: int
    leads: bool
    n: int
    mean: float


@dataclass(frozen=True, slots=True)
class Forced:
    """Made to speak after so many thoughts. trained: whether it ever learnt to. paths: the share of each of
    PATHS, of the examples with a graph; empty without any."""

    thoughts: int
    trained: bool
    n: int
    accuracy: float
    paths: dict[Path, float]


@dataclass(frozen=True, slots=True)
class Thoughts:
    """All of it for one checkpoint.

    what: stands in the place of steps; per_step: so many for each. n: examples. graphs: how many of them tell
    of one; the search is over these. trees: of the examples that were asked for by number, else of the first
    with a graph.
    """

    checkpoint: str
    what: Literal["thoughts", "pauses"]
    per_step: int
    n: int
    graphs: int
    trees: tuple[Tree, ...]
    parallel: tuple[Parallel, ...]
    heights: tuple[AtHeight, ...]
    forced: tuple[Forced, ...]


def frontier(known: Graph, steps: int, probabilities: Mapping[str, float], per_step: int = 1) -> Frontier:
    """The nodes that so many steps lead to. probabilities: by name; 0 where one has none. per_step: thoughts
    in the place of a step."""
    depth, height, target = known.depth, known.height, known.target
    leading = {} if target is None else known.leading_to(target)
    candidates = (
        Candidate(
            known.names[node],
            depth[node],
            height.get(node),
            node in leading,
            probabilities.get(known.names[node], 0.0),
        )
        for node in known.reached(steps)
    )
    return Frontier(steps * per_step, tuple(sorted(candidates, key=lambda one: -one.probability)))


def tree(
    question: str, known: Graph, probabilities: Iterable[Mapping[str, float]], per_step: int = 1
) -> Tree:
    """The search of one question. probabilities: by name, after the thoughts of the first step, of the
    second, …; a frontier that nothing is left of is no part of it. per_step: thoughts in the place of a step.
    """
    frontiers = (
        frontier(known, steps, found, per_step) for steps, found in enumerate(probabilities, start=1)
    )
    target = known.target
    return Tree(
        question,
        known.names[known.root],
        "" if target is None else known.names[target],
        tuple(one for one in frontiers if one.candidates),
    )


def parallel(trees: Sequence[Tree]) -> list[Parallel]:
    """How much the likeliest candidates have together, thought by thought; only where there is a choice."""
    found = []
    for thoughts, frontiers in _by_thoughts(trees).items():
        open_ = [one for one in frontiers if len(one.candidates) > 1]
        for top in TOP if open_ else ():
            sums = sorted(sum(c.probability for c in one.candidates[:top]) for one in open_)
            at = tuple(sums[round(share / 100 * (len(sums) - 1))] for share in PERCENTILES)
            found.append(Parallel(thoughts, top, len(sums), mean(sums), at))
    return found


def at_heights(trees: Sequence[Tree]) -> list[AtHeight]:
    """The probability of candidates by their height, those that lead to the target and the others apart.
    Those above no leaf are left out."""
    found = []
    for thoughts, frontiers in _by_thoughts(trees).items():
        groups: dict[tuple[int, bool], list[float]] = {}
        for one in (candidate for frontier_ in frontiers for candidate in frontier_.candidates):
            if one.height is not None:
                groups.setdefault((one.height, one.leads), []).append(one.probability)
        found += [
            AtHeight(thoughts, *key, len(values), mean(values)) for key, values in sorted(groups.items())
        ]
    return found


def _by_thoughts(trees: Iterable[Tree]) -> dict[int, list[Frontier]]:
    found: dict[int, list[Frontier]] = {}
    for one in (frontier_ for tree_ in trees for frontier_ in tree_.frontiers):
        found.setdefault(one.thoughts, []).append(one)
    return dict(sorted(found.items()))


def path(known: Graph, thoughts: int, spoken: Sequence[str], right: bool) -> Path:
    """What a model spoke of the way after so many thoughts. spoken: its sentences. right: its answer."""
    if not spoken:
        return "right answer" if right else "wrong answer"
    edges = {known.sentence(*edge): edge for edge in known.edges}
    way = [edges.get(sentence) for sentence in spoken]
    steps = [edge for edge in way if edge is not None]
    joined = all(one[1] == next_[0] for one, next_ in pairwise(steps))
    if len(steps) < len(way) or not joined or steps[0][0] not in known.reached(thoughts):
        return "hallucination"
    end = steps[-1][1]
    if end != known.target:
        return "unfinished" if known.children[end] and end not in known.asked else "wrong target"
    shortest = known.depth[end]
    return "correct path" if thoughts + len(steps) == shortest else "longer path"


def shares(paths: Sequence[Path]) -> dict[Path, float]:
    """The share of each; nothing of none."""
    return {one: paths.count(one) / len(paths) for one in PATHS} if paths else {}
