"""What the watch does by itself in mode `auto`: ordinary commands, each with its reason. A pure fold.

In a dip it holds the schedule, waits, and lets it go on when accuracy is back: with the next removal at once
where the stage's own time is over. Where waiting does not help, or where more than one stage was entered
since all was well, it rolls back to the first of these and waits there; each further time, until all is well
again, one stage further, with half the learning rate. Once it has rolled back it keeps its hold to the end,
and lets each token go when accuracy is back, however long or short that takes. Where updates blow up it goes
back before that and changes what did it: the setting that was changed shortly before, else the learning rate,
which it halves. It rolls back `watch.rollbacks` times in a run's life, whatever branch; then it only tells.

A person's hold, release, advance, roll back or setting stands: the automaton does nothing for `STANDS_DOWN`
evaluations, and a hold that a person gave or took back is not its own any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from trainer.config import Config, shown
from trainer.events import At, Evaluated, Metrics
from trainer.pacing import schedule
from trainer.record.lineage import Lineage
from trainer.watching.dips import Dips

SOURCE = "watch"
"""Who gave these commands, in the journal."""
STANDS_DOWN = 12
"""Evaluations for which it leaves a run to the person who did something."""
STEERING = ("hold", "release", "advance", "rollback", "set")
"""Commands of a person that it stands down for."""
SETTINGS = ("schedule.", "optim.", "method.")
"""Settings of a person that it stands down for."""
HOLDS = 3
"""A dip that lasts a third of `watch.patience` is given time: most that end by themselves are shorter."""
SETTLED = 0.9
"""Of what is asked for: from there on it gives its hold back."""


@dataclass(frozen=True, slots=True)
class Act:
    """A command, and why."""

    text: str
    reason: str


class Around(NamedTuple):
    """What a decision may look at besides events. held: whether anyone holds the schedule."""

    config: Config
    lineage: Lineage
    held: bool
    stages: int
    steps_per_epoch: int

    def smoothing_began(self, event: Metrics) -> bool:
        """Whether pretraining ended in these steps, and random offsets began."""
        pretrain = schedule.pace(self.config.schedule, self.steps_per_epoch).pretrain
        return self.stages > 0 and pretrain > 0 and event.at.step - event.steps <= pretrain < event.at.step

    def goes_on(self, at: At) -> str:
        """What the schedule does if nobody does anything."""
        return schedule.goes_on(at.stage, self.stages, self.config.schedule.kind, held=self.held)


@dataclass(frozen=True, slots=True)
class Automaton:
    """acts: commands given so far. rollbacks: those that rolled back; depth: of them, since all was well.

    holding: whether it holds the schedule. waited: evaluations that it has waited in this dip, held.
    stands_down: evaluations that are left to a person. wanted: commands to be given before the next step.
    """

    acts: int = 0
    rollbacks: int = 0
    depth: int = 0
    holding: bool = False
    waited: int = 0
    stands_down: int = 0
    wanted: tuple[Act, ...] = ()

    def may_roll_back(self, around: Around) -> bool:
        """Whether it has any left."""
        return self.rollbacks < around.config.watch.rollbacks


def stand_down(automaton: Automaton, name: str, key: str) -> Automaton:
    """After a person's command; key: of a setting."""
    if name not in STEERING or (name == "set" and not key.startswith(SETTINGS)):
        return automaton
    holding = automaton.holding and name not in ("hold", "release")
    return replace(automaton, holding=holding, waited=0, stands_down=STANDS_DOWN, wanted=())


