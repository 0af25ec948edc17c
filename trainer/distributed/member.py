"""The process of one rank, as torch's launcher starts it: rank 0 trains the run and talks to its host, the
others follow it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trainer.computing.compute import Compute
from trainer.computing.heap import keep_memory
from trainer.computing.world import World
from trainer.config import Config
from trainer.distributed.channel import Closed, Crashed, Failed, HostEnd, State, Stop
from trainer.distributed.signs import SECONDS, SILENT_SECONDS, Sign, sign
from trainer.inbox import Inbox
from trainer.parts import assemble
from trainer.rank import Rank
from trainer.training import Training, explain

NO_LIMIT = timedelta(days=365)
"""Of records, and of saves: between two lies a pause as long as the operator likes. Signs tell who hangs."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
ASK_SECONDS = 1.0
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
    saves = dist.new_group(backend="gloo", timeout=NO_LIMIT)
    return World(dist.get_rank(), dist.get_world_size(), records=records, saves=saves)


def limit(config: Config) -> None:
    """Have what the ranks compute together fail where it takes longer than any hang: NCCL's waits are on the
    GPU, and show in no signs. Later than those, which tell who hangs. Not before all is loaded."""
    seconds = config.compute.hang_seconds + SILENT_SECONDS
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds))


class Signs:
    """Says how this rank is every second, by the launcher's store; rank 0 reads them all."""

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
        self._store.set(f"sign/{world.rank}", json.dumps(mine))

    def read(self) -> tuple[Sign, ...]:
        """The last sign of every rank."""
        found = self._store.multi_get([f"sign/{rank}" for rank in range(self._world.size)])
        return tuple(Sign(*json.loads(told)) for told in found)


def lead(world: World, address: str, folder: Path, *, signals: bool) -> None:
    """Train the run that the host wants trained. signals: hands them on to it."""
    inbox = Inbox()
    host = HostEnd(address, inbox, lost=_lose)
    if signals:
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: _ask_to_stop(host, signal.Signals(number).name))
    signs = Signs(world)
    training = Training(folder, inbox, host, world, host.job.pid)

    def report() -> None:
        while True:
            needs = None
            with contextlib.suppress(Exception):  # no mistake in a figure may silence the ranks
                needs = training.needs()
            try:
                host.say(State(signs.read(), needs, training.ended))
            except Exception:  # the host went, or the store: so will this process
                return
            time.sleep(SECONDS)

    threading.Thread(target=report, name="stepwise-report", daemon=True).start()
    try:
        job = host.job
        begun = training.begin(job.config, resume=job.resume, paused=job.paused, asked=job.asked)
    except ValueError as error:
        host.say_last(Failed(str(error)))
        raise SystemExit(1) from None
    except Exception as error:
        _break(host, error)
        raise
    limit(begun.config)
    host.say(begun)
    try:
        training.run()
        assert training.loop is not None
        training.loop.rank.everywhere(Rank.end)
    except Exception as error:
        _break(host, error)
        raise
    host.say_last(Closed())


def _lose() -> None:
    """What rank 0 does without its host."""
    with contextlib.suppress(OSError):  # the terminal may be gone, too
        print("rank 0: the process that hosts the run is gone; the ranks end", file=sys.stderr, flush=True)
    os._exit(1)


def _break(host: HostEnd, error: Exception) -> None:
    host.say_last(Crashed(explain(error), traceback.format_exc()))
    time.sleep(LINGER_SECONDS)


def _ask_to_stop(host: HostEnd, source: str) -> None:
    """In a thread: the interrupted one may be just telling the host something.

    A moment later, since torchrun sends the same signal when a rank has failed: then there is nothing to ask.
    """
    asking = threading.Timer(ASK_SECONDS, host.say, (Stop(source),))
    asking.daemon = True
    asking.start()


def follow(world: World) -> None:
    """Do what rank 0 asks, to the end."""
    Signs(world)
    folder: Path = world.given()
    world.gather(folder.is_dir())
    config: Config
    config, saved = world.given()
    compute: Compute = world.given()
    world.sharded = config.compute.parallel == "fsdp"
    parts = assemble(config, saved)
    world.gather(parts.marks())
    rank = Rank(config, parts, compute, world)
    limit(config)
    rank.follow()


def train(find_host: Callable[[int], tuple[str, Path]], *, signals: bool) -> None:
    """Be one of the ranks, to the end of the run.

    find_host: called at rank 0 with their number; gives the host's address and the run's folder. It raises
    ValueError with a sentence where there cannot be one. signals: whether those that ask for the end come
    here, to all ranks, and not to the host: then rank 0 hands them on.
    """
    keep_memory()
    if signals:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    world = join()
    if world.rank == 0:
        try:
            address, folder = find_host(world.size)
        except ValueError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2) from None
        lead(world, address, folder, signals=signals)
    else:
        follow(world)
    dist.destroy_process_group()


def main(address: str, folder: str) -> None:
    """What `trainer.distributed.launch` runs. address: of the host. folder: the run's."""
    train(lambda ranks: (address, Path(folder)), signals=False)
