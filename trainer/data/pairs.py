"""Pairs of factors: drawn from a seed, unique, and cut into splits that share none.

The draws form one fixed sequence per (seed, digits); splits are consecutive ranges of it, so a larger
training set leaves validation and test as they were.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trainer.seeds import generator

SPLITS = ("valid", "test", "train")

TWINS_APART_UP_TO = 3
"""For K×K up to this K, both orders of a pair lie in one split; beyond, hardly any pair meets its twin."""

ENUMERATED = 10_000_000
"""Up to so many pairs in all, the sequence is a permutation of all; beyond, draws without repeats."""

BLOCK = 1 << 16
KEY_DIGITS = 18  # decimal digits that always fit into 63 bits


def count(digits_a: int, digits_b: int) -> int:
    """How many ordered pairs of factors there are; the top digit is 1…9."""
    return int(81 * 10 ** (digits_a + digits_b - 2))


def split_pairs(
    digits_a: int, digits_b: int, sizes: Mapping[str, int], seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors of each split: digits units first, uint8, shapes [n, digits_a] and [n, digits_b].

    Where twins are kept together a size is met exactly as long as a square (a pair without a twin) is
    left to make an odd number even; failing that the split is one short.

    Raises `ValueError` when more pairs are asked for than there are.
    """
    asked, available = sum(sizes.values()), count(digits_a, digits_b)
    if asked > available:
        raise ValueError(
            f"{asked:,} examples were asked for ({_listed(sizes)}), but {digits_a}×{digits_b} "
            f"multiplication has only {available:,} pairs; lower data.{max(sizes, key=sizes.__getitem__)}"
        )
    if digits_a == digits_b <= TWINS_APART_UP_TO:
        return _split_with_twins(digits_a, sizes, seed)
    rows = _sequence(digits_a, digits_b, asked, seed)
    result, start = {}, 0
    for name in _in_order(sizes):
        part = rows[start : start + sizes[name]]
        result[name] = (part[:, :digits_a], part[:, digits_a:])
        start += sizes[name]
    return result


def _in_order(sizes: Mapping[str, int]) -> list[str]:
    assert set(sizes) <= set(SPLITS), sizes
    return [name for name in SPLITS if name in sizes]


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {sizes[name]:,}" for name in _in_order(sizes))


def _sequence(digits_a: int, digits_b: int, n: int, seed: int) -> Tensor:
    """The first n pairs of the seed's sequence, unique: [n, digits_a + digits_b], units first."""
    chance = generator(seed, "pairs", digits_a, digits_b)
    available = count(digits_a, digits_b)
    if available <= ENUMERATED:
        index = torch.randperm(available, generator=chance)[:n]
        per_a = 9 * 10 ** (digits_b - 1)
        a, b = index // per_a + 10 ** (digits_a - 1), index % per_a + 10 ** (digits_b - 1)
        return torch.cat([_digits(a, digits_a), _digits(b, digits_b)], dim=1)
    rows = torch.empty(0, digits_a + digits_b, dtype=torch.uint8)
    while len(rows) < n:
        # Whole blocks: what is drawn next must not depend on how many were asked for.
        blocks = [_block(digits_a, digits_b, chance) for _ in range(-(-(n - len(rows)) // BLOCK))]
        rows = torch.cat([rows, *blocks])
        rows = rows[_first_occurrences(_ranks(rows))]
    return rows[:n]


def _block(digits_a: int, digits_b: int, chance: torch.Generator) -> Tensor:
    rows = torch.randint(10, (BLOCK, digits_a + digits_b), dtype=torch.uint8, generator=chance)
    top = torch.tensor([digits_a - 1, digits_a + digits_b - 1])
    rows[:, top] = torch.randint(1, 10, (BLOCK, 2), dtype=torch.uint8, generator=chance)
    return rows


def _digits(numbers: Tensor, width: int) -> Tensor:
    """[n] → [n, width], units first."""
    return (numbers[:, None] // 10 ** torch.arange(width) % 10).to(torch.uint8)


def _ranks(rows: Tensor) -> Tensor:
    """One number per row, the same for equal rows only, however many digits a row has."""
    key = torch.zeros(len(rows), dtype=torch.long)
    for part in rows.split(KEY_DIGITS, dim=1):
        value: Tensor = part.long() @ torch.pow(10, torch.arange(part.shape[1]))
        if part.shape[1] == rows.shape[1]:
            return value
        rank = torch.unique(value, return_inverse=True)[1]
        key = torch.unique(key * len(rows) + rank, return_inverse=True)[1]
    return key


def _first_occurrences(key: Tensor) -> Tensor:
    """Indices of the rows whose key did not occur before, in order."""
    first = np.unique(key.numpy(), return_index=True)[1]
    return torch.from_numpy(np.sort(first))


def _split_with_twins(digits: int, sizes: Mapping[str, int], seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Splits of whole groups {a×b, b×a}. In a split, the first order of every group comes before twins."""
    rows = _sequence(digits, digits, count(digits, digits), seed)
    a, b = _ranks(rows[:, :digits]), _ranks(rows[:, digits:])
    groups = rows[_first_occurrences(torch.minimum(a, b) * 10**digits + torch.maximum(a, b))]
    is_square = (groups[:, :digits] == groups[:, digits:]).all(dim=1)
    result = {}
    for name in _in_order(sizes):
        taken = _take_groups(2 - is_square.int(), sizes[name])
        twins = groups[taken & ~is_square].roll(digits, dims=1)
        part = torch.cat([groups[taken], twins])
        result[name] = (part[:, :digits], part[:, digits:])
        groups, is_square = groups[~taken], is_square[~taken]
    return result


def _take_groups(members: Tensor, size: int) -> Tensor:
    """Which groups, of one or two members, are taken in order to make `size` members: a mask."""
    taken = members.cumsum(0) <= size
    if int(members[taken].sum()) < size:
        # One short before a group of two: a later single one fills it, or an earlier one makes room.
        later = (members == 1) & ~taken
        earlier = (members == 1) & taken
        if later.any():
            taken[later.nonzero()[0]] = True
        elif earlier.any():
            taken[earlier.nonzero()[-1]] = False
            taken[(members == 2).logical_and(~taken).nonzero()[0]] = True
    return taken
