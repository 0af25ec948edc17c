"""Moments of a model that is spread: each rank writes its share, by `torch.distributed.checkpoint`.

    optimizer/shard-00001-….safetensors   of the first rank, and so on

The format is safetensors, so that nothing is unpickled; any number of ranks can read it, each what it needs.
The ranks write in threads of their own, over a group used for nothing else, when rank 0's writer asks for it;
training goes on meanwhile. Weights are not written so: a checkpoint's `model/` loads anywhere.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from trainer.computing.world import World

FOLDER = "optimizer"
FORGET, END = "", None
"""What rank 0 says instead of a folder: that a copy is not needed any more; that the run is over."""

END_SECONDS = 10.0


class Shards:
    """What this rank has of each copy that is to be written. Every rank has one, made by all together."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._mesh = init_device_mesh("cpu", (world.size,))
        self._copies: dict[int, dict[str, Tensor]] = {}
        self._count = 0
        self._news, self._asking = threading.Condition(), threading.Lock()
        self._writer = threading.Thread(target=self._follow, name="stepwise-shards", daemon=True)
        if world.rank:
            self._writer.start()

    def copy(self, tensors: Iterable[tuple[str, Tensor]]) -> Spread | None:
        """Copy this rank's share into the memory of the CPU; None where there is nothing. By all ranks."""
        copies = {name: self._copied(tensor.detach()) for name, tensor in tensors}
        if not copies:
            return None
        with self._news:
            self._count += 1
            self._copies[self._count] = copies
            self._news.notify_all()
        return Spread(self, self._count, sum(tensor.nbytes for tensor in copies.values()))

    def write(self, number: int, folder: Path) -> None:
        """Have all ranks write their shares of a copy; by rank 0. Raises OSError."""
        with self._asking:
            self._tell(number, str(folder))
            self._save(number, str(folder))

    def forget(self, number: int) -> None:
        """Let all ranks forget a copy and those before; by rank 0."""
        with self._asking:
            self._tell(number, FORGET)
        self._drop(number)

    def end(self) -> None:
        """The run is over. By all ranks; what the disk does not take by now is given up."""
        if self._world.rank:
            self._writer.join(END_SECONDS)
        elif self._asking.acquire(blocking=False):
            self._tell(0, END)

    def _copied(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor.to("cpu", copy=True)
        return DTensor.from_local(
            tensor.to_local().to("cpu", copy=True),
            self._mesh,
            tensor.placements,
            run_check=False,
            shape=tensor.shape,
            stride=tensor.stride(),
        )

    def _tell(self, number: int, folder: str | None) -> None:
        dist.broadcast_object_list([number, folder], 0, group=self._world.saves)

    def _follow(self) -> None:
        """Write and forget as rank 0 asks."""
        while True:
            told: list[int | str | None] = [None, None]
            try:
                dist.broadcast_object_list(told, 0, group=self._world.saves)
            except RuntimeError:  # rank 0 is gone: so will this process be
                return
            number, folder = told
            assert isinstance(number, int) and not isinstance(folder, int)
            if folder is END:
                return
            if folder == FORGET:
                self._drop(number)
                continue
            try:
                self._save(number, folder)
            except OSError:  # rank 0 knows, and will ask again
                continue

    def _save(self, number: int, folder: str) -> None:
        with self._news:
            self._news.wait_for(lambda: number in self._copies)  # this rank may still be copying
            copies = self._copies[number]
        writer = HuggingFaceStorageWriter(folder, save_distributed=True)
        try:
            save(dict(copies), storage_writer=writer, process_group=self._world.saves)
        except CheckpointException as error:
            rank, (reason, _) = next(iter(error.failures.items()))
            raise OSError(f"{folder}: rank {rank} cannot write its share: {reason}") from None

    def _drop(self, number: int) -> None:
        with self._news:
            self._copies = {n: copies for n, copies in self._copies.items() if n > number}


@dataclass(frozen=True, slots=True)
class Spread:
    """A copy that lies in the memory of all ranks, as rank 0 has it. bytes: of all of them together."""

    shards: Shards
    number: int
    bytes: int

    def write(self, folder: Path) -> None:
        """Write it. Raises OSError."""
        self.shards.write(self.number, folder / FOLDER)

    def forget(self) -> None:
        """It is written, or will never be."""
        self.shards.forget(self.number)


def names(path: Path) -> list[str]:
    """Of the tensors in a checkpoint."""
    return [*HuggingFaceStorageReader(str(path / FOLDER)).read_metadata().state_dict_metadata]


def read(path: Path, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of the tensors in a checkpoint this rank needs: spread as those of `like`, or whole.

    like: by the names' first part, a tensor of the same shape. Numbers are whole tensors anyway.
    """
    reader = HuggingFaceStorageReader(str(path / FOLDER))
    found: dict[str, Tensor] = {}
    for name, kind in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(kind, TensorStorageMetadata)
        parameter, dtype = like[name.partition(".")[0]], kind.properties.dtype
        found[name] = torch.empty_like(parameter, dtype=dtype) if kind.size else torch.empty((), dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that each rank reads by itself
        load(found, storage_reader=reader, no_dist=True)
    return found
