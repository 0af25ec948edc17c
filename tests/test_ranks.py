"""Two ranks train one run, as copies and spread: as one would, at the same steps, whatever is asked; and what
becomes of the run when one of them dies or hangs. `benchmarks/ranks.py` does all of it more often."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from transformers import AutoModelForCausalLM

from tests.driven import FOREVER, Driven
from tests.terminal import until
from tests.tiny import tiny_config
from trainer.computing.compute import Compute
from trainer.computing.world import Order, World
from trainer.control import parse
from trainer.distributed import launch
from trainer.distributed.channel import Closed, Crashed, HostEnd, Job, connection
from trainer.distributed.ranks import Ranks
from trainer.distributed.signs import Sign
from trainer.events import Evaluated, Event, Metrics, RolledBack, RunCrashed, RunFinished, StateChanged
from trainer.inbox import Inbox
from trainer.parts import assemble
from trainer.rank import OPERATIONS, DeclinedError, Rank
from trainer.saving import checkpoint, shards
from trainer.training import Journal, RunError, Training

T = TypeVar("T")
ONE = {"device": "cpu", "model__dropout": 0.0, "log__every": 1}
TWO = {**ONE, **FOREVER, "gpus": 2, "compute__hang_seconds": 20.0}


def member(one: Driven, rank: int) -> int:
    """The process of a rank."""
    training = one.run._training
    assert isinstance(training, Ranks)
    until(lambda: len(training.ranks) == 2)
    return training.ranks[rank].pid


class Nowhere:
    """A journal that keeps nothing."""

    seq = 0
    trouble = None

    def append(self, event: Event, *, wait: bool = False) -> None:
        pass

    def flush(self) -> None:
        pass


def hosting(folder: Path) -> Ranks:
    """Ranks that nobody has started."""
    return Ranks(folder, Inbox(), Nowhere(), submit=lambda command: None)


@pytest.mark.parametrize("told", [True, False])
def test_a_host_that_was_told_the_end_may_go_before_its_ranks(short: Path, told: bool) -> None:
    """Rank 0 still takes its leave of the others then, and is not to fail their job."""
    address, lost = str(short / "ranks"), threading.Event()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(1)
        job = Job(tiny_config(gpus=2), False, None, None, os.getpid())
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(HostEnd, address, Inbox(), lost.set)
            host = connection(listening.accept()[0])
            host.send(job)
            end = coming.result()
    if told:
        end.say_last(Closed())
        assert host.recv() == Closed()
    host.close()
    assert lost.wait(0.5 if told else 10) is not told


def test_ranks_are_ended_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later their numbers are those of other processes."""
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(pid))
    ranks = hosting(tmp_path)
    ranks._vigil.hear([Sign(0, 111, socket.gethostname(), 1, 1, False, False, "")], 0.0)
    ranks.free()
    ranks.free()
    assert killed == [111]


def test_what_a_killed_rank_printed_is_told_also_where_it_ended_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: object) -> Callable[..., None]:
        def fail(*_: object) -> None:
            print("CUDA error: an illegal memory access", end="")
            raise ChildFailedError("ranks", {1: ProcessFailure(1, 4321, -signal.SIGABRT, "no file")})

        return fail

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("multiprocessing.set_forkserver_preload", lambda modules: None)
    monkeypatch.setattr(launch, "elastic_launch", killed)
    monkeypatch.setattr("sys.argv", ["launch", "2", "trainer.distributed.member"])
    with pytest.raises(SystemExit):
        launch.main()
    ranks = hosting(tmp_path)
    ranks._log.write_text(capsys.readouterr().out)
    told = ranks._lost(None)
    assert str(told) == "rank 1 (process 4321) was killed by SIGABRT; the others were ended"
    assert told.trace == "CUDA error: an illegal memory access"
    ranks.free()


