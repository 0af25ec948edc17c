"""K×L multiplication as the papers write it: digits reversed, units first, the CoT a schoolbook product.

    5 6 3 2 * 7 4 3 4||5 5 5 6 1 + 0 0 6 4 9 0 ( 5 5 1 1 1 1 ) + … + 0 0 0 0 6 4 9 0 #### 5 5 6 0 8 2 0 1

The partial product of digit j of the second factor has j zeros and K+1 digits; after all but the first
and the last of them the running sum stands in brackets; the answer has K+L digits, zeros at its end.

With `cot = "tree"` the same partial products are summed in pairs, level by level, so that no sum waits for
more than log₂ L others:

    5 6 3 2 * 7 4 3 4||5 5 5 6 1 + 0 0 6 4 9 0 + 0 0 5 9 0 7 0 + 0 0 0 0 6 4 9 0
                       ( 5 5 1 1 1 1 + 0 0 5 9 6 1 0 1 ) #### 5 5 6 0 8 2 0 1        (one line)

First all partial products. Then each bracket holds a level: the sums of neighbours in the level before, so
that every level adds up to the product; where a level has an odd number, its last goes up as it is. The
last level is the answer. A sum of the digits i…j has i zeros and K+j+1 digits in all. The paper reports a
CoT in a binary tree, and gives no listing of it that we know of: this format is ours.

`render` writes one example with Python's numbers. `encode_pairs` makes hundreds of thousands of rows at
once, digit by digit, so that no factor is too long for it. They agree (tests), and both agree with the
published files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from trainer.data import asking, layout, pairs
from trainer.data import tokenizer as vocabulary
from trainer.data.layout import Line
from trainer.data.task import Problem, Remark
from trainer.events import Source
from trainer.methods.base import Examples

SYMBOLS = (*"0123456789", "*", "+", "(", ")", layout.SEPARATOR)
"""A digit's place is its value, so digits need no look-up."""

TIMES, PLUS, OPEN, CLOSE, SEPARATOR = range(10, 15)
BLANK, EOS = 15, 16  # where vocabulary.build puts them

Cot = Literal["schoolbook", "tree"]

CHUNK = 1 << 16  # rows made at once: keeps what is in between small
CHECKED = 32  # rows whose ids are compared with those of their text


class Multiplication:
    """The task of multiplying a K-digit number by an L-digit one. A `Task`."""

    def __init__(self, digits: int, digits_b: int | None = None, cot: Cot = "schoolbook") -> None:
        self.digits = digits
        self.digits_b = digits if digits_b is None else digits_b
        self.cot = cot
        self.name = f"{self.digits}×{self.digits_b} multiplication"
        self.remarks: list[Remark] = []
        self.sources: tuple[Source, ...] = ()

    def splits(
        self, sizes: Mapping[str, int], seed: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Examples]:
        drawn = pairs.split_pairs(self.digits, self.digits_b, sizes, seed)
        return {name: encode_pairs(a_NK, b_NL, tokenizer, self.cot) for name, (a_NK, b_NL) in drawn.items()}

    def lines(self, split: str, sizes: Mapping[str, int], seed: int) -> list[Line]:
        a_NK, b_NL = pairs.split_pairs(self.digits, self.digits_b, sizes, seed)[split]
        return render_pairs(a_NK, b_NL, self.cot)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return vocabulary.build(SYMBOLS)

    def example_text(self, examples: Examples, index: int, tokenizer: PreTrainedTokenizerBase) -> Line:
        return layout.decode_example(examples, index, tokenizer)

    def tidied(self, line: Line) -> Line:
        return line

    def understand(self, text: str) -> Problem:
        asked = asking.understand(text, self.digits, self.digits_b)
        line = render(asked.a.zfill(self.digits), asked.b.zfill(self.digits_b), self.cot)
        return Problem(
            question=line.question,
            shown=self.show_question(line.question),
            expected=self.read_answer(line.answer),
            note=asked.note,
            cot=line.cot,
        )

    def read_answer(self, answer: str) -> str:
        return _number(answer) or answer

    def show_question(self, question: str) -> str:
        a, _, b = question.partition("*")
        shown = (_number(a), _number(b))
        return " × ".join(shown) if all(shown) else question


def render(a: str, b: str, cot: Cot = "schoolbook") -> Line:
    """The example of two factors given as people write them; leading zeros count as digits."""
    partials = [int(a) * int(digit) * 10**j for j, digit in enumerate(reversed(b))]
    thought = (_rendered_tree if cot == "tree" else _rendered_schoolbook)(partials, len(a) + 1)
    question = f"{_reversed(int(a), len(a))} * {_reversed(int(b), len(b))}"
    return Line(question, thought, _reversed(sum(partials), len(a) + len(b)))


def render_pairs(a_NK: Tensor, b_NL: Tensor, cot: Cot = "schoolbook") -> list[Line]:
    """The examples of many pairs of factors, one by one. a_NK, b_NL: digits, units first."""
    factors = (["".join(map(str, reversed(row))) for row in rows.tolist()] for rows in (a_NK, b_NL))
    return [render(a, b, cot) for a, b in zip(*factors, strict=True)]


