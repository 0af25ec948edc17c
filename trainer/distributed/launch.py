"""Torch's launcher on this machine, with a verdict: `python -m trainer.distributed.launch N MODULE ARGUMENT…`

As `torchrun --standalone --nproc-per-node N` does, but that all ranks are forked from one process that has
loaded torch, which takes seconds; and that a failure is printed as JSON, on stdout: which rank was first, and
how.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
import uuid

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def run(module: str, *arguments: str) -> None:
    """What each rank runs."""
    importlib.import_module(module).main(*arguments)


def main() -> None:
    """Of `python -m trainer.distributed.launch`."""
    number, module, *arguments = int(sys.argv[1]), *sys.argv[2:]
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // number)))
    multiprocessing.set_forkserver_preload([module])
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=number,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="forkserver",
    )
    try:
        elastic_launch(config, run)(module, *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        told = failure.error_file_data.get("message")  # what Python said of it, if it could
        trace = told["extraInfo"]["py_callstack"] if isinstance(told, dict) else ""
        verdict = {"rank": rank, "pid": failure.pid, "exitcode": failure.exitcode}
        # On a line of its own, also after what a rank did not end.
        print("\n" + json.dumps(verdict | {"message": str(failure.message), "trace": trace}))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
