"""Any commands, the watch's own too, any kills: the journal tells one line of history that a simple model of
a run agrees with, and doing all of it again from the start gives the same weights."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from stepwise_tui.link import LinkError, SocketLink
from tests.tiny import tiny_config
from trainer import runs, status
from trainer.config import Config
from trainer.control import parse
from trainer.events import (
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    Evaluated,
    Event,
    Metrics,
    RolledBack,
    RunCrashed,
    RunStarted,
    SettingChanged,
    StageEntered,
    StateChanged,
)
from trainer.host import Host
from trainer.record import journal
from trainer.run import Run

T = TypeVar("T")
LOG, EVALUATE = 2, 10
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["trainer.run", "trainer.host", "transformers.models.gpt2.modeling_gpt2"])


def endless() -> Config:
    return tiny_config(
        stop__steps=1_000_000, stop__epochs=1e9, log__every=LOG, eval__every=EVALUATE, eval__examples=10,
        schedule__steps_per_token=15, save__minutes=0.005, watch__mode="auto", watch__skipped=4,
        watch__rollbacks=1_000,
    )  # fmt: skip


def host(folder: Path, resume: bool) -> None:
    torch.set_num_threads(1)
    run = Run(endless(), folder, resume=resume)
    run.start()
    with Host(run):
        run.wait()
        run.close()


class Session:
    """A run in a process of its own, driven over its socket."""

    def __init__(self, folder: Path, *, resume: bool = False) -> None:
        self.folder = folder
        self._begin(resume=resume)

    def _begin(self, *, resume: bool) -> None:
        self.process = processes.Process(target=host, args=(self.folder, resume), daemon=True)
        self.process.start()
        self.link = patiently(self._attached)

    def _attached(self) -> SocketLink | None:
        found = status.read(self.folder)
        if found is None or found.pid != self.process.pid or not runs.is_run(self.folder):
            assert self.process.exitcode is None, "the process ended"
            return None
        try:
            return SocketLink(self.folder, history=False)
        except LinkError:
            return None

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        self._begin(resume=True)

    def stop(self) -> None:
        self.end()
        self._begin(resume=True)

    def send(self, line: str) -> str:
        command = parse(line, source="test")
        self.link.send(command)
        return command.id

    def do(self, line: str) -> CommandAcknowledged:
        id = self.send(line)

        def answered() -> CommandAcknowledged | None:
            acks = (e for e in self.link.drain() if isinstance(e, CommandAcknowledged))
            return next((ack for ack in acks if ack.id == id), None)

        return patiently(answered)

    def end(self) -> None:
        self.do("stop")
        self.process.join(20)
        assert self.process.exitcode == 0


def patiently(look: Callable[[], T | None], seconds: float = 40) -> T:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (found := look()) is not None:
            return found
        time.sleep(0.005)
    raise AssertionError("it did not come")


commands = st.one_of(
    st.sampled_from(
        [
            "pause",
            "resume",
            "save",
            "advance",
            "advance 3",
            "hold",
            "release",
            "evaluate",
            "ask 12*34",
            "examples",
        ]
    ),
    st.sampled_from(["", " 0", " 1", " --seed replay", " --keep-weights"]).map(lambda way: f"rollback{way}"),
    st.integers(1, 12).map(lambda n: f"run {n}"),
    # With the last the watch takes it back, and rolls back, by commands of its own.
    st.sampled_from(
        ["optim.lr 1e-3", "optim.lr 5e-4", "method.smoothing 1", "optim.lr never", "optim.lr 1e30"]
    ).map(lambda change: f"set {change}"),
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("do"), commands),
        st.tuples(st.just("send"), commands),
        st.tuples(st.just("train"), st.floats(0.0, 0.3)),
        st.tuples(st.sampled_from(["kill", "kill", "stop"]), st.floats(0.0, 0.3)),
    ),
    min_size=4,
    max_size=14,
)


@pytest.mark.slow
@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.generate],  # what a kill hits is not the same twice, so nothing can be made smaller
    suppress_health_check=[HealthCheck.too_slow],
)
@given(actions)
def test_whatever_is_asked_and_whenever_it_is_killed(actions: list[tuple[str, str | float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        session = Session(run)
        for kind, what in actions:
            if kind == "do":
                session.do(str(what))
            elif kind == "send":
                session.send(str(what))
            else:
                time.sleep(float(what))
                if kind == "kill":
                    session.kill()
                if kind == "stop":
                    session.stop()
        session.do("resume")
        session.do("hold")  # answered when all is done again
        session.do("pause")
        session.do("evaluate")
        saved = session.do("save").message.removeprefix("saved ")
        session.end()
        check(list(journal.read(run)))
        assert torch.equal(weights(run, saved), weights(done_again(run), saved))


def check(events: list[Event]) -> None:
    """Walk the journal beside a simple model of a run."""
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    asked = Counter(e.id for e in events if isinstance(e, CommandReceived))
    answered = Counter(e.id for e in events if isinstance(e, CommandAcknowledged))
    assert asked == answered and set(asked.values()) <= {1}
    assert not [e for e in events if isinstance(e, RunCrashed)]

    branch, branches, stage, held, paused, lr = 1, 1, 0, False, False, endless().optim.lr
    logged, evaluated = {1: 0}, {1: 0}
    saved: dict[str, tuple[int, int]] = {}
    for event in events:
        at = event.at
        match event:
            case RunStarted():
                paused = False
            case StateChanged():
                paused = event.state == "paused"
            case Metrics():
                assert at.branch == branch and not paused
                assert at.step == logged[branch] + LOG
                assert event.lr == lr
                logged[branch] = at.step
            case Evaluated(cause="schedule", split="valid"):
                assert at.branch == branch and at.step == evaluated[branch] + EVALUATE
                evaluated[branch] = at.step
            case StageEntered(cause="schedule"):
                assert not held and at.stage == stage + 1
                stage = at.stage
            case StageEntered():
                stage = at.stage
            case SettingChanged(key="optim.lr"):
                lr = event.new
            case CheckpointSaved():
                saved[event.checkpoint] = (at.step, at.stage)
            case RolledBack():
                branches += 1
                assert event.from_branch == branch and at.branch == branches
                step, entered = saved[event.checkpoint]
                assert at.stage == entered and at.step == (event.from_step if event.keep_weights else step)
                branch, stage = branches, at.stage
                logged[branch], evaluated[branch] = at.step // LOG * LOG, at.step // EVALUATE * EVALUATE
            case CommandAcknowledged(ok=True, command="hold"):
                held = True
            case CommandAcknowledged(ok=True, command="release"):
                held = False


def done_again(run: Path) -> Path:
    """The same history done from the start, undisturbed: a run that has lost its checkpoints."""
    again = run.with_name("again")
    (again / "checkpoints").mkdir(parents=True)
    for file in ("config.toml", "journal.jsonl"):
        shutil.copy(run / file, again)
    session = Session(again, resume=True)
    session.do("save")
    session.end()
    return again


def weights(run: Path, id: str) -> torch.Tensor:
    tensors = load_file(run / "checkpoints" / id / "model" / "model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])
