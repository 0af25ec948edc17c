"""Runs beside each other: what counts as the live line, where a point stands, what belongs together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests import scripted
from tests.scripted import SCRIPTED, Script
from tests.tiny import tiny_config
from trainer import config as configuration
from trainer import runs
from trainer.analysis import compare
from trainer.analysis.compare import Curve, curve
from trainer.analysis.compare import compare as compared
from trainer.config import Config, ConfigError
from trainer.events import (
    At,
    CheckpointSaved,
    CommandReceived,
    Evaluated,
    Event,
    RolledBack,
    RunStarted,
    StageEntered,
    encode,
)
from trainer.record.journal import FILE


def told(events: Iterable[Event], config: Config = SCRIPTED) -> Curve:
    return curve(config, events, Path("runs/one"), "finished")


def written(folder: Path, events: Iterable[Event], config: Config = SCRIPTED) -> Path:
    """A run's folder with a configuration and a journal."""
    folder.mkdir(parents=True)
    (folder / runs.CONFIG_FILE).write_text(configuration.dumps(config), encoding="utf-8")
    lines = [encode(replace(event, seq=seq)) for seq, event in enumerate(events, start=1)]
    (folder / FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


@dataclass
class Simulated:
    """A run that trains, removes and rolls back, and remembers by itself what it came through.

    Each evaluation has an accuracy of its own, so that a curve names the evaluations it shows.
    """

    at: At = field(default_factory=lambda: At(time=1.0))
    events: list[Event] = field(default_factory=list)
    path: list[tuple[int, int, float]] = field(default_factory=list)
    seen: set[float] = field(default_factory=set)
    saved: dict[str, tuple[At, list[tuple[int, int, float]]]] = field(default_factory=dict)
    branches: int = 1

    def train(self, steps: int) -> None:
        self.at = replace(self.at, step=self.at.step + steps)
        self.look()

    def look(self, times: int = 1) -> None:
        """An evaluation belongs to the weights: also to a checkpoint of the same place, saved before it."""
        accuracy = len(self.seen) / 1000
        self.seen.add(accuracy)
        measured = (self.at.step, self.at.scheduled, accuracy)
        self.path = [*self.path, measured]
        for id, (there, path) in self.saved.items():
            if there == self.at:
                self.saved[id] = (there, [*path, measured])
        self.events.append(
            Evaluated(
                at=self.at, split="valid", accuracy=accuracy, token_accuracy=0.0, correct=0, n=9,
                cot_tokens=0.0, seconds=0.0,
            )
        )  # fmt: skip

    def remove(self, tokens: int) -> None:
        scheduled = self.at.scheduled + tokens
        self.at = replace(self.at, scheduled=scheduled, stage=min(scheduled, 9))
        self.events.append(StageEntered(at=self.at, text="", cause="schedule"))
        id = f"c{len(self.saved)}"
        self.saved[id] = (self.at, self.path)
        self.events.append(CheckpointSaved(at=self.at, checkpoint=id, cause="stage", seconds=0.0, bytes=0))

    def roll_back(self, which: int) -> None:
        if not self.saved:
            return
        id = list(self.saved)[which % len(self.saved)]
        there, path = self.saved[id]
        self._fork(there, there.branch, id, keep_weights=False)
        self.path = path

    def give_back(self, tokens: int) -> None:
        scheduled = max(0, self.at.scheduled - tokens)
        self._fork(replace(self.at, scheduled=scheduled, stage=min(scheduled, 9)), self.at.branch, "", True)

    def _fork(self, there: At, parent: int, id: str, keep_weights: bool) -> None:
        left = self.at
        self.branches += 1
        self.at = replace(there, branch=self.branches)
        self.events.append(
            RolledBack(
                at=self.at, checkpoint=id, parent=parent, from_branch=left.branch, from_step=left.step,
                keep_weights=keep_weights,
            )
        )  # fmt: skip


NAMES = ["train", "train", "look", "remove", "roll_back", "give_back"]
MOVES = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 9)), max_size=60)


@given(MOVES)
@example([("train", 1), ("remove", 1), ("remove", 1), ("look", 1), ("roll_back", 0), ("train", 1)])
def test_the_curve_is_what_the_run_came_through(moves: list[tuple[str, int]]) -> None:
    run = Simulated()
    for move, number in moves:
        getattr(run, move)(number)
    shown = told(run.events)
    assert [(p.step, p.scheduled, p.accuracy) for p in shown.live] == run.path
    left = {p.accuracy for piece in shown.abandoned for p in piece}
    assert left | {accuracy for *_, accuracy in run.path} == run.seen  # nothing is lost
    for point in (*shown.live, *(p for piece in shown.abandoned for p in piece)):
        assert point.scheduled <= point.x <= point.scheduled + 1
    assert [p.step for p in shown.live] == sorted(p.step for p in shown.live)


def test_an_abandoned_piece_begins_where_the_live_line_left_it() -> None:
    shown = told(scripted.saved().events)  # at step 1,500 back to stage 3, entered at step 1,000
    [piece] = shown.abandoned
    assert [piece[0].step, piece[1].step, piece[-1].step] == [1_000, 1_050, 1_500]
    assert piece[0] in shown.live
    assert shown.live[-1].step == 1_700


