"""Random numbers from counters: what is drawn depends on (seed, purpose, place), never on what ran before.

So order, offsets and dropout of step t are the same after a resume, with the cockpit open or absent, and
on any number of ranks; there is no generator state to save.
"""

from __future__ import annotations

import hashlib

import torch


def derive(*words: int | str) -> int:
    """A 63-bit seed from the words; different words give unrelated seeds."""
    digest = hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*words: int | str) -> torch.Generator:
    """A CPU generator seeded by the words."""
    return torch.Generator().manual_seed(derive(*words))


class Order:
    """Which examples make batch `step`: one seeded permutation an epoch, incomplete batches left out.

    stream: the number that a roll back changes to draw fresh data.
    """

    def __init__(self, seed: int, examples: int, batch: int) -> None:
        self._seed = seed
        self._examples = examples
        self._batch = min(batch, examples)
        self.steps_per_epoch = examples // self._batch
        self._cached: tuple[int, int] | None = None
        self._permutation = torch.empty(0, dtype=torch.long)

    def batch(self, stream: int, step: int) -> torch.Tensor:
        """Indices of the examples of batch `step` (from 0)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._cached != (stream, epoch):
            chance = generator(self._seed, "order", stream, epoch)
            self._permutation = torch.randperm(self._examples, generator=chance)
            self._cached = (stream, epoch)
        return self._permutation[index * self._batch : (index + 1) * self._batch]
