"""The commands that draw: on a terminal, in a pipe, as a picture, as JSON; and the figures of a preset."""

from __future__ import annotations

import importlib.util
import json
import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from stepwise_tui import cli, glyphs
from stepwise_tui.render import frontier, picture
from stepwise_tui.render import stages as rendered
from stepwise_tui.render.screen import COLOURS, Screen
from stepwise_tui.text import clip, clip_apart, clip_middle, clip_question, clip_start
from tests import scripted
from tests.terminal import Terminal
from tests.test_compare import written
from tests.test_imports import command, loaded_by
from tests.tiny import tiny_config
from trainer import presets
from trainer.analysis import stages
from trainer.analysis.frontier import Point
from trainer.analysis.stages import Example, example
from trainer.config import MethodConfig
from trainer.run import Run


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def refused(result: Result, *parts: str) -> None:
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and "Traceback" not in said
    for part in parts:
        assert part in said


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Three runs: two seeds of one configuration, one of them rolled back, and another configuration."""
    written(tmp_path / "mult-one", scripted.finished().events, tiny_config(seed=0))
    written(tmp_path / "mult-two", scripted.saved().events, tiny_config(seed=1))
    written(tmp_path / "slow", scripted.training(700).events, tiny_config(schedule__steps_per_token=9))
    return tmp_path


def test_runs_are_drawn_beside_each_other(out: Path) -> None:
    shown = call("compare", "mult-one", "mult-two", "slow", "--out", out)
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.stdout.splitlines())) <= 80
    chart, rows = shown.stdout.split("\n\n")
    for part in ("validation accuracy", "all CoT removed", "* mult (2 runs)", "o slow", "' abandoned"):
        assert part in chart
    signs = [(row.split()[0], row.split()[1]) for row in rows.splitlines()[1:]]
    assert signs == [("*", "mult-one"), ("*", "mult-two"), ("o", "slow")]  # instead of colours
    assert rows.splitlines()[1].split()[4:7] == ["9", "of", "9"]  # no more than there was to remove


def test_names_that_are_too_long_are_cut_where_they_are_alike(tmp_path: Path) -> None:
    for rate in ("0.001", "0.002"):
        for seed in (0, 1):
            config = tiny_config(seed=seed, optim__lr=float(rate), method__name="no_cot")
            written(tmp_path / f"mult2x2-smoothing_4.0-lr_{rate}-s{seed}", scripted.training().events, config)
    shown = call("compare", *(folder.name for folder in tmp_path.iterdir()), "--out", tmp_path).stdout
    assert max(map(len, shown.splitlines())) <= 80
    rows = shown.split("\n\n")[1].splitlines()[1:]
    assert len({row.split()[1] for row in rows}) == 4 and all("of 0" in row for row in rows)


def test_names_are_cut_at_either_end_or_in_the_middle() -> None:
    assert clip_apart(["abcdef", "abc"], 6) == ["abcdef", "abc"]
    assert clip_apart(["abcdef-0", "abcdef-1"], 5) == ["…ef-0", "…ef-1"]
    assert clip_apart(["a-abcdef", "b-abcdef"], 5) == ["a-ab…", "b-ab…"]
    assert clip_apart(["a-abcd-0", "b-abcd-0", "a-abcd-1"], 6) == ["a-…d-0", "b-…d-0", "a-…d-1"]
    alike = ["aaaa0aaaa", "aaaa1aaaa"]
    assert clip_apart(alike, 4) == alike


@given(text=st.text(st.sampled_from("ab /é字🙂")), width=st.integers(1, 12))
def test_what_is_cut_fits_also_with_wide_letters(text: str, width: int) -> None:
    for cut in (clip, clip_start, clip_middle, clip_question):
        short = cut(text, width)
        assert cell_len(short) <= width
        assert (short == text) == (cell_len(text) <= width)


def test_the_methods_of_runs_that_differ_in_them_are_named(tmp_path: Path) -> None:
    for name, fields in (("a", {}), ("b", {"no_thought": True}), ("c", {"name": "pause"})):
        config = tiny_config(**{f"method__{key}": v for key, v in ({"name": "coconut"} | fields).items()})
        written(tmp_path / name, scripted.training(700).events, config)
    shown = call("compare", "a", "b", "c", "--out", tmp_path).stdout
    assert " o b: method.name = coconut, method.no_thought = true\n" in shown
    assert " x c: method.name = pause, method.no_thought = false\n" in shown
    assert "method" not in call("compare", "a", "--out", tmp_path).stdout


def test_what_makes_thoughts_of_runs_differ_is_said_in_words(tmp_path: Path) -> None:
    runs: dict[str, dict[str, Any]] = {
        "two": {"thoughts_per_step": 2, "max_latent_stage": 2, "uniform_prob": 0.3},
        "ends": {"latent_end": "classifier"},
        "none": {"no_thought": True},
        "icot": {"name": "stepwise", "unit": "step"},
    }
    for name, fields in runs.items():
        config = tiny_config(**{f"method__{key}": v for key, v in ({"name": "coconut"} | fields).items()})
        written(tmp_path / name, scripted.training(700).events, config)
    shown = " ".join(call("compare", *runs, "--out", tmp_path).stdout.split())
    assert (
        "c = 2, thoughts for 2 steps at most, 30% of examples at a random stage, the stage ends the thoughts"
    ) in shown
    assert (
        "c = 1, thoughts for all steps, 0% of examples at a random stage, a classifier ends the thoughts"
    ) in shown
    assert shown.count("at a random stage") == 3 and shown.count("c = ") == 2


def test_runs_that_are_unlike_are_told_apart(tmp_path: Path) -> None:
    """The line where all CoT is gone says whose it is, also where no other run has come to its own."""
    runs = {
        "three": {"data__digits": 3},
        "steps": {"method__unit": "step"},
        "explicit": {"method__name": "explicit_cot"},
    }
    for name, fields in runs.items():
        begin = replace(scripted.finished().events[0], stages=2 if name == "steps" else 30)
        written(tmp_path / name, [begin, *scripted.finished().events[1:]], tiny_config(**fields))
    shown = call("compare", *runs, "--out", tmp_path).stdout
    assert "all gone: steps" in shown and "all CoT removed" not in shown
    legend = (
        " * three: removes tokens, data.digits = 3, method.name = stepwise\n"
        " o steps: removes steps, data.digits = 2, method.name = stepwise\n"
        " x explicit: data.digits = 2, method.name = explicit_cot\n"
    )
    assert legend in shown


def test_each_of_many_configurations_has_a_look_of_its_own(tmp_path: Path) -> None:
    names = [f"rate-{number}" for number in range(1, 9)]
    for number, name in enumerate(names):
        written(tmp_path / name, scripted.training().events, tiny_config(optim__lr=0.001 * (number + 1)))
    shown = call("compare", *names, "--out", tmp_path).stdout
    rows = shown.split("\n\n")[1].splitlines()[1:]
    assert [row[:3].strip() for row in rows] == list("*ox#@%&$")
    assert not Screen().braille(len(COLOURS) + 1)
    assert len({(colour, str(dashes)) for colour, dashes in picture.LOOKS}) == len(picture.LOOKS) == 24
    assert {dashes for _, dashes in picture.LOOKS[:4]} == set(picture.DASHES)


def test_one_configuration_has_a_colour_for_each_seed(out: Path) -> None:
    shown = call("compare", "mult-one", "mult-two", "--out", out)
    assert " * seed 0\n o seed 1\n" in shown.stdout


def test_a_comparison_is_one_json_document(out: Path) -> None:
    groups = json.loads(call("compare", "mult-two", "--out", out, "--json").stdout)
    [curve] = groups[0]["curves"]
    assert curve["name"] == "mult-two" and curve["all_gone"] == 9
    assert set(curve["live"][0]) == {"step", "scheduled", "x", "accuracy", "n"}
    assert len(curve["abandoned"]) == 1


def test_a_comparison_needs_no_torch_and_no_matplotlib(out: Path) -> None:
    loaded = loaded_by(command("compare", "mult-one", "--out", str(out)))
    assert not {"torch", "transformers", "matplotlib"} & loaded


def test_pictures_are_written(out: Path) -> None:
    png, svg = out / "curves.PNG", out / "curves.svg"
    for file in (png, svg):
        shown = call("compare", "mult-one", "mult-two", "slow", "--out", out, "--save", file)
        assert shown.exit_code == 0, shown.output
    assert png.read_bytes().startswith(b"\x89PNG\r\n")
    texts = [t.text for t in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"scheduled removals", "validation accuracy", "all CoT removed", "mult (2 runs)", "slow"} <= set(
        texts
    )
    first = svg.read_bytes()
    call("compare", "mult-one", "mult-two", "slow", "--out", out, "--save", svg)
    assert svg.read_bytes() == first


@pytest.mark.parametrize("arguments", [("compare", "slow"), ("frontier", "slow")])
def test_a_picture_that_cannot_be_is_refused_before_the_work(arguments: tuple[str, ...], out: Path) -> None:
    refused(call(*arguments, "--out", out, "--save", out / "a.pdf"), "a.pdf", ".png or .svg")
    refused(call(*arguments, "--out", out, "--save", out / "no" / "a.png"), "there is no folder")


def test_without_matplotlib_it_says_what_to_install(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    gone = {"matplotlib"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else found(name))
    refused(call("compare", "slow", "--out", out, "--save", out / "a.png"), "stepwise-tui[figures]")
    assert call("compare", "slow", "--out", out).exit_code == 0


def test_runs_that_are_not_there_are_refused(out: Path) -> None:
    refused(call("compare", "slow", "fast", "--out", out), "'fast'", "slow")
    refused(call("frontier", "fast", "--out", out), "'fast'")


def test_what_is_no_run_of_a_sweep_is_refused_where_there_is_nothing_else(out: Path) -> None:
    (out / "sweep.toml").touch()
    assert call("compare", out / "sweep.toml", out / "slow", "--out", out).exit_code == 0
    refused(call("compare", out / "sweep.toml", "--out", out), "is not a run but a file")


def test_a_run_just_begun_is_drawn_as_nothing_yet(tmp_path: Path) -> None:
    written(tmp_path / "new", scripted.Script().start().events)
    shown = call("compare", "new", "--out", tmp_path)
    assert shown.exit_code == 0 and "not evaluated yet" in shown.stdout
    assert call("compare", "new", "--out", tmp_path, "--save", tmp_path / "a.png").exit_code == 0
    measured = call("frontier", "new", "--out", tmp_path)
    assert measured.exit_code == 1 and "no checkpoint of a trained stage" in " ".join(measured.stderr.split())


@pytest.mark.parametrize("forbidden", [False, True])
def test_colours_are_for_terminals_that_want_them(
    forbidden: bool, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if forbidden:
        monkeypatch.setenv("NO_COLOR", "1")
    arguments = ("compare", "mult-one", "mult-two", "--out", str(out))
    terminal = Terminal(*arguments, cwd=Path.cwd(), columns=100, rows=40)
    try:
        assert terminal.leave() == 0
    finally:
        terminal.close()
    assert (b"\x1b[36m" in terminal.raw) is not forbidden
    assert any("\u2800" < sign <= "\u28ff" for sign in terminal.text) is not forbidden
    assert "seed 1" in terminal.text


def test_the_explanation_of_a_preset_fits_a_terminal() -> None:
    terminal = Terminal("presets", "mult2x2", cwd=Path.cwd(), columns=80, rows=400)
    try:
        assert terminal.leave() == 0
    finally:
        terminal.close()
    lines = [line.rstrip() for line in terminal.screen.display]
    at = next(i for i, line in enumerate(lines) if line.startswith("#   method.smoothing"))
    assert lines[at].startswith("#   method.smoothing = ") and lines[at + 1].startswith("#" + " " * 43)
    first, last = (
        next(i for i, line in enumerate(lines) if line.startswith(start))
        for start in ("# All values", "# One")
    )
    assert all(line.startswith("#") for line in lines[first:last])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run that removed three tokens."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run = Run(tiny_config(stop__steps=25, data__test=8, save__keep=9), folder)
    run.start()
    assert run.wait(60)
    run.close()
    return folder


def test_the_stages_of_a_run_are_measured_drawn_and_kept(trained: Path, tmp_path: Path) -> None:
    picture = tmp_path / "frontier.svg"
    shown = call("frontier", "tiny", "--out", trained.parent, "--limit", "3", "--save", picture)
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "saved on entering a stage is measured as the stage before it" in shown.stdout
    head, *rows = [line.split() for line in shown.stdout.split("\n\n")[-1].splitlines()]
    assert head[:2] == ["removed", "spoken"]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert {row[3] for row in rows} == {"3"}
    texts = [t.text for t in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert {"test accuracy", "speed, relative to no CoT (batch 1)", "0", "3"} <= set(texts)

    points = json.loads(call("frontier", trained, "--json").stdout)
    assert [p["removed"] for p in points] == [0, 1, 2, 3]
    assert {p["n"] for p in points} == {8}
    assert not all(p["dominated"] for p in points)
    tables = json.loads(call("paper", "--out", trained.parent, "--json").stdout)
    [row] = [row for row in tables["table_2"] if row["ours"]]
    assert row["method"] == "ICoT-SI, 3 removed" and row["accuracy"] is None
    assert row["ours"][0]["speed"] == points[-1]["speed"]


def test_a_frontier_has_numbers_enough_to_read_its_speeds_by(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had one where the name of the axis took the room of the others."""
    monkeypatch.setenv("COLUMNS", "80")
    points = [Point("b1-final", 1, 1, 1, 0.0, 1.0, 12, speed) for speed in (0.38, 0.34, 0.3, 0.87)]
    frontier.show(points, "step", Screen())
    [axis] = [line for line in capsys.readouterr().out.splitlines() if "speed, no CoT" in line]
    assert axis.split("speed")[0].split() == ["0.3", "0.4", "0.5", "0.6", "0.7"]


