"""A real run of a tiny model: trained in its thread, steered by commands, resumed from its folder."""

from __future__ import annotations

import errno
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.driven import FOREVER, Driven, of_the_disk, same, weights
from tests.terminal import until
from tests.tiny import tiny_config
from trainer import config as configuration
from trainer import rank, runs, status
from trainer.control import parse
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    ChatAnswered,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    Evaluated,
    ExamplesShown,
    HistoryTold,
    Metrics,
    RolledBack,
    RunCrashed,
    RunFinished,
    SettingChanged,
    StageEntered,
    StateChanged,
    StepsRepeated,
)
from trainer.record import journal, lock
from trainer.run import Run, RunError
from trainer.saving import checkpoint


def test_a_whole_run_tells_its_story(driven: Callable[..., Driven], tmp_path: Path) -> None:
    one = driven()
    assert one.run.wait(30)
    end = one.until(RunFinished)
    one.run.close()
    assert (end.state, end.limit, end.n) == ("finished", "stop.steps", 40)
    assert end.accuracy is not None
    stages = [e.at.stage for e in one.all(StageEntered)]
    assert stages == list(range(10))
    assert [e.at.step for e in one.all(StageEntered)][:3] == [0, 10, 15]  # 5 of pretraining, then every 5
    assert one.all(StageEntered)[3].optimizer_reset
    assert [e.at.step for e in one.all(Evaluated)] == [*range(10, 61, 10), 60]
    assert one.all(Evaluated)[-1].split == "test"
    last = one.all(Metrics)[-1]
    assert last.at.scheduled == 10
    assert last.at.removed == 9
    assert last.loss_cot is None
    assert one.all(Metrics)[0].loss_cot is not None
    assert all(len(e.examples) == 8 for e in one.all(ExamplesShown))
    assert list(journal.read(tmp_path / "run")) == [e for e in one.events if e.seq]
    assert [e.seq for e in journal.read(tmp_path / "run")] == list(range(1, one.events[-1].seq + 1))
    written = status.read(tmp_path / "run")
    assert written is not None
    assert (written.state, written.step, written.stage, written.stages) == ("finished", 60, 9, 9)
    assert configuration.build(configuration.load(tmp_path / "run" / "config.toml")) == tiny_config()


def test_a_run_that_has_not_started_yet_is_no_crashed_one_to_others(tmp_path: Path) -> None:
    Run(tiny_config(), tmp_path / "run")
    look = "import sys, pathlib; from trainer import runs; print(runs.state(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", look, str(tmp_path / "run")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "starting\n"


def test_watching_and_asking_change_no_weight(driven: Callable[..., Driven], tmp_path: Path) -> None:
    quiet = driven("quiet").until(RunFinished).checkpoint
    busy = driven("busy")
    for line in ("pause", "ask 12*34", "evaluate", "save", "resume", "ask 99*98", "evaluate"):
        assert busy.do(line).ok, line
    steered = busy.until(RunFinished).checkpoint
    assert same(weights(tmp_path / "quiet", quiet), weights(tmp_path / "busy", steered))


def test_every_command_is_received_and_acknowledged_once(driven: Callable[..., Driven]) -> None:
    one = driven(**FOREVER)
    lines = [
        "pause", "evaluate", "save", "ask 12*34", "hold", "release", "set optim.lr 1e-4", "advance 2",
        "rollback 0", "run 3", "resume", "rollback 99", "set optim.lr fast",
    ]  # fmt: skip
    commands = [parse(line, source="test") for line in lines]
    for command in commands:
        one.run.submit(command)
    one.run.submit(commands[0])  # the same id again
    one.until(CommandAcknowledged, lambda e: e.id == commands[-1].id)
    one.run.close()
    answers = [e for e in one.all(CommandAcknowledged) if e.source == "test"]
    assert [e.id for e in answers] == [c.id for c in commands]
    assert {e.id for e in one.all(CommandReceived)} == {c.id for c in commands}
    refused = {e.command for e in answers if not e.ok}
    assert refused == {"rollback 99", "set optim.lr fast"}


