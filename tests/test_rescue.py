"""A lost run is brought back: what its journal says, and that the run goes on from there."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepwise_tui.cli import app
from tests.tiny import tiny_config
from trainer.analysis.rescue import NotLostError, rescue
from trainer.config import Config, ScheduleConfig, StopConfig, WatchConfig
from trainer.control import parse
from trainer.events import (
    At,
    CheckpointSaved,
    Evaluated,
    Event,
    Metrics,
    RolledBack,
    RunStarted,
    SettingChanged,
    StageEntered,
)
from trainer.record import journal
from trainer.record.lineage import CheckpointRef
from trainer.run import Run

CONFIG = Config(
    watch=WatchConfig(patience=3), schedule=ScheduleConfig(tokens_per_epoch=None, steps_per_token=40)
)


def at(step: int, stage: int) -> At:
    return At(step=step, stage=stage, scheduled=stage, time=1.0 + step)


def measured(accuracy: float, step: int, stage: int) -> Evaluated:
    return Evaluated(
        at=at(step, stage), split="valid", accuracy=accuracy, token_accuracy=0.0, correct=0, n=1,
        cot_tokens=0.0, seconds=0.0,
    )  # fmt: skip


def entered(step: int, stage: int) -> StageEntered:
    return StageEntered(at=at(step, stage), text="", cause="schedule")


def entry(step: int, stage: int) -> CheckpointRef:
    return CheckpointRef(f"b1-s{step:06d}-stage{stage}", 1, step, stage, "stage")


THERE = [entry(0, 0), entry(100, 1), entry(140, 2), entry(180, 3)]
STORY: list[Event] = [
    RunStarted(at=at(0, 0), name="a", stages=9, steps_per_epoch=100),
    measured(0.95, 100, 0),
    entered(100, 1),
    measured(0.1, 110, 1),
    measured(0.94, 135, 1),
    entered(140, 2),
    measured(0.1, 160, 2),
    entered(180, 3),
    *[measured(0.0, 190 + 10 * i, 3) for i in range(4)],
]


def test_a_run_goes_back_to_where_it_was_well_and_on_more_slowly() -> None:
    found = rescue(STORY, CONFIG, THERE, "runs/fast")
    assert found.commands == (
        "rollback b1-s000140-stage2", "set schedule.steps_per_token 80", "set watch.mode auto",
        "set stop.epochs 796",
    )  # fmt: skip
    said = " ".join(found.evidence)
    assert "accuracy was 0.94 at stage 1" in said and "stage 1 35" in said and "is given 80" in said
    older = rescue(STORY, CONFIG, THERE[:2], "runs/fast")
    assert older.back == THERE[1] and "is not kept" in " ".join(older.evidence)


@pytest.mark.parametrize(
    ("stop", "command"),
    [
        (StopConfig(steps=1_000), "set stop.steps 3580"),
        (StopConfig(steps=100_000), "set stop.epochs 796"),
        (StopConfig(epochs=math.inf), None),
    ],
)
def test_who_goes_more_slowly_is_given_longer(stop: StopConfig, command: str | None) -> None:
    commands = rescue(STORY, CONFIG.model_copy(update={"stop": stop}), THERE, "runs/fast").commands
    assert [c for c in commands if c.startswith("set stop")] == ([] if command is None else [command])


def test_what_is_not_lost_is_left_alone_and_what_cannot_be_had_is_said() -> None:
    with pytest.raises(NotLostError, match=r"accuracy is 0\.94, of 0\.94 before.*resume runs/fast --paused"):
        rescue(STORY[:5], CONFIG, THERE, "runs/fast")
    with pytest.raises(NotLostError, match="never evaluated"):
        rescue(STORY[:1], CONFIG, THERE, "runs/fast")
    with pytest.raises(NotLostError, match="restart runs/fast"):
        rescue(STORY, CONFIG, [], "runs/fast")


def test_where_updates_were_not_finite_the_setting_that_did_it_is_taken_back() -> None:
    left_out = Metrics(
        at=at(170, 2), loss=1.0, loss_answer=1.0, loss_cot=None, grad_norm=1.0, lr=1.0, steps=25,
        steps_per_second=1.0, tokens_per_second=1.0, epoch=0.0, skipped=22, before_skipped=3,
    )  # fmt: skip
    changed = SettingChanged(at=at(144, 2), key="optim.lr", old=0.002, new=1e30)
    found = rescue([*STORY[:6], changed, left_out], CONFIG, THERE, "runs/fast")
    assert found.commands == ("rollback b1-s000140-stage2", "set optim.lr 0.002")
    alone = rescue([*STORY[:6], left_out], CONFIG, THERE, "runs/fast")
    assert alone.commands[1] == f"set optim.lr {CONFIG.optim.lr / 2}"


def test_a_run_at_its_end_trains_again_from_an_earlier_stage(tmp_path: Path) -> None:
    folder, config = tmp_path / "run", tiny_config(stop__steps=12, save__stages=20)
    run = Run(config, folder)
    run.start()
    run.wait()
    run.close()
    stage = next(
        e.checkpoint for e in journal.read(folder) if isinstance(e, CheckpointSaved) and e.at.stage == 1
    )
    again = Run(
        config,
        folder,
        resume=True,
        first=[parse(f"rollback {stage}"), parse("set schedule.steps_per_token 9")],
    )
    again.start()
    again.wait()
    again.close()
    events = list(journal.read(folder))
    (back,) = (e for e in events if isinstance(e, RolledBack))
    last = [e for e in events if isinstance(e, Metrics)][-1]
    assert back.checkpoint == stage and (last.at.branch, last.at.step) == (2, 12)
    assert again.state == "finished"
    stages = [e for e in events if isinstance(e, StageEntered) and e.at.branch == 2]
    assert [e.cause for e in stages] == ["rollback"]  # 9 steps, twice that after a roll back: none went


def test_commands_say_what_they_would_do_and_ask(tmp_path: Path) -> None:
    run = Run(tiny_config(), tmp_path / "run")
    assert run.folder.is_dir()
    result = CliRunner().invoke(app, ["rescue", str(run.folder)])
    assert result.exit_code == 2 and "never evaluated" in result.output
    result = CliRunner().invoke(app, ["restart", str(run.folder), "--seed", "7"])
    assert result.exit_code == 2 and "with seed 7, not 0" in result.output and "--yes" in result.output
    result = CliRunner().invoke(app, ["restart", str(run.folder), "--seed", "new"])
    assert result.exit_code == 2 and "fresh, or a whole number" in result.output
