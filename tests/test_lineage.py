"""Branches, the past of a branch, and retention."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer.events import At, CheckpointRemoved, CheckpointSaved, Event, RolledBack, SaveCause
from trainer.lineage import CheckpointRef, Fork, Lineage, replay, surplus


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
            bytes=1,
        )
        for x in (a, b, c)
    ]
    events.insert(2, RolledBack(at=At(step=100, branch=2), checkpoint=b.id, from_branch=1, from_step=130))
    # Branch 3 is opened from branch 2, but from a checkpoint of branch 1.
    events.append(RolledBack(at=At(step=100, branch=3), checkpoint=b.id, from_branch=2, from_step=180))
    lineage = replay(events)
    assert lineage == Lineage((a, b, c), {2: Fork(1, 100), 3: Fork(1, 100)})
    assert lineage.past(2) == [a, b, c]
    assert lineage.past(3) == [a, b]
    assert lineage.entry(3, 2) == b
    assert replay([*events, CheckpointRemoved(checkpoint=b.id)]).entry(3, 2) == a


def test_keeping_the_weights_forks_where_one_stood() -> None:
    a = ref(1, 0, 0)
    events: list[Event] = [
        CheckpointSaved(at=At(), checkpoint=a.id, cause="stage", seconds=0.1, bytes=1),
        RolledBack(at=At(step=70, branch=2), checkpoint=a.id, from_branch=1, from_step=70, keep_weights=True),
    ]
    assert replay(events).forks == {2: Fork(1, 70)}


causes = st.sampled_from(["stage", "manual", "time", "best", "final", "stop"])
histories = st.lists(st.tuples(st.integers(0, 12), causes), min_size=1, max_size=60).map(
    lambda steps: [ref(1, i, stage, cause) for i, (stage, cause) in enumerate(steps)]
)


@given(histories, st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))
def test_retention_keeps_what_it_promises(
    history: list[CheckpointRef], keep: int, stages: int, every: int
) -> None:
    best = [c.id for c in history if c.cause == "best"][-1:]
    gone = set(surplus(history, keep=keep, stages=stages, every_stage=every, best=best))
    kept = [c for c in history if c.id not in gone]
    assert kept[-1] == history[-1]
    assert {c.id for c in history[-keep:]} <= {c.id for c in kept}
    assert not {c.id for c in history if c.cause in ("manual", "final")} & gone
    assert not set(best) & gone
    entries = [c for c in history if c.is_entry]
    for stage in sorted({c.stage for c in entries})[-stages:]:
        assert any(c.stage == stage for c in kept if c.is_entry)
    assert all(any(c.stage == e.stage for c in kept if c.is_entry) for e in entries if e.stage % every == 0)
    # It is worth having: what is kept does not grow with the number of timed saves.
    timed = [c for c in kept if c.cause in ("time", "stop")]
    assert len(timed) <= keep