def test_pause_really_pauses_and_run_n_runs_n(driven: Callable[..., Driven]) -> None:
    one = driven(**FOREVER)
    at = one.do("pause").at.step
    one.until(StateChanged, lambda e: e.state == "paused")
    assert [one.do("save").at.step for _ in range(3)] == [at] * 3
    one.do("run 7")
    one.until(StateChanged, lambda e: e.state == "paused" and e.at.step == at + 7)


def test_hold_freezes_the_stage_and_advance_still_works(driven: Callable[..., Driven]) -> None:
    one = driven(**FOREVER)
    held = one.do("hold").at
    later = one.until(Metrics, lambda e: e.at.step > held.step + 30)
    assert later.at.stage == held.stage
    moved = one.do("advance 2")
    assert moved.at.stage == held.stage + 2
    one.do("release")
    one.until(StageEntered, lambda e: e.at.stage == held.stage + 3 and e.cause == "schedule")


def test_rollback_restores_the_entry_exactly_and_branches(
    driven: Callable[..., Driven], tmp_path: Path
) -> None:
    one = driven(**FOREVER, save__stages=20)
    entry = one.until(CheckpointSaved, lambda e: e.checkpoint.endswith("stage2"))
    one.until(StageEntered, lambda e: e.at.stage == 4)
    one.do("pause")
    before = one.events[-1].at
    answer = one.do("rollback 2")
    assert answer.ok, answer.message
    assert (answer.at.branch, answer.at.step, answer.at.stage) == (2, entry.at.step, 2)
    assert entry.checkpoint in answer.message
    rolled = one.until(RolledBack)
    assert (rolled.from_branch, rolled.from_step) == (1, before.step)
    saved = one.do("save").message.split()[-1]
    folder = tmp_path / "run"
    assert same(weights(folder, entry.checkpoint), weights(folder, saved))
    one.do("resume")
    # A token goes every five steps, and a schedule that was rolled back takes twice its time.
    again = one.until(StageEntered, lambda e: e.at.branch == 2 and e.at.stage == 3)
    assert again.at.step == entry.at.step + 10
    one.do("pause")
    again = one.do("rollback 2 --keep-weights")
    assert (again.at.branch, again.at.stage) == (3, 2)
    assert again.at.step > entry.at.step


@pytest.mark.parametrize("seed", ["fresh", "replay"])
def test_a_rollback_draws_fresh_data_unless_it_replays(
    driven: Callable[..., Driven], tmp_path: Path, seed: str
) -> None:
    one = driven(**FOREVER, save__stages=20)
    one.do("hold")
    one.do("pause")
    start = one.do("save")
    one.do("run 6")
    one.until(StateChanged, lambda e: e.state == "paused" and e.at.step == start.at.step + 6)
    first = one.do("save").message.split()[-1]
    one.do(f"rollback {start.message.split()[-1]} --seed {seed}")
    one.do("run 6")
    one.until(
        StateChanged, lambda e: e.state == "paused" and e.at.branch == 2 and e.at.step == start.at.step + 6
    )
    second = one.do("save").message.split()[-1]
    folder = tmp_path / "run"
    assert same(weights(folder, first), weights(folder, second)) == (seed == "replay")


def test_a_damaged_checkpoint_is_refused_and_training_goes_on(
    driven: Callable[..., Driven], tmp_path: Path
) -> None:
    one = driven(**FOREVER)
    saved = one.do("save").message.split()[-1]
    victim = tmp_path / "run" / "checkpoints" / saved / "model" / "model.safetensors"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    answer = one.do(f"rollback {saved}")
    assert not answer.ok
    assert "damaged" in answer.message
    assert "b1-s000000-stage0" in answer.message
    one.until(Metrics, lambda e: e.at.step > answer.at.step)


def test_set_acts_at_once_and_outlives_a_resume(driven: Callable[..., Driven], tmp_path: Path) -> None:
    one = driven(**FOREVER)
    changed = one.do("set optim.lr 0.25e-3")
    one.until(Metrics, lambda e: e.at.step > changed.at.step + 2 and e.lr == 0.25e-3)
    assert one.all(SettingChanged)[0].old == 2e-3
    one.do("hold")
    one.run.close()
    two = driven(resume=True, **FOREVER)
    assert two.until(Metrics).lr == 0.25e-3
    stage = two.events[-1].at.stage
    two.until(Metrics, lambda e: e.at.step > two.events[0].at.step + 20)
    assert two.events[-1].at.stage == stage  # the hold outlives it as well


