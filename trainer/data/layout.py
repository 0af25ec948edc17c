"""Question, CoT and answer: as one line of a published file, as text for a model, as token ids.

    line    question||CoT #### answer
    text    " {question} <eos> {CoT} <eos> #### {answer} <eos>"      (official code of ICoT-SI)

A text is tokenised whole, with the tokens that the tokenizer puts before any text (Llama's BOS), and its
three EOS say where the parts end. The blank before each EOS is a token of its own in GPT-2's vocabulary,
and in the tasks' own as well. The one before the CoT's EOS counts as a CoT token that can be removed:
hence 47 for 4×4 and not 46. Without a CoT there are two blanks between the EOS, and both count.

The steps of a CoT are the lines of `Line.cot`; for the model, and in a file of lines, a blank stands between
two of them. A CoT of one line has the steps that `steps` finds in it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from trainer.data.tokenizer import encode_texts, encode_with_ends
from trainer.methods.base import Examples

BARS = "||"
SEPARATOR = "####"
NEWLINES = re.compile(r"\s*[\r\n]\s*")
ANNOTATIONS = re.compile(r"(?:<<.*?>>\s*)+")
BETWEEN_ANNOTATIONS = re.compile(r"(?<=>>)\s*(?=<<)")
BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+")

CHUNK = 1 << 14  # lines tokenised at once: keeps Python's lists of ids small


class Line(NamedTuple):
    """One example as text, its parts without blanks at their ends. cot: a step a line, where known."""

    question: str
    cot: str
    answer: str


def parse_line(line: str) -> Line:
    """The parts of `question||CoT #### answer`. Raises `ValueError` naming what is missing or too much."""
    return make_line(*split_line(line))


def split_line(line: str) -> tuple[str, str, str]:
    """Question, CoT and answer as they stand in the line. Raises `ValueError`."""
    question, *rest = line.split(BARS)
    if len(rest) != 1:
        what = (
            "between question and CoT is missing" if not rest else f"stands {len(rest)} times, once is right"
        )
        raise ValueError(f"{_short(line)}: '{BARS}' {what}")
    cot, separator, answer = rest[0].partition(SEPARATOR)
    if not separator:
        raise ValueError(f"{_short(line)}: '{SEPARATOR}' between CoT and answer is missing")
    return question, cot, answer


def make_line(question: str, cot: str, answer: str) -> Line:
    """An example of these parts: blanks at their ends go, a line break within becomes a blank.

    But in the CoT line breaks stay, one between two steps.
    Commas of the answer go as well, in what a model learns as in what is compared (official code).
    Raises `ValueError` for a question or answer that is missing, and for what a line could not tell apart.
    """
    line = Line(
        NEWLINES.sub(" ", question).strip(),
        NEWLINES.sub("\n", cot).strip(),
        NEWLINES.sub(" ", answer.replace(",", "")).strip(),
    )
    for name, part in (("question", line.question), ("answer", line.answer)):
        if not part:
            raise ValueError(f"{_short(format_line(line))}: the {name} is missing")
    if SEPARATOR in line.cot or any(BARS in part for part in line):
        mark = SEPARATOR if SEPARATOR in line.cot else BARS
        raise ValueError(f"{_short(format_line(line))}: '{mark}' stands inside a part, where it cannot")
    if line.question.endswith(BARS[0]):
        raise ValueError(
            f"{_short(format_line(line))}: the question ends in '{BARS[0]}', as what follows begins"
        )
    return line


def format_line(line: Line) -> str:
    """`question||CoT #### answer`, without a newline."""
    return f"{line.question}{BARS}{one_line(line.cot)} {SEPARATOR} {line.answer}"


def steps(cot: str) -> list[str]:
    """The steps of a CoT: its lines. In one line, its <<…>> annotations where it is nothing else (GSM8K),
    or its sentences."""
    if "\n" in cot:
        return cot.split("\n")
    between = BETWEEN_ANNOTATIONS if ANNOTATIONS.fullmatch(cot) else BETWEEN_SENTENCES
    return between.split(cot)


def text(line: Line, eos: str) -> str:
    """The whole example as the official code feeds it to the model."""
    return f" {line.question} {eos} {one_line(line.cot)} {eos} {SEPARATOR} {line.answer} {eos}"


def one_line(cot: str) -> str:
    """A CoT as a model and a file of lines have it, with blanks between its steps."""
    return cot.replace("\n", " ")


def encode_question(question: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a question with its blank and EOS, as a row begins: what a model is given to answer.

    Raises `ValueError` as `encode_lines` does.
    """
    eos = _eos(tokenizer)
    [ids] = encode_texts([f" {question} {eos}"], tokenizer)
    _check_ends(ids, 1, tokenizer, question)
    return ids


class Encoded(NamedTuple):
    """Tokenised examples end to end. ids: of all rows, int32. length_N: of each row. ends_N2: places of the
    question's EOS and of the CoT's in each row. steps_NS: as `Examples.ends_NS`."""

    ids: np.ndarray
    length_N: np.ndarray
    ends_N2: np.ndarray
    steps_NS: np.ndarray


def encode_lines(lines: Sequence[Line], tokenizer: PreTrainedTokenizerBase) -> Examples:
    """Any text task's examples, as `encode` and `padded` make them."""
    return padded(encode(lines, tokenizer), tokenizer)


