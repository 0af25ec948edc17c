"""One turn of the chat: what a person typed, put to the model in the task's format, answered in theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from trainer.control import ONE_WAY
from trainer.data.layout import encode_question, separator_ids
from trainer.data.task import NotUnderstood
from trainer.decode import token_texts
from trainer.evaluate import answer_text
from trainer.events import At, ChatAnswered
from trainer.parts import Parts

Part = Literal["cot", "answer"]


def answer_question(
    parts: Parts,
    scheduled: int,
    text: str,
    *,
    id: str,
    at: At,
    explicit: bool = False,
    on_text: Callable[[str, Part], None] = lambda text, part: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> ChatAnswered:
    """Ask `parts.model` at the stage after `scheduled` removals.

    explicit: ask for the whole CoT, of a model that answers both ways.
    on_text: called with each piece as it is written, and whether it is CoT or answer. A text that is no
    question of this task gets a turn that says what can be asked; nothing is raised.
    """
    try:
        problem = parts.task.understand(text)
    except NotUnderstood as reason:
        return ChatAnswered(at=at, id=id, asked=text, understood=False, note=str(reason))
    if explicit and not parts.method.answers_both_ways:
        return ChatAnswered(at=at, id=id, asked=text, understood=False, note=ONE_WAY)
    tokenizer = parts.tokenizer
    eos = tokenizer.eos_token_id
    try:
        question = encode_question(problem.question, tokenizer)
    except ValueError as reason:  # a symbol that its vocabulary lacks
        return ChatAnswered(at=at, id=id, asked=text, understood=False, note=str(reason))
    separator = set(separator_ids(tokenizer))
    part: Part = "cot"

    def on_token(token: int) -> None:
        nonlocal part
        if token == eos:
            part = "answer"
        elif token not in separator:
            on_text(token_texts([token], tokenizer)[0], part)

    decoded = parts.method.generate(
        parts.model,
        [question],
        scheduled,
        max_new_tokens=parts.room,
        explicit=explicit,
        on_token=on_token,
        interrupted=interrupted,
    )
    given = parts.task.read_answer(answer_text(decoded.answer[0], tokenizer))
    return ChatAnswered(
        at=at,
        id=id,
        asked=text,
        question=problem.shown,
        cot=token_texts(decoded.cot[0], tokenizer),
        answer=given,
        correct=given == problem.expected if problem.expected else None,
        expected=problem.expected,
        note=problem.note,
        tokens=decoded.tokens[0],
        milliseconds=1000 * decoded.seconds,
    )
