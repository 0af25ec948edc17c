"""Branches, the past of a branch, and retention."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trainer.events import At, CheckpointRemoved, CheckpointSaved, Event, RolledBack, SaveCause
from trainer.record.lineage import CheckpointRef, Fork, Lineage, replay, surplus


def ref(branch: int, step: int, stage: int, cause: SaveCause = "stage") -> CheckpointRef:
    return CheckpointRef(f"b{branch}-s{step}-{cause}{stage}", branch, step, stage, cause)


def test_a_second_rollback_hangs_on_the_branch_its_checkpoint_is_from() -> None:
    a, b, c = ref(1, 0, 0), ref(1, 100, 1), ref(2, 150, 2)
    events: list[Event] = [
        CheckpointSaved(
            at=At(step=x.step, branch=x.branch, stage=x.stage),
            checkpoint=x.id,
            cause=x.cause,
            seconds=0.1,
            bytes=0,
        )
        for x in (a, b, c)
    ]
    events.insert(
        2,
        RolledBack(
            at=At(step=100, branch=2, stage=1), checkpoint=b.id, parent=1, from_branch=1, from_step=130
        ),
    )
    # Branch 3 is opened from branch 2, but from a checkpoint of branch 1.
    events.append(
        RolledBack(
            at=At(step=100, branch=3, stage=1), checkpoint=b.id, parent=1, from_branch=2, from_step=180
        )
    )
    lineage = replay(events)
    assert lineage == Lineage((a, b, c), {2: Fork(1, 100, 1), 3: Fork(1, 100, 1)})
    assert lineage.past(2) == [a, b, c]
    assert lineage.past(3) == [a, b]
    assert lineage.entry(3, 2) == b
    assert replay([*events, CheckpointRemoved(checkpoint=b.id)]).entry(3, 2) == a


def test_keeping_the_weights_forks_where_one_stood() -> None:
    events: list[Event] = [
        RolledBack(
            at=At(step=70, branch=2, stage=1),
            checkpoint="any",
            parent=1,
            from_branch=1,
            from_step=70,
            keep_weights=True,
        ),
    ]
    assert replay(events).forks == {2: Fork(1, 70, 1)}


def test_of_two_entries_at_one_step_the_branch_has_only_the_one_it_left_from() -> None:
    """Paused, advanced twice, rolled back once: all of it at one step."""
    two, three = ref(1, 100, 2), ref(1, 100, 3)
    assert Lineage((two, three), {2: Fork(1, 100, 2)}).past(2) == [two]


causes = st.sampled_from(["stage", "manual", "time", "best", "final", "stop"])
histories = st.lists(st.tuples(st.integers(0, 12), causes), min_size=1, max_size=60).map(
    lambda steps: [ref(1, i, stage, cause) for i, (stage, cause) in enumerate(steps)]
)


@given(histories, st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))
def test_retention_keeps_what_it_promises(
    history: list[CheckpointRef], keep: int, stages: int, every: int
) -> None:
    gone = set(surplus(Lineage(tuple(history)), 1, keep=keep, stages=stages, every_stage=every))
    kept = [c for c in history if c.id not in gone]
    assert kept[-1] == history[-1]
    assert {c.id for c in history[-keep:]} <= {c.id for c in kept}
    assert not {c.id for c in history if c.cause in ("manual", "final")} & gone
    assert not {c.id for c in [c for c in history if c.cause == "best"][-1:]} & gone
    entries = [c for c in history if c.is_entry]
    recent = sorted({c.stage for c in entries})[-stages:]
    assert not {c.id for c in entries if c.stage in recent or c.stage % every == 0} & gone
    # It is worth having: what is kept does not grow with the number of timed saves.
    timed = [c for c in kept if c.cause in ("time", "stop")]
    assert len(timed) <= keep


@given(histories, st.integers(1, 4), st.integers(0, 40))
def test_a_budget_takes_the_oldest_and_never_the_last_good_one(
    history: list[CheckpointRef], keep: int, budget: int
) -> None:
    """Each of size 1; one more is left room for."""
    history = [replace(c, bytes=1) for c in history]
    lineage = Lineage(tuple(history))
    generous = set(surplus(lineage, 1, keep=keep, stages=3, every_stage=2))
    gone = set(surplus(lineage, 1, keep=keep, stages=3, every_stage=2, budget=budget))
    kept = [c for c in history if c.id not in gone]
    assert generous <= gone
    assert kept[-1] == history[-1]
    best = [c for c in history if c.cause == "best"][-1:]
    always = [c for c in kept if c.cause in ("manual", "final") or c in best or c == history[-1]]
    assert {c.id for c in history if c.cause in ("manual", "final")} <= {c.id for c in always}
    assert len(kept) + 1 <= max(budget, len(always) + 1)
    given_up = [c for c in history if c.id in gone - generous]
    others = [c for c in kept if c not in always]
    assert not given_up or not others or given_up[-1].step < others[0].step


def test_the_live_branch_keeps_its_own_entries_however_far_another_once_came() -> None:
    first = [ref(1, 10 * stage, stage) for stage in range(41)]
    second = [ref(2, 100 + 10 * i, 10 + i) for i in range(1, 6)]
    lineage = Lineage((*first, *second), {2: Fork(1, 100, 10)})
    gone = set(surplus(lineage, 2, keep=1, stages=8, every_stage=100))
    assert not {c.id for c in second} & gone
    assert not {c.id for c in first if 8 <= c.stage <= 10} & gone
    assert {c.id for c in first if c.stage > 10} <= gone
