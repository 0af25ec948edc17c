"""The paper's tables: published figures as they are, ours where a run measured them, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from stepwise_tui.render import paper as rendered
from stepwise_tui.render import sheet
from stepwise_tui.render.sheet import SheetError
from tests.test_compare import written
from tests.tiny import tiny_config
from trainer import config as configuration
from trainer import presets
from trainer.analysis import frontier, paper, published
from trainer.analysis import published_coconut as coconut
from trainer.analysis.frontier import Point
from trainer.analysis.paper import Result, Tables
from trainer.analysis.published import Row
from trainer.config import Config
from trainer.events import At, CommandAcknowledged, Evaluated, Event, RunFinished, RunStarted

DAY = 1_795_000_000.0  # 2026-11-18, UTC
METHODS = {published.EXPLICIT: "explicit_cot", published.NO_COT: "no_cot"}


def finished(stage: int = 47, stages: int = 47, accuracy: float | None = 0.998) -> list[Event]:
    at = At(step=900, stage=stage, scheduled=stage, removed=stage, time=DAY)
    return [
        RunStarted(at=replace(at, step=0), name="one", stages=stages, train_examples=808_000),
        RunFinished(
            at=at, reason="", state="finished", accuracy=accuracy, n=1_000, seconds=1.0, checkpoint="b1-final"
        ),
    ]  # fmt: skip


def published_run(preset: str, **changes: Any) -> Config:
    return presets.resolve(preset, {key.replace("__", "."): value for key, value in changes.items()})


def row(tables: Tables, task: str, method: str, model: str = published.GPT2) -> Result:
    found = [
        r for r in (*tables.table_2, *tables.table_3) if (r.task, r.model, r.method) == (task, model, method)
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    "known", [r for r in (*published.TABLE_2, *published.TABLE_3) if r.preset], ids=lambda r: str(r[:3])
)
def test_a_run_of_a_preset_stands_in_the_row_of_that_preset(known: Row) -> None:
    config = presets.resolve(known.preset, {"method.name": METHODS.get(known.method, "stepwise")})
    assert paper.task(config.data) == known.task
    assert paper.model(config.model) == known.model
    assert paper.method(config, config.method.stop_at) == known.method


def test_each_published_figure_has_its_source_and_its_row_once() -> None:
    rows = (*published.TABLE_2, *published.TABLE_3)
    assert len({r[:3] for r in rows}) == len(rows)
    for known in rows:
        assert known.source.startswith(("[P]", "[O]"))
        assert known.accuracy is not None or known.words


def test_without_runs_nothing_stands_beside_the_published_figures(tmp_path: Path) -> None:
    tables = paper.tables(tmp_path / "nowhere")
    assert not any(r.ours for r in (*tables.table_2, *tables.table_3))
    assert len(tables.table_2) == len(published.TABLE_2)
    assert row(tables, "9×9", published.SI).accuracy == 0.99


def test_our_examples_have_the_tokens_of_table_1(tmp_path: Path) -> None:
    for statistics in paper.tables(tmp_path).table_1:
        if statistics.ours is not None:
            known = statistics.published
            assert (known.question, known.cot, known.answer) == tuple(map(str, statistics.ours[3:]))
            assert statistics.ours[:3] == (808_000, 1_000, 1_000)
    assert statistics.published.task == "GSM8K" and statistics.ours is None


def test_a_run_of_a_sweep_is_named_with_it(tmp_path: Path) -> None:
    written(tmp_path / "rates" / "s0", finished(), published_run("mult4x4"))
    (tmp_path / "rates" / "sweep.toml").touch()
    [ours] = row(paper.tables(tmp_path), "4×4", published.SI).ours
    assert ours.run == "rates/s0"


def test_a_finished_run_stands_beside_its_row_with_its_origin(tmp_path: Path) -> None:
    folder = written(tmp_path / "mult4x4-brisk-otter", finished(), published_run("mult4x4"))
    known = row(paper.tables(tmp_path), "4×4", published.SI)
    [ours] = known.ours
    assert (known.accuracy, known.speed) == (1.0, 1.02)
    assert (ours.accuracy, ours.n, ours.seed, ours.step) == (0.998, 1_000, 3456, 900)
    assert (ours.run, ours.path, ours.date) == ("mult4x4-brisk-otter", str(folder), "2026-11-18")
    assert (ours.speed, ours.differs, ours.steered) == (None, (), {})


def test_a_speed_stands_there_only_where_that_checkpoint_was_measured(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", finished(), published_run("mult4x4"))
    frontier.keep(folder, [Point("b1-entry", 1, 1, 1, 9.0, 1.0, 12, 0.5)])
    assert row(paper.tables(tmp_path), "4×4", published.SI).ours[0].speed is None
    frontier.keep(folder, [Point("b1-final", 1, 1, 1, 0.0, 1.0, 12, 0.97)])
    assert row(paper.tables(tmp_path), "4×4", published.SI).ours[0].speed == 0.97


def test_what_is_not_as_in_the_paper_is_said(tmp_path: Path) -> None:
    config = published_run("mult4x4", optim__lr=1e-3, model__vocab="task", data__test=50, seed=7)
    command = CommandAcknowledged(
        at=At(time=DAY), id="1", command="hold", source="shell", ok=True, message=""
    )
    written(tmp_path / "one", [*finished(), command], config)
    [ours] = row(paper.tables(tmp_path), "4×4", published.SI).ours
    assert set(ours.differs) == {"optim.lr = 0.001", "model.vocab = task"}
    assert ours.steered == {"hold": 1}


def test_runs_of_one_row_stand_there_all(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        written(
            tmp_path / f"seed{seed}", finished(accuracy=0.9 + seed / 100), published_run("mult4x4", seed=seed)
        )
    ours = row(paper.tables(tmp_path), "4×4", published.SI).ours
    assert {(one.seed, one.accuracy) for one in ours} == {(0, 0.9), (1, 0.91), (2, 0.92)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method__smoothing": float("inf")}, "ICoT-SI, no smoothing"),
        ({"method__side": "right"}, "ICoT-SI, right side"),
        (
            {"method__keep_positions": True, "method__reset_optimizer": False},
            "ICoT-SI, no reset, kept positions",
        ),
        ({"method__stop_at": 5}, "ICoT-SI, 5 removed"),
        ({"schedule__kind": "geometric"}, "ICoT-SI, geometric schedule"),
        ({"method__name": "no_cot"}, "no CoT"),
        ({"method__name": "explicit_cot", "data__cot": "tree"}, "explicit CoT, tree CoT"),
    ],
)
def test_a_variant_has_a_row_of_its_own(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    config = tiny_config(**changes)
    last = config.method.stop_at or 9
    written(tmp_path / "one", finished(last, last), config)
    [found] = [r for r in paper.tables(tmp_path).table_2 if r.ours]
    assert (found.task, found.model) == ("2×2", "1 layers, 2 heads, width 16, from scratch")
    assert found.method == expected
    assert (found.accuracy, found.speed) == (None, None)


def test_a_run_that_still_speaks_its_cot_is_no_internalised_one(tmp_path: Path) -> None:
    written(tmp_path / "one", finished(stage=40), published_run("mult4x4"))
    tables = paper.tables(tmp_path)
    assert row(tables, "4×4", published.SI).ours == ()
    assert row(tables, "4×4", "ICoT-SI, 40 removed").ours[0].accuracy == 0.998


def test_runs_of_a_row_of_their_own_stand_there_by_configuration(tmp_path: Path) -> None:
    for name, seed, pace in (("a", 1, 5), ("b", 0, 9), ("c", 0, 5)):
        written(tmp_path / name, finished(9, 9), tiny_config(seed=seed, schedule__steps_per_token=pace))
    tables = paper.tables(tmp_path)
    [found] = [r for r in tables.table_2 if r.ours]
    slow, quick = ("schedule.steps_per_token = 9",), ("schedule.steps_per_token = 5",)
    assert [(one.run, one.apart) for one in found.ours] == [("c", quick), ("a", quick), ("b", slow)]
    text = printed(tables)
    at = [text.index(f"    {apart[0]}:") for apart in (quick, slow)]
    runs = [next(i for i, line in enumerate(text) if line.startswith(f"      {name}, ")) for name in "cab"]
    assert at[0] < runs[0] < runs[1] < at[1] < runs[2]


@pytest.mark.parametrize("ending", [".md", ".tex"])
def test_the_tables_as_a_file(tmp_path: Path, ending: str) -> None:
    written(tmp_path / "mult4x4_odd", finished(), published_run("mult4x4", optim__lr=1e-3))
    file = tmp_path / f"tables{ending}"
    tables = paper.tables(tmp_path)
    sheet.check(file)
    sheet.save(file, rendered.sheets(tables), rendered.SOURCES)
    text = file.read_text(encoding="utf-8")
    separator = {".md": " | ", ".tex": " & "}[ending]
    [mine] = [line for line in text.splitlines() if "odd, 2026-11-18" in line]
    cells = [cell.strip("| ") for cell in mine.split(separator)]
    assert cells[1:5] == ["GPT-2 Small, ICoT-SI", "1.00 / 1.02", "[O] log 1.000", ".998"]
    assert "optim.lr = 0.001" in cells[5] and len(cells) == 6
    rows = [line for line in text.splitlines() if line.count(separator) == 5]
    assert len(rows) >= len(tables.table_2) + len(tables.table_3)
    if ending == ".tex":
        assert r"mult4x4\_odd" in mine and mine.endswith(r"\\") and cells[0] == r"4$\times$4"
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 5
    with pytest.raises(SheetError, match=r"ends in \.md or \.tex"):
        sheet.check(tmp_path / "tables.xlsx")


def test_what_has_no_place_is_left_out_with_the_reason(tmp_path: Path) -> None:
    written(tmp_path / "training", finished()[:1], published_run("mult4x4"))
    written(tmp_path / "interrupted", finished(accuracy=None), published_run("mult4x4"))
    (written(tmp_path / "old", finished()) / "config.toml").write_text("[optim]\nspeed = 1\n")
    own = configuration.build({"data": {"task": "text", "train_file": "mine.txt"}})
    written(tmp_path / "own", finished(), own)
    tables = paper.tables(tmp_path)
    assert not any(r.ours for r in (*tables.table_2, *tables.table_3))
    assert set(tables.left_out) == {"training", "interrupted", "old", "own"}
    assert "optim.speed" in tables.left_out["old"]


def test_gsm8k_without_the_augmented_lines_is_not_the_papers(tmp_path: Path) -> None:
    started, end = finished(39, 39)
    assert isinstance(started, RunStarted)
    written(tmp_path / "one", [replace(started, train_examples=6_973), end], published_run("gsm8k-gpt2"))
    [ours] = row(paper.tables(tmp_path), "GSM8K", published.SI).ours
    assert ours.differs == ("6,973 training examples",)


def printed(tables: Tables) -> list[str]:
    """The lines of the tables on a terminal of 80 columns."""
    lines: list[str] = []

    class Page:
        width = 80

        def print(self, text: str) -> None:
            lines.extend(text.split("\n"))

    rendered.show(tables, Page())  # type: ignore[arg-type]
    return lines


def test_the_text_has_every_figure_and_fits_its_width(tmp_path: Path) -> None:
    written(tmp_path / "mult4x4-brisk-otter", finished(), published_run("mult4x4", optim__lr=1e-3))
    lines = printed(paper.tables(tmp_path))
    assert max(map(len, lines)) <= 80
    at = lines.index("4×4")
    [mine] = [i for i, line in enumerate(lines) if "GPT-2 Small, ICoT-SI " in line and i > at][:1]
    assert lines[mine].split("ICoT-SI")[1].split() == ["1.00", "/", "1.02", ".998"]
    assert "[O] log 1.000" in lines[mine + 1]
    below = " ".join(" ".join(lines[mine + 2 : mine + 4]).split())
    assert "mult4x4-brisk-otter, 2026-11-18: n = 1,000, seed 3456" in below
    assert "not as in the paper: optim.lr = 0.001" in below


COCONUT = [*coconut.TABLE_1, *coconut.FIGURE_3]


@pytest.mark.parametrize("known", COCONUT, ids=lambda r: f"{r.task}, {r.method}")
def test_each_row_of_coconut_is_a_preset_or_one_override_of_one(known: Row) -> None:
    config = presets.resolve(known.preset, coconut.OVERRIDES.get(known.method, {}))
    assert len(coconut.OVERRIDES.get(known.method, {})) <= 1
    assert paper.task(config.data) == known.task and paper.model(config.model) == known.model
    found = paper.Found(known.task, known.model, paper.method(config, None), config, cast(Any, None))
    if known in coconut.FIGURE_3:
        assert known.method == coconut.thoughts(cast(int, paper.thoughts_a_step(found)))
    else:
        assert found.method == known.method


def test_a_run_of_coconuts_stands_in_its_table_with_tokens_and_seconds(tmp_path: Path) -> None:
    events = finished(stage=7, stages=7, accuracy=0.9)
    at = events[-1].at
    tested = Evaluated(
        at=at, split="test", accuracy=0.9, token_accuracy=1.0, correct=450, n=500, cot_tokens=0.0,
        seconds=1.0, generated_tokens=15.0,
    )  # fmt: skip
    written(tmp_path / "one", [*events[:-1], tested, events[-1]], presets.resolve("prosqa"))
    frontier.keep(tmp_path / "one", [Point("b1-final", 1, 1, 1, 0.0, 1.0, 12, 0.5, seconds=0.2)])
    small = presets.resolve("prosqa-small", {"method.curriculum": False})
    written(tmp_path / "two", finished(0, 0, accuracy=0.5), small)
    tables = paper.tables(tmp_path)
    assert not any(r.ours for r in (*tables.table_2, *tables.table_3, *tables.coconut_figure_3))
    rows = {(r.task, r.method): r for r in tables.coconut_table_1}
    [ours] = rows["ProsQA", "Coconut"].ours
    assert (ours.accuracy, ours.tokens, ours.seconds, ours.differs) == (0.9, 15.0, 0.2, ())
    assert rows["ProsQA, 8 nodes, 8 nouns", "w/o curriculum"].ours[0].accuracy == 0.5
    [table] = [s for s in rendered.sheets(tables) if s.title.startswith("Coconut, Table 1")]
    [line] = [row for row in table.rows if row[0] == "ProsQA" and row[1].endswith(", Coconut")]
    assert (line[2], line[4]) == (".97 / 14.2 / .15 s", ".900 / 15.0 / .20 s")


def test_c_on_gsm8k_stands_in_figure_3(tmp_path: Path) -> None:
    for c in (0, 1):
        config = presets.resolve("gsm8k-coconut", coconut.OVERRIDES[coconut.thoughts(c)])
        written(tmp_path / f"c{c}", finished(4, 4, accuracy=(0.2, 0.3)[c]), config)
    rows = paper.tables(tmp_path).coconut_figure_3
    assert [[one.accuracy for one in row.ours] for row in rows] == [[0.2], [0.3], []]


@pytest.mark.parametrize(
    ("preset", "fields", "said"),
    [
        ("prosqa", {"max_latent_stage": 2}, "Coconut, thoughts for 2 steps at most"),
        ("prosqa", {"uniform_prob": 0.3}, "Coconut, 30% of examples at a random stage"),
        ("prosqa", {"no_thought": True, "max_latent_stage": 2}, "w/o thought, all others go after 2"),
        ("prosqa-small", {"latent_end": "classifier"}, "Coconut, a classifier ends the thoughts"),
        ("prosqa-small", {"name": "pause", "thoughts_per_step": 2}, "pause as thought, c = 2"),
        ("prontoqa-short", {"name": "explicit_cot", "uniform_prob": 0.3}, "CoT"),
        ("gsm8k-coconut", {"max_latent_stage": 2}, "Coconut, thoughts for 2 steps at most"),
    ],
)
def test_thoughts_that_are_not_the_papers_have_a_row_of_their_own(
    preset: str, fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    config = presets.resolve(preset, {f"method.{name}": value for name, value in fields.items()})
    written(tmp_path / "one", finished(4, 4), config)
    tables = paper.tables(tmp_path)
    [row] = [row for row in tables.coconut_table_1 if row.ours]
    assert row.method == said
    assert not any(row.ours for row in tables.coconut_figure_3)