def test_a_stopped_and_resumed_run_ends_like_one_never_stopped(
    driven: Callable[..., Driven], tmp_path: Path
) -> None:
    whole = driven("whole").until(RunFinished).checkpoint
    first = driven("parts", log__every=1)
    first.until(Metrics, lambda e: e.at.step >= 17)
    assert first.do("stop").ok
    end = first.until(RunFinished)
    assert (end.state, end.accuracy) == ("interrupted", None)
    first.run.close()
    second = driven("parts", resume=True)
    assert second.until(RunFinished).checkpoint == whole == "b1-s000060-stage9-final"
    assert same(weights(tmp_path / "whole", whole), weights(tmp_path / "parts", whole))
    second.run.close()
    events = list(journal.read(tmp_path / "parts"))
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert [e.at.stage for e in events if isinstance(e, StageEntered)] == list(range(10))


def test_what_is_done_again_is_told_as_it_goes(driven: Callable[..., Driven], tmp_path: Path) -> None:
    one = driven(log__every=5)
    one.until(RunFinished)
    one.run.close()
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        if "s000000" not in folder.name:  # as if it had been killed before the next was written
            shutil.rmtree(folder)
    two = driven(resume=True, log__every=5, stop__steps=70)
    two.until(Metrics, lambda e: e.seq > 0 and e.at.step > 60)
    again = two.all(StepsRepeated)
    assert [(e.at.step, e.upto, e.seq) for e in again] == [(step, 60, 0) for step in range(5, 61, 5)]


def test_resume_steps_over_a_damaged_checkpoint(driven: Callable[..., Driven], tmp_path: Path) -> None:
    one = driven()
    end = one.until(RunFinished)
    one.run.close()
    (tmp_path / "run" / "checkpoints" / end.checkpoint / "model" / "config.json").write_text("{}")
    two = driven(resume=True)
    two.until(RunFinished, lambda e: e.seq > end.seq)
    notices = [e for e in two.events if getattr(e, "level", "") == "warning"]
    assert any("config.json is damaged" in str(e) for e in notices)


def test_smoothing_turned_off_is_off_after_a_resume(driven: Callable[..., Driven]) -> None:
    one = driven(**FOREVER)
    assert one.do("set method.smoothing inf").ok
    one.run.close()
    two = driven(resume=True, **FOREVER)
    two.until(Metrics)
    assert two.run.config.method.smoothing == math.inf


def test_a_pause_for_want_of_room_stands(
    driven: Callable[..., Driven], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = driven(**FOREVER)
    one.until(Metrics)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "sync_file", refuse)
    entered = one.do("advance").at
    alarm = one.until(AlarmRaised, of_the_disk)
    assert "No space left" in alarm.message
    one.until(StateChanged, lambda e: e.state == "paused")
    for line in ("save", "advance", "rollback 0 --keep-weights"):
        refused = one.do(line)
        assert not refused.ok and "No space left" in refused.message
    assert one.do("resume").ok  # it cannot be overruled: nothing could be saved
    assert one.run.state == "paused"
    monkeypatch.undo()  # there is room again: it goes on by itself
    one.until(AlarmCleared, of_the_disk)
    one.until(StateChanged, lambda e: e.state == "training" and e.seq > alarm.seq)
    saved = one.until(CheckpointSaved, lambda e: e.cause == "stage" and e.at.stage == entered.stage)
    assert saved.at.step == entered.step  # the entry that could not be written then


def test_two_processes_cannot_train_one_run(driven: Callable[..., Driven], tmp_path: Path) -> None:
    driven(**FOREVER)
    second = Run(tiny_config(**FOREVER), tmp_path / "run", resume=True)
    with pytest.raises(RunError, match=f"as process {os.getpid()}"):
        second.start()


def test_a_run_resumed_paused_makes_no_step(driven: Callable[..., Driven]) -> None:
    one = driven(**FOREVER)
    one.until(Metrics)
    one.run.close()
    stopped = one.until(RunFinished).at.step
    two = driven(resume=True, paused=True, **FOREVER)
    two.until(StateChanged, lambda e: e.state == "paused")
    assert [two.do(line).at.step for line in ("save", "save", "run 2")] == [stopped] * 3


