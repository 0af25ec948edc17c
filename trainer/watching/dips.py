"""What removals do to accuracy: the dip each one makes, how deep, and how long until it is over. A pure fold.

Accuracy below `watch.recovered` × what it was is a dip. A fall to zero at a removal is the method at work,
which is why it is given time. What it was: the best since the last removal but one that was recovered from.
Of that, a removal may cost a tenth (`FADES`): the end of a curriculum may be less good than its beginning,
but not by halves.

What came of each stage is measured, too (`DipMeasured`): it is back where `BACK` of what was before is
reached.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainer.config import WatchConfig
from trainer.events import DipMeasured, Evaluated, Metrics, StageEntered

FADES = 0.9
"""What is asked for after a removal, of what was before it."""
BACK = 0.95
"""Of the accuracy before a removal: from there on a stage counts as recovered."""
REMEMBERED = 4
"""Stages whose recovery is remembered, for the trend. Of three, one in six is in that order by chance."""
GOING, GONE = 2, 3
"""Times `watch.patience`: a dip that several removals made is told after that long at the latest, while
tokens go on going and when all have gone."""
GAIN = 0.02
"""Of all examples: evaluations that have not become so much better of late do not get better."""
SLOWER = 1.25
"""Recoveries each so many times as long as the one before are a trend."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A stage that is not back yet. step: of its entry. lowest: accuracy, None before the first evaluation.

    loss_before, worst: of the answer, the last before the entry and the highest since.
    """

    stage: int
    step: int
    before: float
    lowest: float | None = None
    loss_before: float | None = None
    worst: float | None = None

    def told(self, event: Evaluated | StageEntered, steps: int | None) -> list[DipMeasured]:
        """Nothing where no evaluation came."""
        if self.lowest is None:
            return []
        return [
            DipMeasured(
                at=event.at,
                of=self.stage,
                entered=self.step,
                before=self.before,
                lowest=self.lowest,
                loss_before=self.loss_before,
                loss_worst=self.worst,
                steps=steps,
            )
        ]


@dataclass(frozen=True, slots=True)
class Dips:
    """healthy: the best accuracy that was not part of a dip, and the stage it was measured at.

    low: evaluations in the dip so far; here: those of them since the last removal. accuracies: the last of
    them. entered: the first stage entered since the last evaluation that was not part of a dip, None when
    there was none; its entry has the weights of that evaluation. stage_step: where the present stage was
    entered. loss: of the answer, the last logged. open: the stage whose recovery is not measured yet. took:
    steps that the last recoveries took.
    """

    healthy: float = 0.0
    healthy_stage: int = 0
    low: int = 0
    here: int = 0
    accuracies: tuple[float, ...] = ()
    entered: int | None = None
    stage_step: int = 0
    loss: float | None = None
    open: Measured | None = None
    took: tuple[int, ...] = ()

    @property
    def wanted(self) -> float:
        """What accuracy would be if all were well."""
        return self.healthy if self.entered is None else FADES * self.healthy

    @property
    def slower(self) -> bool:
        """Whether each of the last recoveries was slower than the one before."""
        pairs = zip(self.took, self.took[1:], strict=False)
        return len(self.took) == REMEMBERED and all(later >= SLOWER * first for first, later in pairs)

    def overdue(self, stage: int, stages: int, patience: int) -> bool:
        """Whether the dip has lasted too long: `patience` evaluations.

        Where several removals made it, those after the last one count, and it may take longer as long as it
        gets better, up to `GOING` or `GONE` times.
        """
        if self.entered is None or self.entered == stage:
            return self.low >= patience
        most = GOING if stage < stages else GONE
        return self.low >= most * patience or (self.here >= patience and not self.improves(patience))

    def improves(self, patience: int) -> bool:
        """Whether the last `patience` evaluations of this dip were better than as many before, by `GAIN`."""
        last, before = self.accuracies[-patience:], self.accuracies[-2 * patience : -patience]
        if len(before) < patience:
            before = self.accuracies[: len(self.accuracies) // 2]
            last = self.accuracies[len(before) :]
        return bool(before) and sum(last) / len(last) >= sum(before) / len(before) + GAIN


def enter(dips: Dips, event: StageEntered) -> tuple[Dips, list[DipMeasured]]:
    """A removal."""
    at = event.at
    told = dips.open.told(event, None) if dips.open is not None else []
    return replace(
        dips,
        entered=at.stage if dips.entered is None else dips.entered,
        here=0,
        stage_step=at.step,
        open=Measured(at.stage, at.step, dips.healthy, loss_before=dips.loss) if dips.healthy else None,
        took=() if dips.open is not None else dips.took,
    ), told


def measure(dips: Dips, event: Evaluated, config: WatchConfig) -> tuple[Dips, list[DipMeasured]]:
    """An evaluation on the validation split."""
    accuracy, opened = event.accuracy, dips.open
    told: list[DipMeasured] = []
    if opened is not None:
        opened = replace(opened, lowest=accuracy if opened.lowest is None else min(accuracy, opened.lowest))
        dips = replace(dips, open=opened)
        if accuracy >= BACK * opened.before:
            steps = event.at.step - opened.step
            told = opened.told(event, steps)
            dips = replace(dips, open=None, took=(*dips.took, steps)[-REMEMBERED:])
    if accuracy >= config.recovered * dips.wanted:
        return replace(
            dips,
            healthy=max(accuracy, dips.wanted),
            healthy_stage=event.at.stage,
            low=0,
            here=0,
            accuracies=(),
            entered=None,
        ), told
    accuracies = (*dips.accuracies, accuracy)[-2 * config.patience :]
    return replace(dips, low=dips.low + 1, here=dips.here + 1, accuracies=accuracies), told


def log(dips: Dips, event: Metrics) -> Dips:
    """Metrics between evaluations: the answer's loss alone."""
    loss, opened = event.loss_answer, dips.open
    if loss != loss:
        return dips
    if opened is not None:
        opened = replace(opened, worst=loss if opened.worst is None else max(loss, opened.worst))
    return replace(dips, loss=loss, open=opened)


def return_to(dips: Dips, stage: int, step: int) -> Dips:
    """After a roll back: that stage is begun anew, and what was healthy before is still the measure."""
    return replace(
        dips,
        low=0,
        here=0,
        accuracies=(),
        entered=stage if dips.entered is None else min(stage, dips.entered),
        stage_step=step,
        open=None,
        took=(),
    )
