"""K×L multiplication as the papers write it: digits reversed, units first, the CoT a schoolbook product.

    5 6 3 2 * 7 4 3 4||5 5 5 6 1 + 0 0 6 4 9 0 ( 5 5 1 1 1 1 ) + … + 0 0 0 0 6 4 9 0 #### 5 5 6 0 8 2 0 1

The partial product of digit j of the second factor has j zeros and K+1 digits; after all but the first
and the last of them the running sum stands in brackets; the answer has K+L digits, zeros at its end.

`render` writes one example with Python's numbers. `encode_pairs` makes hundreds of thousands of rows at
once, digit by digit, so that no factor is too long for it. They agree (tests), and both agree with the
published files.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from trainer.data import asking, layout, pairs
from trainer.data import tokenizer as vocabulary
from trainer.data.layout import Line
from trainer.data.task import Problem
from trainer.methods.base import Examples

SYMBOLS = (*"0123456789", "*", "+", "(", ")", layout.SEPARATOR)
"""A digit's place is its value, so digits need no look-up."""

TIMES, PLUS, OPEN, CLOSE, SEPARATOR = range(10, 15)
BLANK, EOS = 15, 16  # where vocabulary.build puts them
SYMBOL_COUNT = 17

CHUNK = 1 << 16  # rows made at once: keeps what is in between small


class Multiplication:
    """The task of multiplying a K-digit number by an L-digit one. A `Task`."""

    def __init__(self, digits: int, digits_b: int | None = None) -> None:
        self.digits = digits
        self.digits_b = digits if digits_b is None else digits_b
        self.name = f"{self.digits}×{self.digits_b} multiplication"

    def splits(
        self, sizes: Mapping[str, int], seed: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Examples]:
        drawn = pairs.split_pairs(self.digits, self.digits_b, sizes, seed)
        return {name: encode_pairs(a_NK, b_NL, tokenizer) for name, (a_NK, b_NL) in drawn.items()}

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return vocabulary.build(SYMBOLS)

    def example_text(self, examples: Examples, index: int, tokenizer: PreTrainedTokenizerBase) -> Line:
        return layout.decode_example(examples, index, tokenizer)

    def understand(self, text: str) -> Problem:
        asked = asking.understand(text, self.digits, self.digits_b)
        line = render(asked.a.zfill(self.digits), asked.b.zfill(self.digits_b))
        return Problem(
            question=line.question,
            shown=self.show_question(line.question),
            expected=self.read_answer(line.answer),
            cot=(*line.cot.split(), vocabulary.BLANK),
            note=asked.note,
        )

    def read_answer(self, answer: str) -> str:
        return _number(answer) or answer

    def show_question(self, question: str) -> str:
        a, _, b = question.partition("*")
        shown = (_number(a), _number(b))
        return " × ".join(shown) if all(shown) else question


def render(a: str, b: str) -> Line:
    """The example of two factors given as people write them; leading zeros count as digits."""
    width = len(a) + 1
    steps, total = [], 0
    for j, digit in enumerate(reversed(b)):
        partial = int(a) * int(digit) * 10**j
        total += partial
        steps.append(_reversed(partial, width + j))
        if 1 <= j <= len(b) - 2:
            steps[-1] += f" ( {_reversed(total, width + j)} )"
    question = f"{_reversed(int(a), len(a))} * {_reversed(int(b), len(b))}"
    return Line(question, " + ".join(steps), _reversed(total, len(a) + len(b)))


def encode_pairs(a_NK: Tensor, b_NL: Tensor, tokenizer: PreTrainedTokenizerBase) -> Examples:
    """The rows of many pairs of factors. a_NK, b_NL: digits, units first, uint8.

    Ids are uint8 in the task's own vocabulary, else int32. Raises `ValueError` where the tokenizer
    needs several tokens for a digit or a sign.
    """
    ids = _symbol_ids(tokenizer)
    direct = ids.tolist() == list(range(len(ids)))
    n, more = len(a_NK), len(ids) - SYMBOL_COUNT
    no_rows_TN, question, cot = _symbol_rows(a_NK[:0].T, b_NL[:0].T, more)  # lengths are the same for all
    length = len(no_rows_TN)
    ids_NT = torch.empty(n, length, dtype=torch.uint8 if direct else torch.int32)
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        rows_TN = _symbol_rows(a_NK[part].T.contiguous(), b_NL[part].T.contiguous(), more)[0]
        ids_NT[part] = rows_TN.T if direct else ids[rows_TN.T.int()]
    return Examples(ids_NT, torch.full((n,), question), torch.full((n,), cot), torch.full((n,), length))


def _symbol_ids(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Token ids of the symbols, blank and EOS, in the order of the constants above, int32.

    Where #### is several tokens, the first stands at its place and the others come after EOS.
    """
    ids = [layout.encode_one(f" {symbol}", tokenizer) for symbol in SYMBOLS[:SEPARATOR]]
    first, *more = layout.separator_ids(tokenizer)
    ids += [first, layout.encode_one(vocabulary.BLANK, tokenizer), tokenizer.eos_token_id, *more]
    return torch.tensor(ids, dtype=torch.int32)


def _symbol_rows(a_KN: Tensor, b_LN: Tensor, more_separators: int) -> tuple[Tensor, int, int]:
    """Rows as symbols, [T, N], with the lengths of question (with its EOS) and CoT (without its EOS).

    uint8 is enough: the largest number met is 9·9 + 8.
    """
    (K, N), L = a_KN.shape, len(b_LN)

    def constant(*symbols: int) -> Tensor:
        return torch.tensor(symbols, dtype=torch.uint8)[:, None].expand(-1, N)

    end = constant(BLANK, EOS)
    question = [a_KN, constant(TIMES), b_LN, end]
    partials_LKN = _partial_products(a_KN, b_LN)
    total_KN = partials_LKN[0]
    cot = [total_KN]
    for j in range(1, L):
        cot += [constant(PLUS, *(0 for _ in range(j))), partials_LKN[j]]
        total_KN = torch.cat([total_KN[:j], _sum(partials_LKN[j], total_KN[j:])])
        if j <= L - 2:
            cot += [constant(OPEN), total_KN, constant(CLOSE)]
    assert len(total_KN) == K + L
    separator = constant(SEPARATOR, *range(SYMBOL_COUNT, SYMBOL_COUNT + more_separators))
    rows_TN = torch.cat([*question, *cot, end, separator, total_KN, end])
    question_length, cot_length = (sum(map(len, parts)) for parts in (question, cot))
    return rows_TN, question_length, cot_length + 1


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
    """The sum of two numbers of which one has a digit more, and into whose digits it is known to fit."""
    carry_N = torch.zeros_like(longer_KN[0])
    digits = []
    for x_N, y_N in zip(longer_KN[:-1], shorter_KN, strict=True):
        value_N = x_N + y_N + carry_N
        carry_N = value_N // 10
        digits.append(value_N - 10 * carry_N)
    return torch.stack([*digits, longer_KN[-1] + carry_N])


def _reversed(number: int, width: int) -> str:
    """Digits units first, zeros at the end: 48, 4 → "8 4 0 0"."""
    return " ".join(reversed(str(number).zfill(width)))


def _number(digits: str) -> str:
    """ "8 0 4 0" → "408"; "" where it is not digits alone."""
    joined = "".join(digits.split())
    if not (joined.isascii() and joined.isdigit()):
        return ""
    return joined[::-1].lstrip("0") or "0"