def test_questions_are_answered_by_the_weights_of_the_moment(driven: Callable[..., Driven]) -> None:
    one = driven(**FOREVER)
    one.do("pause")
    answer = one.do("ask 12*34")
    turn = one.until(ChatAnswered)
    assert turn.id == answer.id
    assert turn.expected == "408"
    assert turn.tokens > 0
    assert turn.at.step == answer.at.step
    assert answer.message.endswith(turn.answer)
    nonsense = one.do("ask how are you?")
    assert nonsense.ok
    assert "12" in nonsense.message or "*" in nonsense.message


def test_after_the_end_it_still_answers_and_trains_no_more(driven: Callable[..., Driven]) -> None:
    one = driven()
    one.until(RunFinished)
    assert one.do("ask 12*34").ok
    assert one.do("evaluate").ok
    assert not one.do("advance").ok
    assert one.run.state == "finished"


def test_a_run_that_is_over_names_the_command_that_goes_on_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = Driven(tiny_config(**FOREVER), Path("my run"))
    one.do("stop")
    assert one.run.wait(60)
    one.run.close()
    assert f"`stepwise resume '{tmp_path}/my run'`" in one.run._over_and_out()


def test_an_evaluation_that_a_stop_interrupts_is_made_up_for(
    driven: Callable[..., Driven], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = rank.answers

    def interrupted(*arguments: Any, **options: Any) -> Any:
        one.run.submit(parse("stop"))
        return answers(*arguments, **options)

    monkeypatch.setattr(rank, "answers", interrupted)
    one = driven(**FOREVER)
    stopped = one.until(RunFinished).at.step
    assert not one.all(Evaluated)
    one.run.close()
    monkeypatch.setattr(rank, "answers", answers)
    two = driven(resume=True, **FOREVER)
    assert two.until(Evaluated).at.step == stopped
    assert two.until(Evaluated, lambda e: e.at.step > stopped).at.step == stopped + 10


def test_a_finished_run_taken_up_again_trains_no_further(driven: Callable[..., Driven]) -> None:
    one = driven()
    one.until(RunFinished)
    one.run.close()
    two = driven(resume=True)
    end = two.until(RunFinished)
    assert (end.at.step, end.state) == (60, "finished")
    assert two.do("ask 12*34").ok


def test_a_crash_in_training_is_told_and_later_commands_are_refused(
    driven: Callable[..., Driven], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = driven(**FOREVER)
    one.do("save")
    one.may_crash = True

    def broken(*_: object) -> None:
        torch.empty(2**50)

    monkeypatch.setattr(one.run.loop.method, "loss", broken)
    crash = one.until(RunCrashed)
    assert "ran out of memory" in crash.error
    assert crash.checkpoint.startswith("b1-")
    one.until(StateChanged, lambda e: e.state == "crashed")
    assert not one.do("ask 1*1").ok
    until(lambda: runs.state(one.run.folder) == "crashed")


def test_a_run_that_broke_is_taken_up_in_the_same_process_and_ends_as_if_it_had_not(
    driven: Callable[..., Driven], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = driven("whole")
    end = whole.until(RunFinished).checkpoint
    whole.run.close()
    one = driven("broken")
    one.do("pause")
    one.may_crash = True

    def broken(*_: object) -> None:
        raise RuntimeError("the data are gone")

    loop = one.run.loop
    assert loop is not None
    monkeypatch.setattr(loop.method, "loss", broken)
    one.do("resume")
    one.until(StateChanged, lambda e: e.state == "crashed")
    refused = one.do("advance")
    assert not refused.ok and "`resume` goes on" in refused.message
    one.events.clear()
    one.may_crash = False
    resume, pause = parse("resume", source="test"), parse("pause", source="test")
    one.run.submit(resume)
    one.run.submit(pause)
    taken = one.until(CommandAcknowledged, lambda e: e.id == resume.id)
    assert taken.ok and "taken up again from b1-" in taken.message
    assert one.until(CommandAcknowledged, lambda e: e.id == pause.id).ok, "what came with it is for training"
    assert one.do("resume").ok
    assert one.until(RunFinished).checkpoint == end
    assert [e for e in one.all(CommandAcknowledged) if e.id == taken.id] == [taken], "once"
    assert one.run.wait(5)
    one.run.close()
    assert same(weights(whole.run.folder, end), weights(one.run.folder, end))


def test_where_training_cannot_be_taken_up_the_reason_is_said_and_it_can_be_asked_again(
    driven: Callable[..., Driven], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = driven(**FOREVER)
    one.may_crash = True
    loop = one.run.loop
    assert loop is not None
    monkeypatch.setattr(loop.updater, "step", None)
    one.until(StateChanged, lambda e: e.state == "crashed")
    config = one.run.config
    one.run.config = tiny_config(data__train=10_000)
    assert "10,000" in one.do("resume").message
    one.run.config = config
    assert one.do("resume").ok
    one.until(StateChanged, lambda e: e.state == "training" and e.seq > one.all(RunCrashed)[-1].seq)


def test_a_loss_that_is_not_finite_is_left_out(driven: Callable[..., Driven]) -> None:
    one = driven(**FOREVER, log__every=1)
    one.do("pause")
    with torch.no_grad():
        parameter = next(one.run.loop.rank.model.parameters())
        kept = parameter.clone()
        parameter.fill_(float("nan"))
    one.do("run 2")
    assert one.until(Metrics, lambda e: e.skipped > 0).loss != 0
    one.until(StateChanged, lambda e: e.state == "paused" and e.at.step >= 2)
    with torch.no_grad():
        parameter.copy_(kept)
    at = one.do("resume").at.step
    assert one.until(Metrics, lambda e: e.at.step > at + 1).skipped == 0


def test_many_updates_that_are_not_finite_pause_the_run_and_offer_a_roll_back(
    driven: Callable[..., Driven],
) -> None:
    one = driven(**FOREVER, log__every=2, watch__skipped=6)
    one.do("pause")
    loop = one.run.loop
    assert loop is not None
    with torch.no_grad():
        next(loop.rank.model.parameters()).fill_(float("nan"))
    start = one.do("resume").at.step
    alarm = one.until(AlarmRaised, lambda e: e.kind == "not finite")
    assert (alarm.key, alarm.pauses) == ("r", True)
    assert start + 6 <= alarm.at.step <= start + 8
    one.until(StateChanged, lambda e: e.state == "paused" and e.seq > alarm.seq)
    assert one.do(f"rollback {alarm.target}").ok
    one.until(AlarmCleared, lambda e: e.kind == "not finite")
    one.do("run 4")
    assert one.until(Metrics, lambda e: e.at.branch == 2).skipped == 0


def test_an_existing_folder_a_missing_run_and_an_unwritable_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunError, match="exists already"):
        Run(tiny_config(), tmp_path / "taken")
    with pytest.raises(RunError, match="not a run"):
        Run(tiny_config(), tmp_path / "taken", resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        Run(tiny_config(), tmp_path / "file" / "run")


def test_a_disk_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some shared ones are: two hosts could train one run there."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(RunError, match=r"No locks available.*--out on a disk"):
        Run(tiny_config(), tmp_path / "run").start()
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_start_gives_its_name_back(tmp_path: Path) -> None:
    run = Run(tiny_config(data__train=10_000), tmp_path / "run")
    with pytest.raises(ValueError, match=r"10,?000"):
        run.start()
    assert not (tmp_path / "run").exists()


def test_a_subscriber_who_comes_late_gets_everything_once(driven: Callable[..., Driven]) -> None:
    one = driven()
    one.until(Metrics)
    late = one.run.subscribe()
    one.until(RunFinished)
    one.run.close()
    events = late.drain()
    assert isinstance(events[-1], HistoryTold)
    before = events[-2].seq
    while news := late.drain():
        events += news
    numbers = [e.seq for e in events if e.seq > before]
    assert numbers == list(range(before + 1, before + 1 + len(numbers)))
    told, there = (
        [e for e in source if isinstance(e, Metrics | Evaluated)]
        for source in (events, journal.read(one.run.folder))
    )
    assert told == there
