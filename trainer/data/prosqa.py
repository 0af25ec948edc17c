# ruff: noqa: SIM905 (lists of words)
"""ProsQA: is somebody this or that? A way through a graph of made-up concepts has to be found (Coconut).

The appendix of the paper tells how its graphs were made, and the published files are not so; the following
gives what they have in every field that was looked at: nodes, edges, labels, steps, leaves. Of N nodes the
first two are roots, labelled 1 and 2. Each further one has Poisson(1.5) parents: all from nodes of label 1
alone, all of label 2 alone, or from any (.35, .45, .2), drawn without replacement, a node by its weight
1.5·depth + 1; its label is the union of theirs, 0 without parents. Nodes without an edge go. The question
is about the root whose farthest leaf of its own label alone is farther, and asks whether it is that leaf or
one of the other root's label alone; at least three steps lie between. In the published files there are
never more than six; of graphs of their size, one in 200 would have more, and is left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, count

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainer import graph
from trainer.data.files import Contents, DataError
from trainer.data.layout import Line, make_line
from trainer.data.made import MadeTask
from trainer.data.task import NotUnderstood, Problem
from trainer.graph import Graph
from trainer.methods.base import Examples
from trainer.seeds import derive, generator

NAMES = "Alex Bob Carol Davis Eva Fae Gabriel Jack Max Oliver Polly Rex Sally Sam Stella Tom Wren".split()
NOUNS = (
    "bompus boompus brimpus chorpus dumpus felpus fompus gerpus gorpus grimpus gwompus hilpus impus jelpus "
    "jompus kerpus lempus lorpus numpus quimpus rempus rompus rorpus scrompus shumpus sterpus storpus terpus "
    "timpus tumpus vumpus worpus wumpus yerpus yimpus yumpus zhorpus zumpus"
).split()
OTHERS = ("Every", "Is", "is", "a", "or")
MARKS = ".?"
WORD = re.compile(r"\w+")

PARENTS = 1.5  # mean of the Poisson distribution
ONE, OTHER = 0.35, 0.45  # how often all parents are of label 1 alone, and of label 2 alone
DEEPER = 1.5  # what a step from a root adds to a node's weight
ROOTS, LABELS = (0, 1), (1, 2)
SHORTEST, LONGEST = 3, 6  # steps
PUBLISHED = 28  # nodes
BLOCK = 256  # graphs grown at once


class ProsQA(MadeTask):
    """The task of finding the way. A `Task`."""

    def __init__(
        self, nodes: int, nouns: int, load: Callable[[], dict[str, Contents]], *, own_words: bool
    ) -> None:
        words = (*NAMES, *NOUNS[:nouns], *OTHERS)
        super().__init__("ProsQA", partial(lines, nodes, nouns), words, MARKS, load, own_words=own_words)
        self._nouns = nouns

    def splits(
        self, sizes: Mapping[str, int], seed: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Examples]:
        try:
            return super().splits(sizes, seed, tokenizer)
        except ValueError as error:
            lines = [line for contents in self._contents.values() for line in contents.lines]
            if set(NOUNS[self._nouns :]).isdisjoint(WORD.findall(" ".join(chain.from_iterable(lines)))):
                raise
            raise DataError(
                f"{error}. The files have more nouns than data.nouns = {self._nouns}; all that there are: "
                f"--set data.nouns={len(NOUNS)}"
            ) from None

    def understand(self, text: str) -> Problem:
        problem = super().understand(text)
        try:
            known = graph.read(problem.question)
        except ValueError as error:
            raise NotUnderstood(f"It cannot read this: {error}. {self._can()}") from None
        target = known.target
        if problem.expected or target is None:
            return problem
        return problem._replace(expected=known.answer(target), cot="\n".join(known.steps(target)))


def lines(nodes: int, nouns: int, seed: int) -> Iterator[Line]:
    """Examples without end, a function of the seed.

    nodes: of a graph before those without an edge go. nouns: of how many they are named.
    """
    for block in count():
        chance = random.Random(derive(seed, "prosqa", nodes, "words", block))
        for parents, labels in _grown(nodes, generator(seed, "prosqa", nodes, "graphs", block)):
            found = asked_about(parents, labels, NOUNS[:nouns], chance)
            if found is None:
                continue
            told = line(*found, chance)  # also where it is left out, so that what follows stays as it is
            known, target = found
            if nodes != PUBLISHED or known.depth[target] <= LONGEST:
                yield told


def line(known: Graph, target: int, chance: random.Random) -> Line:
    """The example of a graph whose root is the target, its sentences in a random order."""
    told = [known.sentence(*edge) for edge in known.edges]
    chance.shuffle(told)
    return make_line(" ".join([*told, known.query()]), "\n".join(known.steps(target)), known.answer(target))


def asked_about(
    parents: list[list[int]], labels: list[int], names: list[str], chance: random.Random
) -> tuple[Graph, int] | None:
    """A question about a grown graph, names drawn, with what is right; None where no way is long enough."""
    edges = [(node, child) for child, above in enumerate(parents) for node in above]
    children = graph.adjacent(len(labels), edges)
    ways = [graph.distances(children, [root]) for root in ROOTS]
    leaves = [
        [node for node in way if labels[node] == label and not children[node] and way[node]]
        for way, label in zip(ways, LABELS, strict=True)
    ]
    if not all(leaves):
        return None
    farthest = [max(way[leaf] for leaf in own) for way, own in zip(ways, leaves, strict=True)]
    if max(farthest) < SHORTEST:
        return None
    root = chance.choice([root for root in ROOTS if farthest[root] == max(farthest)])
    target = chance.choice([leaf for leaf in leaves[root] if ways[root][leaf] == farthest[root]])
    asked = [target, chance.choice(leaves[1 - root])]
    chance.shuffle(asked)
    kept = sorted({node for edge in edges for node in edge})
    number = {node: new for new, node in enumerate(kept)}
    people_count = sum(not parents[node] for node in kept)
    people = iter(chance.sample(NAMES, people_count))
    nouns = iter(chance.sample(names, len(kept) - people_count))
    told = Graph(
        tuple(next(nouns if parents[node] else people) for node in kept),
        tuple((number[node], number[child]) for node, child in edges),
        number[root],
        (number[asked[0]], number[asked[1]]),
    )
    return told, number[target]


def _grown(nodes: int, chance: torch.Generator) -> Iterator[tuple[list[list[int]], list[int]]]:
    """The parents of each node and its label, of one graph after the other."""
    is_parent_BNN, labels_BN = grow(nodes, BLOCK, chance)
    parents: list[list[list[int]]] = [[[] for _ in range(nodes)] for _ in range(BLOCK)]
    for number, child, node in is_parent_BNN.nonzero().tolist():
        parents[number][child].append(node)
    return zip(parents, labels_BN.tolist(), strict=True)


def grow(nodes: int, graphs: int, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Graphs grown node by node: whether the third index is a parent of the second, and the labels."""
    is_parent_BNN = torch.zeros(graphs, nodes, nodes, dtype=torch.bool)
    labels_BN = torch.zeros(graphs, nodes, dtype=torch.long)
    labels_BN[:, list(ROOTS)] = torch.tensor(LABELS)
    depth_BN = torch.zeros(graphs, nodes)
    for child in range(len(ROOTS), nodes):
        wanted_B1 = torch.poisson(torch.full((graphs, 1), PARENTS), generator=chance)
        which_B1 = torch.rand(graphs, 1, generator=chance)
        before_BC, above_BC = labels_BN[:, :child], depth_BN[:, :child]
        one_BC, other_BC = before_BC == LABELS[0], before_BC == LABELS[1]
        may_BC = torch.where(which_B1 < ONE, one_BC, other_BC | (which_B1 >= ONE + OTHER))
        # The least of exponential times, each with its weight as its rate: a draw without replacement.
        time_BC = torch.empty(graphs, child).exponential_(generator=chance) / (DEEPER * above_BC + 1)
        time_BC = time_BC.masked_fill(~may_BC, torch.inf)
        chosen_BC = (time_BC.argsort(1).argsort(1) < wanted_B1) & may_BC
        is_parent_BNN[:, child, :child] = chosen_BC
        for label in LABELS:
            labels_BN[:, child] |= label * (chosen_BC & (before_BC & label > 0)).any(1)
        nearest_B = above_BC.masked_fill(~chosen_BC, torch.inf).min(1).values
        depth_BN[:, child] = torch.where(chosen_BC.any(1), nearest_B + 1, 0)
    return is_parent_BNN, labels_BN
