"""Question, CoT and answer: as one line of a published file, as text for a model, as token ids.

    line    question||CoT #### answer
    text    " {question} <eos> {CoT} <eos> #### {answer} <eos>"      (official code of ICoT-SI)

The blank before each EOS is a token of its own in GPT-2's vocabulary, and in the tasks' own as well. The
one before the CoT's EOS counts as a CoT token that can be removed: hence 47 for 4×4 and not 46.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from trainer.data.tokenizer import encode
from trainer.methods.base import Examples

SEPARATOR = "####"


class Line(NamedTuple):
    """One example as text, its parts without blanks at their ends."""

    question: str
    cot: str
    answer: str


def parse_line(line: str) -> Line:
    """The parts of `question||CoT #### answer`. Raises `ValueError` naming what is missing."""
    question, bars, rest = line.partition("||")
    if not bars:
        raise ValueError(f"{_short(line)}: '||' between question and CoT is missing")
    cot, separator, answer = rest.partition(SEPARATOR)
    if not separator:
        raise ValueError(f"{_short(line)}: '{SEPARATOR}' between CoT and answer is missing")
    parts = Line(question.strip(), cot.strip(), answer.strip())
    for name, part in (("question", parts.question), ("answer", parts.answer)):
        if not part:
            raise ValueError(f"{_short(line)}: the {name} is missing")
    return parts


def format_line(line: Line) -> str:
    """`question||CoT #### answer`, without a newline."""
    return f"{line.question}||{line.cot} {SEPARATOR} {line.answer}"


def text(line: Line, eos: str) -> str:
    """The whole example as the official code feeds it to the model."""
    return f" {line.question} {eos} {line.cot} {eos} {SEPARATOR} {line.answer} {eos}"


def encode_question(question: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a question with its blank and EOS: what a model is given to answer."""
    return [*encode(f" {question} ", tokenizer), tokenizer.eos_token_id]


def encode_lines(lines: Sequence[Line], tokenizer: PreTrainedTokenizerBase) -> Examples:
    """Any text task's examples, one by one. ids_NT is int32, padded with EOS to the longest.

    Raises `ValueError` for text that the tokenizer has no symbol for.
    """
    rows, question, cot = [], [], []
    for line in lines:
        question_ids = encode_question(line.question, tokenizer)
        cot_ids = encode(f" {line.cot} " if line.cot else " ", tokenizer)
        answer_ids = encode(f" {SEPARATOR} {line.answer} ", tokenizer)
        eos = tokenizer.eos_token_id
        rows.append(torch.tensor([*question_ids, *cot_ids, eos, *answer_ids, eos], dtype=torch.int32))
        question.append(len(question_ids))
        cot.append(len(cot_ids))
    return Examples(
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.eos_token_id),
        torch.tensor(question),
        torch.tensor(cot),
        torch.tensor([len(row) for row in rows]),
    )


def decode_example(examples: Examples, index: int, tokenizer: PreTrainedTokenizerBase) -> Line:
    """One row as text again."""
    row = examples.ids_NT[index].tolist()
    cot = int(examples.question_N[index])
    answer = cot + int(examples.cot_N[index]) + 1
    parts = (row[: cot - 1], row[cot : answer - 1], row[answer : int(examples.length_N[index]) - 1])
    question_text, cot_text, answer_text = (str(tokenizer.decode(part)).strip() for part in parts)
    return Line(question_text, cot_text, answer_text.removeprefix(SEPARATOR).strip())


def separator_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of ` ####`: one in a task's own vocabulary, two (` #`, `###`) in GPT-2's."""
    return encode(f" {SEPARATOR}", tokenizer)


def separator_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token after which the answer begins: the last of ` ####`."""
    return separator_ids(tokenizer)[-1]


def encode_one(symbol: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """The one token of a symbol. Raises `ValueError` where the tokenizer needs several."""
    ids = encode(symbol, tokenizer)
    if len(ids) != 1:
        raise ValueError(
            f"this model's tokenizer writes {symbol!r} as {len(ids)} tokens, and the task needs one; "
            "use the task's own symbols: --set model.vocab=task"
        )
    return ids[0]


def _short(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "…")
