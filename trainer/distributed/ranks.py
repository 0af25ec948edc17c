"""Several processes that train a run together, seen from the process that hosts it.

They are started by torch's launcher, and go when it goes. Rank 0 talks to the host over a socket (`channel`);
what it tells is journalled here, and commands go to it. So whatever becomes of a rank, journal, socket and
cockpit stay; the run is then told as crashed, and `resume` starts all ranks again from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch

from trainer.config import Config
from trainer.control import Command, parse
from trainer.distributed import channel
from trainer.distributed.channel import (
    CONNECT_SECONDS,
    Answered,
    Appended,
    Closed,
    Crashed,
    Failed,
    Flush,
    Job,
    Refuses,
    Seq,
    State,
    Stop,
)
from trainer.distributed.signs import SILENT_SECONDS, Sign, Vigil
from trainer.events import At, CommandAcknowledged
from trainer.inbox import Answer, Inbox
from trainer.saving import checkpoint
from trainer.system import Needs
from trainer.training import Begun, Journal, RanksError, RunError

News = queue.SimpleQueue[Begun | Failed | Crashed | Closed | None]
Requests = queue.SimpleQueue[Appended | Flush | None]
MEMBER = "trainer.distributed.member"
"""What each rank runs."""
LOOKS = 0.2  # seconds between two looks whether all is well
VERDICT_SECONDS = 15.0
"""That the launcher may take to end the other ranks and say which failed first."""
TORCHRUN_SECONDS = 30.0
"""That torchrun leaves its ranks after a signal, unless its environment says otherwise."""
LEAVING_SECONDS = 10.0
"""Of these, for the journal and to leave: the last checkpoint has the others."""
TAIL = 4_000
"""Characters of what the ranks printed, shown after a crash."""


def stop_in_time(source: str) -> Command:
    """The command that a signal means which torchrun got: it kills what has not ended some seconds later."""
    patience = float(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", TORCHRUN_SECONDS))
    return replace(parse("stop", source=source), within=max(0.0, patience - LEAVING_SECONDS))


class Ranks:
    """What `Training` is for a run of one process. One thread uses it, but for `needs` and `ended`."""

    def __init__(
        self,
        folder: Path,
        inbox: Inbox,
        journal: Journal,
        *,
        submit: Callable[[Command], None],
        launched: bool = False,
    ) -> None:
        """submit: takes the command that a signal to the ranks means. launched: torch's launcher was started
        by somebody else, and rank 0 will come by itself."""
        self._submit = submit
        self._folder, self._inbox, self._journal = folder, inbox, journal
        self._launched = launched
        self._address = channel.address(folder)
        self._log = Path(self._address).with_suffix(".log")
        self._launcher: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._news: News = queue.SimpleQueue()
        self._requests: Requests = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._state = State((), None, False)
        self._vigil = Vigil()
        self._at = At()

    def begin(
        self, config: Config, *, resume: bool, paused: bool | None, asked: Command | None = None
    ) -> Begun:
        """As `Training.begin`: start the ranks, and return when they have loaded everything."""
        if not self._launched:
            _check(config)
        stuck = config.compute.hang_seconds
        self._vigil = Vigil(min(SILENT_SECONDS, stuck), stuck, _may_live)
        with self._listening() as listening:
            if not self._launched:
                self._launch(config)
            self._connection = channel.connection(self._accepted(listening))
        # New ones: what former ranks still had to say is not of these.
        self._news, self._requests = queue.SimpleQueue(), queue.SimpleQueue()
        heard = (self._connection, self._vigil, self._news, self._requests)
        threading.Thread(target=self._receive, args=heard, daemon=True).start()
        threading.Thread(target=self._serve, args=(self._requests,), daemon=True).start()
        self._say(Job(config, resume, paused, asked, os.getpid()))
        try:
            begun = self._next(lambda: time.sleep(LOOKS))
        except RanksError as error:
            self.free()
            raise RunError(str(error)) from None
        if isinstance(begun, Begun):
            for id, answer in begun.answers.items():
                self._inbox.answered(id, answer)
            return begun
        reason = begun.reason if isinstance(begun, Failed) else str(self._lost(begun))
        self.free()
        raise RunError(reason)

    def run(self) -> None:
        """Hand commands on until the run is closed. Raises `RanksError` when a rank breaks or hangs."""
        closing, refused = False, None

        def hand_on() -> None:
            nonlocal closing, refused
            for command in self._inbox.take():
                if self._inbox.answer(command.id) is None:
                    self._say(command)
            if self._journal.trouble != refused:
                refused = self._journal.trouble
                self._say(Refuses(refused))
            if self._inbox.closing.is_set() and not closing:
                closing = True
                self._say(Closed())
            self._inbox.wait(LOOKS)

        try:
            end = self._next(hand_on)
            if not isinstance(end, Closed):
                raise self._lost(end)
        except RanksError:
            self.free()
            raise
        self._wait_for_launcher(VERDICT_SECONDS)
        self._leave()

    def _next(self, meanwhile: Callable[[], None]) -> Begun | Failed | Crashed | Closed | None:
        """What rank 0 says next of the run itself; None when it is gone. Raises `RanksError` on a hang."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._news.get_nowait()
            meanwhile()
            if self._launcher is not None and self._launcher.poll() is not None and self._news.empty():
                return None
            complaint = self._vigil.complaint(time.monotonic())
            if complaint is not None:
                raise RanksError(f"{complaint}. The ranks were ended")

    @property
    def at(self) -> At:
        """Where the run stood when rank 0 last told something."""
        return replace(self._at, time=time.time())

    @property
    def ended(self) -> bool:
        """Whether the run has come to its end, and only answers."""
        return self._state.ended

    def last(self) -> str:
        """Id of the newest checkpoint, "" when there is none."""
        there = checkpoint.list_checkpoints(self._folder)
        return there[-1].id if there else ""

    def needs(self) -> Needs | None:
        """What the run uses now; None while nothing is loaded. For any thread."""
        return self._state.needs

    @property
    def ranks(self) -> tuple[Sign, ...]:
        """The last sign of life of each rank."""
        return self._vigil.ranks

    loop = None
    """It is in another process."""

    def free(self) -> None:
        """End the ranks, also those that are stopped or stuck."""
        for sign in self._vigil.ranks:
            if sign.host == socket.gethostname():
                with contextlib.suppress(OSError):
                    os.kill(sign.pid, signal.SIGKILL)
        self._vigil = Vigil()  # these numbers are soon those of other processes
        self._leave()

    def _leave(self) -> None:
        if self._launcher is not None:
            self._launcher.terminate()  # it ends the ranks that there are
            self._wait_for_launcher(VERDICT_SECONDS)
            self._launcher.kill()
            self._launcher.wait()
            self._launcher = None
        if self._connection is not None:
            self._requests.put(None)
            self._connection.close()
            self._connection = None
        self._log.unlink(missing_ok=True)

    # The launcher -----------------------------------------------------------------------------------------

    def _launch(self, config: Config) -> None:
        module = [MEMBER, self._address, str(self._folder.resolve())]
        with self._log.open("wb") as out:
            self._launcher = subprocess.Popen(
                [sys.executable, "-m", "trainer.distributed.launch", str(config.gpus), *module],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                # Of GPUs that they do not use there may be fewer than ranks.
                env=os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if config.device == "cpu" else {}),
            )

    def _wait_for_launcher(self, seconds: float) -> None:
        if self._launcher is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._launcher.wait(seconds)

    @contextlib.contextmanager
    def _listening(self) -> Any:
        Path(self._address).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self._address)
            listening.listen(1)
            listening.settimeout(LOOKS)
            try:
                yield listening
            finally:
                Path(self._address).unlink(missing_ok=True)

    def _accepted(self, listening: socket.socket) -> socket.socket:
        """The connection of rank 0. Raises `RunError` when the ranks end before."""
        until = time.monotonic() + CONNECT_SECONDS
        while not (self._launched and time.monotonic() > until):
            with contextlib.suppress(TimeoutError):
                end, _ = listening.accept()
                end.setblocking(True)
                return end
            if self._launcher is not None and self._launcher.poll() is not None:
                reason = f"the ranks could not be started: {self._printed()}"
                self.free()
                raise RunError(reason)
        raise RunError(f"{self._folder.name}: its ranks are gone; start them again with torchrun … resume")

    def _lost(self, end: Begun | Failed | Crashed | Closed | None) -> RanksError:
        """What to say of ranks that broke: of the one that was first."""
        self._wait_for_launcher(VERDICT_SECONDS)
        printed, verdict = _verdict(self._printed())
        if verdict is not None:
            first = json.loads(verdict)
            who = f"rank {first['rank']} (process {first['pid']})"
            code = int(first["exitcode"])
            if code < 0:
                how = signal.Signals(-code).name
                return RanksError(f"{who} was killed by {how}; the others were ended", printed[-TAIL:])
            if first["rank"] != 0:
                return RanksError(f"{who} failed; the others were ended. {first['message']}", first["trace"])
        trace = end.traceback if isinstance(end, Crashed) else printed[-TAIL:]
        # Without a verdict: the launcher of a launched run tells others than us.
        silent = self._vigil.first_silent() if verdict is None else None
        if silent is not None and silent.rank:
            told = f"{silent} was the first to give no sign of life; the others are ended"
            # What rank 0 says may be the cause all the same, and the other only slow.
            return RanksError(f"{told}. Rank 0: {end.reason}" if isinstance(end, Crashed) else told, trace)
        if isinstance(end, Crashed):
            for sign in self._vigil.ranks if self._launched else ():
                if sign.rank and not _may_live(sign):
                    return RanksError(f"{sign} is gone; the others are ended", trace)
            return RanksError(f"rank 0: {end.reason}", trace)
        return RanksError("rank 0 is gone; the others were ended", trace)

    def _printed(self) -> str:
        try:
            return self._log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    # Rank 0 -----------------------------------------------------------------------------------------------

    def _say(self, message: object) -> None:
        connection = self._connection
        with self._sending, contextlib.suppress(OSError):  # where it is gone, `_receive` sees it
            if connection is not None:
                connection.send(message)

    def _receive(
        self, connection: Connection[Any, Any], vigil: Vigil, news: News, requests: Requests
    ) -> None:
        """Hear rank 0 until it is gone."""
        try:
            while True:
                message = connection.recv()
                match message:
                    case Appended():
                        self._at = message.event.at if message.event.at.time else self._at
                        if isinstance(message.event, CommandAcknowledged):
                            event = message.event
                            self._inbox.answered(event.id, Answer(event.ok, event.message, event.at.step))
                        if message.wait:
                            requests.put(message)
                        else:
                            self._journal.append(message.event)
                    case Flush():
                        requests.put(message)
                    case Seq():
                        self._say(Answered(self._journal.seq))
                    case Stop():
                        if not self._inbox.stop_asked():
                            self._submit(stop_in_time(message.source))
                    case State():
                        self._state = message
                        vigil.hear(message.signs, time.monotonic())
                    case _:
                        news.put(message)
                        self._inbox.wake()
        except (OSError, EOFError, TypeError):  # TypeError: `_leave` has closed it amid a message
            news.put(None)
            self._inbox.wake()

    def _serve(self, requests: Requests) -> None:
        """Do what has to wait for the disk, so that signs of life need not."""
        while (request := requests.get()) is not None:
            reason = None
            if isinstance(request, Appended):
                self._journal.append(request.event, wait=True)
            else:
                try:
                    self._journal.flush()
                except OSError as error:
                    reason = error.strerror or str(error)
            self._say(Answered(reason))


def _check(config: Config) -> None:
    """Raises `RunError` where so many ranks cannot train here."""
    if config.device == "cpu":
        return
    if config.device.startswith("cuda:"):
        raise RunError(
            f"device = {config.device} is one GPU, and gpus = {config.gpus}; --device cuda takes the first"
        )
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there < config.gpus:
        found = (
            f"torch finds {there} GPU{'s' if there > 1 else ''} here" if there else "torch finds no GPU here"
        )
        raise RunError(f"gpus = {config.gpus}: {found}; with --device cpu so many processes train on the CPU")


def _verdict(printed: str) -> tuple[str, str | None]:
    """What the ranks printed, and what their launcher said of them then, on a line of its own."""
    before, mark, after = printed.rpartition('\n{"rank"')
    return (before, mark.strip() + after.partition("\n")[0]) if mark else (printed, None)


def _may_live(sign: Sign) -> bool:
    """Whether the process of a rank is there; of one on another machine nobody here can tell."""
    if sign.host != socket.gethostname():
        return True
    try:
        return bool(psutil.Process(sign.pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