def test_the_tables_are_printed(trained: Path) -> None:
    shown = call("paper", "--out", trained.parent)
    assert shown.exit_code == 0, shown.output
    for part in ("Table 1", "Table 2", "Table 3", "GPT-2 Small, ICoT-SI", "tiny, 20", "arXiv 2405.14838"):
        assert part in shown.stdout


LEFT, RIGHT = MethodConfig(), MethodConfig(side="right")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (LEFT, [0, 2, 4, 6, 8, 10]),
        (MethodConfig(stop_at=3), [0, 1, 2, 3]),
        (MethodConfig(start_from=8), [8, 9, 10]),
        (MethodConfig(remove_all_beyond=4), [0, 1, 2, 3, 10]),
        (MethodConfig(remove_all_beyond=39), [0, 2, 4, 6, 8, 10]),
        (MethodConfig(name="explicit_cot"), [0]),
        (MethodConfig(name="no_cot"), [10]),
    ],
)
def test_the_stages_of_an_example_are_those_of_the_method(method: MethodConfig, expected: list[int]) -> None:
    cot = tuple("abcdefghij")
    shown = stages.stages(cot, method)
    assert [stage.removed for stage in shown] == expected
    for stage in shown:
        assert stage.kept == cot[stage.removed :]


def test_the_right_side_loses_its_end() -> None:
    assert stages.stages(tuple("abc"), RIGHT)[1].kept == ("a", "b")


