"""What a checkpoint's thoughts hold, asked of its model: what `thoughts` is made of. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from trainer import graph
from trainer.analysis import thoughts
from trainer.analysis.thoughts import Forced, Path, Thoughts, Tree
from trainer.answering.evaluate import CHUNK, answer_room, answer_text, questions, true_answers
from trainer.asking.inspection import Loaded
from trainer.data import layout
from trainer.data import tokenizer as vocabulary
from trainer.methods.base import Examples, Model
from trainer.methods.coconut import Coconut
from trainer.methods.decode import inference
from trainer.methods.thinking import read_rows

SAYS = " Every"
"""How a step begins whose node is not the one asked about."""


class ThoughtsError(ValueError):
    """A model whose thoughts cannot be looked at; the message says why."""


def measure(
    loaded: Loaded, limit: int | None, shown: Sequence[int], told: Callable[[str], None] = lambda text: None
) -> Thoughts:
    """All of it, on the test split.

    limit: at most so many examples, the first. shown: the examples whose trees are wanted, from 1. told:
    hears how far it is. Raises `ThoughtsError` for a method without thoughts, or examples that are not there.
    """
    parts = loaded.parts
    method = parts.method
    if not isinstance(method, Coconut) or not method.thinks:
        raise ThoughtsError(f"{loaded.id} has no thoughts: its method is neither coconut nor pause")
    examples = parts.splits["test"][:limit]
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
    named = [[known.names[node] for node in thoughts.reached(known, k)] for k in range(1, method.last + 1)]
    named = [names for names in named if names]
    asked = layout.encode_question(question, tokenizer)
    found = probabilities(method, model, tokenizer, asked, named)
    return thoughts.tree(question, known, found, method.per_step)


def probabilities(
    method: Coconut,
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    question: Sequence[int],
    named: Sequence[Sequence[str]],
) -> Iterator[Mapping[str, float]]:
    """How likely the next step is to begin with each of some nodes, after thoughts for one step, two, ….

    question: token ids with their EOS. named: the nodes, for each number of steps.
    """
    begin = vocabulary.encode(SAYS, tokenizer)
    rows: dict[tuple[int, ...], int] = {}  # with the number of thoughts in it that are fed back
    places: list[dict[str, tuple[tuple[int, ...], int]]] = []
    for steps, names in enumerate(named, start=1):
        prompt, fed_back = method.prompt(question, steps * method.per_step)
        own = {}
        for name in names:
            ids = vocabulary.encode(f"{SAYS} {name}", tokenizer)[len(begin) :]
            row = (*prompt, *begin, *ids)
            rows[row[:-1]] = fed_back
            own[name] = (row, len(ids))
        places.append(own)
    scores = _log_probabilities(model, rows, len(question) + 1, tokenizer.eos_token_id)
    for own in places:
        # All but its last token is in a row of its own, so that nodes of one token share theirs.
        yield {name: float(_of(scores[row[:-1]], row, count).exp()) for name, (row, count) in own.items()}


def _of(scores_TV: torch.Tensor, row: tuple[int, ...], count: int) -> torch.Tensor:
    """The log-probability of the last `count` tokens of a row."""
    places = torch.arange(len(row) - 1 - count, len(row) - 1)
    return scores_TV[places, torch.tensor(row[-count:])].sum()


def _log_probabilities(
    model: Model, rows: Mapping[tuple[int, ...], int], column: int, pad_id: int
) -> dict[tuple[int, ...], torch.Tensor]:
    """Of every token after each place of each row, T×V. The first thoughts stand in `column`."""
    width = max(map(len, rows))
    ids_BT = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=model.device)
    thoughts_B = torch.tensor(list(rows.values()), device=model.device)
    with inference(model):
        seen = read_rows(model, ids_BT, None, None, thoughts_B, column, int(thoughts_B.max()))
        logits_BTV = seen.logits_BTV
        if logits_BTV is None:
            logits_BTV = model.get_output_embeddings()(seen.hidden_BTD)
        scores_BTV = logits_BTV.float().log_softmax(-1).cpu()
    return dict(zip(rows, scores_BTV, strict=True))


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
