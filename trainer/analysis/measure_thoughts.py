"""What a checkpoint's thoughts hold, asked of its model: what `thoughts` is made of. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

    limit: at most so many examples, the first. shown: the examples whose trees are wanted, from 1. told:
    hears how far it is. Raises `ThoughtsError` for a method without thoughts, or examples that are not there,
    and what `held_out` raises.
    """
    parts = loaded.parts
    method = parts.method
    if not isinstance(method, Coconut):
        raise ThoughtsError(f"{loaded.id} has no thoughts: its method is neither coconut nor pause")
    if not method.thinks:
        raise ThoughtsError(f"{loaded.id} has no thoughts: it was trained with method.no_thought = true")
    examples = held_out(loaded, "test")[:limit]
    missing = [number for number in shown if not 1 <= number <= len(examples)]
    if missing:
        raise ThoughtsError(f"--example {missing[0]}: the test examples are 1 to {len(examples)}")
    known = _graphs(loaded, examples)
    with loaded.compute.answering(parts.model):
        trees = []
        for number, (line, one) in enumerate(known, start=1):
            trees.append(_tree(method, parts.model, parts.tokenizer, line, one))
            if number % 20 == 0:
                told(f"looked into the thoughts about {number} of {len(known)} questions")
        forced = []
        for count in range(method.last + 1):
            forced.append(_forced(method, loaded, examples, [one for _, one in known], count))
            told(f"made it speak after {count * method.per_step} of {method.last * method.per_step} thoughts")
    return Thoughts(
        checkpoint=loaded.id,
        n=len(examples),
        trees=tuple(trees[number - 1] for number in shown) if trees else (),
        parallel=tuple(thoughts.parallel(trees)),
        heights=tuple(thoughts.at_heights(trees)),
        forced=tuple(forced),
    )


def _graphs(loaded: Loaded, examples: Examples) -> list[tuple[str, graph.Graph]]:
    """Each question with its graph; nothing where they tell of none."""
    parts = loaded.parts
    found = []
    for index in range(len(examples)):
        question = parts.task.example_text(examples, index, parts.tokenizer).question
        try:
            found.append((question, graph.read(question)))
        except ValueError:
            return []
    return found


def _tree(
    method: Coconut, model: Model, tokenizer: PreTrainedTokenizerBase, question: str, known: graph.Graph
) -> Tree:
    asked = layout.encode_question(question, tokenizer)
    found = probabilities(method, model, tokenizer, asked, known.frontiers(method.last))
    return thoughts.tree(question, known, found, method.per_step)


def _forced(
    method: Coconut, loaded: Loaded, examples: Examples, known: Sequence[graph.Graph], steps: int
) -> Forced:
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
            if known:
                spoken = layout.steps(str(tokenizer.decode(cot)).strip())
                paths.append(thoughts.path(known[place], steps, [s for s in spoken if s], right[-1]))
    return Forced(steps * method.per_step, len(right), sum(right) / len(right), thoughts.shares(paths))
