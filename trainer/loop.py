"""The training loop, to be read from top to bottom at `Loop.run`.

One thread owns everything here. Between two optimiser steps it serves the commands that have arrived; it
tells what happened by `emit` and never waits for a screen. What a command does is decided in `control`;
what a stage, a batch and a loss are is the method's matter.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from trainer import ending
from trainer.answering import evaluate, foretelling
from trainer.asking.chat import respond, summary
from trainer.computing.meter import Meter
from trainer.config import GATED, Config, get
from trainer.control import (
    Advance,
    Ask,
    Change,
    Command,
    Control,
    Effect,
    Evaluate,
    Examine,
    Facts,
    Quiz,
    RollBack,
    Save,
    decide,
    parse,
)
from trainer.events import (
    DISK,
    AlarmCleared,
    AlarmRaised,
    At,
    Cause,
    ChatToken,
    Evaluated,
    Event,
    ExamplesShown,
    Metrics,
    Notice,
    RolledBack,
    RunFinished,
    RunState,
    SaveCause,
    SettingChanged,
    Split,
    StageEntered,
    StateChanged,
)
from trainer.files import PATIENCE
from trainer.inbox import Inbox
from trainer.orders import Orders, Record
from trainer.pacing import caution, gate, schedule
from trainer.pacing.schedule import Progress
from trainer.rank import DeclinedError, Rank
from trainer.record.lineage import CheckpointRef, Fork, Lineage
from trainer.saving import checkpoint
from trainer.saving.checkpoint import CheckpointError, TrainState
from trainer.saving.keeper import Keeper
from trainer.saving.past import Past
from trainer.watching import automaton
from trainer.watching.automaton import Around
from trainer.watching.notify import notify
from trainer.watching.watch import Told, Watch, watch

SHOWN = 8
"""Held-out examples shown with each evaluation."""


TOO_SLOW = "writing it would have taken longer than whoever sent the signal can be trusted to wait"


class RefusedError(ValueError):
    """A command that was understood but could not be carried out; the message says why."""


class Loop:
    """A run while it trains. Build it, `restore` it when it goes on from a checkpoint, then `run` it."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        rank: Rank,
        inbox: Inbox,
        record: Record,
        lineage: Lineage,
    ) -> None:
        self.config = config
        self.folder = folder
        self.rank = rank
        self.parts = parts = rank.parts
        self.inbox = inbox
        self.orders = Orders(self, inbox, record)
        self.keeper = Keeper(
            folder,
            lineage,
            parts.model,
            copy.deepcopy(parts.tokenizer),
            record.settle,
            lambda: inbox.deadline,
        )
        self.control = Control()
        self.state: RunState = "starting"
        self._record = record
        self._during = ""

        self.method = parts.method
        self.order, self.updater = rank.order, rank.updater
        rank.interrupted = inbox.stop_asked
        self.pace = self._pace(config)
        self.meter = Meter()
        self.watch = Watch()

        self.branch = 1
        self.stream = 1
        self.progress = Progress(0, 0)
        self.gate = gate.Gate()
        self.cot_free = False
        self.evaluation_owed = False
        self.seconds = 0.0
        self.accuracy: float | None = None
        self.standing = ending.Standing()
        self.ended = False
        self.waits = ""
        """Why training waits for the disk, "" when it does not."""

    # The run -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end, then answer questions until closed. However it ends, what is being saved is."""
        try:
            self._run()
        finally:
            self._settle()
            self.keeper.close()

    def _run(self) -> None:
        if not self.keeper.lineage.checkpoints:
            self._enter_stage(self.method.start, "start")
        if self._limit() is not None:
            self.orders.serve(at_the_end=True)  # a roll back takes it back from there
        while (limit := self._limit()) is None:
            self.orders.serve()
            if self.control.stopping:
                return self._finish("stopped by the operator", "interrupted")
            self._tell_saves()
            if self._disk_refuses() or self.control.paused:
                self._become("paused")
                self.inbox.wait(1.0)
                continue
            self._become("training")
            self._evaluate_when_owed()
            if self._act():
                continue
            started = time.monotonic()
            self._remove_when_due()
            self._train_step()
            self.seconds += time.monotonic() - started
            self._log_when_due()
            self._probe_when_due()
            self.evaluation_owed = self.step % self.config.eval.every == 0
            self._evaluate_when_owed()
            self._save_when_due()
            self._pause_when_due()
        self._evaluate_when_owed()  # a stop may have interrupted the one of the last step
        return self._finish(f"{limit.reached} ({limit.key})", "finished", limit.key)

    def _act(self) -> bool:
        """Give the commands that the watch wants; whether one of them was a roll back.

        Here alone, after all that was asked for at this step, so that it comes at the same place when it is
        done again. Else training goes on at once: whatever is asked next comes at the next step.
        """
        branch, acting = self.branch, self.watch.automaton
        if not acting.wanted:
            return False
        self.watch = replace(
            self.watch, automaton=replace(acting, acts=acting.acts + len(acting.wanted), wanted=())
        )
        for number, act in enumerate(acting.wanted, acting.acts + 1):
            command = parse(act.text, id=f"{automaton.SOURCE}-{number}", source=automaton.SOURCE)
            self.orders.carry_out(command, act.reason)
        return self.branch != branch

    def _remove_when_due(self) -> None:
        config = self.config.schedule
        early = self.gate.early(config)
        at = self.at
        pace = caution.paced(self.pace, self.keeper.lineage, at.branch, at.stage, config)
        due = schedule.remove_when_due(self.progress, pace, held=self.control.held, early=early)
        if due.scheduled > self.progress.scheduled:
            why = gate.reason(self.gate, self.progress.counter, config) if config.kind in GATED else ""
            self._enter_stage(due.scheduled, "schedule", why)

    def _train_step(self) -> None:
        started = time.monotonic()
        self.progress = schedule.count(self.progress, self.pace, step=self.step, held=self.control.held)
        pretraining = self.step < self.pace.pretrain
        if self.step == self.pace.pretrain > 0 and self.method.stages:
            message = f"pretraining is over: removal smoothing begins (λ = {self.config.method.smoothing:g})"
            self._emit(Notice(at=self.at, message=message, of_step=True))
        at = self.at
        stepped = self.rank.everywhere(Rank.update, self.stream, self.progress.scheduled, pretraining)
        if stepped.divided:
            message = (
                f"{stepped.divided} examples do not fit into the memory of {self.parts.device}; now in "
                f"{self.rank.compute.parts} parts"
            )
            self._emit(Notice(at=at, level="warning", message=message, of_step=True))
        if stepped.applied is not None:
            self.meter.add(*stepped.applied, tokens=stepped.tokens)
        self.meter.left_out += stepped.left_out
        self.cot_free = stepped.cot_free
        self.meter.seconds += time.monotonic() - started

    def _log_when_due(self) -> None:
        if self.step % self.config.log.every or not (self.meter.steps or self.meter.left_out):
            return
        reading = self.meter.read()
        self._emit(
            Metrics(
                at=self.at,
                lr=self.updater.lr,
                epoch=self.step / self.order.steps_per_epoch,
                **reading._asdict(),
            )
        )
        self.meter.clear()

    def _probe_when_due(self) -> None:
        config = self.config.schedule
        stage = self.method.stage(self.progress.scheduled)
        if config.kind not in GATED or self.step % config.probe_every or stage >= self.method.stages:
            return
        started = time.monotonic()
        n = min(config.probe_examples, len(self.parts.splits["valid"]))
        accuracy = self.rank.everywhere(Rank.probe, n, self.progress.scheduled)
        seconds = time.monotonic() - started
        self._emit(gate.told(self.gate, accuracy, config, at=self.at, n=n, seconds=seconds))

    def _evaluate_when_owed(self) -> None:
        """A stop may interrupt it; then it is still owed when the run is taken up again."""
        if self.evaluation_owed:
            self.evaluation_owed = self._evaluate("valid", "schedule") is None

    def _save_when_due(self) -> None:
        if not self.keeper.due(self.config.save):
            return
        if self._sound_step() is None:
            self._save("time")
        else:
            self.keeper.put_off()

    def _pause_when_due(self) -> None:
        if self.control.pause_at is not None and self.step >= self.control.pause_at:
            self.control = replace(self.control, paused=True, pause_at=None)

    def _limit(self) -> ending.Limit | None:
        epochs = self.step / self.order.steps_per_epoch
        return ending.limit(
            self.config.stop, self.standing, step=self.step, epochs=epochs, seconds=self.seconds
        )

    def _finish(self, reason: str, state: Literal["finished", "interrupted"], limit: str = "") -> None:
        """Save, measure the test split where the run is complete, and stay to answer until closed."""
        saved = self._save("final" if state == "finished" else "stop")
        self.ended = True
        self.orders.give_up()
        unsaved = ""
        if not self._written(saved):
            unsaved = self.waits or TOO_SLOW
            last = self.keeper.last()
            message = f"the end could not be saved; {last or 'no checkpoint'} stands. {unsaved}"
            self._emit(Notice(at=self.at, level="error", message=message))
            saved, state, reason = last, "interrupted", f"{reason}; the end could not be saved"
        result = self._evaluate("test", "schedule") if state == "finished" else None
        self._emit(
            RunFinished(
                at=self.at,
                reason=reason,
                limit=limit,
                state=state,
                accuracy=result.accuracy if result else None,
                n=result.n if result else 0,
                seconds=self.seconds,
                checkpoint=saved,
                unsaved=unsaved,
            ),
            wait=True,
        )
        self._become(state)
        self.control = replace(self.control, stopping=False)
        self.inbox.stop_served()
        while not self.inbox.closing.is_set():
            self.orders.serve()
            self.inbox.wait(0.2)

    # Commands ------------------------------------------------------------------------------------------

    def do(self, command: Command) -> tuple[bool, str]:
        """Decide and carry out; whether it was done, and a sentence."""
        if command.name == "rollback":
            self._settle()  # what it may return to
        lineage = self.keeper.lineage
        facts = Facts(self.at, self.method.stages, self.config, lineage, self.ended, self.waits)
        decision = decide(self.control, command, facts)
        message = decision.message
        self.control = decision.control
        self._during = command.id
        watched = self.watch
        if decision.ok and command.source != automaton.SOURCE:
            acting = automaton.stand_down(watched.automaton, command.name, command.key)
            self.watch = replace(watched, automaton=acting)
        try:
            for effect in decision.effects:
                message = self._carry_out(effect, command) or message
        except RefusedError as refusal:
            self.watch = replace(self.watch, automaton=watched.automaton)
            return False, str(refusal)
        finally:
            self._during = ""
        return decision.ok, message

    def _carry_out(self, effect: Effect, command: Command) -> str | None:
        """Do what was decided; a sentence when there is more to say than the decision said."""
        match effect:
            case Save():
                saved = self._save("manual")
                self._settle()
                if not self.keeper.has(saved):
                    trouble = self.keeper.trouble
                    reason = trouble.reason if trouble else f"{saved} is not written yet"
                    raise RefusedError(f"{reason}; it is tried again and again")
                return f"saved {saved}"
            case Advance(stage):
                self._enter_stage(stage, "watch" if command.source == automaton.SOURCE else "operator")
            case RollBack():
                self._roll_back(effect)
            case Change(config, key):
                self._change(config, key)
            case Evaluate():
                result = self._evaluate("valid", "operator")
                if result is None:
                    raise RefusedError("the evaluation was interrupted by a stop")
                return f"validation accuracy {result.accuracy:.3f} ({result.correct}/{result.n})"
            case Ask() | Quiz() | Examine():
                return self._answer(effect, command)
        return None

    def _change(self, config: Config, key: str) -> None:
        old, new = get(self.config, key), get(config, key)
        self.pace = self._pace(config)
        self.config = config
        self.rank.everywhere(Rank.configure, config)
        self._emit(SettingChanged(at=self.at, key=key, old=old, new=new))

    def _roll_back(self, effect: RollBack) -> None:
        """Restore a checkpoint, or only its stage, and go on from it on a new branch."""
        origin = effect.checkpoint
        from_branch, from_step = self.branch, self.step
        if effect.keep_weights:
            fork = Fork(from_branch, from_step, origin.stage)
            removed, reset = self.method.removed(origin.stage), self.method.resets(previous_cot_free=False)
            self.rank.everywhere(Rank.enter, self.at.removed, removed, reset)
            self.progress = Progress(origin.stage, 0)
        else:
            try:
                self.restore(origin.id)
            except (CheckpointError, DeclinedError) as error:
                others = [c.id for c in self.keeper.lineage.checkpoints if c.id != origin.id]
                raise RefusedError(f"{error}. Others: {', '.join(others[-8:]) or 'none'}") from None
            fork = Fork(origin.branch, origin.step, origin.stage)
        self.branch = self.keeper.lineage.branches + 1
        if effect.seed == "fresh":
            self.stream = self.branch
        self.keeper.fork(self.branch, fork)
        self.meter.clear()
        self.control = replace(self.control, pause_at=None)
        self._emit(
            RolledBack(
                at=self.at,
                checkpoint=origin.id,
                parent=fork.parent,
                from_branch=from_branch,
                from_step=from_step,
                keep_weights=effect.keep_weights,
                seed=effect.seed,
            )
        )
        self._tell_stage("rollback", optimizer_reset=self.updater.updates == 0)
        if self.method.stages:
            care = gate.CARE if self.config.schedule.kind in GATED else caution.CARE
            self._emit(Notice(at=self.at, message=care, of_step=True))
        if effect.keep_weights:
            self._save("stage")

    def _answer(self, asked: Ask | Quiz | Examine, command: Command) -> str:
        def spoken(text: str, part: Literal["cot", "answer"]) -> None:
            self._emit(ChatToken(at=self.at, id=command.id, text=text, part=part))

        try:
            whole = self.rank.everywhere(Rank.whole)
            with self.rank.compute.answering(whole.model):
                turn = respond(
                    asked,
                    whole,
                    self.progress.scheduled,
                    self.folder,
                    id=command.id,
                    at=self.at,
                    side=self.config.method.side,
                    on_text=spoken,
                    interrupted=self.inbox.interrupted,
                )
        except Exception as error:
            # Asking changes nothing of the run, so nothing that goes wrong with it may cost the run.
            raise RefusedError(f"the question could not be answered: {error}") from error
        if turn is None:
            raise RefusedError("it was interrupted")
        self._emit(turn)
        return summary(turn)

    # Stages, evaluation, checkpoints ----------------------------------------------------------------------

    def _enter_stage(self, scheduled: int, cause: Cause, why: str = "") -> None:
        before = self.at
        reset = cause != "start" and self.method.resets(self.cot_free)
        self.progress = Progress(scheduled, 0)
        if self.at.stage == before.stage and cause != "start":
            return  # all is gone: the schedule counts on, and nothing changes
        self.rank.everywhere(Rank.enter, before.removed, self.at.removed, reset)
        self.meter.clear()
        self._tell_stage(cause, optimizer_reset=reset, why=why)
        self._save("stage")

    def _tell_stage(self, cause: Cause, *, optimizer_reset: bool, why: str = "") -> None:
        at = self.at
        text = self.method.describe(at.stage)
        self._emit(StageEntered(at=at, text=text, cause=cause, optimizer_reset=optimizer_reset, why=why))

    def _evaluate(self, split: Split, cause: Cause) -> Evaluated | None:
        """Measure, tell, and draw the consequences; None when a stop interrupted it."""
        before = self.state
        self._become("evaluating")
        examples = self.parts.splits[split]
        if split == "valid":
            examples = examples[: self.config.eval.examples]
        scheduled, started = self.progress.scheduled, time.perf_counter()
        # On a CPU a pass for each token costs no more than one over all of them (docs/log.md).
        shortcut = self.parts.device.type != "cpu" and (self.accuracy or 0.0) >= foretelling.WORTH
        given = self.rank.everywhere(Rank.answer, split, len(examples), scheduled, int(shortcut))
        self._become(before)
        if given is None:
            return None
        result = evaluate.score(self.method, examples, given, scheduled, self.parts.tokenizer, started)
        event = evaluate.told(result, self.at, split, cause)
        best = self.standing.best
        self._emit(event)
        shown = evaluate.shown_examples(
            self.parts.task,
            self.method,
            examples[:SHOWN],
            result.decoded,
            self.progress.scheduled,
            self.parts.tokenizer,
            side=self.config.method.side,
        )
        self._emit(ExamplesShown(at=self.at, examples=shown))
        if split == "valid":
            self.accuracy = event.accuracy
        if self.standing.best > best:
            self._save("best")
        return event

    def _save(self, cause: SaveCause) -> str:
        """Copy a checkpoint, which is then written while training goes on; its id."""
        return self.keeper.save(self.train_state(cause), self.at, lambda: self.rank.everywhere(Rank.copy))

    def _tell_saves(self) -> None:
        """Tell what was written since, and let retention work."""
        for event in self.keeper.collect(self.branch, self.config.save, self._sound):
            self._emit(event)

    def _sound(self, lineage: Lineage) -> CheckpointRef | None:
        """The checkpoint to return to while updates are left out, since the weights may be ruined."""
        step = self._sound_step()
        return None if step is None else lineage.before(self.branch, step)

    def _sound_step(self) -> int | None:
        """The last step whose weights are above suspicion; None where all are. Waits for the device."""
        before = self.meter.before_skipped() if self.watch.sound_step is None else None
        if before is None:
            return self.watch.sound_step
        return replace(self.watch, skipped=1, since=self.step - self.meter.steps + before).sound_step

    def _settle(self, patience: float = 0.0) -> None:
        """Wait until what was copied is written and told; while the disk refuses, only so many seconds."""
        self.keeper.wait(patience)
        self._tell_saves()

    def _written(self, id: str) -> bool:
        """At the end: wait until the last checkpoint is written, or the operator has the run end without."""
        self._settle()
        while self._disk_refuses() and not (self.control.stopping or self.inbox.closing.is_set()):
            self._become("paused")
            self.orders.serve()
            self.inbox.wait(1.0)
            self._tell_saves()
        self._settle(PATIENCE)
        self._disk_refuses()
        return self.keeper.has(id)

    def _disk_refuses(self) -> bool:
        """Whether training has to wait until something can be written; tells when that begins and ends."""
        trouble = self._record.trouble or self.keeper.trouble
        reason = trouble.reason if trouble else ""
        if trouble and not self.waits:
            remedy = f"{trouble.remedy}; then it goes on by itself"
            message = f"training waits: {reason}"
            alarm = AlarmRaised(at=self.at, kind=DISK, message=message, remedy=remedy, key="")
            self._record.tell(alarm)
            self._alarm(alarm)
        elif self.waits and not reason:
            self._tell_saves()  # those that waited for it
            message = f"the disk takes what is written; {self.keeper.last() or 'no checkpoint'} stands"
            self._record.tell(AlarmCleared(at=self.at, kind=DISK, message=message))
        self.waits = reason
        return bool(reason)

    def train_state(self, cause: SaveCause) -> TrainState:
        return TrainState(
            step=self.step,
            branch=self.branch,
            stage=self.at.stage,
            cause=cause,
            stream=self.stream,
            scheduled=self.progress.scheduled,
            counter=self.progress.counter,
            updates=self.updater.updates,
            cot_free=self.cot_free,
            seconds=self.seconds,
            seq=self._record.position(repeating=self.orders.repeating),
            during=self._during,
            accuracy=self.accuracy,
            meter=self.meter.state(),
            evaluation_owed=self.evaluation_owed,
            gate=self.gate.state(),
            watch=self.watch.state(),
            compute=self.rank.compute,
        )

    def restore(self, id: str) -> None:
        """Weights, optimiser and counters of a checkpoint.

        Raises `CheckpointError` or `DeclinedError`, nothing changed.
        """
        path = self.folder / checkpoint.FOLDER / id
        checkpoint.verify(path)
        state = checkpoint.load_state(path)
        self.rank.everywhere(Rank.restore, path, state.step, state.updates)
        self.branch, self.stream = state.branch, state.stream
        self.progress = Progress(state.scheduled, state.counter)
        self.cot_free = state.cot_free
        self.accuracy = state.accuracy
        self.meter.load(state.meter)
        self.evaluation_owed = state.evaluation_owed
        self.gate = gate.Gate.load(state.gate)

    # Small things ------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """How many steps this branch has made."""
        return self.rank.step

    @property
    def at(self) -> At:
        """Where the run stands now."""
        scheduled = self.progress.scheduled
        return At(
            step=self.step,
            branch=self.branch,
            stage=self.method.stage(scheduled),
            scheduled=scheduled,
            removed=self.method.removed(scheduled),
            time=time.time(),
        )

    def _become(self, state: RunState) -> None:
        if state != self.state:
            self.state = state
            self._emit(StateChanged(at=self.at, state=state))

    def _emit(self, event: Event, *, wait: bool = False) -> None:
        again = self.orders.repeating
        self._record.tell(event, wait=wait)
        self.gate = gate.learn(self.gate, event, self.config.schedule)
        self.standing = ending.learn(self.standing, event, self.config.stop, self.method.stages)
        for told in self._watch(event):
            self._record.tell(told)
            if isinstance(told, AlarmRaised) and not again:
                self._alarm(told)

    def _watch(self, event: Event) -> Sequence[Told]:
        """What an event means for the watch; what that has to tell."""
        around = Around(
            self.config,
            self.keeper.lineage,
            self.control.held,
            self.method.stages,
            self.order.steps_per_epoch,
        )
        self.watch, told = watch(self.watch, event, around)
        return told

    def _alarm(self, raised: AlarmRaised) -> None:
        if raised.pauses:
            self.control = replace(self.control, paused=True, pause_at=None)
        if self.config.watch.notify:
            notify(self.config.watch.notify, raised.told)

    def take_up(self, past: Past) -> None:
        """Bring everything to where an earlier process left it. Raises `CheckpointError`."""
        if past.origin is not None:
            self.restore(past.origin.id)
            assert past.state is not None
            self.seconds, self.watch = past.state.seconds, Watch.load(past.state.watch)
        self.control = past.control
        for event in past.before:
            self.standing = ending.learn(self.standing, event, self.config.stop, self.method.stages)
        self.orders.take_up(past.plan, past.afterwards)

    def _pace(self, config: Config) -> schedule.Pace:
        method = self.method
        return schedule.pace(
            config.schedule, self.order.steps_per_epoch, start=method.start, stages=method.stages
        )