def _rendered_schoolbook(partials: list[int], width: int) -> str:
    steps, total = [], 0
    for j, partial in enumerate(partials):
        total += partial
        steps.append(_reversed(partial, width + j))
        if 1 <= j <= len(partials) - 2:
            steps[-1] += f" ( {_reversed(total, width + j)} )"
    return " + ".join(steps)


def _rendered_tree(partials: list[int], width: int) -> str:
    level = [(partial, width + j) for j, partial in enumerate(partials)]
    levels: list[str] = []
    while len(level) > 1 or not levels:
        levels.append(" + ".join(_reversed(*node) for node in level))
        level = [
            (sum(number for number, _ in pair), pair[-1][1])
            for pair in (level[i : i + 2] for i in range(0, len(level), 2))
        ]
    first, *others = levels
    return " ".join([first, *(f"( {other} )" for other in others)])


def encode_pairs(
    a_NK: Tensor, b_NL: Tensor, tokenizer: PreTrainedTokenizerBase, cot: Cot = "schoolbook"
) -> Examples:
    """The rows of many pairs of factors. a_NK, b_NL: digits, units first, uint8.

    Ids are uint8 in the task's own vocabulary, else int32. They are those of `layout.encode_lines`: the
    first rows are compared. A tokenizer that joins symbols, or that cuts one digit into more tokens than
    another, has every line tokenised by itself instead, which takes minutes for 808,000.
    """
    tokens = _symbol_tokens(tokenizer)
    if tokens is not None:
        few = slice(0, CHECKED)
        lines = _with_steps(render_pairs(a_NK[few], b_NL[few], cot))
        if _same(_from_table(a_NK[few], b_NL[few], tokens, cot), layout.encode_lines(lines, tokenizer)):
            return _from_table(a_NK, b_NL, tokens, cot)
    return layout.encode_lines(_with_steps(render_pairs(a_NK, b_NL, cot)), tokenizer)


def _with_steps(lines: list[Line]) -> list[Line]:
    """A step of the CoT is a number that is added, and the sum after it."""
    return [line._replace(cot=line.cot.replace(" + ", "\n+ ")) for line in lines]


class _Tokens(NamedTuple):
    """before: what the tokenizer puts before every text. symbols: the tokens of each symbol, by its id."""

    before: list[int]
    symbols: list[list[int]]


def _symbol_tokens(tokenizer: PreTrainedTokenizerBase) -> _Tokens | None:
    """How the tokenizer writes the symbols, blank and EOS; None where digits differ in their length."""
    symbols = [vocabulary.encode(f" {symbol}", tokenizer) for symbol in SYMBOLS[:SEPARATOR]]
    symbols += [layout.separator_ids(tokenizer), vocabulary.encode(vocabulary.BLANK, tokenizer)]
    if len({len(ids) for ids in symbols[:TIMES]}) > 1:
        return None
    [before] = vocabulary.encode_texts([""], tokenizer)
    return _Tokens(before, [*symbols, [tokenizer.eos_token_id]])


def _from_table(a_NK: Tensor, b_NL: Tensor, tokens: _Tokens, cot: Cot) -> Examples:
    """Rows of ids, each symbol's tokens looked up. Lengths are the same for all rows."""
    n, before = len(a_NK), len(tokens.before)
    zero_T1, question, thought = _symbol_rows(
        a_NK.new_zeros(a_NK.shape[1], 1), b_NL.new_zeros(b_NL.shape[1], 1), cot
    )
    counts_T = torch.tensor([len(ids) for ids in tokens.symbols])[zero_T1[:, 0].long()]
    direct = tokens == ([], [[id] for id in range(EOS + 1)])
    length = before + int(counts_T.sum())
    ids_NT = torch.empty(n, length, dtype=torch.uint8 if direct else torch.int32)
    ids_NT[:, :before] = torch.tensor(tokens.before, dtype=torch.int32)

    cot_T = zero_T1[question : question + thought, 0]
    before_T = counts_T[question : question + thought].cumsum(0) - counts_T[question : question + thought]
    cot_length = int(counts_T[question : question + thought].sum())
    ends_S = torch.cat([before_T[cot_T == PLUS], torch.tensor([cot_length])])
    width = max(map(len, tokens.symbols))
    table = np.array([ids + [0] * (width - len(ids)) for ids in tokens.symbols], np.int32).flatten()
    column_T = torch.arange(len(counts_T)).repeat_interleave(counts_T)
    place_T1 = torch.cat([torch.arange(count, dtype=torch.int16) for count in counts_T.tolist()])[:, None]
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        rows_TN = _symbol_rows(a_NK[part].T.contiguous(), b_NL[part].T.contiguous(), cot)[0]
        if not direct:  # numpy looks up three times as fast as torch
            rows_TN = torch.from_numpy(np.take(table, (rows_TN[column_T] * width + place_T1).numpy()))
        ids_NT[part, before:] = rows_TN.T
    return Examples(
        ids_NT,
        torch.full((n,), before + int(counts_T[:question].sum())),
        torch.full((n,), cot_length),
        torch.full((n,), length),
        ends_S.expand(n, -1),
    )