def test_without_a_verdict_the_rank_that_fell_silent_first_is_named(tmp_path: Path) -> None:
    ranks = hosting(tmp_path)
    for second in range(9):
        signs = [
            Sign(rank, 100 + rank, "far", min(second, last), 1, True, False, "")
            for rank, last in ((0, 8), (1, 3), (2, 8))
        ]
        ranks._vigil.hear(signs, second)
    who = "rank 1 (process 101 on far) was the first to give no sign of life"
    assert str(ranks._lost(None)).startswith(who)
    crash = str(ranks._lost(Crashed("connection reset", "")))
    assert crash.startswith(who) and crash.endswith("Rank 0: connection reset")


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_ranks_on_the_cpu_see_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Of which there may be fewer than ranks: each would take one."""
    seen: list[str | None] = []

    def popen(command: list[str], env: dict[str, str], **_: object) -> None:
        seen.append(env.get("CUDA_VISIBLE_DEVICES"))

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("subprocess.Popen", popen)
    hosting(tmp_path)._launch(tiny_config(gpus=2, device=device))
    assert seen == ["" if device == "cpu" else "0"]


def test_a_rank_with_other_weights_or_data_is_named_before_the_first_step(tmp_path: Path) -> None:
    """As where its files are older, or its libraries draw other numbers. Nothing later would show it."""
    ours, same, weighs, reads = (assemble(tiny_config(device="cpu")) for _ in range(4))
    with torch.no_grad():
        weighs.model.transformer.ln_f.bias[3] += 1e-7
    reads.splits["test"].ids_NT[[0, 1]] = reads.splits["test"].ids_NT[[1, 0]]

    class Told(World):
        def gather(self, value: T) -> list[T]:
            return [value, *(cast(T, parts.marks()) for parts in others)]

    training = Training(tmp_path, Inbox(), cast(Journal, None), Told(size=4))
    others = [same, same, same]
    training._check_alike(ours)
    others = [same, weighs, reads]
    with pytest.raises(RunError, match=r"^rank 2 has other weights, rank 3 has other data than rank 0, so"):
        training._check_alike(ours)


class Beside(World):
    """Rank 1 of two, the other being told of; both can do what is asked, or one says why it cannot."""

    def __init__(self, trouble: str, orders: list[Order]) -> None:
        super().__init__(rank=1, size=2)
        self._trouble, self._orders = trouble, orders
        self.said: list[object] = []

    def shared(self, value: T) -> list[T]:
        self.said.append(value)
        return [cast(T, self._trouble), value]

    def receive(self) -> Order:
        return self._orders.pop(0)


@pytest.mark.parametrize("whose", [0, 1])
def test_what_one_rank_cannot_do_none_begins_and_they_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: int
) -> None:
    """A copy of a model that is spread, for which there is no room; and a checkpoint that is not read."""
    config, reason = tiny_config(), "" if whose else "OSError: Stale file handle"
    whole, restore, end = map(OPERATIONS.index, (Rank.whole, Rank.restore, Rank.end))
    asked = [Order(whole, 0, ()), Order(restore, 0, (tmp_path, 7, 7)), Order(end, 0, ())]
    world = Beside(reason, asked)
    rank = Rank(config, assemble(config), Compute(), world)
    world.sharded = True

    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("trainer.rank.blank", no_room if whose else lambda model: model)
    monkeypatch.setattr(checkpoint, "read_weights", no_room if whose else lambda *_: {"": torch.empty(0)})
    for begun in ("trainer.rank.fill", "trainer.saving.checkpoint.put_weights"):
        monkeypatch.setattr(begun, Mock(side_effect=AssertionError("it waits for the other for ever")))
    rank.follow()
    assert not asked and rank.step == 0
    assert world.said == ["OutOfMemoryError: CUDA out of memory" if whose else ""] * 2
    with pytest.raises(DeclinedError, match=rf"{world.said[0] or reason} \(rank {whose}\)"):
        rank.whole()


@pytest.mark.slow
def test_two_ranks_think_as_one(driven: Callable[..., Driven]) -> None:
    """Coconut spread over both: unlike numbers of thoughts in a batch, and a classifier that ends them."""
    thinks = {
        "method__name": "coconut",
        "method__latent_end": "classifier",
        "method__uniform_prob": 0.5,
        "schedule__pretrain_steps": 0,
        "schedule__steps_per_token": 4,
        "eval__every": 12,
        "stop__steps": 12,
    }
    losses, measured = [], []
    for name, ranks in (("alone", {}), ("two", {"gpus": 2, "compute__parallel": "fsdp"})):
        one = driven(name, **ONE, **thinks, **ranks)
        one.until(RunFinished)
        losses.append({e.at.step: e.loss for e in one.all(Metrics)})
        measured.append([(e.at.step, e.token_accuracy, e.generated_tokens) for e in one.all(Evaluated)])
        one.run.close()
    alone, two = losses
    assert alone.keys() == two.keys() and max(abs(alone[s] - two[s]) for s in alone) < 1e-5
    assert measured[0] == measured[1]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_train_as_one_and_go_on_after_one_of_them_has_died(
    driven: Callable[..., Driven], parallel: str
) -> None:
    alone = driven("alone", **ONE, stop__steps=40)
    alone.until(RunFinished)
    alone.run.close()
    two = driven("two", paused=True, **TWO, compute__parallel=parallel)
    assert two.do("run 23").ok  # amid a stage, where the optimiser has moments
    two.until(StateChanged, lambda e: e.state == "paused" and e.at.step == 23)
    assert two.do("save").ok
    stopped = signal.SIGSTOP if parallel == "ddp" else signal.SIGKILL
    two.may_crash = True
    os.kill(member(two, 1), stopped)
    said = two.until(RunCrashed).error
    wanted = "no sign of life for 20 s" if parallel == "ddp" else "was killed by SIGKILL"
    assert said.startswith("rank 1 (process") and wanted in said
    two.events = [event for event in two.events if not isinstance(event, RunCrashed)]
    two.may_crash = False
    two.run.submit(parse("resume", source="test"))  # in the same host, by two ranks again
    assert two.do("run 17").ok
    # They have made a few steps when they hear of it, and may be at the last stage in the end.
    two.until(StateChanged, lambda e: e.state == "paused" and e.at.step >= 40)
    theirs, ours = ({e.at.step: e.loss for e in one.all(Metrics)} for one in (two, alone))
    assert theirs.keys() >= ours.keys() and max(abs(ours[s] - theirs[s]) for s in ours) < 1e-5
    measured = [(e.at.step, e.n, e.token_accuracy) for e in alone.all(Evaluated) if e.split == "valid"]
    assert [(e.at.step, e.n, e.token_accuracy) for e in two.all(Evaluated) if e.at.step <= 40] == measured

    assert two.do("ask 12*34").ok
    assert two.do("set optim.lr 1e-3").ok
    # Not to stage 1: where the run is at stage 9 by now its entry is not kept any more.
    assert two.do("rollback 3").ok and two.until(RolledBack).at.branch == 2
    assert two.do("advance").ok
    assert two.do("run 2").ok
    two.until(StateChanged, lambda e: e.state == "paused" and e.at.branch == 2 and e.at.step == 22)
    assert two.all(Metrics)[-1].lr == 1e-3
    id = two.do("save").message.removeprefix("saved ")
    pid, two.may_crash = member(two, 1), True
    os.kill(pid, signal.SIGKILL)
    crash = two.until(RunCrashed)
    assert f"rank 1 (process {pid}) was killed by SIGKILL" in crash.error
    saved = two.run.folder / checkpoint.FOLDER / id
    assert crash.checkpoint == id
    checkpoint.verify(saved)
    AutoModelForCausalLM.from_pretrained(checkpoint.model_folder(saved))
    two.run.close()

    one = driven("two", resume=True, paused=True, **ONE, **FOREVER)
    if parallel == "fsdp":  # each rank wrote its share of the moments, and one rank has read them all
        shares = [load_file(file) for file in sorted((saved / shards.FOLDER).iterdir())]
        assert len(shares) == 2
        assert isinstance(one.run._training, Training) and one.run._training.loop is not None
        state = one.run._training.loop.rank.updater.optimizer.state_dict()["state"]
        for name in shares[0]:
            index, _, slot = name.partition(".")
            parts = [share[name] for share in shares if name in share]
            assert torch.equal(state[int(index)][slot], torch.cat(parts) if parts[0].ndim else parts[0])
    assert one.do("run 2").ok
    one.until(StateChanged, lambda e: e.state == "paused" and e.at.step == 24)
    again = one.do("save").message.removeprefix("saved ")
    one.run.close()
    checkpoint.verify(one.run.folder / checkpoint.FOLDER / again)
