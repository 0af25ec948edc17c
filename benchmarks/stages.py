"""Where the time of a whole run goes, and how soon a command takes effect.

    python benchmarks/stages.py --preset mult2x2 --json docs/results/stages.json

The preset is trained to its end (or for --minutes), as `stepwise run --plain` would. From its own journal:
the seconds of its steps, of its evaluations, and the rest, in which saves are copied and stages entered.
Before it, another run is asked through its socket to advance and to roll back again and again: seconds from
the request to the acknowledgement's arrival there, and to the end of the first step after it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arguments import positive, written
from stepwise_tui.link import connect
from trainer import config as configuration
from trainer import presets, wire
from trainer.control import parse
from trainer.events import (
    CheckpointSaved,
    CommandAcknowledged,
    Evaluated,
    Event,
    Metrics,
    StageEntered,
    decode,
)
from trainer.host import Host
from trainer.run import Run

PATIENCE = 300.0  # seconds


class Watched:
    """A run in this process, with what it told and when it came."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self.told: list[tuple[float, Event]] = []
        self._news = threading.Condition()
        self.run = Run(configuration.build(settings), folder)
        self.run.start(on_event=self._take)

    def _take(self, event: Event) -> None:
        with self._news:
            self.told.append((time.monotonic(), event))
            self._news.notify_all()

    def next(self, since: int, wanted: Any) -> float:
        """When the first event after the first `since` came that is `wanted`."""
        found: list[float] = []

        def there() -> bool:
            found[:] = [at for at, event in self.told[since:] if wanted(event)]
            return bool(found)

        with self._news:
            assert self._news.wait_for(there, PATIENCE), "it never came"
        return found[0]

    def ask(self, client: Client, text: str) -> dict[str, float]:
        """Seconds to the acknowledgement, and to the end of the first step after it."""
        since, asked = len(self.told), time.monotonic()
        acknowledged = client.ask(text)
        answered = time.monotonic()
        assert acknowledged.ok, acknowledged.message
        trained = self.next(since, lambda e: isinstance(e, Metrics) and e.seq > acknowledged.seq)
        return {"acknowledged": answered - asked, "trained": trained - asked}


class Client:
    """At the other end of a run's socket, as `stepwise send` is."""

    def __init__(self, folder: Path) -> None:
        self._connection = connect(folder)
        self._lines = self._connection.makefile("rb")
        self._connection.sendall(wire.hello(None))

    def ask(self, text: str) -> CommandAcknowledged:
        """Send a command; its acknowledgement when it has come."""
        command = parse(text)
        self._connection.sendall(wire.command(command))
        for line in self._lines:
            told = decode(line)
            if isinstance(told, CommandAcknowledged) and told.id == command.id:
                return told
        raise AssertionError("the connection ended")


def whole(settings: dict[str, Any], minutes: float) -> dict[str, Any]:
    """A run from the first step on."""
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(settings, Path(folder) / "run")
        if not watched.run.wait(minutes * 60):
            watched.run.submit(parse("stop"))
            watched.run.wait()
        watched.run.close()
    events = [event for _, event in watched.told]
    times = [e.at.time for e in events if isinstance(e, Metrics)]
    metrics = [e for e in events if isinstance(e, Metrics)]
    within = [e for e in events if times[0] < e.at.time <= times[-1]]
    wall = times[-1] - times[0]
    steps = sum(e.steps / e.steps_per_second for e in metrics[1:])
    evaluated = [e for e in within if isinstance(e, Evaluated)]
    evaluations = sum(e.seconds for e in evaluated)
    saved = [e for e in within if isinstance(e, CheckpointSaved)]
    return {
        "wall": wall, "steps": metrics[-1].at.step - metrics[0].at.step, "training": steps,
        "evaluating": evaluations, "evaluations": len(evaluated),
        "stage_changes": sum(isinstance(e, StageEntered) for e in within), "saves": len(saved),
        "writing_in_background": sum(e.seconds for e in saved), "rest": wall - steps - evaluations,
    }  # fmt: skip


def commands(settings: dict[str, Any], times: int) -> dict[str, list[dict[str, float]]]:
    """Advance and roll back at stages all along the way."""
    delays: dict[str, list[dict[str, float]]] = {"advance": [], "rollback": []}
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(configuration.merge(settings, {"log": {"every": 1}}), Path(folder) / "run")
        with Host(watched.run):
            watched.next(0, lambda e: isinstance(e, Metrics) and e.at.step > 20)
            client = Client(watched.run.folder)
            for _ in range(times):
                delays["advance"].append(watched.ask(client, "advance"))
                time.sleep(1.0)
                delays["rollback"].append(watched.ask(client, "rollback"))
                delays["advance"].append(watched.ask(client, "advance"))
        watched.run.submit(parse("stop"))
        watched.run.wait()
        watched.run.close()
    return delays


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", default="mult2x2")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--minutes", type=float, default=30.0, help="at most, of the whole run")
    parser.add_argument("--commands", type=positive, default=4, help="times that it advances and rolls back")
    parser.add_argument("--json", type=written, default=None, help="write the result here")
    options = parser.parse_args()
    try:
        given = dict(configuration.parse_assignment(text) for text in options.settings)
        config = presets.resolve(options.preset, configuration.nested(given))
    except ValueError as error:
        parser.error(str(error))
    settings = config.model_dump(exclude_none=True)
    delays = commands(settings, options.commands)
    for name, found in delays.items():
        for what in ("acknowledged", "trained"):
            seconds = sorted(delay[what] for delay in found)
            middle = statistics.median(seconds)
            print(f"{name}, {what}: median {middle:.2f} s, most {seconds[-1]:.2f} s of {len(seconds)}")
    sys.stdout.flush()
    result = {
        "preset": options.preset, "set": options.settings, "commands": delays,
        "whole": whole(settings, options.minutes), "cores": os.cpu_count(), "load": os.getloadavg(),
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    told = result["whole"]
    print(f"{told['steps']:,} steps, {told['stage_changes']} stage changes in {told['wall']:.1f} s")
    for part in ("training", "evaluating", "rest"):
        print(f"  {part:10} {told[part]:8.1f} s  {told[part] / told['wall']:6.1%}")
    beside = told["writing_in_background"]
    print(f"  {told['evaluations']} evaluations; {told['saves']} saves, written in {beside:.1f} s beside")
    return 0


if __name__ == "__main__":
    sys.exit(main())
