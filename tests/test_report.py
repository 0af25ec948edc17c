"""A run as a page: what it tells, that it stands by itself, and that no text of a run becomes part of it."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from stepwise_tui.render import report
from tests import scripted
from tests.driven import FOREVER, Driven
from tests.scripted import SCRIPTED, Script
from tests.test_compare import written
from tests.test_figures_cli import call, refused
from tests.test_imports import command, loaded_by
from trainer.analysis import recovery
from trainer.config import MethodConfig
from trainer.events import AlarmCleared, AlarmRaised, At, ChatAnswered, Evaluated, RunStarted

VOID = {"meta", "br", "hr", "img", "link", "input"}
PICTURES = {"accuracy.png", "loss.png", "gradient.png"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, their attributes, and the text of each section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.sections: dict[str, str] = {"": ""}
        self._section = ""
        self.feed(text)
        self.close()
        assert self.open == [], "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag == "section":
            self._section = "?"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self._section = data
        if "style" not in self.open:
            self.sections[self._section] = " ".join(f"{self.sections.get(self._section, '')} {data}".split())


def page_of(run: Path, *arguments: str | Path) -> Page:
    made = call("report", run, *arguments)
    assert made.exit_code == 0, made.output
    return Page(Path(made.stdout.splitlines()[0]).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("changes", "stages", "expected"),
    [
        ({"name": "stepwise", "unit": "step"}, 1, "step by step, from 0 examples in one stage."),
        ({"name": "explicit_cot"}, 0, "writing its whole chain of thought, from 0 examples."),
        ({"name": "coconut"}, 2, "continuous thoughts in the place of reasoning steps, from 0 examples in 2"),
        ({"name": "pause"}, 2, "pause tokens in the place of"),
        ({"name": "coconut", "no_thought": True}, 2, "nothing in the place of"),
    ],
)  # fmt: skip
def test_it_says_what_each_method_does(changes: dict[str, object], stages: int, expected: str) -> None:
    method = MethodConfig.model_validate(changes)
    assert expected in report._trained(RunStarted(at=At(), name="one", stages=stages), method)


def test_a_run_that_was_steered_is_told_while_it_goes_on(driven: Callable[..., Driven]) -> None:
    one = driven(**FOREVER, title="seven", log__every=2, eval__every=4, watch__skipped=6)
    one.until(Evaluated)
    one.do("ask 12*34")
    one.until(ChatAnswered)
    one.do("set optim.lr 1e-3")
    one.do("pause")
    loop = one.run.loop
    assert loop is not None
    with torch.no_grad():
        next(loop.rank.model.parameters()).fill_(float("nan"))
    one.do("resume")
    alarm = one.until(AlarmRaised)
    assert one.do(f"rollback {alarm.target}").ok
    one.until(AlarmCleared)
    one.do("run 8")
    one.until(Evaluated, lambda e: e.at.branch == 2)
    journal = (one.run.folder / "journal.jsonl").read_bytes()

    page = page_of(one.run.folder)
    told = page.sections
    assert set(told) - {""} == {
        "Curves", "Stages", "Branches and roll backs", "Alarms", "Operator's commands", "Examples", "Chat",
        "Configuration", "Environment",
    }  # fmt: skip
    assert "seven" in told[""] and "while the run went on" in told[""]
    assert page.elements.count("svg") == 3 and "abandoned by a roll back" in told["Curves"]
    assert "b1-" in told["Branches and roll backs"] and "live" in told["Branches and roll backs"]
    assert alarm.message in told["Alarms"] and "alarm over" in told["Alarms"]
    assert "rollback" in told["Operator's commands"] and "ask" not in told["Operator's commands"]
    assert "12*34" in told["Chat"] and "current weights" in told["Chat"]
    assert "verdict" in told["Examples"]
    differing, _, everything = told["Configuration"].partition("All ")
    assert "optim.lr 0.001" in differing and "was 0.002 at the start" in differing
    assert "save.every_stage" in everything and "save.every_stage" not in differing
    assert "cpu" in told["Environment"] and "torch" in told["Environment"]
    assert (one.run.folder / "journal.jsonl").read_bytes().startswith(journal)
    assert {p.name for p in (one.run.folder / "report").iterdir()} == PICTURES | {"index.html"}


def test_a_page_stands_by_itself(tmp_path: Path) -> None:
    page = page_of(written(tmp_path / "one", scripted.finished().events))
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.elements)
    for name, value in page.attributes:
        assert not name.startswith("on") and name != "src", (name, value)
        assert "href" not in name or value.startswith("#"), value  # within the page
    assert len(page.ids) == len(set(page.ids))
    targets = {value[1:] for name, value in page.attributes if "href" in name}
    targets |= set(re.findall(r"url\(#([^)]+)\)", " ".join(value for _, value in page.attributes)))
    assert targets <= set(page.ids)
    text = (tmp_path / "one" / "report" / "index.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text and "currentColor" in text
    assert ".994 test" in page.sections[""] and "500 examples" in page.sections[""]


HOSTILE = '</td><script>alert(1)</script><img src=x onerror="alert(1)">&amp;"\'\x1b[2J\u202e$x^'


def hostile() -> Script:
    """A run in which whoever could wrote markup."""
    script = scripted.saved()
    script.chat()
    script.command(f"set title {HOSTILE}", HOSTILE, ok=False)
    script.crash()
    return script


def test_no_text_of_a_run_becomes_part_of_the_page(tmp_path: Path) -> None:
    config = SCRIPTED.model_copy(update={"title": HOSTILE})
    clean = page_of(written(tmp_path / "clean", hostile().events))
    folder = written(tmp_path / "bad", hostile().events, config)
    journal = folder / "journal.jsonl"
    lines = journal.read_text(encoding="utf-8")
    told = json.dumps(HOSTILE)[1:-1]
    for text in (
        "12 × 34",
        "8352",
        "408",
        "how are you?",
        "brisk-otter",
        "multiplication",
        "cpu",
        "b1-001000",
    ):
        for form in (text, json.dumps(text)[1:-1]):
            lines = lines.replace(f'"{form}"', f'"{told}"')
    journal.write_text(lines, encoding="utf-8")

    bad = page_of(folder)
    assert bad.elements == clean.elements
    assert [name for name, _ in bad.attributes] == [name for name, _ in clean.attributes]
    for section in ("", "Examples", "Chat", "Branches and roll backs", "Operator's commands", "Environment"):
        assert "<script>alert(1)</script>" in bad.sections[section], section
    assert "\x1b" not in "".join(bad.sections.values()) and "\u202e" not in "".join(bad.sections.values())


def test_a_crashed_run_says_why(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", scripted.training().crash().events)
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"seq":9999,"event":"metr')  # its disk was full
    page = page_of(folder)
    assert "one: crashed" in page.sections[""] and "the device ran out of memory" in page.sections[""]
    assert "test not measured" in page.sections[""]


def test_a_run_without_any_evaluation_is_told(tmp_path: Path) -> None:
    page = page_of(written(tmp_path / "one", Script().start().events))
    assert "– accuracy now not evaluated yet" in page.sections[""]
    assert "not evaluated yet" in page.sections["Curves"] and "no loss yet" in page.sections["Curves"]
    assert "svg" not in page.elements
    assert "Nobody asked it anything" in page.sections["Chat"]


def test_the_page_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    run = written(tmp_path / "one", scripted.training(500).events)
    made = call("report", run, "--out", tmp_path / "a" / "b", "--json")
    paths = [Path(path) for path in json.loads(made.stdout)]
    assert paths[0] == tmp_path / "a" / "b" / "index.html"
    assert {path.name for path in paths[1:]} == PICTURES
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in paths[1:])
    assert not (run / "report").exists()
    refused(call("report", run, "--out", run / "config.toml"), "is a file", "a folder is wanted")
    refused(call("report", run, "--out", run.parent), "runs live there")
    refused(call("report", tmp_path / "nothing"), "there is no run")


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = written(tmp_path / "one", scripted.training(100).events)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name)
    )
    refused(call("report", run), "stepwise-tui[figures]")
    assert not (run / "report").exists()


def test_a_page_needs_no_torch(tmp_path: Path) -> None:
    run = written(tmp_path / "one", scripted.training(100).events)
    assert not {"torch", "transformers"} & loaded_by(command("report", str(run)))


def test_stages_tell_the_dip_and_the_way_back() -> None:
    """The live line alone: what the roll back left does not count, and its stage goes on."""
    events = scripted.saved().events
    rows = recovery.entries(events)
    assert [row.stage for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert [row.step for row in rows] == [0, *range(600, 1_601, 200)]
    for row in rows:
        own = [
            e for e in recovery.live_only(events) if isinstance(e, Evaluated) and e.at.scheduled == row.stage
        ]
        assert row.lowest == min(e.accuracy for e in own) and row.last == own[-1].accuracy
        if row.before is not None:
            back = (e.at.step - row.step for e in own if e.accuracy >= recovery.BACK * row.before)
            assert row.recovered == next(back, None)
    assert rows[0].recovered is None and rows[1].recovered is not None and rows[-1].recovered is None


def test_a_stage_that_never_comes_back_is_measured_by_what_was_before_it() -> None:
    rows = recovery.entries(scripted.lost().events)
    assert [row.recovered is None for row in rows] == [True, False, False, False, True, True]
    assert rows[-1].before == rows[-2].before == rows[-3].last