def test_a_point_stands_as_far_towards_the_next_removal_as_its_stage_has_come() -> None:
    """The script removes a token each 200 steps from step 600 on, and evaluates each 50."""
    x = {p.step: p.x for p in told(scripted.training(1_340).events).live}
    assert [x[step] for step in (600, 650, 700, 800, 850)] == [1.0, 1.25, 1.5, 2.0, 2.25]
    assert x[1_300] == 4.5  # of the last stage it is not known how long it will be: as long as the one before


def test_a_roll_back_into_the_middle_of_a_stage_goes_on_there() -> None:
    script = scripted.training(1_300)
    script.roll_back(2, 900)  # stage 2 was entered at step 800 and has 200 steps
    script.events.pop()  # a script enters the stage anew; a run that restores a checkpoint in it does not
    script.entered = 800
    x = {p.step: p.x for p in told(script.train_to(1_100).events).live}
    assert [x[step] for step in (850, 900, 950, 1_050)] == [2.25, 2.5, 2.75, 3.25]


def test_removals_go_on_after_all_are_gone() -> None:
    shown = told(scripted.finished().events)
    assert shown.all_gone == shown.stages == scripted.STAGES
    assert shown.live[-1].scheduled > scripted.STAGES
    assert shown.live[-1].x == pytest.approx(shown.live[-1].scheduled, abs=1)
    gone = [p.accuracy for p in shown.live if p.scheduled >= scripted.STAGES]
    assert shown.without_cot == max(gone)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method.name": "explicit_cot"}, None),
        ({"method.name": "no_cot"}, 0),
        ({"method.stop_at": 4}, None),
        ({}, 9),
    ],
)
def test_all_is_gone_only_where_all_goes(changes: dict[str, object], expected: int | None) -> None:
    config = configuration.build(configuration.merge(SCRIPTED.model_dump(), configuration.nested(changes)))
    assert told(scripted.training().events, config).all_gone == expected


def test_a_run_that_has_told_nothing_yet_is_an_empty_curve() -> None:
    shown = told([])
    assert (shown.live, shown.abandoned, shown.all_gone, shown.without_cot) == ((), (), None, None)


def test_steering_is_counted_and_looking_is_not() -> None:
    script = scripted.training()
    for command in ("hold", "set optim.lr 1e-4", "set log.every 5", "evaluate", "rollback 3"):
        script.command(command, "done")
    script.command("advance", "nothing is left to remove", ok=False)
    assert told(script.events).steered == {"hold": 1, "set": 1, "rollback": 1}


def test_seeds_of_one_configuration_belong_together(tmp_path: Path) -> None:
    def run(name: str, **changes: object) -> Path:
        return written(tmp_path / name, scripted.training().events, tiny_config(**changes))

    folders = [
        run("mult2x2-brisk-otter", seed=0),
        run("quick-one", seed=0, optim__lr=1e-3),
        run("mult2x2-calm-bee", seed=1, device="cpu", stop__steps=900),
    ]
    groups = compared(folders)
    assert [[c.name for c in group.curves] for group in groups] == [
        ["mult2x2-brisk-otter", "mult2x2-calm-bee"],
        ["quick-one"],
    ]
    assert [group.label for group in groups] == ["mult2x2", "quick-one"]


def test_runs_of_one_name_are_told_apart_by_where_they_lie(tmp_path: Path) -> None:
    folders = [
        written(tmp_path / sweep / name, scripted.training().events, tiny_config(optim__lr=rate))
        for sweep, name, rate in (("fast", "s0", 1e-2), ("slow", "s0", 1e-3), ("slow", "s1", 1e-3))
    ]
    groups = compared(folders)
    assert [[c.name for c in group.curves] for group in groups] == [["fast/s0"], ["slow/s0", "s1"]]


def test_groups_whose_names_say_nothing_are_called_by_what_differs(tmp_path: Path) -> None:
    folders = [
        written(
            tmp_path / f"{animal}{seed}",
            scripted.training().events,
            tiny_config(seed=seed, method__reset_optimizer=reset),
        )
        for animal, reset in (("otter", True), ("bee", False))
        for seed in (0, 1)
    ]
    labels = [group.label for group in compared(folders)]
    assert labels == ["method.reset_optimizer = true", "method.reset_optimizer = false"]


@pytest.mark.parametrize("script", [scripted.saved(), scripted.finished(), scripted.training().crash()])
def test_a_journal_read_in_part_tells_the_same_as_the_whole(script: Script, tmp_path: Path) -> None:
    late = CommandReceived(at=replace(script.at, step=0, scheduled=0), id="x", command="save", source="shell")
    events = [*script.events, late]
    folder = written(tmp_path / "run", events)
    [group] = compared([folder, folder])
    assert group.curves == (curve(SCRIPTED, events, folder, "crashed"),)


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "old", [])
    (folder / runs.CONFIG_FILE).write_text("[optim]\nspeed = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"old: optim\.speed"):
        compared([folder])


def test_only_the_last_process_says_how_many_stages_there_are() -> None:
    again = RunStarted(at=At(step=1, time=2.0), name="one", stages=12, checkpoint="b1")
    assert told([*scripted.training().events, again]).stages == 12


def test_branches_that_refer_to_each_other_end() -> None:
    """A journal that no run writes must not hang the reader."""
    circle = [
        RolledBack(at=At(branch=branch, time=1.0), checkpoint="", parent=parent, from_branch=1, from_step=0)
        for branch, parent in ((2, 3), (3, 2))
    ]
    assert set(compare.live_line(circle)) == {2, 3}
