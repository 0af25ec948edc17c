"""Few-shot prompting, the papers' baseline: a model as it is, shown a few examples and asked one more.

The papers do not print their prompts; this one is ours. With CoT, and two examples:

    Answer the last question in the form of the examples: one line with the reasoning, then #### and the
    answer.

    Question: 2 1 * 4 3
    Answer: 8 4 0 + 0 6 3 0 #### 8 0 4 0

    Question: 1 1 * 1 1
    Answer: 1 1 0 + 0 1 1 0 #### 1 2 1 0

    Question: 3 2 * 1 1
    Answer:

Without CoT an answer line is `#### 8 0 4 0`, and the first sentence asks for nothing before ####. Questions,
CoT and answers are as the task writes them, digits reversed and all. A model's text counts up to the end of
its first line with ####, or up to a further question; its answer is what follows the last #### there,
without commas.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria

from trainer.answering.report import Report
from trainer.answering.speed import ONE_BY_ONE
from trainer.asking.endpoint import Endpoint, EndpointError, Reply
from trainer.config import Config
from trainer.data import load_task
from trainer.data.layout import SEPARATOR, Line
from trainer.data.tokenizer import encode_texts
from trainer.events import Split
from trainer.methods.base import Model
from trainer.models.model import resolve_device
from trainer.models.official import load_plain

QUESTION, ANSWER = "Question:", "Answer:"
POOL = 1_000
"""Training examples that the shown ones are drawn from."""
BATCH = 16
EMPTY = 5
"""So many empty answers in a row are no answers: an endpoint that gives them is not asked on."""


class PromptError(ValueError):
    """Examples that cannot be shown or asked; the message says why."""


def prompt(shown: Sequence[Line], question: str, *, cot: bool) -> str:
    """What a model is given: see the head of this file."""
    form = f"one line with the reasoning, then {SEPARATOR} and the answer"
    if not cot:
        form = f"one line with {SEPARATOR} and the answer, and nothing before it"
    examples = [f"{QUESTION} {line.question}\n{ANSWER} {answer_line(line, cot=cot)}" for line in shown]
    first = f"Answer the last question in the form of the examples: {form}."
    return "\n\n".join([first, *examples, f"{QUESTION} {question}\n{ANSWER}"])


def answer_line(line: Line, *, cot: bool) -> str:
    """What follows `Answer:` in an example."""
    return f"{line.cot} {SEPARATOR} {line.answer}" if cot and line.cot else f"{SEPARATOR} {line.answer}"


def counted(text: str) -> str:
    """The part of a model's text that counts: up to the end of its answer line, or to a further question."""
    text = text.partition(f"\n{QUESTION}")[0]
    before, separator, after = text.partition(SEPARATOR)
    return before + separator + after.partition("\n")[0]


def read_answer(text: str) -> str:
    """The answer in what a model wrote: the text after the last ####, without commas; "" without ####."""
    _, separator, answer = counted(text).rpartition(SEPARATOR)
    return answer.replace(",", "").strip() if separator else ""


@dataclass(frozen=True, slots=True)
class Asked:
    """shown: the examples in the prompt. asked: those to be answered, of which none is shown."""

    shown: list[Line]
    asked: list[Line]


def from_lines(lines: Sequence[Line], shots: int, seed: int, limit: int | None) -> Asked:
    """Draw the shown examples from the lines to be asked, by the seed, and ask the others, in their order.

    Raises `PromptError` when there are too few.
    """
    order = random.Random(seed).sample(range(len(lines)), len(lines))
    shown = [lines[index] for index in order[:shots]]
    known = {line.question for line in shown}
    asked = [line for line in lines if line.question not in known]
    return _checked(shown, asked, shots, limit, "the file has")


def from_task(config: Config, split: Split, shots: int, seed: int, limit: int | None) -> Asked:
    """Draw the shown examples from the training split of a task, by the seed, and ask a held-out one.

    Raises `PromptError` when there are too few, and ValueError where the data cannot be had.
    """
    task, data = load_task(config), config.data
    sizes = {"valid": data.valid, "test": data.test, "train": min(data.train, POOL)}
    asked = task.lines(split, sizes, config.seed)
    held_out = {line.question for line in asked}
    pool = [line for line in task.lines("train", sizes, config.seed) if line.question not in held_out]
    shown = random.Random(seed).sample(pool, min(shots, len(pool)))
    return _checked(shown, asked, shots, limit, "the training split has")


def _checked(shown: list[Line], asked: list[Line], shots: int, limit: int | None, where: str) -> Asked:
    if len(shown) < shots or not asked:
        raise PromptError(
            f"--few-shot {shots}: {where} {len(shown) + len(asked)} examples, and one more than that many is "
            "the least"
        )
    return Asked(shown, asked[:limit])


class Respondent(Protocol):
    """Whoever answers prompts."""

    at_once: int
    """Prompts that are best asked together."""

    def ask(self, prompts: Sequence[str]) -> list[Reply]:
        """What is written to each, greedily."""
        ...


