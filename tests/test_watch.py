"""The watch: alarms for what stays bad, not for what recovers, once, and cleared; what it does in auto."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trainer import config as configuration
from trainer.config import Config, ScheduleConfig, WatchConfig
from trainer.events import (
    AlarmCleared,
    AlarmRaised,
    At,
    DipMeasured,
    Evaluated,
    Event,
    Metrics,
    RolledBack,
    SettingChanged,
    StageEntered,
    WatchPlanned,
)
from trainer.record.lineage import CheckpointRef, Lineage
from trainer.watching import automaton
from trainer.watching.automaton import STANDS_DOWN, Act, Around
from trainer.watching.spikes import GRACE, IN_A_ROW, LEAST
from trainer.watching.watch import Told, Watch, watch

CONFIG = WatchConfig(patience=3, recovered=0.5)
AUTO = WatchConfig(patience=3, recovered=0.5, mode="auto")
LINEAR = ScheduleConfig(tokens_per_epoch=None, steps_per_token=40)


def measured(accuracy: float, stage: int = 0, step: int = 0) -> Evaluated:
    return Evaluated(
        at=At(step=step, stage=stage), split="valid", accuracy=accuracy, token_accuracy=accuracy, correct=0,
        n=1, cot_tokens=0.0, seconds=0.0,
    )  # fmt: skip


def removal(stage: int, step: int = 0) -> StageEntered:
    return StageEntered(at=At(step=step, stage=stage), text="", cause="schedule")


def around(config: WatchConfig = CONFIG, lineage: Lineage | None = None, *, held: bool = False) -> Around:
    return Around(Config(watch=config, schedule=LINEAR), lineage or Lineage(), held, 9, 100)


def fold(state: Watch, events: list[Event], place: Around) -> tuple[Watch, list[Told]]:
    told: list[Told] = []
    for event in events:
        state, more = watch(state, event, place)
        told += more
    return state, told


def run(
    events: list[Event], config: WatchConfig = CONFIG, lineage: Lineage | None = None
) -> list[AlarmRaised | AlarmCleared]:
    _, told = fold(Watch(), events, around(config, lineage))
    return [one for one in told if isinstance(one, AlarmRaised | AlarmCleared)]


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


def falling(stages: int) -> list[Event]:
    events: list[Event] = [measured(0.9)]
    for stage in range(1, stages + 1):
        events += [removal(stage), measured(0.0, stage)]
    return events


def test_the_count_goes_on_over_further_removals_for_twice_as_long() -> None:
    assert run(falling(5)) == []
    assert len(run(falling(6))) == 1


def test_when_all_has_gone_too_fast_it_is_given_time_after_the_last_but_not_for_ever() -> None:
    place = around()._replace(stages=2)
    for after, alarms in {
        (0.0, 0.0): 1,
        (0.0,): 0,
        (0.1, 0.2, 0.3, 0.5): 0,
        (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4): 1,
    }.items():
        _, told = fold(Watch(), [*falling(2), *(measured(a, 2) for a in after)], place)
        assert len([one for one in told if isinstance(one, AlarmRaised)]) == alarms, after


def test_learning_slowly_before_any_removal_is_no_dip_and_losing_it_is() -> None:
    assert run([measured(a) for a in (0.1, 0.3, 0.2, 0.9, 0.6, 0.1, 0.1, 0.6)]) == []
    (alarm,) = run([measured(a, 2) for a in (0.9, 0.1, 0.1, 0.1, 0.1)])
    assert isinstance(alarm, AlarmRaised)
    assert "0.90 → 0.10 though nothing was removed" in alarm.message and alarm.target == "2"


def test_a_slide_by_halves_is_not_taken_for_the_new_measure() -> None:
    events: list[Event] = [measured(0.9)]
    for stage, accuracy in ((1, 0.5), (2, 0.3), (3, 0.2)):
        events += [removal(stage), *[measured(accuracy, stage)] * 3]
    (alarm,) = run(events)
    assert isinstance(alarm, AlarmRaised) and alarm.target == "2"


def test_the_alarm_says_what_the_schedule_does() -> None:
    lost = [measured(0.9), removal(1), *[measured(0.0, 1)] * 3]
    gated = Config(watch=CONFIG, schedule=ScheduleConfig(kind="gated"))
    said = {}
    for name, place in {
        "goes on removing": around(),
        "is held": around(held=True),
        "waits for probes": Around(gated, Lineage(), False, 9, 100),
        "nothing is left": around()._replace(stages=1),
    }.items():
        _, told = fold(Watch(), lost, place)
        (said[name],) = (one.told for one in told if isinstance(one, AlarmRaised))
    assert all(name in message for name, message in said.items())


def test_tokens_that_go_before_anything_is_learnt_are_an_alarm() -> None:
    """A dip needs something that was: a run that began too soon ended at .05, and nobody was told."""
    blank = [measured(0.01 * (i % 3), stage=1) for i in range(3)]
    raised, *more = run([measured(0.02), removal(1), *blank, *blank, removal(2), *blank])
    assert isinstance(raised, AlarmRaised) and not more
    assert (raised.kind, raised.key, raised.target) == ("unlearnt", "r", "0")
    assert "accuracy 0.02 at best" in raised.message and "stage 1 of 9" in raised.message
    _, cleared = run([removal(1), *blank, measured(0.2, stage=1)])
    assert isinstance(cleared, AlarmCleared) and cleared.kind == "unlearnt"
    assert not run([measured(0.0), *blank[:2], measured(0.12, stage=1), removal(2), *blank[:2]])
    assert not run([measured(0.0, stage=0)] * 9)  # learning slowly before any removal is no trouble


def test_what_a_removal_did_is_measured_once() -> None:
    events = [
        measured(0.9), removal(1, 100), measured(0.2, 1, 120), measured(0.5, 1, 140), measured(0.88, 1, 160),
        measured(0.9, 1, 180), removal(2, 200), measured(0.4, 2, 220), removal(3, 240), measured(0.9, 3, 260),
    ]  # fmt: skip
    _, told = fold(Watch(), events, around())
    dips = [one for one in told if isinstance(one, DipMeasured)]
    assert [(d.of, d.entered, d.lowest, d.steps) for d in dips] == [
        (1, 100, 0.2, 60), (2, 200, 0.4, None), (3, 240, 0.9, 20),
    ]  # fmt: skip


def test_recoveries_that_take_longer_each_time_are_an_alarm() -> None:
    events: list[Event] = [measured(0.9)]
    step = 0
    for stage, took in enumerate((20, 5, 8, 16, 30, 10), 1):
        events += [removal(stage, step), measured(0.3, stage, step + 4), measured(0.9, stage, step + took)]
        step += 40
    raised, cleared = run(events)
    assert isinstance(raised, AlarmRaised) and isinstance(cleared, AlarmCleared)
    assert "5, 8, 16, 30 steps of the 40" in raised.message and raised.key == "h"


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


def test_a_setting_that_a_roll_back_left_is_named_again() -> None:
    """After the roll back that an alarm offered the next was silent on the learning rate, ruinous still."""
    changed = SettingChanged(at=At(step=160, stage=2), key="optim.lr", old=0.002, new=1e30)
    back = RolledBack(at=At(step=140, stage=2), checkpoint="x", parent=1, from_branch=1, from_step=190)
    events = [changed, *[trained(180, 10)] * 2, back, *[trained(160, 10)] * 2]
    for rate, named in ((1e30, True), (0.002, False)):  # or somebody took it back meanwhile
        place = around()
        place = place._replace(config=configuration.changed(place.config, "optim.lr", rate))
        _, told = fold(Watch(), events, place)
        first, second = (one for one in told if isinstance(one, AlarmRaised))
        assert "optim.lr 0.002 → 1e+30 at step 160" in first.message
        assert first.remedy.endswith(", with optim.lr 0.002")
        assert first.undo == "set optim.lr 0.002"
        assert ("optim.lr 0.002 → 1e+30 at step 140" in second.message) is named


def test_a_setting_that_somebody_has_taken_back_is_not_suspected() -> None:
    there = SettingChanged(at=At(step=160), key="optim.lr", old=0.002, new=1e30)
    back = SettingChanged(at=At(step=170), key="optim.lr", old=1e30, new=0.002)
    (alarm,) = run([there, back, *[trained(190, skipped=10)] * 2])
    assert isinstance(alarm, AlarmRaised) and alarm.undo == "" and "optim.lr" not in alarm.message


def logged(step: int, loss: float, stage: int = 1, norm: float = 1.0) -> Metrics:
    return replace(
        trained(step, 0), at=At(step=step, stage=stage), loss=loss, loss_answer=loss, grad_norm=norm
    )


def test_a_jump_of_the_loss_is_an_alarm_unless_something_was_removed() -> None:
    calm = [logged(10 * i, 0.1 + 0.01 * (i % 3)) for i in range(GRACE + LEAST)]
    step = calm[-1].at.step
    up = [logged(step + 10 * i, 2.0) for i in range(1, IN_A_ROW + 1)]
    (alarm,) = run([*calm, *up])
    assert isinstance(alarm, AlarmRaised) and alarm.kind == "spike"
    assert f"loss 0.11 → 2 since step {step:,}" in alarm.message
    assert [type(a) for a in run([*calm, *up, logged(step + 90, 0.1)])] == [AlarmRaised, AlarmCleared]
    assert run([*calm, removal(2), *up]) == []
    assert run([*calm, up[0], calm[0], up[0], calm[0]]) == []  # odd batches
    tiny = [replace(e, loss=e.loss / 50, loss_answer=e.loss / 50) for e in [*calm, *up]]
    assert run(tiny) == []  # 20 times as much, and still next to nothing
    pretrained = Config(schedule=LINEAR.model_copy(update={"pretrain_steps": step}))
    begins = around()._replace(config=pretrained)  # offsets begin, and take tokens
    assert fold(Watch(), [*calm, *up], begins)[1] == []
    changed = SettingChanged(at=At(step=step), key="optim.lr", old=1e-3, new=1.0)
    (alarm,) = run([*calm, changed, *up])
    assert isinstance(alarm, AlarmRaised) and "optim.lr 0.001 → 1.0" in alarm.message


def test_a_loss_that_the_run_never_had_is_an_alarm_at_once_also_after_a_removal() -> None:
    """As a learning rate of 3, set shortly after a removal, did: 0.62, then 1,396, and no alarm for long."""
    begun = [logged(10, 9.0, 0), *[logged(10 * i, 0.5, 0) for i in range(2, 9)]]
    removed = [removal(1, 80), *[logged(80 + 10 * i, 12.0) for i in range(1, IN_A_ROW + 1)]]
    assert run([*begun, *removed]) == []  # twice what it had: it may be the method
    changed = SettingChanged(at=At(step=125), key="optim.lr", old=1e-3, new=3.0)  # within an interval
    up = [logged(120 + 10 * i, 400.0 - i) for i in range(1, IN_A_ROW + 1)]
    (alarm,) = run([*begun, *removed, changed, *up], lineage=LINEAGE)
    assert isinstance(alarm, AlarmRaised) and alarm.kind == "spike"
    assert "loss 396 since step 120, 12 at most before (optim.lr 0.001 → 3.0 at step 125)" in alarm.message
    assert alarm.target == "b1-s000100-stage1"
    more = [removal(2, 170), logged(180, 300.0, 2)]  # a removal makes it no better
    assert len(run([*begun, *removed, changed, *up, *more])) == 1
    over = run([*begun, *removed, changed, *up, *more, logged(190, 1.0, 2)])
    assert [type(a) for a in over] == [AlarmRaised, AlarmCleared]


def entry(stage: int, step: int) -> CheckpointRef:
    return CheckpointRef(f"b1-s{step:06d}-stage{stage}", 1, step, stage, "stage")


LINEAGE = Lineage((entry(0, 0), entry(1, 100), entry(2, 140), entry(3, 180)))


def texts(state: Watch) -> list[str]:
    return [act.text for act in state.automaton.wanted]


def done(state: Watch) -> Watch:
    return replace(state, automaton=replace(state.automaton, wanted=()))


def test_auto_goes_back_before_a_loss_that_the_run_never_had_and_changes_what_did_it() -> None:
    calm = [measured(0.9), *[logged(10 * i, 0.5, 0) for i in range(1, 10)], removal(1, 100), logged(110, 1.0)]
    up = [logged(110 + 10 * i, 400.0) for i in range(1, IN_A_ROW + 1)]
    for changes, cure in (
        ([], "set optim.lr 2.5e-05"),  # nobody changed anything: half of what it is
        ([SettingChanged(at=At(step=111), key="optim.lr", old=1e-3, new=3.0)], "set optim.lr 0.001"),
    ):
        state, told = fold(Watch(), [*calm, *changes, *up], around(AUTO, LINEAGE))
        assert texts(state) == [cure, "hold", "rollback b1-s000100-stage1"]
        assert [one.kind for one in told if isinstance(one, AlarmRaised)] == ["spike"]
        state, _ = fold(Watch(), [*calm, *changes, *up], around(lineage=LINEAGE))
        assert texts(state) == []  # in `suggest` it only tells


def test_auto_holds_waits_and_goes_on() -> None:
    place = around(AUTO, LINEAGE)
    state, told = fold(Watch(), [measured(0.9), removal(1, 100), measured(0.1, 1, 110)], place)
    assert state.automaton.wanted == (
        Act("hold", "accuracy 0.90 → 0.10 for 1 evaluations; it is given time"),
    )
    assert isinstance(told[-1], WatchPlanned) and "back to stage 1" in told[-1].plan
    held = around(AUTO, LINEAGE, held=True)
    state, _ = fold(done(state), [measured(0.3, 1, 120), measured(0.6, 1, 130)], held)
    assert not state.automaton.wanted and state.automaton.holding  # better, but not settled
    state, told = fold(state, [measured(0.8, 1, 150)], held)
    assert texts(state) == ["release", "advance"]  # a stage is given 40 steps, and this one took 50
    assert told[-1] == WatchPlanned(at=At(step=150, stage=1), plan="")
    state, _ = fold(done(state), [measured(0.9, 1, 150), removal(2, 160), measured(0.1, 2, 170)], place)
    state, _ = fold(done(state), [measured(0.9, 2, 180)], held)
    assert texts(state) == ["release"]  # its own time is not over


def test_after_a_roll_back_auto_lets_each_token_go_when_accuracy_is_back() -> None:
    held = around(AUTO, LINEAGE, held=True)
    state, _ = fold(Watch(), [measured(0.9), removal(1, 100), measured(0.0, 1, 110)], around(AUTO, LINEAGE))
    state, _ = fold(done(state), [measured(0.0, 1, 110)] * 6, held)
    assert texts(state)[-1].startswith("rollback")
    back = RolledBack(at=At(step=100, stage=1), checkpoint="", parent=1, from_branch=1, from_step=110)
    state, _ = fold(done(state), [back, measured(0.85, 1, 110)], held)
    assert texts(state) == ["advance"] and state.automaton.holding
    state, _ = fold(done(state), [removal(2, 110), measured(0.5, 2, 120)], held)
    assert not texts(state) and "then lets the next token go" in state.plan
    learning = held.config.model_copy(update={"schedule": LINEAR.model_copy(update={"pretrain_steps": 200})})
    waiting = held._replace(config=learning)
    assert not texts(fold(state, [measured(0.85, 2, 125)], waiting)[0])
    state, _ = fold(state, [measured(0.85, 9, 130)], held)  # nothing is left to remove
    assert texts(state) == ["release"] and not state.automaton.holding


def test_auto_rolls_back_further_each_time_and_not_for_ever() -> None:
    place = around(AUTO, LINEAGE)
    state, _ = fold(Watch(), [measured(0.9, 1, 100), removal(2, 140), removal(3, 180)], place)
    commands: list[list[str]] = []
    for _ in range(40):
        state, _ = fold(state, [measured(0.0, 3, 190)], around(AUTO, LINEAGE, held=bool(commands)))
        if state.automaton.wanted:
            commands.append(texts(state))
            state = done(state)
            if any(text.startswith("rollback") for text in commands[-1]):
                back = RolledBack(
                    at=At(step=140, stage=2), checkpoint="", parent=1, from_branch=1, from_step=190
                )
                state, _ = fold(state, [back], place)
    backs = [text for line in commands for text in line if text.startswith("rollback")]
    stages = ("stage2", "stage1", "stage0", "stage0")
    assert [text.rpartition("-")[2] for text in backs] == list(stages)
    assert commands[0] == ["hold"] and any("optim.lr" in text for line in commands for text in line)
    assert state.automaton.rollbacks == AUTO.rollbacks
    assert "leaves the rest to you" in state.plan


def test_a_person_is_not_interfered_with() -> None:
    place = around(AUTO, LINEAGE)
    state, _ = fold(Watch(), [measured(0.9), removal(1, 100)], place)
    for name, key in (("hold", ""), ("rollback", ""), ("set", "optim.lr")):
        acting = automaton.stand_down(state.automaton, name, key)
        alone = replace(state, automaton=acting)
        alone, told = fold(alone, [measured(0.0, 1, 100 + i) for i in range(STANDS_DOWN)], place)
        assert not alone.automaton.wanted
        assert any(isinstance(one, AlarmRaised) for one in told)  # but it tells
        alone, _ = fold(alone, [measured(0.0, 1, 200)], place)
        assert alone.automaton.wanted
    for name, key in (("evaluate", ""), ("ask", ""), ("set", "save.keep")):
        assert automaton.stand_down(state.automaton, name, key) == state.automaton


def test_auto_takes_back_what_made_updates_not_finite() -> None:
    place = around(AUTO, LINEAGE)
    changed = SettingChanged(at=At(step=170, stage=2), key="optim.lr", old=0.002, new=1e30)
    state, told = fold(Watch(), [changed, trained(180, 10), trained(190, 10)], place)
    assert texts(state) == ["set optim.lr 0.002", "hold", "rollback b1-s000140-stage2"]
    (alarm,) = (one for one in told if isinstance(one, AlarmRaised))
    assert not alarm.pauses
    spent = replace(Watch(), automaton=replace(Watch().automaton, rollbacks=AUTO.rollbacks))
    _, told = fold(spent, [changed, trained(180, 10), trained(190, 10)], place)
    assert any(isinstance(one, AlarmRaised) and one.pauses for one in told)


happenings = st.one_of(
    st.floats(0, 1).map(measured),
    st.integers(1, 9).map(removal),
    st.tuples(st.integers(0, 400), st.sampled_from([0.1, 0.1, 0.2, 5.0, float("nan")])).map(
        lambda x: logged(*x)
    ),
    st.integers(0, 12).map(lambda skipped: trained(100, skipped, 12)),
    st.just(RolledBack(at=At(stage=1), checkpoint="x", parent=1, from_branch=1, from_step=9)),
)


@given(st.lists(happenings, max_size=60))
def test_raised_and_cleared_take_turns_and_off_acts_on_nothing(events: list[Event]) -> None:
    alarms = run(events)
    for kind in ("dip", "trend", "spike"):
        kinds = [type(a) for a in alarms if a.kind == kind]
        assert kinds == [AlarmRaised, AlarmCleared] * (len(kinds) // 2) + [AlarmRaised] * (len(kinds) % 2)
    off, told = fold(Watch(), events, around(WatchConfig(mode="off")))
    assert not off.automaton.wanted and not [a for a in told if isinstance(a, AlarmRaised) and not a.pauses]


@given(st.lists(happenings, max_size=60), st.integers(0, 60))
def test_a_watch_goes_on_from_a_checkpoint_as_if_nothing_had_been(events: list[Event], place: int) -> None:
    state, before = fold(Watch(), events[:place], around(AUTO, LINEAGE))
    saved = Watch.load(json.loads(json.dumps(state.state())))
    assert saved == state
    _, after = fold(saved, events[place:], around(AUTO, LINEAGE))
    assert [*before, *after] == fold(Watch(), events, around(AUTO, LINEAGE))[1]
