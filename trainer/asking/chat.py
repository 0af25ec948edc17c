"""The chat: what a person typed, put to the model in the task's format, answered in theirs; quizzes, and
the held-out examples as some weights answer them.

Nothing here changes the run: no weight of it, and no random number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from trainer import graph
from trainer.answering.evaluate import answer_text, evaluate, shown_examples, true_answers
from trainer.asking.frontiers import probabilities
from trainer.control import ONE_WAY, THOUGHTLESS, Ask, Examine, Quiz
from trainer.data.layout import Line, encode_lines, encode_question, separator_ids
from trainer.data.task import NotUnderstood, Problem
from trainer.events import At, Candidate, ChatAnswered, ExamplesAnswered, QuizTaken, Thought
from trainer.methods.base import Decoded
from trainer.methods.coconut import Coconut
from trainer.methods.decode import token_texts
from trainer.models.model import quicken
from trainer.parts import Parts
from trainer.saving import checkpoint
from trainer.saving.checkpoint import TrainState

Part = Literal["cot", "answer"]
Turn = ChatAnswered | QuizTaken | ExamplesAnswered
SHOWN_WRONG = 3
"""Of a quiz."""
SHOWN_ASKED = 100
"""Held-out examples, of all that are answered to be looked at."""

CANDIDATES = 5
"""Of a thought."""

AROUND_THOUGHTS = 3
"""Positions beside the question's and the thoughts': of the two markers, and of a token of the answer."""

SPOKEN = 8
"""Positions that the beginning of a sentence takes at most: its first words and a name."""

CUT_SHORT = "cut short"
"""Under an answer that was interrupted."""


def respond(
    asked: Ask | Quiz | Examine,
    parts: Parts,
    scheduled: int,
    run: Path,
    *,
    id: str,
    at: At,
    side: Literal["left", "right"] = "left",
    on_text: Callable[[str, Part], None] = lambda text, part: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Turn | None:
    """What the weights that were asked answer, those of now or of a checkpoint of the folder `run`.

    side: where the method removes. None when it was interrupted, unless it is the answer to one question.
    Raises `CheckpointError` where that checkpoint cannot be used.
    """
    if asked.checkpoint is None:
        return _respond(asked, parts, scheduled, id, at, side, on_text, interrupted)
    with beside(parts, run / checkpoint.FOLDER / asked.checkpoint.id) as (theirs, state):
        turn = _respond(asked, theirs, state.scheduled, id, at, side, on_text, interrupted)
        removed = parts.method.removed(state.scheduled)
    return turn and replace(turn, checkpoint=asked.checkpoint.id, cot_removed=removed)


def _respond(
    asked: Ask | Quiz | Examine,
    parts: Parts,
    scheduled: int,
    id: str,
    at: At,
    side: Literal["left", "right"],
    on_text: Callable[[str, Part], None],
    interrupted: Callable[[], bool],
) -> Turn | None:
    if isinstance(asked, Quiz):
        return take_quiz(parts, scheduled, asked.n, id=id, at=at, side=side, interrupted=interrupted)
    if isinstance(asked, Examine):
        return answer_examples(parts, scheduled, asked.n, id=id, at=at, side=side, interrupted=interrupted)
    return answer_question(
        parts,
        scheduled,
        asked.question,
        id=id,
        at=at,
        explicit=asked.explicit,
        thoughts=asked.thoughts,
        on_text=on_text,
        interrupted=interrupted,
    )


@contextmanager
def beside(parts: Parts, folder: Path) -> Iterator[tuple[Parts, TrainState]]:
    """The model of a checkpoint in the place of the live one, for as long as the block lasts.

    It lies beside the live one, on its device, or on the CPU for want of room. Raises `CheckpointError`.
    """
    checkpoint.verify(folder)
    state = checkpoint.load_state(folder)
    device = parts.model.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        saved = AutoModelForCausalLM.from_pretrained(checkpoint.model_folder(folder), dtype=parts.model.dtype)
        model = quicken(saved).eval()
    try:
        model.to(device)
    except torch.OutOfMemoryError:
        model.to("cpu")
    try:
        yield replace(parts, model=model), state
    finally:
        model.to("meta")  # whoever still holds it holds no memory
        if device.type == "cuda":
            torch.cuda.empty_cache()


def answer_question(
    parts: Parts,
    scheduled: int,
    text: str,
    *,
    id: str,
    at: At,
    explicit: bool = False,
    thoughts: int | None = None,
    on_text: Callable[[str, Part], None] = lambda text, part: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> ChatAnswered:
    """Ask `parts.model` at the stage after `scheduled` removals.

    explicit: ask for the whole CoT, of a model that answers both ways. thoughts: after so many, of one that
    thinks.
    on_text: called with each piece as it is written, and whether it is CoT or answer. A text that is no
    question of this task gets a turn that says what can be asked; nothing is raised.
    """
    try:
        problem = parts.task.understand(text)
    except NotUnderstood as reason:
        return ChatAnswered(at=at, id=id, asked=text, understood=False, note=str(reason))
    if explicit and not parts.method.answers_both_ways:
        return ChatAnswered(at=at, id=id, asked=text, understood=False, note=ONE_WAY)
    if thoughts is not None and not parts.method.thinks:
        return ChatAnswered(at=at, id=id, asked=text, understood=False, note=THOUGHTLESS)
    tokenizer = parts.tokenizer
    eos = tokenizer.eos_token_id
    try:
        question = encode_question(problem.question, tokenizer)
    except ValueError as reason:  # a symbol that its vocabulary lacks
        return ChatAnswered(at=at, id=id, asked=text, understood=False, note=str(reason))
    fit = max(0, parts.model.config.max_position_embeddings - len(question) - AROUND_THOUGHTS)
    if thoughts is not None and thoughts > fit:
        note = f"{thoughts:,} thoughts do not fit: after this question the model has positions for {fit:,}"
        return ChatAnswered(at=at, id=id, asked=text, understood=False, note=note)
    separator = set(separator_ids(tokenizer))
    part: Part = "cot"

    def on_token(token: int) -> None:
        nonlocal part
        if token == eos:
            part = "answer"
        elif token not in separator:
            on_text(token_texts([token], tokenizer)[0], part)

    thought: list[Thought] = []
    decoded = parts.method.generate(
        parts.model,
        [question],
        scheduled,
        max_new_tokens=parts.room,
        explicit=explicit,
        thoughts=thoughts,
        on_token=on_token,
        on_thought=lambda logits_V: thought.append(spoken(logits_V, tokenizer)),
        interrupted=interrupted,
    )
    given = parts.task.read_answer(answer_text(decoded.answer[0], tokenizer))
    cut = interrupted()
    frontiers = () if cut or not thought else _frontiers(parts, problem.shown, question, len(thought), fit)
    return ChatAnswered(
        at=at,
        id=id,
        asked=text,
        question=problem.shown,
        cot=token_texts(decoded.cot[0], tokenizer),
        answer=given,
        correct=given == problem.expected if problem.expected and not cut else None,
        expected=problem.expected,
        note=CUT_SHORT if cut else problem.note,
        tokens=decoded.tokens[0],
        milliseconds=1000 * decoded.seconds,
        saved=_saved(problem, len(decoded.cot[0]), parts),
        thoughts=tuple(thought),
        frontiers=frontiers,
    )


def _frontiers(
    parts: Parts, text: str, question: Sequence[int], thoughts: int, fit: int
) -> tuple[tuple[Candidate, ...], ...]:
    """What the model holds of the nodes that its thoughts lead to; none where the question tells of no graph,
    or what it would say does not fit."""
    method = parts.method
    try:
        known = graph.read(text)
    except ValueError:
        return ()
    if not isinstance(method, Coconut) or thoughts + SPOKEN > fit:
        return ()
    named = known.frontiers(thoughts // method.per_step)
    if not named:
        return ()
    found = probabilities(method, parts.model, parts.tokenizer, question, named)
    return tuple(tuple(map(Candidate, one.keys(), one.values())) for one in found)


def spoken(logits_V: Tensor, tokenizer: PreTrainedTokenizerBase) -> Thought:
    """The likeliest tokens of a thought, as if it were to be spoken."""
    best = logits_V.float().softmax(0).topk(min(CANDIDATES, len(logits_V)))
    texts = token_texts(best.indices.tolist(), tokenizer)
    return Thought(tuple(map(Candidate, texts, best.values.tolist())))


def _saved(problem: Problem, written: int, parts: Parts) -> int | None:
    """Tokens of the whole CoT that were not written; None where nobody knows the CoT."""
    if not problem.cot:
        return None
    # Only the CoT counts here; the question is in the place of an answer, since it can be encoded for sure.
    whole = encode_lines([Line(problem.question, problem.cot, problem.question)], parts.tokenizer)
    return max(0, int(whole.cot_N[0]) - written)


def take_quiz(
    parts: Parts,
    scheduled: int,
    n: int,
    *,
    id: str,
    at: At,
    side: Literal["left", "right"] = "left",
    interrupted: Callable[[], bool] = lambda: False,
) -> QuizTaken | None:
    """Ask `n` questions of the validation split, all of it where it has no more; None when interrupted.

    Which ones is drawn by `id`, so the run's own chance is not touched.
    """
    held_out = parts.splits["valid"]
    drawn = random.Random(id).sample(range(len(held_out)), min(n, len(held_out)))
    examples = held_out[torch.tensor(drawn)]
    result = evaluate(
        parts.method, parts.model, examples, scheduled, parts.tokenizer, interrupted=interrupted
    )
    if result is None:
        return None
    given, true = result.decoded.answer, true_answers(examples, parts.tokenizer)
    missed = [
        i
        for i in range(result.n)
        if answer_text(given[i], parts.tokenizer) != answer_text(true[i], parts.tokenizer)
    ][:SHOWN_WRONG]
    spoken = result.decoded
    some = Decoded([spoken.cot[i] for i in missed], [given[i] for i in missed], [], 0.0)
    wrong = shown_examples(
        parts.task,
        parts.method,
        examples[torch.tensor(missed, dtype=torch.long)],
        some,
        scheduled,
        parts.tokenizer,
        side=side,
    )
    return QuizTaken(
        at=at,
        id=id,
        n=result.n,
        correct=result.correct,
        cot_tokens=result.cot_tokens,
        saved=max(0.0, float(examples.cot_N.float().mean()) - result.cot_tokens),
        milliseconds=1000 * result.seconds / result.n,
        wrong=wrong,
    )


def answer_examples(
    parts: Parts,
    scheduled: int,
    n: int,
    *,
    id: str,
    at: At,
    side: Literal["left", "right"] = "left",
    interrupted: Callable[[], bool] = lambda: False,
) -> ExamplesAnswered | None:
    """Have the first `n` validation examples answered, as an evaluation does; None when interrupted."""
    examples = parts.splits["valid"][:n]
    result = evaluate(
        parts.method, parts.model, examples, scheduled, parts.tokenizer, interrupted=interrupted
    )
    if result is None:
        return None
    some = examples[:SHOWN_ASKED]
    shown = shown_examples(
        parts.task, parts.method, some, result.decoded, scheduled, parts.tokenizer, side=side
    )
    return ExamplesAnswered(
        at=at,
        id=id,
        n=result.n,
        correct=result.correct,
        cot_tokens=result.cot_tokens,
        seconds=result.seconds,
        examples=shown,
    )


def summary(turn: Turn) -> str:
    """A turn in a sentence, for its acknowledgement."""
    if isinstance(turn, ExamplesAnswered):
        score = f"validation accuracy {turn.correct / turn.n:.3f} ({turn.correct}/{turn.n})"
        return f"{score} of {turn.checkpoint}"
    if isinstance(turn, QuizTaken):
        saved = f", {turn.saved:.1f} saved" if turn.saved >= 0.05 else ""
        return (
            f"{turn.correct} of {turn.n} right ({turn.correct / turn.n:.3f}); CoT tokens a question: "
            f"{turn.cot_tokens:.1f}{saved}; {turn.milliseconds:.1f} ms each"
        )
    return f"{turn.question} = {turn.answer or 'no answer'}" if turn.understood else turn.note
