"""A run: its folder, its journal, and the thread that trains. The public way to train from Python.

    run = Run(config, Path("runs/mine"))
    run.start(on_event=print)
    run.submit(control.parse("advance 2", source="notebook"))
    run.wait()
    run.close()

The cockpit uses nothing else. Events come from the journal's thread, after they are on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shlex
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from trainer import config as configuration
from trainer import control, runs, status
from trainer.computing.heap import keep_memory, ran_out
from trainer.config import Config
from trainer.control import Command
from trainer.distributed.ranks import Ranks
from trainer.events import (
    At,
    CheckpointRemoved,
    CheckpointSaved,
    CommandReceived,
    Evaluated,
    Event,
    Notice,
    RunCrashed,
    RunFinished,
    RunStarted,
    RunState,
    StateChanged,
)
from trainer.files import replace_text, sync_folder
from trainer.inbox import Answer, Inbox, acknowledgement
from trainer.loop import Loop
from trainer.paths import named
from trainer.record import journal
from trainer.record.recorder import Recorder
from trainer.record.story import Listener, Story
from trainer.saving import checkpoint
from trainer.system import Needs
from trainer.training import Begun, RanksError, RunError, Training, explain
from trainer.watching.automaton import SOURCE

HEARTBEAT_SECONDS = 1.0
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
NEEDS_LOCKS = "without that two processes could train one run; give --out on a disk that has locks"
DELETED = (
    f"{journal.FILE} was deleted or replaced while the run trains: it is written again, as it was. "
    "Checkpoints that went with it cannot be brought back; the next one is saved in time"
)


class Run:
    """One run in this process. `start` it once; `close` it before the process ends."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        *,
        resume: bool = False,
        paused: bool = False,
        launched: bool = False,
        first: Sequence[Command] = (),
    ) -> None:
        """Check the folder and, for a new run, make it. paused: wait before the first step. launched: the
        ranks that train it are started by somebody else. first: commands to be done before the first step,
        also where the run had come to its end.

        Raises `RunError` when a new run's folder exists or cannot be written, or when there is nothing
        to resume.
        """
        self.config = config
        self.folder = folder
        self.name = folder.name
        self.state: RunState = "starting"
        self._resume = resume
        self._launched = launched
        self._paused, self._first = paused, first
        self._inbox = Inbox()
        self.socket: str | None = None
        """Where others can attach, for `status.json`; set by a `Host`."""
        self.end: RunFinished | None = None
        """How it ended; None while it trains, and after a crash."""
        self._at = At(time=time.time())
        self._accuracy: float | None = None
        self._started = time.time()
        self._beating: threading.Thread | None = None
        self._last_step_at = 0.0
        self._state_written: RunState | None = None
        self._stages = 0
        self._on_event: Callable[[Event], None] | None = None
        self._over = threading.Event()
        self._ended = threading.Event()
        self._changed = threading.Event()
        """Set when there is a new state to write into `status.json` at once."""
        self._deleted = threading.Event()
        """Set when what the run has on the disk was deleted, and written again."""
        self._config_text = configuration.dumps(config)
        if resume:
            if not runs.is_run(folder):
                raise RunError(f"{folder} is not a run: it has no {runs.CONFIG_FILE}")
            self._config_text = (folder / runs.CONFIG_FILE).read_text(encoding="utf-8")
        else:
            self._make_folder()

    def start(self, on_event: Callable[[Event], None] | None = None) -> None:
        """Load data and model, then train in a daemon thread.

        on_event: called with every event, in order, from the journal's thread; it must not block.
        Raises ValueError with a sentence when data, model, device or checkpoint cannot be had, or the folder
        cannot be written; that of a new run is then taken away again.
        """
        self._on_event = on_event
        keep_memory()
        try:
            self._journal = Recorder(self.folder, self._publish, renew=self._make_again)
        except BlockingIOError:
            raise RunError(self._taken()) from None
        except OSError as error:
            if not self._resume:
                shutil.rmtree(self.folder, ignore_errors=True)
            file = self.folder / journal.FILE
            if error.errno in NO_LOCKS:
                raise RunError(f"{file} cannot be locked ({error.strerror}): {NEEDS_LOCKS}") from None
            raise RunError(f"{file} cannot be written: {error.strerror}") from None
        self._story = Story(self.folder)
        self._training: Training | Ranks = (
            Ranks(
                self.folder,
                self._inbox,
                self._journal,
                submit=self.submit,
                launched=self._launched,
            )
            if self.config.gpus > 1 or self._launched
            else Training(self.folder, self._inbox, self._journal)
        )
        stood = status.read(self.folder)
        self._write_status()
        begun: Future[None] = Future()
        threading.Thread(target=self._live, args=(begun,), name="stepwise-trainer", daemon=True).start()
        try:
            begun.result()
        except BaseException as error:
            self._inbox.closing.set()
            self._journal.close()
            self._story.close()
            if not self._resume:
                shutil.rmtree(self.folder, ignore_errors=True)
            elif stood is not None:
                with contextlib.suppress(OSError):
                    status.write(self.folder, stood)  # it stands where it stood
            if ran_out(error):
                raise RunError(explain(error)) from None
            if isinstance(error, OSError):
                raise RunError(str(error)) from None
            raise
        self._beating = threading.Thread(target=self._beat, name="stepwise-status", daemon=True)
        self._beating.start()

    def _live(self, begun: Future[None]) -> None:
        """The training thread, from loading on: no other may compute with torch.

        Each that does gets workers of its own from OpenMP, and where these are more than the cores, all of
        them sleep between two operations: half as long a step again for a small model (docs/log.md).
        """
        try:
            self._begin()
        except BaseException as error:
            begun.set_exception(error)
            return
        for command in self._first:
            self.submit(command)
        # What is loaded by now stays: Python need not look through all of it again and again for garbage.
        gc.collect()
        gc.freeze()
        begun.set_result(None)
        self._train()

    def _begin(self) -> None:
        self._learn(self._training.begin(self.config, resume=self._resume, paused=self._paused))

    def _learn(self, begun: Begun) -> None:
        """What training found when it began."""
        self.config, self._stages, self._accuracy = begun.config, begun.stages, begun.accuracy

    def _taken(self) -> str:
        """Who holds the journal; that process may have begun this very moment."""
        until = time.monotonic() + runs.DYING_SECONDS
        while time.monotonic() < until:
            if (found := runs.lives(self.folder)) is not None:
                return runs.taken(self.folder, found)
            time.sleep(0.1)
        return f"{self.folder.name} is taken up by another process this very moment; see `stepwise runs`"

    def subscribe(self, after: int | None = 0) -> Listener:
        """Listen to the journal after event number `after`, and to what is transient.

        0: what was before comes by its digest, which ends with `HistoryTold`. None: only what comes.
        """
        return self._story.listen(after)

    def unsubscribe(self, listener: Listener) -> None:
        """Let a subscription end."""
        self._story.leave(listener)

    def submit(self, command: Command) -> None:
        """Hand a command to the trainer; its acknowledgement comes as an event.

        A command whose id was handed in before is not taken again; it has, or gets, its one answer. Nobody
        else speaks for the watch.
        """
        if command.source == SOURCE:
            command = replace(command, source="socket")
        received = CommandReceived(
            at=replace(self._at, time=time.time()),
            id=command.id,
            command=command.text,
            source=command.source,
        )
        if not self._inbox.put(command, before=lambda: self.tell(received)):
            return
        if command.name == "stop":
            self._journal.hurry()
        if self._ended.is_set():
            self._refuse_the_rest()

    @property
    def waiting(self) -> int:
        """How many commands wait for the trainer."""
        return self._inbox.waiting()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run has finished, was stopped or crashed; whether it has.

        Until it is closed it still answers `ask` and `evaluate` after its end, and `resume` after a crash.
        """
        return self._over.wait(timeout)

    def close(self) -> None:
        """Stop training, with a checkpoint, if it still goes on; end the thread; write the last status.

        Closing again does nothing.
        """
        if self._inbox.closing.is_set():
            return
        self._inbox.closing.set()  # first: a crashed run may be taken up this very moment, and looks at it
        ended = self._over.is_set() or self._training.ended
        if not (ended or self._ended.is_set() or self._inbox.stop_asked()):
            self._inbox.put(control.parse("stop", source="close"))
        self._inbox.wake()
        self._journal.hurry()
        self._ended.wait()
        if self._beating is not None:
            self._beating.join()
        self._journal.end()
        self._story.close()
        self._write_status()  # while the lock is held: what seems to train without it has crashed
        self._journal.close()

    @property
    def at(self) -> At:
        """Where the run stood when it last told something."""
        return self._at

    # Start ------------------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        try:
            if self.folder.exists():
                raise RunError(
                    f"{self.folder} exists already; give another --name, or go on with "
                    f"`stepwise resume {named(self.folder)}`"
                )
            self.folder.mkdir(parents=True)
            (self.folder / checkpoint.FOLDER).mkdir()
            self._write_status()  # before what makes the folder a run: one without a status has crashed
            self._write_config()
            sync_folder(self.folder.parent)
        except FileExistsError:
            raise RunError(f"{self.folder} was made by another process this very moment") from None
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise RunError(f"{self.folder} cannot be written: {error.strerror}") from None

    def _write_config(self) -> None:
        replace_text(self.folder / runs.CONFIG_FILE, self._config_text, durable=True)

    def _make_again(self) -> None:
        """Someone deleted what the run has on the disk. Called by the journal, which is lost otherwise."""
        (self.folder / checkpoint.FOLDER).mkdir(parents=True, exist_ok=True)
        if not (self.folder / runs.CONFIG_FILE).exists():
            self._write_config()
        self._deleted.set()

    def needs(self) -> Needs | None:
        """What the run uses now; None while nothing is loaded. For any thread."""
        return self._training.needs()

    @property
    def loop(self) -> Loop | None:
        """What trains, for tests and benchmarks; no other thread may touch it while it does."""
        return self._training.loop

    # The threads ------------------------------------------------------------------------------------------

    def _train(self) -> None:
        try:
            while not self._completed() and self._taken_up():
                pass
        finally:
            self._ended.set()
            self._changed.set()
            self._refuse_the_rest()

    def _completed(self) -> bool:
        """Train until the run is closed, or breaks; whether it was closed."""
        try:
            self._training.run()
        except Exception as error:
            crash = RunCrashed(
                at=self._training.at,
                error=explain(error),
                traceback=error.trace if isinstance(error, RanksError) else traceback.format_exc(),
                checkpoint=self._training.last(),
            )
            self.tell(crash, wait=True)
            self.tell(StateChanged(at=crash.at, state="crashed"), wait=True)
            return False
        return True

    def _taken_up(self) -> bool:
        """After a crash: answer until training can go on, or the run is closed; whether it can."""
        while not self._inbox.closing.is_set():
            self._inbox.wait(1.0)
            while (command := self._inbox.next()) is not None:
                if self._inbox.answer(command.id) is not None:
                    continue
                if command.name != "resume":
                    self._answer(command, False, self._over_and_out())
                    continue
                taken_up, message = self._take_up(command)
                self._answer(command, taken_up, message)
                if taken_up:
                    return True  # and what was asked after it is for training
        return False

    def _take_up(self, asked: Command) -> tuple[bool, str]:
        """Build everything anew from the last checkpoint, in this process; whether it worked."""
        self._resume = True
        self._inbox.stop_served()
        self._training.free()
        try:
            begun = self._training.begin(self.config, resume=True, paused=None, asked=asked)
        except Exception as error:
            return False, explain(error)
        self._learn(begun)
        if self._inbox.closing.is_set():  # while it loaded
            self._inbox.put(control.parse("stop", source="close"))
        return True, f"taken up again from {begun.place}"

    def _beat(self) -> None:
        while not self._ended.is_set():
            if self._deleted.is_set():
                self._deleted.clear()
                self.tell(Notice(at=self._at, level="warning", message=DELETED))
            self._write_status()
            self._changed.wait(HEARTBEAT_SECONDS)
            self._changed.clear()
        self._write_status()

    def _refuse_the_rest(self) -> None:
        """Nobody trains any more: answer what is still in the inbox."""
        for command in self._inbox.take():
            if self._inbox.answer(command.id) is None:
                self._answer(command, False, self._over_and_out())

    def _over_and_out(self) -> str:
        here = self.state == "crashed" and not self._ended.is_set()
        # Whole: whoever reads this may stand elsewhere.
        way = "resume" if here else f"stepwise resume {shlex.quote(str(self.folder.resolve()))}"
        return f"the run is {self.state}; `{way}` goes on from its last checkpoint"

    def _answer(self, command: Command, ok: bool, message: str) -> None:
        answer = Answer(ok, message, self._at.step)
        self._inbox.answered(command.id, answer)
        self.tell(acknowledgement(command, self._at, answer))

    # What is told ------------------------------------------------------------------------------------------

    def tell(self, event: Event, *, wait: bool = False) -> None:
        """Journal an event."""
        self._journal.append(event, wait=wait)

    def pass_on(self, event: Event) -> None:
        """Tell those who listen what is of the moment, past the journal. Never waits."""
        self._story.tell(event)

    def _publish(self, event: Event) -> None:
        if event.at.time and not isinstance(event, CheckpointSaved | CheckpointRemoved):
            if event.at.step != self._at.step:
                self._last_step_at = event.at.time
            self._at = event.at
        if isinstance(event, RunStarted):
            self.state = "starting"
            self.end = None
            self._over.clear()
        elif isinstance(event, StateChanged):
            self.state = event.state
            self._changed.set()
        elif isinstance(event, Evaluated) and event.split == "valid":
            self._accuracy = event.accuracy
        elif isinstance(event, RunFinished | RunCrashed):
            self.end = event if isinstance(event, RunFinished) else None
            self._over.set()
        if event.seq == 0:
            self._story.tell(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception as error:
                # A listener's mistake must not end the journal; it is told once, and not called again.
                self._on_event = None
                message = f"on_event raised {type(error).__name__}: {error}; it is not called any more"
                self._journal.append(Notice(at=self._at, level="error", message=message))

    def _write_status(self) -> None:
        at, now = self._at, time.time()
        current = status.Status(
            name=self.name,
            title=self.config.title,
            state=self.state,
            step=at.step,
            stage=at.stage,
            stages=self._stages,
            scheduled=at.scheduled,
            removed=at.removed,
            branch=at.branch,
            accuracy=self._accuracy,
            pid=os.getpid(),
            host=status.host(),
            boot_id=status.boot_id(),
            started=self._started,
            last_step_at=self._last_step_at,
            heartbeat=now,
            socket=self.socket,
        )
        # How a run ended must outlive a power cut; the rest is told again within a second.
        ends = self.state in runs.ENDED and self.state != self._state_written
        try:
            status.write(self.folder, current, durable=ends)
        except OSError:
            # A full disk is told by the journal; the next beat tries again.
            return
        self._state_written = current.state
