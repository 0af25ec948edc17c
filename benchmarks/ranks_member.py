"""A rank with a trace: `trainer.distributed.member`, with a line in $RANKS_TRACE.<rank> for each act."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

from trainer import rank as ranks
from trainer.computing.sharding import whole
from trainer.distributed import member
from trainer.rank import Rank


def weights(rank: Rank) -> str:
    """Of all the weights, bit by bit. All ranks call it together where they are spread."""
    digest = hashlib.sha256()
    for parameter in rank.model.parameters():
        digest.update(whole(parameter.detach()).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def traced(operation: Callable[..., Any]) -> Callable[..., Any]:
    """An operation that is written down with the step before it and the weights after it."""

    def wrapper(self: Rank, *arguments: Any) -> Any:
        step = self.step
        result = operation(self, *arguments)
        given = [int(a) if isinstance(a, bool) else str(getattr(a, "optim", a)) for a in arguments]
        line = [operation.__name__, step, list(map(str, given))]
        with open(f"{os.environ['RANKS_TRACE']}.{self.world.rank}", "a", encoding="utf-8") as trace:
            trace.write(json.dumps([*line, self.updater.lr, self.updater.updates, weights(self)]) + "\n")
        return result

    wrapper.__name__ = operation.__name__
    return wrapper


def main(address: str, folder: str) -> None:
    """What the launcher runs."""
    if "RANKS_TRACE" in os.environ:
        kept = [operation if operation is Rank.end else traced(operation) for operation in ranks.OPERATIONS]
        for operation in kept:
            setattr(Rank, operation.__name__, operation)
        ranks.OPERATIONS = tuple(kept)
    member.main(address, folder)
