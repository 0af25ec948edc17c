"""The alarm: raised for a dip that stays, not for one that recovers, once, and cleared."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trainer.config import WatchConfig
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    At,
    Evaluated,
    Event,
    Metrics,
    RolledBack,
    SettingChanged,
    StageEntered,
)
from trainer.lineage import CheckpointRef, Lineage
from trainer.watch import Watch, watch

CONFIG = WatchConfig(patience=3, recovered=0.5)


def measured(accuracy: float, stage: int = 0) -> Evaluated:
    return Evaluated(
        at=At(stage=stage), split="valid", accuracy=accuracy, token_accuracy=accuracy, correct=0, n=1,
        cot_tokens=0.0, seconds=0.0,
    )  # fmt: skip


def removal(stage: int) -> StageEntered:
    return StageEntered(at=At(stage=stage), text="", cause="schedule")


def run(
    events: list[Event], config: WatchConfig = CONFIG, lineage: Lineage | None = None
) -> list[AlarmRaised | AlarmCleared]:
    state, alarms, lineage = Watch(), [], lineage or Lineage()
    for event in events:
        state, told = watch(state, event, config, lineage)
        alarms += told
    return alarms


def test_a_dip_that_stays_is_an_alarm_that_names_key_and_stage() -> None:
    events = [measured(0.9), removal(1), measured(0.95, 1), removal(2), *[measured(0.1, 2)] * 6]
    (alarm,) = run(events)
    assert isinstance(alarm, AlarmRaised)
    assert alarm.key == "r"
    assert alarm.target == "2"  # its entry has the weights that were measured at .95
    assert "0.95 → 0.10" in alarm.message
    assert "stage 2" in alarm.remedy


def test_a_fall_to_zero_that_recovers_is_the_method_at_work() -> None:
    events = [measured(0.9), removal(1), measured(0.0, 1), measured(0.0, 1), measured(0.8, 1)] * 5
    assert run(events) == []


def test_the_count_goes_on_over_further_removals() -> None:
    events: list[Event] = [measured(0.9)]
    for stage in (1, 2, 3):
        events += [removal(stage), measured(0.1, stage)]
    assert len(run(events)) == 1


def test_learning_slowly_before_any_removal_is_no_dip() -> None:
    assert run([measured(a) for a in (0.9, 0.1, 0.1, 0.1, 0.1)]) == []


def test_recovery_and_rollback_clear_the_alarm() -> None:
    lost = [measured(0.9), removal(1), *[measured(0.0, 1)] * 3]
    back = run([*lost, measured(0.8, 1)])
    assert [type(a) for a in back] == [AlarmRaised, AlarmCleared]
    rolled = run(
        [*lost, RolledBack(checkpoint="x", parent=1, from_branch=1, from_step=9), *[measured(0.0)] * 3]
    )
    assert [type(a) for a in rolled] == [AlarmRaised, AlarmCleared, AlarmRaised]


def trained(step: int, skipped: int, steps: int = 10) -> Metrics:
    return Metrics(
        at=At(step=step, stage=2), loss=1.0, loss_answer=1.0, loss_cot=None, grad_norm=1.0, lr=1.0,
        steps=steps, steps_per_second=1.0, tokens_per_second=1.0, epoch=0.0, skipped=skipped,
    )  # fmt: skip


def test_updates_left_out_one_after_the_other_are_an_alarm_and_single_ones_are_not() -> None:
    single = [trained(10 * i, skipped=15 * (i % 2)) for i in range(1, 9)]
    assert run(single) == []
    (raised, again, over) = run([trained(10 * i, skipped=10) for i in range(3, 7)] + [trained(70, skipped=0)])
    assert isinstance(raised, AlarmRaised) and isinstance(again, AlarmRaised)
    assert isinstance(over, AlarmCleared)
    assert raised.pauses and raised.target == "2" and raised.at.step == 40
    assert "20 updates left out since step 20" in raised.message
    assert again.at.step == 60  # nobody answered but `resume`, and it went on


def test_what_ruined_the_weights_is_named_and_what_was_before_it_is_offered() -> None:
    def saved(step: int) -> CheckpointRef:
        return CheckpointRef(f"b1-s{step:06d}-stage2-time", 1, step, 2, "time")

    lineage = Lineage((saved(150), saved(177), saved(178), saved(190)))
    left_out = replace(trained(180, skipped=2), before_skipped=8)
    (alarm,) = run([left_out, trained(190, skipped=10), trained(200, skipped=10)], CONFIG, lineage)
    assert isinstance(alarm, AlarmRaised)
    assert "22 updates left out since step 178; training waits" in alarm.message
    assert alarm.target == "b1-s000177-stage2-time"  # the update after it may be what ruined the weights
    assert alarm.target in alarm.remedy
    changed = SettingChanged(at=At(step=160, stage=2), key="optim.lr", old=0.002, new=1e30)
    (alarm,) = run([changed, left_out, *[trained(190, skipped=10)] * 2], CONFIG, lineage)
    assert isinstance(alarm, AlarmRaised)
    assert "optim.lr 0.002 → 1e+30 at step 160" in alarm.message
    assert alarm.target == "b1-s000150-stage2-time"
    other = SettingChanged(at=At(step=160, stage=2), key="save.keep", old=1, new=2)
    assert "save.keep" not in str(run([other, left_out, *[trained(190, skipped=10)] * 2], CONFIG, lineage))


@given(st.lists(st.one_of(st.floats(0, 1).map(measured), st.integers(1, 9).map(removal)), max_size=60))
def test_raised_and_cleared_take_turns_and_off_is_silent(events: list[Event]) -> None:
    kinds = [type(a) for a in run(events)]
    assert kinds == [AlarmRaised, AlarmCleared] * (len(kinds) // 2) + [AlarmRaised] * (len(kinds) % 2)
    assert run(events, WatchConfig(mode="off")) == []
