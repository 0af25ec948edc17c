"""When a stage is learnt: what adaptive schedules go by. A pure fold over probes, removals and roll backs.

A *probe* is one forward pass over a fixed slice of the validation split, with what is left of the true CoT
given: the share of examples of which every remaining token, of CoT and answer, is the likeliest one there.
With no CoT left that is exact match. The gate opens when the mean of the last `schedule.probes` of them is
back at `schedule.ready` of the best that was had before the last removal. At the first stage nothing came
before, and all of it is asked for: `schedule.ready` itself. Where nothing was ever right, time decides. It
opens, too, from the second stage on, when waiting has stopped to help: when the mean of the last
`schedule.stall` probes is not `GAIN`
above that of as many before.

*gated*: one stage each time. *adaptive*: stages that cost nothing are joined. When two removals in a row were
followed by a first probe that was high enough already, the next takes twice as many; one that was followed by
a dip halves the number. Two on the way up and one on the way down: noise does not drive it.

After a roll back the schedule is careful for `CAREFUL` stages: one at a time, twice as many probes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from trainer.config import GATED, ScheduleConfig
from trainer.events import At, Event, Probed, RolledBack, StageEntered

GAIN = 0.01
"""Of all examples: less is no gain."""
EASY = 2
"""Removals without a dip, one after the other, before the next takes twice as many stages."""
CAREFUL = 3
"""Stages after a roll back that are gone through more slowly."""
CARE = f"the schedule is careful for the next {CAREFUL} stages: one at a time, twice as many probes of each"


@dataclass(frozen=True, slots=True)
class Gate:
    """best: mean of probes before the last removal, the best of all stages; None at the first.

    recent: the last probes of this stage, as many as may count. dipped: whether its first one was too low,
    None before it came.
    chunk: stages that the next removal takes. easy: removals in a row without a dip. careful: stages still to
    be gone through slowly.
    """

    best: float | None = None
    recent: tuple[float, ...] = ()
    dipped: bool | None = None
    chunk: int = 1
    easy: int = 0
    careful: int = 0

    def probes(self, config: ScheduleConfig) -> int:
        """How many probes say whether the stage is learnt."""
        return config.probes * 2 if self.careful else config.probes

    def target(self, config: ScheduleConfig) -> float:
        """The mean at which it opens."""
        return config.ready * (1.0 if self.best is None else self.best)

    def mean(self, config: ScheduleConfig) -> float | None:
        """Of the probes that count; None before the first."""
        counted = self.recent[-self.probes(config) :]
        return sum(counted) / len(counted) if counted else None

    def learnt(self, config: ScheduleConfig) -> bool:
        """Whether accuracy is back."""
        mean = self.mean(config)
        enough = len(self.recent) >= self.probes(config)
        return enough and mean is not None and mean >= self.target(config) > 0

    def stalled(self, config: ScheduleConfig) -> bool:
        """Whether waiting has stopped to help."""
        if config.stall is None or self.best is None or self.careful:
            return False
        if len(self.recent) < 2 * config.stall:
            return False
        last, before = self.recent[-config.stall :], self.recent[-2 * config.stall : -config.stall]
        return sum(last) - sum(before) < GAIN * config.stall and sum(last) > 0

    def early(self, config: ScheduleConfig) -> int:
        """Stages that the next removal may take now; 0 while the gate is shut."""
        if config.kind not in GATED:
            return 0
        if self.learnt(config):
            return self.at_once(config)
        return int(self.stalled(config))

    def at_once(self, config: ScheduleConfig) -> int:
        """Stages that the next removal takes."""
        return min(self.chunk, config.most_at_once) if config.kind == "adaptive" else 1

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self) | {"recent": list(self.recent)}

    @classmethod
    def load(cls, state: dict[str, Any]) -> Gate:
        """The gate of a `state` that went through JSON."""
        return cls(**{**state, "recent": tuple(state["recent"])})


def learn(gate: Gate, event: Event, config: ScheduleConfig) -> Gate:
    """The gate after `event`."""
    match event:
        case Probed():
            dipped = gate.dipped
            if dipped is None and gate.best is not None:
                dipped = event.accuracy < gate.target(config)
            recent = (*gate.recent, event.accuracy)[-2 * max(config.probes, config.stall or 0) :]
            return replace(gate, recent=recent, dipped=dipped)
        case StageEntered(cause="schedule" | "operator" | "watch"):
            return _entered(gate, config)
        case RolledBack():
            return replace(gate, recent=(), dipped=None, chunk=1, easy=0, careful=CAREFUL)
    return gate


def _entered(gate: Gate, config: ScheduleConfig) -> Gate:
    best, mean = gate.best, gate.mean(config)
    if mean is not None:
        best = mean if best is None else max(best, mean)
    easy, chunk = gate.easy, gate.chunk
    if gate.dipped is False and not gate.careful:
        easy += 1
    elif gate.dipped:
        easy, chunk = 0, max(1, chunk // 2)
    if easy >= EASY:
        easy, chunk = 0, min(2 * chunk, config.most_at_once)
    return Gate(best, (), None, chunk, easy, max(0, gate.careful - 1))


def told(gate: Gate, accuracy: float, config: ScheduleConfig, *, at: At, n: int, seconds: float) -> Probed:
    """The event of a probe, with what the gate will make of it."""
    event = Probed(
        at=at,
        accuracy=accuracy,
        n=n,
        mean=accuracy,
        target=0.0,
        at_once=1,
        careful=gate.careful,
        seconds=seconds,
    )
    after = learn(gate, event, config)
    mean = after.mean(config)
    assert mean is not None
    return replace(event, mean=mean, target=after.target(config), at_once=after.at_once(config))


def reason(gate: Gate, steps: int, config: ScheduleConfig) -> str:
    """Why a removal comes, after so many steps that count."""
    mean = gate.mean(config)
    found = "no probe" if mean is None else f"{mean:.1%} right"
    target = gate.target(config)
    wanted = f"{target:.1%} wanted" if target else "none was before, so time decides"
    if gate.learnt(config):
        return f"{found} after {steps:,} steps, {wanted}"
    if gate.stalled(config):
        return f"no better of late, {found} after {steps:,} steps, {wanted}"
    return f"{steps:,} steps are the longest time; {found}, {wanted}"
