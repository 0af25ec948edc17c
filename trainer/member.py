"""The process of one rank: `python -m trainer.member ADDRESS FOLDER`, as torch's launcher starts it.

Rank 0 trains the run and talks to its host, at ADDRESS; the others follow it. FOLDER is the run's.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from trainer.channel import Closed, Crashed, Failed, HostEnd, State
from trainer.compute import Compute
from trainer.config import Config
from trainer.control import Inbox
from trainer.heap import keep_memory
from trainer.parts import assemble
from trainer.rank import Rank
from trainer.signs import SECONDS, Sign, sign
from trainer.training import Training, explain
from trainer.world import World

NO_LIMIT = timedelta(days=365)
"""Of the records: between two of them lies a pause as long as the operator likes. Signs tell who hangs."""
LINGER_SECONDS = 3.0
"""That rank 0 waits when it breaks: another rank may have been first, and the launcher is to see that."""


def join() -> World:
    """Take this process's place among those that the launcher started."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    records = dist.new_group(backend="gloo", timeout=NO_LIMIT)
    return World(dist.get_rank(), dist.get_world_size(), records=records)


class Signs:
    """Says how this rank is every second, by the launcher's store; rank 0 reads them all.

    told: called with all signs, at rank 0; it raises OSError where nobody hears.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._thread = threading.get_ident()
        store: Any = dist.distributed_c10d._get_default_store()
        self._store = store.clone()  # one that waits for nobody else's answer
        self._count = 0
        self._say()
        dist.barrier()
        threading.Thread(target=self._go, name="stepwise-signs", daemon=True).start()

    def _go(self) -> None:
        while True:
            time.sleep(SECONDS)
            try:
                self._say()
            except Exception:  # the store went with rank 0: so will this process
                return

    def _say(self) -> None:
        world = self._world
        self._count += 1
        mine = sign(world.rank, self._count, world.orders, world.busy, self._thread)
        self._store.set(f"sign/{world.rank}", pickle.dumps(mine))

    def read(self) -> tuple[Sign, ...]:
        """The last sign of every rank."""
        found = self._store.multi_get([f"sign/{rank}" for rank in range(self._world.size)])
        return tuple(map(pickle.loads, found))


def lead(world: World, address: str, folder: Path) -> None:
    """Train the run that the host wants trained."""
    inbox = Inbox()
    host = HostEnd(address, inbox, lost=lambda: os._exit(1))
    signs = Signs(world)
    training = Training(folder, inbox, host, world, host.job.pid)

    def report() -> None:
        while True:
            try:
                host.say(State(signs.read(), training.needs(), training.ended))
            except Exception:
                return
            time.sleep(SECONDS)

    threading.Thread(target=report, name="stepwise-report", daemon=True).start()
    try:
        begun = training.begin(host.job.config, resume=host.job.resume, paused=host.job.paused)
    except Exception as error:
        host.say(Failed(str(error) if isinstance(error, ValueError) else explain(error)))
        raise SystemExit(1) from None
    host.say(begun)
    try:
        training.run()
        assert training.loop is not None
        training.loop.rank.everywhere(Rank.end)
    except Exception as error:
        host.say(Crashed(explain(error), traceback.format_exc()))
        time.sleep(LINGER_SECONDS)
        raise
    host.say(Closed())


def follow(world: World, folder: Path) -> None:
    """Do what rank 0 asks, to the end."""
    Signs(world)
    nothing: tuple[Config, Path | None] | None = None
    world.gather(folder.is_dir())
    given = world.same(nothing)
    assert given is not None
    config, saved = given
    compute: Compute | None = world.same(None)
    assert compute is not None
    torch.set_num_threads(compute.threads)
    world.sharded = config.compute.parallel == "fsdp"
    Rank(config, assemble(config, saved), compute, world).follow()


@record
def main() -> None:
    """Of `python -m trainer.member`."""
    address, folder = sys.argv[1], Path(sys.argv[2])
    keep_memory()
    world = join()
    if world.rank == 0:
        lead(world, address, folder)
    else:
        follow(world, folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