def test_the_example_of_a_task_has_the_tokens_the_data_have() -> None:
    shown = example(presets.resolve("mult4x4"))
    assert shown is not None
    assert len(shown.cot) == 47 and shown.question == "4 3 2 1 * 8 7 6 5"
    assert example(presets.resolve("gsm8k-phi3")) == stages.ROBE


def test_offsets_are_those_of_the_paper() -> None:
    shown = stages.offsets(4.0)
    assert [row.offset for row in shown] == [0, 1]
    assert round(shown[0].probability, 2) == 0.98
    assert stages.offsets(float("inf")) == [(0, 1.0)]


@pytest.mark.parametrize("name", presets.names())
@pytest.mark.parametrize("sheet", [glyphs.UNICODE, glyphs.ASCII])
def test_every_preset_is_shown_with_comments_alone(name: str, sheet: glyphs.Glyphs) -> None:
    config = presets.resolve(name)
    text = rendered.text(config, example(config), 80, sheet)
    assert tomllib.loads(text) == {}
    assert max(map(len, text.splitlines())) <= 80
    assert "stage by stage" in text and (config.method.name != "stepwise" or "smoothing" in text)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "stepwise", "unit": "step"}, ["abc", "·bc", "··c", "···"]),
        ({"name": "coconut"}, ["abc", "·bc", "··c", "···"]),
        ({"name": "coconut", "thoughts_per_step": 2, "max_latent_stage": 1}, ["abc", "··bc", "··"]),
        ({"name": "pause", "max_latent_stage": 4}, ["abc", "·bc", "··c", "···", "····"]),
        ({"name": "coconut", "max_latent_stage": 4, "latent_end": "classifier"},
         ["abc", "·bc", "··c", "···", "···"]),
        ({"name": "pause", "curriculum": False, "max_latent_stage": 2}, ["··"]),
        ({"name": "coconut", "no_thought": True}, ["abc", "bc", "c", ""]),
    ],
)  # fmt: skip
def test_steps_make_room_for_thoughts(fields: dict[str, Any], expected: list[str]) -> None:
    shown = stages.stages(tuple("abc"), MethodConfig(**fields))
    assert ["·" * stage.put + "".join(stage.kept) for stage in shown] == expected


def test_dots_stand_where_tokens_were(tmp_path: Path) -> None:
    config = presets.resolve("mult2x2")
    lines = rendered.text(config, example(config), 80, glyphs.UNICODE).splitlines()
    rows = {line[3:12].strip(): line[12:] for line in lines}
    assert rows["question"] == "2 1 * 4 3" and rows["answer"] == "8 0 4 0"
    assert rows["4"] == "···· 0 6 3 0" and rows["9"] == "·········"


def test_a_long_cot_is_drawn_to_scale() -> None:
    long = Example("q", (" x",) * 600, "a")
    lines = rendered.text(presets.resolve("mult2x2"), long, 72, glyphs.UNICODE).splitlines()
    rows = {line[3:12].strip(): line[12:] for line in lines}
    assert [rows[str(removed)].count("·") for removed in (0, 120, 600)] == [0, 12, 60]
    assert rows["120"].endswith("…") and len(rows["120"]) == 60


def test_the_figures_of_a_preset_are_comments_of_a_configuration() -> None:
    text = call("presets", "mult2x2").stdout
    assert "stage by stage" in text and "·········" in text
    assert tomllib.loads(text) == tomllib.loads(presets.source("mult2x2"))
