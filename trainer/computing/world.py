"""The ranks of a run: who this process is among them, and how rank 0 has all of them do the same.

Rank 0 decides. What the ranks do together, a step as well as what a command changes, it sends to all of them
as one small record of fixed size, on a process group used for nothing else; only where more must be said does
a payload follow. So whatever depends on a clock, a file or a person is decided once, and lands between the
same two steps everywhere. A run of one process has no process group, and nothing here costs it anything.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

RECORD = 8
"""Numbers of a record: the operation, the sender's step, what follows, and up to five arguments."""
BUCKET = 2**24
"""Numbers that are added up over the ranks at once."""


class Order(NamedTuple):
    """What rank 0 asks of all: the number of an operation and its arguments. step: where it stood."""

    operation: int
    step: int
    arguments: tuple[Any, ...]


@dataclass
class World:
    """Where this process stands among those that train one run. `World()` is a run of one process.

    rank, size: of all. sharded: weights, gradients and moments are spread over the ranks (FSDP2) instead of
    lying whole on each. records: the group of the records. saves: that of threads which write checkpoints.
    """

    rank: int = 0
    size: int = 1
    sharded: bool = False
    records: dist.ProcessGroup | None = field(default=None, repr=False)
    saves: dist.ProcessGroup | None = field(default=None, repr=False)
    orders: int = 0
    """How many records have gone out."""
    busy: bool = False
    """Whether the ranks are at what the last one asked."""

    @property
    def alone(self) -> bool:
        return self.size == 1

    # Records ----------------------------------------------------------------------------------------------

    def send(self, operation: int, step: int, arguments: tuple[Any, ...]) -> None:
        """Have all other ranks do it; by rank 0."""
        inline = len(arguments) <= RECORD - 3 and all(type(given) in (int, bool) for given in arguments)
        payload = b"" if inline else pickle.dumps(arguments)
        # What follows: the bytes of a payload, or, below zero, how many arguments stand in the record itself.
        follows = ~len(arguments) if inline else len(payload)
        given = [*map(int, arguments)] if inline else []
        record = torch.tensor([operation, step, follows, *given, *[0] * (RECORD - 3 - len(given))])
        self.orders += 1
        dist.broadcast(record, 0, group=self.records)
        if payload:
            dist.broadcast(torch.frombuffer(bytearray(payload), dtype=torch.uint8), 0, group=self.records)

    def receive(self) -> Order:
        """What rank 0 asks next; waits for it for as long as need be."""
        record = torch.zeros(RECORD, dtype=torch.long)
        dist.broadcast(record, 0, group=self.records)
        self.orders += 1
        operation, step, follows, *given = record.tolist()
        if follows < 0:
            return Order(operation, step, tuple(given[:~follows]))
        payload = torch.empty(follows, dtype=torch.uint8)
        dist.broadcast(payload, 0, group=self.records)
        return Order(operation, step, pickle.loads(payload.numpy().tobytes()))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this rank does what was asked."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def interrupt(self) -> None:
        """Have the others end what was asked last, where they look for it; by rank 0."""
        if not self.alone:
            _store().set(self._interruption, "")

    def interrupted(self) -> bool:
        """Whether rank 0 has what it asked last ended early."""
        return bool(_store().check([self._interruption]))

    @property
    def _interruption(self) -> str:
        return f"interrupted/{self.orders}"

    # What is computed together ----------------------------------------------------------------------------

    def share(self, count: int) -> slice:
        """Which of `count` things, in their order, are this rank's."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Put the sum over all ranks in the place of each of these tensors."""
        if not self.alone:
            for bucket in _buckets(tensors):
                together = torch.cat([tensor.flatten() for tensor in bucket])
                dist.all_reduce(together)
                parts = together.split([tensor.numel() for tensor in bucket])
                for tensor, part in zip(bucket, parts, strict=True):
                    tensor.copy_(part.view_as(tensor))

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks."""
        self.add([tensor])
        return tensor

    def same(self, value: T) -> T:
        """What rank 0 has, at every rank; the others call `given`."""
        values: list[Any] = [value]
        if not self.alone:
            dist.broadcast_object_list(values, 0)
        found: T = values[0]
        return found

    def given(self) -> Any:
        """What rank 0 has, at the others."""
        return self.same(None)

    def shared(self, value: T) -> list[T]:
        """What each rank has, in their order, at every rank."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather(self, value: T) -> list[T]:
        """What each rank has, in their order, at rank 0; nothing elsewhere."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.gather_object(value, values if self.rank == 0 else None)
        return values if self.rank == 0 else []


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one kind that together are worth one message."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or _size(bucket) + tensor.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _size(bucket: Sequence[Tensor]) -> int:
    return sum(tensor.numel() for tensor in bucket)


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()
