"""Train on the ranks that torch's launcher starts, on one machine or several:

    torchrun --nproc-per-node=8 -m trainer run preset gsm8k-mistral --set compute.parallel=fsdp
    torchrun --nproc-per-node=8 -m trainer resume RUN

The same as `stepwise run … --plain` and `stepwise resume`; `stepwise attach` shows and steers the run. See
docs/several-gpus.md.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

LOOKS = 0.2  # seconds between two looks whether the host listens


def parse() -> argparse.Namespace:
    """The arguments, as `stepwise` has them."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--out", type=Path, default=Path("runs"), help="the folder that runs live in")
    options.add_argument("--device", help="auto, cpu or cuda")
    new = argparse.ArgumentParser(add_help=False, parents=[options])
    new.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="repeatable")
    new.add_argument("--name", help="the run's name; one is made up if not given")
    new.add_argument("--seed", type=int)
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="torchrun … -m trainer", description=__doc__, formatter_class=raw)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run").add_subparsers(dest="kind", required=True)
    for kind in ("preset", "config"):
        run.add_parser(kind, parents=[new]).add_argument(
            "base", metavar="NAME" if kind == "preset" else "FILE"
        )
    actions.add_parser("resume", parents=[options]).add_argument("run", metavar="RUN")
    return parser.parse_args()


def start_host(given: argparse.Namespace, ranks: int) -> tuple[str, Path]:
    """Start the process that hosts the run; its address for rank 0, and the run's folder.

    Raises ValueError with a sentence where there is no such preset, file or run, or no host.
    """
    from trainer import presets, runs
    from trainer.distributed import channel

    resume = given.action == "resume"
    if resume:
        folder = runs.find_ended(given.run, given.out)
        config = presets.configure(folder / runs.CONFIG_FILE, device=given.device, gpus=ranks)
    else:
        base = given.base if given.kind == "preset" else Path(given.base)
        config = presets.configure(base, given.set, seed=given.seed, device=given.device, gpus=ranks)
        folder = runs.new_folder(given.out, given.name, base if isinstance(base, str) else base.stem)
    address = Path(channel.address(folder))
    address.unlink(missing_ok=True)  # that of a host that was killed
    command = [sys.executable, "-m", "trainer.hosting"]
    host = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert host.stdin is not None
    host.stdin.write(pickle.dumps((config, folder, resume)))
    host.stdin.close()
    while not address.exists():  # on a busy machine it takes a minute to load
        if host.poll() is not None:
            raise ValueError(f"the process that hosts {folder} has ended before it took the ranks on")
        time.sleep(LOOKS)
    return str(address), folder


def main() -> None:
    """Of `torchrun … -m trainer`."""
    given = parse()
    if "RANK" not in os.environ:
        raise SystemExit("torchrun starts this, once for each GPU; `stepwise run … --gpus N` does it for you")
    if given.device == "cpu":  # before torch looks for GPUs, of which there may be fewer than ranks
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from torch.distributed.elastic.multiprocessing.errors import record

    from trainer.distributed import member

    record(member.train)(lambda ranks: start_host(given, ranks), signals=True)


if __name__ == "__main__":
    main()
