"""Where a roll back may return to, and which of these entries lies before the dip: pure functions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stepwise_tui.history import History
from stepwise_tui.series import Floats
from stepwise_tui.text import accuracy
from trainer.control import Control, Facts, RollBack, decide, parse
from trainer.record.lineage import CheckpointRef

DIP = 0.1
"""Accuracy lost since an entry and not had again: less is noise, or a dip that is over."""


class Offer(NamedTuple):
    """The entry that is chosen before a person chooses. reason: why that one, "" where nothing is wrong."""

    entry: CheckpointRef | None
    reason: str = ""


def targets(facts: Facts, preferred: str = "") -> list[CheckpointRef]:
    """The latest entry of each stage that can be returned to, the nearest first; before them a checkpoint
    `preferred` that is no entry."""
    latest = {c.stage: c for c in facts.lineage.past(facts.at.branch) if c.is_entry}
    entries = [latest[stage] for stage in sorted(latest, reverse=True) if stage <= facts.at.stage]
    named = [c for c in facts.lineage.checkpoints if c.id == preferred and c not in entries]
    return named + entries


def offered(history: History, preferred: str = "") -> Offer:
    """What an alarm names, `preferred`; else the entry before the deepest dip; else what the trainer would
    choose by itself."""
    if preferred:
        return Offer(_named(history.facts, preferred), "as the alarm says")
    return before_the_dip(history) or Offer(_named(history.facts, ""))


def _named(facts: Facts, target: str) -> CheckpointRef | None:
    decision = decide(Control(), parse(f"rollback {target}"), facts)
    return next((e.checkpoint for e in decision.effects if isinstance(e, RollBack)), None)


def before_the_dip(history: History) -> Offer | None:
    """The entry since which most accuracy was lost and not had again; None where no more than `DIP` was.

    Lost is what lies between the accuracy at an entry and the best one after it, so that a dip that is over
    counts for nothing. Fewer evaluations than `watch.patience` say nothing: a removal is given that time.
    """
    step, measured = _line(history)
    deepest: Offer | None = None
    most = DIP
    for entry in targets(history.facts):
        after = measured[step > entry.step]
        at = measured[step <= entry.step]
        if not len(at) or len(after) < max(1, history.config.watch.patience):
            continue
        lost = float(at[-1] - after.max())
        if lost > most:
            most = lost
            reason = (
                f"before the dip: accuracy was {accuracy(float(at[-1]))}, since then {accuracy(after.max())} "
                f"at most, {accuracy(float(after[-1]))} now"
            )
            deepest = Offer(entry, reason)
    return deepest


def _line(history: History) -> tuple[Floats, Floats]:
    """Steps and accuracies on the way to where the run stands, those of the branches before it too."""
    parts = []
    branch, limit = history.at.branch, float("inf")
    while True:
        columns = history.branches[branch].accuracy.columns
        upto = (columns.step <= limit) & np.isfinite(columns.value)
        parts.append((columns.step[upto], columns.value[upto]))
        fork = history.forks.get(branch)
        if fork is None or fork.parent not in history.branches:
            break
        branch, limit = fork.parent, fork.step
    parts.reverse()
    return np.concatenate([step for step, _ in parts]), np.concatenate([value for _, value in parts])


def nearest(entries: list[CheckpointRef], stage: int) -> int:
    """Which of `entries`, the nearest first, is that of a stage, or of the one before it that there is."""
    found = (i for i, entry in enumerate(entries) if entry.is_entry and entry.stage <= stage)
    return next(found, len(entries) - 1)
