# ruff: noqa: SIM905 (lists of words)
"""ProntoQA: a chain of deductions over made-up concepts, with distractors (Coconut; Saparov and He).

What the official generator (github.com/asaparov/prontoqa, random order, relevant distractors) writes for
a chain of h hops, and what was counted in 800 of its examples:

- concepts c0…ch, each is the next lower; each of c1…ch is also a distractor d1…dh; an ontology of two
  more concepts stands apart;
- a property of a family of its own for c1…ch, d1…dh and the child of the ontology apart;
- a last concept, nothing else is said of, has the opposite of what is to be concluded;
- all these rules in random order, then two facts: somebody is a ch, and the child of the ontology apart.

Is the property of c1 true of them? A rule is in the plural or in the singular, then with "every" or "each",
with equal chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from trainer.data.files import Contents
from trainer.data.layout import Line, make_line
from trainer.data.made import MadeTask
from trainer.seeds import derive

NAMES = "Fae Rex Sally Max Alex Sam Polly Stella Wren".split()
CONCEPTS = (
    "wumpus yumpus zumpus dumpus rompus numpus tumpus vumpus impus jompus gorpus shumpus lempus sterpus "
    "grimpus lorpus brimpus"
).split()
FAMILIES = [
    family.split()
    for family in (
        "blue red brown orange",
        "small large",
        "metallic wooden luminous liquid",
        "transparent opaque",
        "nervous happy feisty shy",
        "bright dull",
        "sweet sour spicy bitter",
        "floral fruity earthy",
        "hot cold temperate",
        "kind mean angry amenable aggressive",
        "melodic muffled discordant loud",
        "slow moderate fast",
        "windy sunny overcast rainy snowy",
    )
]
PLURALS = [f"{concept}es" for concept in CONCEPTS]
WORDS = (
    *NAMES,
    *CONCEPTS,
    *PLURALS,
    *(plural.capitalize() for plural in PLURALS),
    *(word for family in FAMILIES for word in family),
    *"Every Each is are not a an True False or false".split(),
)
MARKS = ".:"

MOST_HOPS = min((len(CONCEPTS) - 4) // 2, (len(FAMILIES) - 1) // 2)

NEGATED = 1 / 3  # of the properties that nothing is concluded from
PASSED, CONCLUDED = 0.277, 0.471
"""Of c2…ch, and of c1. The official generator draws all as 1/3 and then walks up from ch: it ends at a
property with a weight of .3, of .7 where it is negated, against 1 for going on, and what does not end at c1
is drawn anew. So ⅓/1.7 against ⅔/1.3, and ⅓·.7/1.7 against ⅔·.3/1.3."""


class Property(NamedTuple):
    """What a concept or somebody is, or is not."""

    word: str
    negated: bool

    @property
    def opposite(self) -> Property:
        return Property(self.word, not self.negated)

    def __str__(self) -> str:
        return f"not {self.word}" if self.negated else self.word


class ProntoQA(MadeTask):
    """The task of following the chain. A `Task`."""

    def __init__(self, hops: int, load: Callable[[], dict[str, Contents]], *, own_words: bool) -> None:
        super().__init__("ProntoQA", partial(lines, hops), WORDS, MARKS, load, own_words=own_words)


def lines(hops: int, seed: int) -> Iterator[Line]:
    """Examples without end, a function of the seed. hops: 1 to MOST_HOPS."""
    chance = random.Random(derive(seed, "prontoqa", hops))
    while True:
        yield line(hops, chance)


def line(hops: int, chance: random.Random) -> Line:
    """An example of so many hops."""
    concepts = chance.sample(CONCEPTS, 2 * hops + 4)
    chain, distractors = concepts[: hops + 1], concepts[hops + 1 : -3]
    apart, child, unused = concepts[-3:]
    families = chance.sample(FAMILIES, 2 * hops + 1)
    shares = [CONCLUDED, *[PASSED] * (hops - 1), *[NEGATED] * (hops + 1)]
    properties = [
        Property(chance.choice(family), chance.random() < share)
        for family, share in zip(families, shares, strict=True)
    ]
    upward = [rule_kind(lower, upper, chance) for upper, lower in pairwise(chain)]
    told = [
        rule(of, what, chance) for of, what in zip([*chain[1:], *distractors, child], properties, strict=True)
    ]
    sideways = [
        rule_kind(lower, upper, chance)
        for lower, upper in zip([*chain[1:], child], [*distractors, apart], strict=True)
    ]
    concluded = properties[0]
    rules = [*upward, *told, *sideways, rule(unused, concluded.opposite, chance)]
    chance.shuffle(rules)
    who = chance.choice(NAMES)
    facts = [f"{who} is {a(chain[-1])}.", f"{who} is {a(child)}."]
    start = facts[0]
    chance.shuffle(facts)
    is_true = chance.random() < 0.5
    asked = concluded if is_true else concluded.opposite
    question = " ".join([*rules, *facts, f"True or false: {who} is {asked}."])
    thought = [start]
    for number in range(hops, 1, -1):
        thought += [upward[number - 1], f"{who} is {a(chain[number - 1])}."]
    thought += [told[0], f"{who} is {concluded}."]
    return make_line(question, "\n".join(paired(thought)), str(is_true))


def paired(sentences: Sequence[str]) -> list[str]:
    """The CoT's sentences two and two, as the papers' steps are."""
    return [" ".join(sentences[i : i + 2]) for i in range(0, len(sentences), 2)]


def rule_kind(lower: str, upper: str, chance: random.Random) -> str:
    """That all of one concept are another as well."""
    if chance.random() < 0.5:
        return f"{lower.capitalize()}es are {upper}es."
    return f"{chance.choice(('Every', 'Each'))} {lower} is {a(upper)}."


def rule(of: str, what: Property, chance: random.Random) -> str:
    """That all of a concept have a property."""
    if chance.random() < 0.5:
        return f"{of.capitalize()}es are {what}."
    return f"{chance.choice(('Every', 'Each'))} {of} is {what}."


def a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