class Local:
    """A causal language model in this process.

    prompts: all that will be asked. room: new tokens that an answer needs; twice that is allowed. Raises
    `PromptError` when the longest prompt and its answer are more than the model's positions, and ValueError
    for text that its tokenizer has no symbols for.
    """

    at_once = BATCH

    def __init__(
        self, model: Model, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], room: int
    ) -> None:
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        tokenizer.padding_side = "left"
        longest = max(map(len, encode_texts(prompts, tokenizer)))
        positions = getattr(model.config, "max_position_embeddings", None) or longest + 2 * room
        if longest + room > positions:
            raise PromptError(
                f"the prompt takes {longest} tokens and an answer {room}; it has {positions} positions; a "
                "smaller --few-shot makes the prompt shorter"
            )
        ends = model.generation_config.eos_token_id
        model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=min(2 * room, positions - longest),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        )
        self.model = model.to(resolve_device("auto")).eval()
        self.tokenizer = tokenizer

    def ask(self, prompts: Sequence[str]) -> list[Reply]:
        inputs = self.tokenizer(
            list(prompts), padding=True, return_token_type_ids=False, return_tensors="pt"
        ).to(self.model.device)
        width = inputs["input_ids"].shape[1]
        finished = _Finished(self.tokenizer, width, self.model.generation_config.eos_token_id, len(prompts))
        started = time.perf_counter()
        rows = self.model.generate(**inputs, stopping_criteria=[finished])[:, width:].tolist()
        seconds = (time.perf_counter() - started) / len(prompts)
        lengths = [length or len(row) for length, row in zip(finished.lengths, rows, strict=True)]
        texts = self.tokenizer.batch_decode(
            [row[:length] for row, length in zip(rows, lengths, strict=True)], skip_special_tokens=True
        )
        return [Reply(text, length, seconds) for text, length in zip(texts, lengths, strict=True)]


class _Finished(StoppingCriteria):
    """Stops each row behind its answer line. lengths: new tokens of each row up to there, None before."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, width: int, ends: Any, rows: int) -> None:
        self.tokenizer, self.width = tokenizer, width
        self.ends = torch.tensor([ends] if isinstance(ends, int) else ends or [], dtype=torch.long)
        self.lengths: list[int | None] = [None] * rows

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        texts = self.tokenizer.batch_decode(input_ids[:, self.width :], skip_special_tokens=True)
        ended = torch.isin(input_ids[:, -1], self.ends.to(input_ids.device)).tolist()
        for row, text in enumerate(texts):
            if self.lengths[row] is None and (ended[row] or counted(text) != text):
                self.lengths[row] = input_ids.shape[1] - self.width
        return torch.tensor([length is not None for length in self.lengths], device=input_ids.device)


class Remote:
    """A model behind an endpoint. room: new tokens that an answer needs; twice that is allowed.

    Raises `EndpointError` after several empty answers in a row.
    """

    at_once = 1

    def __init__(self, endpoint: Endpoint, room: int) -> None:
        self.endpoint = endpoint
        self.max_tokens = 2 * room
        self._empty = 0

    def ask(self, prompts: Sequence[str]) -> list[Reply]:
        return [self._ask(text) for text in prompts]

    def _ask(self, text: str) -> Reply:
        reply = self.endpoint.ask(text, max_tokens=self.max_tokens)
        self._empty = 0 if reply.text.strip() else self._empty + 1
        if self._empty == EMPTY:
            raise EndpointError(
                f"{self.endpoint.url}: {EMPTY} answers in a row are empty; {self.endpoint.model} may think "
                f"before it writes, and {self.max_tokens} tokens (max_tokens) are all it gets here"
            )
        return reply


def evaluate(
    model: str,
    asked: Asked,
    *,
    cot: bool,
    split: Split | None,
    endpoint: str | None = None,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> Report:
    """Ask a Hugging Face model (folder or hub name), or the model of that name behind an endpoint.

    told: called with how many of how many are answered. Raises ValueError with a sentence when the model
    cannot be had, and `EndpointError` when the endpoint does not answer.
    """
    prompts = [prompt(asked.shown, line.question, cot=cot) for line in asked.asked]
    targets = [f" {answer_line(line, cot=cot)}\n" for line in (*asked.shown, *asked.asked)]
    respondent: Respondent
    if endpoint is not None:
        # A token is at least a byte: what is enough for bytes is enough for any tokenizer.
        respondent = Remote(Endpoint(endpoint, model), max(len(target.encode()) for target in targets))
    else:
        loaded, tokenizer = load_plain(model)
        try:
            room = max(map(len, encode_texts(targets, tokenizer, special=False)))
            respondent = Local(loaded, tokenizer, prompts, room)
        except ValueError as error:
            raise PromptError(f"{model} cannot be prompted: {error}") from None
    replies: list[Reply] = []
    for start in range(0, len(prompts), respondent.at_once):
        replies += respondent.ask(prompts[start : start + respondent.at_once])
        told(len(replies), len(prompts))
    several = respondent.at_once > 1
    alone = [respondent.ask([text])[0] for text in prompts[:ONE_BY_ONE]] if several else replies
    n, tokens = len(replies), [reply.tokens for reply in replies if reply.tokens is not None]
    right = sum(
        read_answer(reply.text) == line.answer.replace(",", "").strip()
        for reply, line in zip(replies, asked.asked, strict=True)
    )
    return Report(
        accuracy=right / n,
        generated_tokens=sum(tokens) / n if len(tokens) == n else None,
        examples_per_second=n / sum(reply.seconds for reply in replies) if several else None,
        examples_per_second_batch1=len(alone) / sum(reply.seconds for reply in alone),
        n=n,
        split=split,
        checkpoint=model,
        few_shot=len(asked.shown),
        cot=cot,
        unread=sum(SEPARATOR not in counted(reply.text) for reply in replies),
        empty=sum(not reply.text.strip() for reply in replies),
    )