def _same(one: Examples, other: Examples) -> bool:
    return all(
        torch.equal(getattr(one, field.name).long(), getattr(other, field.name).long())
        for field in fields(Examples)
    )


def _symbol_rows(a_KN: Tensor, b_LN: Tensor, cot: Cot) -> tuple[Tensor, int, int]:
    """Rows as symbols, [T, N], with the lengths of question (with its EOS) and CoT (without its EOS).

    uint8 is enough: the largest number met is 9·9 + 8.
    """
    N = a_KN.shape[1]
    end = _constant(N, BLANK, EOS)
    question = [a_KN, _constant(N, TIMES), b_LN, end]
    partials_LKN = _partial_products(a_KN, b_LN)
    thought, total_KN = (_tree if cot == "tree" else _schoolbook)(partials_LKN)
    assert len(total_KN) == len(a_KN) + len(b_LN)
    rows_TN = torch.cat([*question, *thought, end, _constant(N, SEPARATOR), total_KN, end])
    question_length, cot_length = (sum(map(len, parts)) for parts in (question, thought))
    return rows_TN, question_length, cot_length + 1


def _constant(N: int, *symbols: int) -> Tensor:
    """The same symbols in every row: [len(symbols), N]."""
    return torch.tensor(symbols, dtype=torch.uint8)[:, None].expand(-1, N)


def _schoolbook(partials_LKN: Tensor) -> tuple[list[Tensor], Tensor]:
    """The parts of the CoT and the product."""
    L, _, N = partials_LKN.shape
    total_KN = partials_LKN[0]
    cot = [total_KN]
    for j in range(1, L):
        cot += [_constant(N, PLUS, *(0 for _ in range(j))), partials_LKN[j]]
        total_KN = torch.cat([total_KN[:j], _sum(partials_LKN[j], total_KN[j:])])
        if j <= L - 2:
            cot += [_constant(N, OPEN), total_KN, _constant(N, CLOSE)]
    return cot, total_KN


def _tree(partials_LKN: Tensor) -> tuple[list[Tensor], Tensor]:
    """The parts of the CoT and the product."""
    N = partials_LKN.shape[2]
    level = list(enumerate(partials_LKN))  # each with the number of zeros before it
    cot = _listed(level, N)
    while len(level) > 1:
        level = [_joined(level[i : i + 2]) for i in range(0, len(level), 2)]
        if len(level) > 1:
            cot += [_constant(N, OPEN), *_listed(level, N), _constant(N, CLOSE)]
    return cot, level[0][1]


def _listed(level: list[tuple[int, Tensor]], N: int) -> list[Tensor]:
    """A level of the tree: its numbers with the zeros before them, and + between."""
    parts = []
    for zeros, digits_KN in level:
        parts += [_constant(N, PLUS, *(0 for _ in range(zeros))), digits_KN]
    return [parts[0][1:], *parts[1:]]


def _joined(nodes: list[tuple[int, Tensor]]) -> tuple[int, Tensor]:
    """The sum of two neighbours, or the only one."""
    if len(nodes) == 1:
        return nodes[0]
    (zeros, low_KN), (more_zeros, high_KN) = nodes
    apart = more_zeros - zeros
    return zeros, torch.cat([low_KN[:apart], _sum(high_KN, low_KN[apart:])])


def _partial_products(a_KN: Tensor, b_LN: Tensor) -> Tensor:
    """The first factor times each digit of the second: [L, K + 1, N], units first."""
    carry_LN = torch.zeros_like(b_LN)
    digits = []
    for a_N in a_KN:
        value_LN = a_N * b_LN + carry_LN
        carry_LN = value_LN // 10
        digits.append(value_LN - 10 * carry_LN)
    return torch.stack([*digits, carry_LN], dim=1)


def _sum(longer_KN: Tensor, shorter_KN: Tensor) -> Tensor:
    """The sum of two numbers, which is known to fit into the digits of the longer."""
    carry_N = torch.zeros_like(longer_KN[0])
    digits = []
    for k, digit_N in enumerate(longer_KN):
        value_N = digit_N + carry_N
        if k < len(shorter_KN):
            value_N = value_N + shorter_KN[k]
        carry_N = value_N // 10
        digits.append(value_N - 10 * carry_N)
    return torch.stack(digits)


def _reversed(number: int, width: int) -> str:
    """Digits units first, zeros at the end: 48, 4 → "8 4 0 0"."""
    return " ".join(reversed(str(number).zfill(width)))


def _number(digits: str) -> str:
    """ "8 0 4 0" → "408"; "" where it is not digits alone."""
    joined = "".join(digits.split())
    if not (joined.isascii() and joined.isdigit()):
        return ""
    return joined[::-1].lstrip("0") or "0"
