"""A common start for the rows of a small Table 1 on ProntoQA: a model that can read such texts.

    python benchmarks/prontoqa_start.py --out runs/start
    python benchmarks/table1.py --tasks prontoqa --set model.init=runs/start/model model.vocab=full …

The papers' GPT-2 can read. A model from scratch that begins with ProntoQA itself still guesses when a small
table's steps are over: a text asks one thing, there are two facts to begin with, and a rule may be negated
(docs/log.md). So most texts of this start ask several things, one after the other, each with its CoT, or have
the rules told again; the rest, and all of the last part, are ProntoQA's of one hop, of other seeds than the
table's. Explicit CoT alone, in five parts, as it came to be: what a part lacked was seen from its model. The
settings are those of prontoqa-short but for those below. A part that is done is not done again; a stopped
one goes on.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trainer import Run, presets
from trainer.data import prontoqa
from trainer.data.layout import Line
from trainer.data.prontoqa import Property
from trainer.exporting import export

HELD_OUT = 400
SETTINGS: dict[str, Any] = {
    "device": "cpu", "method.name": "explicit_cot", "model.layers": 3, "schedule.steps_per_token": 100_000,
    "eval.every": 1_000,
}  # fmt: skip


class Texts(NamedTuple):
    """What a training file is drawn from.

    several, told: shares of the texts that ask several things, and that tell the rules again. asked: how many
    things, one of these. more: concepts that those asked for are as well. against: at most so many that have
    the opposite of what is to be concluded.
    """

    seed: int
    count: int
    several: float = 0.0
    told: float = 0.0
    asked: tuple[int, ...] = (1,)
    more: tuple[int, ...] = (0,)
    against: int = 1


class Part(NamedTuple):
    texts: Texts
    batch: int
    lr: float
    steps: int


FIRST = Texts(11, 100_000, 0.65, 0.0, (2, 2, 3, 3, 4, 5, 6), (0, 1, 2), 3)
SECOND = Texts(31, 200_000, 0.55, 0.15, (1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5), (0, 0, 1, 2), 2)
PARTS = (
    Part(FIRST, 64, 2e-3, 1_000),
    Part(FIRST, 16, 1.5e-3, 5_410),
    Part(SECOND, 16, 1.5e-3, 6_384),
    Part(SECOND, 16, 5e-4, 1_506),
    Part(Texts(100, 150_000), 32, 1e-3, 4_000),
)


def several(texts: Texts, chance: random.Random) -> dict[str, Any]:
    """A text that asks several things of one person, as Coconut's JSON has examples."""
    asked, more = chance.choice(texts.asked), chance.choice(texts.more)
    against = chance.randint(1, min(asked, texts.against))
    concepts = chance.sample(prontoqa.CONCEPTS, asked + more + against)
    own, others, unused = concepts[:asked], concepts[asked : asked + more], concepts[asked + more :]
    families = chance.sample(prontoqa.FAMILIES, asked + more)
    properties = [Property(chance.choice(family), chance.random() < 0.4) for family in families]
    told = [prontoqa.rule(c, p, chance) for c, p in zip([*own, *others], properties, strict=True)]
    rules = told + [prontoqa.rule_kind(chance.choice(own), other, chance) for other in others]
    for concept, number in zip(unused, chance.sample(range(asked), against), strict=True):
        rules.append(prontoqa.rule(concept, properties[number].opposite, chance))
    chance.shuffle(rules)
    who = chance.choice(prontoqa.NAMES)
    facts = [f"{who} is {prontoqa.a(concept)}." for concept in own]
    chance.shuffle(facts)
    lines = [" ".join([*rules, *facts])]
    for number in chance.sample(range(asked), asked):
        true, said = chance.random() < 0.5, properties[number]
        lines += [
            f"True or false: {who} is {said if true else said.opposite}.",
            f"{who} is {prontoqa.a(own[number])}. {told[number]}",
            f"{who} is {said}.",
            str(true),
        ]
    text, first, *steps, answer = lines
    return {"question": f"{text} {first}", "steps": steps, "answer": answer}


def told_again(line: Line, chance: random.Random) -> dict[str, Any]:
    """The rules of a text in another order, then its facts."""
    text = line.question.split(" True or false")[0]
    *rules, one, other = [f"{sentence}." for sentence in text.rstrip(".").split(". ")]
    steps = [*chance.sample(rules, len(rules)), *chance.sample([one, other], 2)]
    return {"question": text, "steps": steps, "answer": line.answer}


def examples(texts: Texts) -> Iterator[dict[str, Any]]:
    chance = random.Random(texts.seed)
    single, again = (prontoqa.lines(1, seed) for seed in (texts.seed, texts.seed + 1_000))
    for _ in range(texts.count):
        share = chance.random()
        if share < texts.several:
            yield several(texts, chance)
        elif share < texts.several + texts.told:
            yield told_again(next(again), chance)
        else:
            line = next(single)
            yield {"question": line.question, "steps": line.cot.split("\n"), "answer": line.answer}


def train(part: Part, before: Path | None, folder: Path) -> Path:
    """The model of this part, which began as the one `before`."""
    model = folder / "model"
    if model.exists():
        return model
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train": part.texts, "valid": Texts(12, HELD_OUT)}
    for name, texts in files.items():
        (folder / f"{name}.json").write_text(json.dumps(list(examples(texts))))
    begun = {} if before is None else {"model.init": str(before), "model.vocab": "full"}
    own: dict[str, Any] = {f"data.{name}_file": str(folder / f"{name}.json") for name in files}
    own |= {"data.train": part.texts.count, "stop.steps": part.steps}
    own |= {"optim.batch": part.batch, "optim.lr": part.lr}
    config = presets.resolve("prontoqa-short", {**SETTINGS, **begun, **own})
    run = Run(config, folder / "run", resume=(folder / "run").exists())
    run.start()
    run.wait()
    run.close()
    export.export(str(folder / "run"), model, id=None, out=folder)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the runs, their data and the model"
    )
    out = parser.parse_args().out.resolve()
    model = None
    for number, part in enumerate(PARTS[:-1], start=1):
        model = train(part, model, out / f"part-{number}")
        print(model, flush=True)
    train(PARTS[-1], model, out)


if __name__ == "__main__":
    main()