def consider(automaton: Automaton, dips: Dips, event: Evaluated, around: Around) -> Automaton:
    """After an evaluation on the validation split, which `dips` has taken in."""
    if automaton.stands_down:
        return replace(automaton, stands_down=automaton.stands_down - 1)
    if automaton.wanted:
        return automaton
    at, patience = event.at, around.config.watch.patience
    if not dips.low:
        return _go_on(replace(automaton, waited=0), dips, event, around)
    waits = around.held or at.stage >= around.stages
    automaton = replace(automaton, waited=automaton.waited + 1 if waits else 0)
    told = f"accuracy {dips.healthy:.2f} → {event.accuracy:.2f} for {dips.low} evaluations"
    first = at.stage if dips.entered is None else dips.entered
    if dips.low >= patience and not dips.improves(patience) and automaton.may_roll_back(around):
        if at.stage > first:
            return _roll_back(automaton, first, f"{told}, through {at.stage - first + 1} stages", at, around)
        if automaton.waited >= patience:
            return _roll_back(automaton, first, f"{told}; waiting has not helped", at, around)
    if dips.low >= max(1, patience // HOLDS) and not waits:
        return replace(automaton, holding=True, wanted=(Act("hold", f"{told}; it is given time"),))
    return automaton


def ruined(
    automaton: Automaton, sound: int, change: tuple[str, Any], why: str, at: At, around: Around
) -> Automaton:
    """Updates blow up: back to the last stage entered by step `sound`. change: a setting and its value."""
    entries = [c for c in around.lineage.past(at.branch) if c.is_entry and c.step <= sound]
    if not entries or not automaton.may_roll_back(around):
        return automaton
    key, value = change
    return _rolled(automaton, entries[-1].id, why, around, Act(f"set {key} {shown(value)}", why))


def plan(automaton: Automaton, dips: Dips, at: At, around: Around) -> str:
    """What it will do next, and when; "" where nothing is to be done."""
    patience = around.config.watch.patience
    left = around.config.watch.rollbacks - automaton.rollbacks
    if not dips.low and not automaton.holding:
        return ""
    if automaton.stands_down:
        return f"leaves it to you for {_number(automaton.stands_down, 'evaluation')}"
    wanted = SETTLED * dips.wanted if automaton.holding else around.config.watch.recovered * dips.wanted
    waits = f"waits for accuracy {wanted:.2f}"
    if left <= 0:
        return f"{waits}; it has rolled back {automaton.rollbacks} times and leaves the rest to you"
    if not dips.low:
        on = _onward(automaton, dips, at, around)
        then = "then gives the schedule back" if "release" in on else "then lets the next token go"
        return f"{waits}, {then}"
    rest = max(1, patience - (automaton.waited if automaton.waited else dips.low))
    first = at.stage if dips.entered is None else dips.entered
    target = max(0, first - automaton.depth)
    more, backs = _number(rest, "evaluation"), _number(left, "roll back")
    return f"{waits}; not better after {more} more: back to stage {target} ({backs} left)"


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _go_on(automaton: Automaton, dips: Dips, event: Evaluated, around: Around) -> Automaton:
    """No dip: go on where accuracy has settled."""
    if not automaton.holding or event.accuracy < SETTLED * dips.healthy:
        return automaton
    took = event.at.step - dips.stage_step
    back = f"accuracy is back at {event.accuracy:.2f}, {took:,} steps into this stage"
    on = _onward(automaton, dips, event.at, around)
    wanted = tuple(Act(text, back) for text in on)
    return replace(automaton, holding="release" not in on, depth=0, wanted=wanted) if on else automaton


def _onward(automaton: Automaton, dips: Dips, at: At, around: Around) -> tuple[str, ...]:
    """The commands by which it goes on; none before explicit CoT has had its steps."""
    if at.stage >= around.stages:
        return ("release",)
    pace = schedule.pace(around.config.schedule, around.steps_per_epoch)
    if automaton.rollbacks:
        return ("advance",) if at.step >= pace.pretrain else ()
    over = at.step - dips.stage_step >= pace.steps[0]
    return ("release", "advance") if over else ("release",)


def _roll_back(automaton: Automaton, first: int, why: str, at: At, around: Around) -> Automaton:
    entry = around.lineage.entry(at.branch, max(0, first - automaton.depth))
    if entry is None:
        return automaton
    if not automaton.depth:
        return _rolled(automaton, entry.id, why, around)
    lr = around.config.optim.lr / 2
    halved = Act(f"set optim.lr {shown(lr)}", f"{why}, and a roll back had not, either")
    return _rolled(automaton, entry.id, why, around, halved)


def _rolled(automaton: Automaton, entry: str, why: str, around: Around, *before: Act) -> Automaton:
    """It goes back, and holds the schedule from there on."""
    hold = [] if around.held else [Act("hold", why)]
    return replace(
        automaton,
        rollbacks=automaton.rollbacks + 1,
        depth=automaton.depth + 1,
        holding=automaton.holding or bool(hold),
        waited=0,
        wanted=(*before, *hold, Act(f"rollback {entry}", why)),
    )
