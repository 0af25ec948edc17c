"""Held-out examples, cut off a training file where none are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from trainer.data.files import Contents, DataError
from trainer.seeds import generator

SHARE = 10  # at most one in so many is cut off for valid, and as much for test


def cut(train: Contents, sizes: Mapping[str, int], seed: int) -> tuple[dict[str, list[int]], list[int]]:
    """The places of held-out examples, at most a tenth each, and those of the rest, in order.

    Raises `DataError` when there are too few different questions.
    """
    by_question: dict[str, list[int]] = {}
    for place, line in enumerate(train.lines):
        by_question.setdefault(line.question, []).append(place)
    groups = list(by_question.values())
    if (questions := len(groups)) <= len(sizes):
        raise DataError(
            f"{train.file}: has {questions} different question{'' if questions == 1 else 's'}, too few to "
            f"cut {' and '.join(sizes)} from them; give files: data.valid_file, data.test_file"
        )
    if sizes:
        order = torch.randperm(len(groups), generator=generator(seed, "held out")).tolist()
        groups = [groups[i] for i in order]
    taken = {}
    for name, size in sizes.items():
        taken[name], groups = _take(groups, min(size, max(1, len(train.lines) // SHARE)))
    return taken, sorted(place for group in groups for place in group)


def _take(groups: Sequence[list[int]], size: int) -> tuple[list[int], list[list[int]]]:
    """Whole groups of at most `size` in all, or the smallest where every one is larger; and the rest."""
    taken: list[list[int]] = []
    rest: list[list[int]] = []
    room = size
    for group in groups:
        fits = len(group) <= room
        (taken if fits else rest).append(group)
        room -= len(group) if fits else 0
    if not taken and size:
        smallest = min(rest, key=len)
        rest.remove(smallest)
        taken = [smallest]
    return [place for group in taken for place in group], rest
