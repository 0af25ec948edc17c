"""The host of a run whose ranks `torchrun` started: journal, socket and status, in a process of its own.

Rank 0 starts it and hands it the job (`trainer.__main__`). It outlives the ranks, so that the end is told
whatever becomes of them, and ends with the run.
"""

from __future__ import annotations

import pickle
import signal
import sys
import threading
from typing import Any

from trainer import registry
from trainer.distributed.ranks import stop_in_time
from trainer.events import AlarmRaised, Event, Notice, RunCrashed, RunFinished, StageEntered, StateChanged
from trainer.host import Host
from trainer.paths import named
from trainer.run import Run


def say(event: Event) -> None:
    """A line for the log of whoever started the ranks; `stepwise attach` shows all."""
    match event:
        case StateChanged(state=state):
            text: str = state
        case Notice(message=text) | AlarmRaised(told=text):
            pass
        case StageEntered(text=text):
            pass
        case RunFinished(reason=text):
            pass
        case RunCrashed(error=text):
            pass
        case _:
            return
    print(f"step {event.at.step:,}  {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Of `python -m trainer.hosting`: the job comes on stdin."""
    config, folder, resume = pickle.load(sys.stdin.buffer)

    def stop(number: int, frame: Any) -> None:
        # In a thread: the interrupted one may hold the very lock that this needs.
        command = stop_in_time(signal.Signals(number).name)
        threading.Thread(target=run.submit, args=(command,), daemon=True).start()

    try:
        run = Run(config, folder, resume=resume, launched=True)
        run.start(on_event=say)
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    registry.note(folder)
    signal.signal(signal.SIGTERM, stop)
    print(f"{run.name} trains\nstepwise attach {named(folder)}", file=sys.stderr, flush=True)
    with Host(run):
        run.wait()
        run.close()
    print(f"{run.state}: {folder}", file=sys.stderr)
    raise SystemExit(run.state == "crashed")


if __name__ == "__main__":
    main()
