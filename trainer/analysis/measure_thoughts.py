"""What a checkpoint's thoughts hold, asked of its model: what `thoughts` is made of. Needs torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from trainer import graph
from trainer.analysis import thoughts
from trainer.analysis.thoughts import Forced, Path, Thoughts, Tree
from trainer.answering.evaluate import CHUNK, answer_room, answer_text, questions, true_answers
from trainer.asking.frontiers import probabilities
from trainer.asking.inspection import Loaded, held_out
from trainer.data import layout
from trainer.methods.base import Examples, Model
from trainer.methods.coconut import Coconut


class ThoughtsError(ValueError):
    """A model whose thoughts cannot be looked at; the message says why."""


def measure(
    loaded: Loaded, limit: int | None, shown: Sequence[int], told: Callable[[str], None] = lambda text: None
) -> Thoughts:
    """All of it, on the test split.

    limit: at most so many examples, the first. shown: the examples whose trees are wanted, from 1; none:
    the first that tells of a graph. told: hears how far it is. Raises `ThoughtsError` for a method without
    thoughts, or examples that are not there or tell of no graph, and what `held_out` raises.
    """
    parts = loaded.parts
    method = parts.method
    if not isinstance(method, Coconut):
        raise ThoughtsError(f"{loaded.id} has no thoughts: its method is neither coconut nor pause")
    if not method.thinks:
        raise ThoughtsError(f"{loaded.id} has no thoughts: it was trained with method.no_thought = true")
    whole = held_out(loaded, "test")
    examples = whole[:limit]
    known = _graphs(loaded, examples)
    for number in shown:
        if not 1 <= number <= len(examples):
            all_ = f"the test examples are 1 to {len(whole)}"
            few = f"it is not of the first {len(examples)} (--limit)"
            raise ThoughtsError(f"--example {number}: {all_ if len(examples) == len(whole) else few}")
        if number - 1 not in known:
            raise ThoughtsError(f"--example {number}: its question tells of no graph")
    with loaded.compute.answering(parts.model):
        trees = {}
        for place, (line, one) in known.items():
            trees[place] = _tree(method, parts.model, parts.tokenizer, line, one)
            if len(trees) % 20 == 0:
                told(f"looked into the {method.what} about {len(trees)} of {len(known)} questions")
        forced = []
        for count in range(method.last + 1):
            forced.append(_forced(method, loaded, examples, known, count))
            most = method.last * method.per_step
            told(f"made it speak after {count * method.per_step} of {most} {method.what}")
    return Thoughts(
        checkpoint=loaded.id,
        what=method.what,
        per_step=method.per_step,
        n=len(examples),
        graphs=len(known),
        trees=tuple(trees[number - 1] for number in shown) or tuple(trees.values())[:1],
        parallel=tuple(thoughts.parallel(list(trees.values()))),
        heights=tuple(thoughts.at_heights(list(trees.values()))),
        forced=tuple(forced),
    )


Graphs = Mapping[int, tuple[str, graph.Graph]]
"""By their places, the questions that tell of a graph, with it."""


def _graphs(loaded: Loaded, examples: Examples) -> Graphs:
    parts = loaded.parts
    found = {}
    for place in range(len(examples)):
        question = parts.task.example_text(examples, place, parts.tokenizer).question
        with contextlib.suppress(ValueError):
            found[place] = question, graph.read(question)
    return found


def _tree(
    method: Coconut, model: Model, tokenizer: PreTrainedTokenizerBase, question: str, known: graph.Graph
) -> Tree:
    asked = layout.encode_question(question, tokenizer)
    found = probabilities(method, model, tokenizer, asked, known.frontiers(method.last))
    return thoughts.tree(question, known, found, method.per_step)


def _forced(method: Coconut, loaded: Loaded, examples: Examples, known: Graphs, steps: int) -> Forced:
    """Make it speak after the thoughts of so many steps."""
    parts, tokenizer = loaded.parts, loaded.parts.tokenizer
    true = true_answers(examples, tokenizer)
    right: list[bool] = []
    paths: list[Path] = []
    for start in range(0, len(examples), CHUNK):
        some = examples[start : start + CHUNK]
        decoded = method.generate(
            parts.model,
            questions(some),
            steps,
            max_new_tokens=answer_room(some),
            thoughts=steps * method.per_step,
        )
        for place, (cot, answer) in enumerate(zip(decoded.cot, decoded.answer, strict=True), start=start):
            right.append(answer_text(answer, tokenizer) == answer_text(true[place], tokenizer))
            if place in known:
                spoken = layout.steps(str(tokenizer.decode(cot)).strip())
                paths.append(thoughts.path(known[place][1], steps, [s for s in spoken if s], right[-1]))
    return Forced(
        thoughts=steps * method.per_step,
        trained=steps in method.trained(loaded.at.scheduled),
        n=len(right),
        accuracy=sum(right) / len(right),
        paths=thoughts.shares(paths),
    )
