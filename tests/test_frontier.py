"""Accuracy against speed: which checkpoints are measured, as what, and which results are worth having."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from stepwise_tui.charts.chart import Axes, Dot, Line, draw
from tests import scripted
from tests.tiny import tiny_config
from trainer.analysis import frontier, measure
from trainer.analysis.frontier import Candidate, Point, candidates, dominates, kept, marked
from trainer.analysis.measure import MeasureError
from trainer.asking import inspection
from trainer.events import CheckpointRemoved
from trainer.models.model import SPARE
from trainer.run import Run

POINTS = st.lists(
    st.builds(
        Point,
        checkpoint=st.just("c"),
        step=st.just(1),
        stage=st.just(1),
        removed=st.just(1),
        cot_tokens=st.just(0.0),
        accuracy=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        n=st.just(4),
        speed=st.sampled_from([0.1, 0.5, 1.0, 1.02]),
    ),
    max_size=12,
)


@given(POINTS)
def test_what_is_left_is_what_someone_might_choose(points: list[Point]) -> None:
    verdicts = marked(points)
    best = [p for p in verdicts if not p.dominated]
    assert [(p.speed, p.accuracy) for p in verdicts] == [(p.speed, p.accuracy) for p in points]
    assert bool(best) == bool(points)
    assert not any(dominates(one, other) for one in best for other in best)
    assert all(any(dominates(one, p) for one in best) for p in verdicts if p.dominated)
    # Along the frontier, whoever wants more speed pays in accuracy.
    ordered = sorted(best, key=lambda p: p.speed)
    assert [p.accuracy for p in ordered] == sorted((p.accuracy for p in best), reverse=True)


def test_an_entry_is_measured_as_the_stage_before_it() -> None:
    found = {c.stage: c for c in candidates(scripted.finished().events)}
    assert found[0] == Candidate("b1-000600", 600, 0)  # the entry of stage 1: explicit CoT, learnt
    assert found[3] == Candidate("b1-001200", 1_200, 3)
    assert found[9] == Candidate("b1-002900", 2_900, 9)  # the last of all, saved at the end
    assert sorted(found) == list(range(10))


def test_what_was_abandoned_or_removed_is_not_measured() -> None:
    script = scripted.saved()  # lost at stages 4 and 5, rolled back to the entry of stage 3
    ids = {c.stage: c.id for c in candidates(script.events)}
    assert ids == {
        0: "b1-000600",
        1: "b1-000800",
        2: "b1-001000",
        3: "b2-001200",
        4: "b2-001400",
        5: "b2-001600",
    }
    script.say(CheckpointRemoved(at=script.at, checkpoint="b1-000800"))
    assert 1 not in {c.stage for c in candidates(script.events)}


def test_a_run_that_has_trained_nothing_has_no_candidate() -> None:
    assert candidates(scripted.Script().start().events) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run that removed all of its CoT, with positions that move at each removal."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = tiny_config(
        stop__steps=70, method__move_positions=True, data__test=12, save__stages=9, save__every_stage=1
    )
    run = Run(config, folder)
    run.start()
    assert run.wait(60)
    run.close()
    return folder


def test_every_stage_of_a_real_run_is_measured(trained: Path) -> None:
    chosen, problems = measure.measurable(trained)
    assert problems == []
    points = list(measure.measure(trained, chosen, None))
    assert [p.removed for p in points] == list(range(10))
    assert {p.n for p in points} == {12}
    assert all(p.speed > 0 for p in points)
    last = inspection.open_checkpoint(str(trained), None, trained.parent)
    assert points[-1].checkpoint == last.id
    assert points[-1].accuracy == inspection.evaluate_checkpoint(last).accuracy


def test_weights_are_measured_as_they_were_trained(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry of stage 4 has its positions moved for stage 4 already, and has learnt stage 3."""
    tables: list[torch.Tensor] = []
    scheduled: list[int] = []
    original = measure.evaluate

    def watched(method, model, examples, stage, tokenizer):  # type: ignore[no-untyped-def]
        tables.append(model.base_model.wpe.weight.detach().clone())
        scheduled.append(stage)
        return original(method, model, examples, stage, tokenizer)

    monkeypatch.setattr(measure, "evaluate", watched)
    chosen = [c for c in measure.measurable(trained)[0] if c.stage in (2, 3)]
    list(measure.measure(trained, chosen, 1))
    assert scheduled == [2, 3]
    for candidate, table in zip(chosen, tables, strict=True):
        weights = load_file(trained / "checkpoints" / candidate.id / "model" / "model.safetensors")
        [saved] = [value for name, value in weights.items() if name.endswith("wpe.weight")]
        moved = saved.clone()
        used = slice(6, len(saved) - SPARE)  # from the question's EOS to the end of a row
        moved[used] = saved[used].roll(1, 0)
        assert torch.equal(table, moved)
        assert not torch.equal(table, saved)


def test_a_damaged_checkpoint_is_left_out_and_named(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    chosen, _ = measure.measurable(copy)
    (copy / "checkpoints" / chosen[3].id / "model" / "config.json").write_text("{}")
    good, problems = measure.measurable(copy)
    assert [c.stage for c in good] == [0, 1, 2, *range(4, 10)]
    assert len(problems) == 1 and chosen[3].id in problems[0]
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(MeasureError, match="no such checkpoint"):
        measure.measurable(copy)


def test_a_speed_is_kept_with_its_day_and_nothing_is_made_of_rubbish(tmp_path: Path) -> None:
    point = Point("b1-final", 10, 9, 9, 0.0, 1.0, 12, 0.98, seconds=0.25)
    frontier.keep(tmp_path, [point])
    found = kept(tmp_path, "b1-final")
    assert found is not None
    assert (found.speed, found.seconds) == (0.98, 0.25)
    assert time.strftime("%Y", time.gmtime()) == found.date[:4] and len(found.date) == 10
    assert kept(tmp_path, "another") is None
    for rubbish in ("", "[]", "{}", '{"points": [{}]}', json.dumps({"points": 3, "measured": ""})):
        (tmp_path / frontier.FILE).write_text(rubbish)
        assert kept(tmp_path, "b1-final") is None
    assert kept(tmp_path / "nowhere", "b1-final") is None


@given(
    st.lists(st.tuples(st.floats(), st.floats(), st.text("0123456789", max_size=5)), max_size=12),
    st.integers(1, 90),
    st.integers(1, 30),
    st.booleans(),
)
def test_any_dots_give_a_chart_of_exactly_the_size_asked_for(
    dots: list[tuple[float, float, str]], width: int, height: int, log: bool
) -> None:
    line = Line(np.array([0.0, 1.0]), np.array([0.5, 0.7]), "red")
    chart = draw([line], [], (width, height), Axes("speed", log=log), dots=[Dot(*d, "red") for d in dots])
    assert [len(row) for row in chart.plain.split("\n")] == [width] * height


def test_dots_and_their_labels_do_not_cover_each_other() -> None:
    dots = [Dot(x, y, label, "red", "o") for x, y, label in ((0, 0, "11"), (0.02, 0, "22"), (1, 1, "33"))]
    chart = draw([], [], (40, 10), Axes("speed", (0.0, 1.0)), dots=dots, braille=False).plain
    assert "33 o" in chart  # at the right edge the label stands before its dot
    assert chart.count("o") == 3
    assert "22" in chart and "11" not in chart  # there is no room beside the first