def encode(lines: Sequence[Line], tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Tokenise examples.

    Raises `ValueError` for text that the tokenizer has no symbol for, or that has the EOS token in it, and
    for a tokenizer without EOS or with one at the beginning or an addition at the end of every text.
    """
    eos = _eos(tokenizer)
    flat, counts, ends = [np.empty(0, np.int32)], [np.empty(0, int)], [np.empty((0, 2), int)]
    step_ends: list[list[int]] = []
    for chunk in _chunks(lines):
        texts = [text(line, eos) for line in chunk]
        parts = [steps(line.cot) for line in chunk]
        if tokenizer.is_fast and any(len(part) > 1 for part in parts):
            rows, token_ends = encode_with_ends(texts, tokenizer)
        else:
            rows, token_ends = encode_texts(texts, tokenizer), None
        for line, row in zip(chunk, rows, strict=True):
            _check_ends(row, 3, tokenizer, line.question)
        count = np.array([len(row) for row in rows])
        ids = np.fromiter(chain.from_iterable(rows), np.int32, int(count.sum()))
        at = np.flatnonzero(ids == tokenizer.eos_token_id).reshape(-1, 3)
        flat.append(ids)
        counts.append(count)
        ends.append(at[:, :2] - (at[:, 2:] + 1 - count[:, None]))
        for number, (question_end, cot_end) in enumerate(ends[-1].tolist()):
            own: list[int] = []
            if token_ends is not None:
                inner = token_ends[number][question_end + 1 : cot_end]
                own = _step_ends(chunk[number], parts[number], inner, eos)
            step_ends.append([*own, cot_end - question_end - 1])
    most = max(map(len, step_ends), default=1)
    steps_NS = np.array([own + own[-1:] * (most - len(own)) for own in step_ends], int).reshape(-1, most)
    return Encoded(np.concatenate(flat), np.concatenate(counts), np.concatenate(ends), steps_NS)


def _step_ends(line: Line, parts: Sequence[str], token_ends: Sequence[int], eos: str) -> list[int]:
    """Tokens of the CoT up to the end of each step but the last. token_ends: of its tokens, characters from
    the start of the text; a token belongs to the step in which it ends."""
    start, cot = len(f" {line.question} {eos} "), one_line(line.cot)
    at, found = 0, []
    for part in parts[:-1]:
        at = cot.index(part, at) + len(part)
        found.append(bisect_right(token_ends, start + at))
    return found


def padded(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> Examples:
    """The same as a matrix. ids_NT is int32, padded with EOS to the longest."""
    ids, length_N, ends_N2, steps_NS = encoded
    longest = int(length_N.max(initial=0))
    ids_NT = np.full((len(length_N), longest), tokenizer.eos_token_id, np.int32)
    ids_NT[np.arange(longest) < length_N[:, None]] = ids
    return Examples(
        torch.from_numpy(ids_NT),
        torch.from_numpy(ends_N2[:, 0] + 1),
        torch.from_numpy(ends_N2[:, 1] - ends_N2[:, 0] - 1),
        torch.from_numpy(length_N),
        torch.from_numpy(steps_NS),
    )


def decode_example(examples: Examples, index: int, tokenizer: PreTrainedTokenizerBase) -> Line:
    """One row as text again, the CoT in one line."""
    row = examples.ids_NT[index].tolist()
    cot = int(examples.question_N[index])
    answer = cot + int(examples.cot_N[index]) + 1
    question = row[: cot - 1]
    if question and question[0] == tokenizer.bos_token_id:
        del question[0]
    parts = (question, row[cot : answer - 1], row[answer : int(examples.length_N[index]) - 1])
    question_text, cot_text, answer_text = (str(tokenizer.decode(part)).strip() for part in parts)
    return Line(question_text, cot_text, answer_text.removeprefix(SEPARATOR).strip())


def separator_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of ` ####` after an EOS: one in a task's own vocabulary, two (` #`, `###`) in GPT-2's."""
    eos = _eos(tokenizer)
    [ids] = encode_texts([f" {eos} {SEPARATOR} {eos}"], tokenizer)
    after = ids[ids.index(tokenizer.eos_token_id) + 1 :]
    lengths = (n for n in range(1, len(after)) if str(tokenizer.decode(after[:n])).strip() == SEPARATOR)
    length = next(lengths, None)
    assert length, f"{ids} is not {SEPARATOR} between two EOS"
    return after[:length]


def separator_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token after which the answer begins: the last of ` ####`."""
    return separator_ids(tokenizer)[-1]


def _chunks(lines: Sequence[Line]) -> Iterator[list[Line]]:
    remaining = iter(lines)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _eos(tokenizer: PreTrainedTokenizerBase) -> str:
    if tokenizer.eos_token is None:
        raise ValueError("this tokenizer has no EOS token, which ends every question, CoT and answer")
    return str(tokenizer.eos_token)


def _check_ends(ids: Sequence[int], ends: int, tokenizer: PreTrainedTokenizerBase, question: str) -> None:
    """Every text has its own EOS and no other, and it ends with one."""
    eos = tokenizer.eos_token_id
    if ids.count(eos) == ends and ids[-1] == eos:
        return
    [around] = encode_texts([""], tokenizer)
    if ids[-1] != eos or eos in around:
        raise ValueError(
            f"this tokenizer puts {tokenizer.convert_ids_to_tokens(around)} around every text: with EOS or "
            "anything after the text among them, the parts of an example cannot be told apart"
        )
    raise ValueError(
        f"{_short(question)}: {tokenizer.eos_token!r} is in this example, and it is the EOS of this tokenizer"
    )


def _short(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "…")
