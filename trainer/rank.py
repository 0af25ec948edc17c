"""What every rank of a run has, and does alike: the model, its optimiser, its share of each batch.

`Loop` decides, on rank 0, and has `Rank`'s operations done by `everywhere`: at once where the run is one
process, else by all ranks, which do one after the other what rank 0 asks (`follow`). An operation's arguments
and the model's weights decide what it does; no clock, no file that changes and no command does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from trainer.answering.evaluate import answer_room, answers
from trainer.answering.probe import learnt
from trainer.computing.compute import Compute
from trainer.computing.heap import ran_out, release
from trainer.computing.passes import Passes
from trainer.computing.sharding import blank, fill, shard
from trainer.computing.update import Applied, Updater
from trainer.computing.world import World
from trainer.config import Config
from trainer.events import Split
from trainer.methods.base import Batch, Decoded, Examples
from trainer.models import adapters
from trainer.parts import Parts
from trainer.saving import checkpoint
from trainer.saving.checkpoint import Tensors
from trainer.saving.shards import Shards
from trainer.seeds import Order, derive, generator

P = ParamSpec("P")
T = TypeVar("T")


class OutOfStepError(RuntimeError):
    """A rank that is not where rank 0 is: it must not train on."""


class DeclinedError(RuntimeError):
    """What no rank did, since one of them could not: nothing has changed, and all can go on."""


class Stepped(NamedTuple):
    """What a step did, of the whole batch. applied: None where every part was too long. left_out: parts that
    were. divided: how many examples did not fit into memory at once, 0 where they did."""

    applied: Applied | None
    tokens: int
    left_out: int
    cot_free: bool
    divided: int


class Rank:
    """One process's part of a run. Its public methods are the operations."""

    def __init__(self, config: Config, parts: Parts, compute: Compute, world: World) -> None:
        self._config = config
        self.parts, self.world = parts, world
        self.model, self.method = parts.model, parts.method
        self.train = parts.splits["train"]
        self.order = Order(config.seed, len(self.train), config.optim.batch)
        lowered = compute.precision == "bfloat16"
        self._objective = (
            shard(self.method, self.model, world.size, lowered=lowered) if world.sharded else None
        )
        self._shards = Shards(world) if world.sharded else None
        self.updater = Updater(self.model, config.optim, world)
        self.step = 0
        self.interrupted: Callable[[], bool] = world.interrupted
        """Whether answers shall end early; rank 0 has its own reasons."""
        self.use(compute)

    @property
    def bytes(self) -> int:
        """What all of the model's weights take."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    @property
    def trained_bytes(self) -> int | None:
        """What those take that are trained beside a base; None where all are."""
        trained = adapters.trained(self.model).values()
        return sum(p.numel() * p.element_size() for p in trained) or None

    def everywhere(self, operation: Callable[Concatenate[Rank, P], T], *args: P.args, **no: P.kwargs) -> T:
        """Have it done on all ranks, this one included; what it says here. By rank 0."""
        if self.world.alone:
            return operation(self, *args, **no)
        self.world.send(_NUMBER[operation.__name__], self.step, args)
        with self.world.at_work():
            return operation(self, *args, **no)

    def follow(self) -> None:
        """Do what rank 0 asks until it ends the run. Raises `OutOfStepError`."""
        while True:
            number, step, arguments = self.world.receive()
            if step != self.step:
                raise OutOfStepError(f"rank {self.world.rank} stands at step {self.step}, rank 0 at {step}")
            operation = OPERATIONS[number]
            with self.world.at_work(), suppress(DeclinedError):  # rank 0 has it, too, and knows what follows
                operation(self, *arguments)
            if operation is Rank.end:
                return

    # Operations -------------------------------------------------------------------------------------------

    def update(self, stream: int, scheduled: int, pretraining: int) -> Stepped:
        """One step: this rank's share of the batch, forward and backward, and everybody's update."""
        # Before the step and not after the last, or a checkpoint between would hold moments or not.
        begins = self.step > 0 and self.step % self.order.steps_per_epoch == 0
        if begins and self._config.method.reset_each_epoch:
            self.updater.reset()
        chance = generator(self._config.seed, "offset", stream, self.step)
        accumulate, longest = self._config.optim.accumulate, self._config.data.max_len_train
        rows = self.order.batch(stream, self.step).chunk(accumulate)
        parts = [
            self.method.rows(self.train[part], scheduled, chance, pretraining=bool(pretraining))
            for part in rows
        ]
        short = [part for part in parts if longest is None or part.longest <= longest]
        applied, divided = None, 0
        if short:
            applied, divided = self._update(stream, short, 1 / len(parts))
        self.step += 1
        return Stepped(
            applied,
            tokens=sum(part.tokens for part in short),
            left_out=len(parts) - len(short),
            cot_free=all(part.cot_free for part in parts),
            divided=divided,
        )

    def _update(self, stream: int, parts: Sequence[Batch], share: float) -> tuple[Applied, int]:
        """Update on a batch; in more parts, from now on, if it does not fit into the device's memory."""
        divided = 0
        place = [] if self.world.alone else [self.world.rank]  # each row has a mask of its own
        while True:
            torch.manual_seed(derive(self._config.seed, "dropout", stream, self.step, *place))
            try:
                return self.updater.step(self.passes, parts, share), divided
            except (RuntimeError, MemoryError) as error:
                rows = len(parts[0].length_B)
                more = self.compute.divided(rows)
                if not ran_out(error) or more is None or not self.world.alone:
                    raise
            self.passes.clear()
            release()
            self.use(more)
            divided = rows

    def use(self, compute: Compute) -> None:
        """Compute so from now on."""
        torch.set_num_threads(compute.threads)
        self.compute = compute
        self.passes = Passes(self.method, self.model, compute, self._objective)

    def enter(self, before: int, after: int, reset: int) -> None:
        """Let the model follow removals, with a new optimiser or not."""
        self.method.enter(self.model, before, after)
        if reset:
            self.updater.reset()

    def configure(self, config: Config) -> None:
        """Take up settings that changed."""
        threads = config.compute.threads
        if threads is not None and threads != self.compute.threads:
            self.use(replace(self.compute, threads=threads))
        self._config = config
        self.method.configure(config.method)
        self.updater.configure(config.optim)

    def answer(self, split: Split, count: int, scheduled: int, shortcut: int) -> Decoded | None:
        """Greedy answers to the first `count` examples of a split, at rank 0; None when interrupted."""
        room, mine = answer_room(self.parts.splits[split][:count]), self._share(split, count)
        model = self.whole().model
        with self.compute.answering(model):
            given = answers(
                self.method,
                model,
                mine,
                scheduled,
                room,
                shortcut=bool(shortcut),
                interrupted=self.interrupted,
            )
        if given is None:
            self.world.interrupt()
        shares = self.world.gather(given)
        there = [share for share in shares if share is not None]
        return Decoded.joined(there) if there and len(there) == len(shares) else None

    def probe(self, count: int, scheduled: int) -> float:
        """The share of the first validation examples that is learnt, as `probe` tells."""
        mine = self._share("valid", count)
        with self.compute.autocast(self.parts.device):
            right = learnt(self.method, self.whole().model, mine, scheduled, self._config.optim.batch)
        self.world.add([right])
        return int(right) / count

    def whole(self) -> Parts:
        """The parts with all of the model, to answer with: a copy where it is spread.

        Raises `DeclinedError` where a rank has no room for it.
        """
        if not self.world.sharded:
            return self.parts
        copy = self._ready(partial(blank, self.model))
        return replace(self.parts, model=fill(copy, self.model))

    def copy(self) -> Tensors:
        """Weights and moments in the memory of the CPU, at rank 0; where they are spread, of the moments each
        rank's share there."""
        if self.world.rank and not self.world.sharded:
            return Tensors({}, {}, {})
        return checkpoint.copied(
            self.model, self.updater.optimizer, keep=self.world.rank == 0, shards=self._shards
        )

    def restore(self, path: Path, step: int, updates: int) -> None:
        """Weights, optimiser and step of a checkpoint.

        Raises `CheckpointError`, or of several ranks `DeclinedError`, nothing changed.
        """
        saved = self._ready(partial(self._read, path))
        checkpoint.put_weights(saved, self.model)
        self.updater.reset()
        checkpoint.load_optimizer(path, self.updater.optimizer)
        self.step, self.updater.updates = step, updates

    def end(self) -> None:
        """The run is over."""
        if self._shards is not None:
            self._shards.end()

    def _read(self, path: Path) -> Mapping[str, Tensor]:
        checkpoint.check_moments(path, self._config.optim)
        return checkpoint.read_weights(path, self.model)

    def _ready(self, prepare: Callable[[], T]) -> T:
        """What this rank prepares, by itself, for what all do together, once every rank has it.

        Raises `DeclinedError` on all ranks where one could not: a rank that begins and fails leaves the
        others waiting for it, or takes its next order for theirs.
        """
        if self.world.alone:
            return prepare()
        prepared, trouble = None, ""
        try:
            prepared = prepare()
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            trouble = f"{kind}{error}".partition("\n")[0] or "it said nothing"
        for rank, said in enumerate(self.world.shared(trouble)):
            if said:
                raise DeclinedError(f"{said} (rank {rank})")
        assert prepared is not None
        return prepared

    def _share(self, split: Split, count: int) -> Examples:
        return self.parts.splits[split][:count][self.world.share(count)]


OPERATIONS: tuple[Callable[..., Any], ...] = (
    Rank.update,
    Rank.use,
    Rank.enter,
    Rank.configure,
    Rank.answer,
    Rank.probe,
    Rank.whole,
    Rank.copy,
    Rank.restore,
    Rank.end,
)
"""What rank 0 may ask of the others; a record says the number."""
_NUMBER = {operation.__name__: number for number, operation in enumerate(OPERATIONS)}
