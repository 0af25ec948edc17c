"""What thoughts hold: rows are right, probabilities are those of a naive pass, and all is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepwise_tui.glyphs import ASCII
from stepwise_tui.search import search_lines, tree_lines
from tests.test_cli import call
from tests.test_export import run_of
from tests.tiny import tiny_config
from trainer import config as configuration
from trainer import graph, runs
from trainer.analysis import measure_thoughts, thoughts
from trainer.analysis.measure_thoughts import ThoughtsError
from trainer.asking import inspection
from trainer.asking.frontiers import probabilities
from trainer.config import MethodConfig
from trainer.data import layout
from trainer.data import tokenizer as vocabulary
from trainer.events import At, Candidate, ChatAnswered
from trainer.host import Host
from trainer.methods.coconut import Coconut
from trainer.run import Run

KNOWN = graph.read(
    "Tom is a bompus. Tom is a dumpus. Every bompus is a felpus. Every bompus is a gerpus. "
    "Every felpus is a jompus. Every dumpus is a hilpus. Max is a kerpus. Is Tom a kerpus or jompus?"
)
TREE = thoughts.tree(
    "",
    KNOWN,
    [{"bompus": 0.7, "dumpus": 0.2}, {"felpus": 0.5, "gerpus": 0.3, "hilpus": 0.1}, {"jompus": 0.9}],
)


def test_a_frontier_is_what_so_many_steps_lead_to_and_the_likeliest_is_first() -> None:
    assert [[c.name for c in one.candidates] for one in TREE.frontiers] == [
        ["bompus", "dumpus"], ["felpus", "gerpus", "hilpus"], ["jompus"],
    ]  # fmt: skip
    first = TREE.frontiers[0].candidates
    assert [(c.depth, c.height, c.leads) for c in first] == [(1, 1, True), (1, 1, False)]
    assert [c.leads for c in TREE.frontiers[1].candidates] == [True, False, False]
    assert (TREE.root, TREE.target) == ("Tom", "jompus")


def test_probabilities_are_added_up_and_sorted_by_height() -> None:
    found = {(row.thoughts, row.top): row for row in thoughts.parallel([TREE, TREE])}
    assert found[1, 1].mean == pytest.approx(0.7) and found[2, 2].mean == pytest.approx(0.8)
    assert found[1, 1].n == 2 and not any(k == 3 for k, _ in found), "one candidate is no choice"
    heights = {(row.thoughts, row.height, row.leads): row for row in thoughts.at_heights([TREE])}
    assert heights[2, 0, False].n == 2 and heights[2, 0, False].mean == pytest.approx(0.2)
    assert heights[1, 1, True].mean == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("count", "spoken", "expected"),
    [
        (0, ["Tom is a bompus.", "Every bompus is a felpus.", "Every felpus is a jompus."], "correct path"),
        (1, ["Every bompus is a felpus.", "Every felpus is a jompus."], "correct path"),
        (1, ["Every bompus is a gerpus."], "wrong target"),
        (0, ["Tom is a bompus."], "unfinished"),
        (1, ["Every felpus is a jompus."], "hallucination"),
        (0, ["Tom is a felpus."], "hallucination"),
        (0, ["Tom is a bompus.", "Every felpus is a jompus."], "hallucination"),
        (0, ["nonsense"], "hallucination"),
        (3, [], "right answer"),
    ],
)
def test_what_is_spoken_is_judged(count: int, spoken: list[str], expected: str) -> None:
    assert thoughts.path(KNOWN, count, spoken, right=True) == expected


def test_what_the_question_calls_an_is_called_so() -> None:
    """Each true sentence was taken for made up."""
    told = "Tom is an impus. Every impus is an alpus. Every alpus is a bompus. Max is a kerpus. "
    told += "Is Tom a bompus or kerpus?"
    known = graph.read(told)
    ways = known.steps(known.asked[0])
    assert ways == ["Tom is an impus.", "Every impus is an alpus.", "Every alpus is a bompus."]
    assert thoughts.path(known, 0, ways, right=True) == "correct path"
    asked = graph.read("Tom is an impus. Max is a alpus. Is Tom an impus or alpus?")
    assert asked.answer(asked.root + 1) == "Tom is an impus." and asked.query().startswith("Is Tom an impus")
    assert asked.sentence(*asked.edges[1]) == "Max is a alpus.", "as the published data have it"


def test_a_node_that_no_leaf_is_below_is_not_called_a_leaf() -> None:
    known = graph.read(
        "Tom is a lempus. Every lempus is a dumpus. Every dumpus is a lempus. Is Tom a lempus or dumpus?"
    )
    tree = thoughts.tree("", known, [{"lempus": 0.5}])
    assert tree_lines(tree, ASCII)[-1].endswith("no leaf below") and thoughts.at_heights([tree]) == []


def test_a_way_that_is_no_shortest_one_is_a_longer_path() -> None:
    known = graph.read(
        "Tom is a bompus. Tom is a dumpus. Every bompus is a dumpus. Every dumpus is a felpus. "
        "Max is a kerpus. Is Tom a kerpus or felpus?"
    )
    long = ["Tom is a bompus.", "Every bompus is a dumpus.", "Every dumpus is a felpus."]
    assert thoughts.path(known, 0, long, right=True) == "longer path"


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_shares_and_trees_take_any_probabilities(values: Sequence[float]) -> None:
    tree = thoughts.tree("", KNOWN, [dict(zip(("bompus", "dumpus"), values, strict=False))])
    sums = [row.mean for row in thoughts.parallel([tree])]
    assert sums == sorted(sums)
    assert all(len(line) <= 80 and line.isascii() for line in tree_lines(tree, ASCII))


def test_the_chat_draws_the_search_of_a_graph_and_of_nothing_else() -> None:
    held = tuple(
        tuple(Candidate(one, 0.7 if one in ("bompus", "felpus", "jompus") else 0.0) for one in names)
        for names in KNOWN.frontiers(3)
    )
    question = " ".join([*(KNOWN.sentence(*edge) for edge in KNOWN.edges), KNOWN.query()])
    turn = ChatAnswered(at=At(), id="", asked="1", question=question, frontiers=held)
    lines = search_lines(turn, 1, ASCII)
    assert lines[0] == "Tom, asked for jompus" and sum("0.70" in line for line in lines) == 3
    narrow = search_lines(turn, 1, ASCII, 46)
    assert narrow[2].endswith("bompus  0.70  1 above a leaf, leads to jompus") and max(map(len, narrow)) < 50
    assert "hilpus" in lines[-3] and "0.00" in lines[-3], "a node that is not likely is there"
    twice = [line for line in search_lines(turn, 2, ASCII) if "after" in line]
    assert twice[:2] == ["after 2 thoughts", "after 4 thoughts"]
    assert search_lines(replace(turn, frontiers=()), 1, ASCII) == []


def begun(folder: Path, data: dict[str, Any], **method: Any) -> Path:
    """A few steps of Coconut, to the run's end."""
    document: dict[str, Any] = {
        "device": "cpu",
        "data": data,
        "model": {"init": "scratch", "vocab": "task", "layers": 1, "heads": 2, "width": 16, "dropout": 0.0},
        "method": {"name": "coconut", "max_latent_stage": 2} | method,
        "schedule": {"steps_per_token": 2},
        "optim": {"batch": 8, "lr": 1e-3},
        "stop": {"steps": 8},
    }
    one = Run(configuration.build(document), folder)
    one.start()
    one.wait()
    return folder


SMALL = {"task": "prosqa", "nodes": 8, "nouns": 8, "train": 64, "valid": 8, "test": 12}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On a small ProsQA."""
    return begun(tmp_path_factory.mktemp("thoughts") / "run", SMALL)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On graphs of one's own, in right English; of the test examples the second tells of none."""
    folder = tmp_path_factory.mktemp("own")
    graphs = [
        {
            "question": f"Tom is {an(a)}. Every {a} is {an(b)}. Max is {an(c)}. Is Tom {an(b)} or {c}?",
            "steps": [f"Tom is {an(a)}.", f"Every {a} is {an(b)}."],
            "answer": f"Tom is {an(b)}.",
        }
        for a, b, c in permutations(("bompus", "impus", "dumpus", "alpus"), 3)
    ]
    other = {"question": "Is Tom a bompus or dumpus?", "steps": ["Tom is a bompus."], "answer": "bompus"}
    test = [graphs[0], other, graphs[1]]
    (folder / "train.json").write_text(json.dumps([*graphs[2:], other]))
    (folder / "test.json").write_text(json.dumps(test))
    data = {name: str(folder / f"{name[:-5]}.json") for name in ("train_file", "test_file")}
    return begun(folder / "run", {"task": "text", "valid": 2, **data})


def an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def test_probabilities_are_those_of_a_naive_pass(run: Path) -> None:
    loaded = inspection.open_checkpoint(str(run), None, run.parent)
    parts = loaded.parts
    method, model, tokenizer = parts.method, parts.model, parts.tokenizer
    line = parts.task.example_text(parts.splits["test"], 0, tokenizer)
    known = graph.read(line.question)
    asked = layout.encode_question(line.question, tokenizer)
    named = known.frontiers(2)
    found = list(probabilities(method, model, tokenizer, asked, named))
    for count in (None, 1, 0):  # the chat has the same, as far as it thinks
        turn = inspection.ask(loaded, line.question, thoughts=count)
        assert (
            turn.understood
            and [
                {node.text: pytest.approx(node.probability, abs=1e-6) for node in nodes}
                for nodes in turn.frontiers
            ]
            == found[:count]
        )
    embed, vocab = model.get_input_embeddings(), tokenizer.get_vocab()
    for steps, names in enumerate(named, start=1):
        given_BTD = embed(torch.tensor([[*asked, vocab["<|start-latent|>"]]]))
        with torch.no_grad():
            for _ in range(steps):
                last = model.base_model(inputs_embeds=given_BTD).last_hidden_state[:, -1:]
                given_BTD = torch.cat([given_BTD, last], 1)
            after = [vocab["<|end-latent|>"], *vocabulary.encode(" Every", tokenizer)]
            given_BTD = torch.cat([given_BTD, embed(torch.tensor([after]))], 1)
            shares_V = model(inputs_embeds=given_BTD).logits[0, -1].softmax(-1)
        for name in names:
            assert found[steps - 1][name] == pytest.approx(float(shares_V[vocab[f" {name}"]]), abs=1e-6)


def test_the_command_shows_writes_and_draws_what_was_measured(run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "thoughts.png"
    shown = call("thoughts", str(run), "--example", "2", "--save", str(picture))
    assert "after 1 thought" in shown.stdout and "Made to speak" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert picture.read_bytes().startswith(b"\x89PNG")
    document = json.loads(call("thoughts", str(run), "--limit", "5", "--json").stdout)
    assert document["n"] == 5 and [one["thoughts"] for one in document["forced"]] == [0, 1, 2]
    assert sum(document["forced"][0]["paths"].values()) == pytest.approx(1)
    for frontier in document["trees"][0]["frontiers"]:
        assert 0 < sum(c["probability"] for c in frontier["candidates"]) <= 1.001


def test_an_evaluation_names_the_thoughts_among_its_tokens(run: Path) -> None:
    assert "of them CoT, 2.00 thoughts" in call("eval", run).stdout
    measured = json.loads(call("eval", run, "--checkpoint", "b1-s000000-stage0", "--json").stdout)
    assert measured["thoughts"] is None


def test_pauses_are_called_so_and_what_was_never_trained_is_told(run: Path, tmp_path: Path) -> None:
    assert "Never trained" not in call("thoughts", run).stdout
    last = {"name": "pause", "curriculum": False, "thoughts_per_step": 2}
    shown = call("thoughts", begun(tmp_path / "run", SMALL, **last)).stdout
    never = "Never trained to speak after so many pauses: 0 to 2, any that is no multiple of 2."
    assert shown.startswith(never) and "after 2 pauses" in shown and "thought" not in shown
    method = inspection.open_checkpoint(str(run), None, run.parent).parts.method
    assert isinstance(method, Coconut)
    assert [list(method.trained(stage)) for stage in (0, 1, 9)] == [[0], [0, 1], [0, 1, 2]]
    method.configure(MethodConfig(name="coconut", uniform_prob=0.3))
    assert list(method.trained(0)) == [0, 1, 2]


def test_an_exported_folder_has_the_thoughts_of_its_run(run: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    assert call("export", str(run), str(plain)).exit_code == 0
    ours, theirs = (json.loads(call("thoughts", str(one), "--json").stdout) for one in (run, plain))
    assert theirs.pop("checkpoint") == str(plain) and ours.pop("checkpoint") != str(plain)
    assert theirs == ours
    asked = call("chat", str(plain), text="7\nIs Tom a bompus or dumpus?\n").stdout.splitlines()
    assert "this model has none here" in asked[0] and asked[1].startswith("Is Tom a bompus")
    config = plain / "stepwise.toml"
    config.write_text(config.read_text().replace("[data]", '[data]\ntrain_file = "own.json"', 1))
    shown = call("thoughts", str(plain))
    assert shown.exit_code == 2 and "comes without its data, own.json" in shown.stderr


def test_more_thoughts_than_there_are_positions_for_are_refused_with_how_many_fit(run: Path) -> None:
    """It thought as often as it could, and wrote an empty answer without a word."""
    loaded = inspection.open_checkpoint(str(run), None, run.parent)
    turn = inspection.ask(loaded, "1", thoughts=900)
    assert not turn.understood and "900 thoughts do not fit" in turn.note
    most = int(turn.note.split()[-1])
    fits = inspection.ask(loaded, "1", thoughts=most)
    assert fits.understood and len(fits.thoughts) == most
    assert not inspection.ask(loaded, "1", thoughts=most + 1).understood


def test_a_chat_in_the_shell_changes_the_number_of_thoughts_as_the_cockpit_does(run: Path) -> None:
    asked = call(
        "chat", str(run), text="/thoughts 900\n1\n/thoughts x\n/thoughts\n1\n/thoughts 1\n1\n/help\n"
    )
    refused, answered, *below = asked.stdout.splitlines()
    assert "900 thoughts do not fit" in refused and "→" in answered
    chosen = next(
        line for line in below if not line.startswith("  ")
    )  # what stands below an answer is set in
    assert "→" in chosen and "after 1 thought ·" in chosen and "after" not in answered
    for told in ("after 900 thoughts from now on", "as many thoughts as the stage has", "/thoughts 3"):
        assert told in asked.stderr
    assert below[0].startswith("   1 ") and any("after 1 thought" in line for line in below)
    assert "'x' thoughts: a whole number" in asked.stderr


def test_the_thoughts_of_a_run_that_trains_are_told_to_who_sends_a_question(
    run: Path, tmp_path: Path, short: Path
) -> None:
    config = configuration.build(configuration.load(run / runs.CONFIG_FILE))
    one = Run(config, tmp_path / "run", paused=True)
    one.start()
    with Host(one):
        told = call("send", one.folder, "ask", "--thoughts", "1", "1").stdout.splitlines()
        paused = call("send", one.folder, "pause").stdout.splitlines()
    one.close()
    assert "(at step 0)" in told[0] and told[1].startswith("   1 ") and "  after 1 thought" in told
    assert not any("after 2 thoughts" in line for line in told) and len(paused) == 1


def test_what_has_no_thoughts_is_refused(run: Path) -> None:
    loaded = inspection.open_checkpoint(str(run), None, run.parent)
    with pytest.raises(ThoughtsError, match=r"--example 13: the test examples are 1 to 12$"):
        measure_thoughts.measure(loaded, None, [13])
    with pytest.raises(ThoughtsError, match=r"--example 6: it is not of the first 5 \(--limit\)"):
        measure_thoughts.measure(loaded, 5, [6])


def test_questions_without_a_graph_are_told_and_the_search_is_over_the_others(
    own: Path, tmp_path: Path
) -> None:
    shown = call("thoughts", own).stdout
    assert "Questions that tell of no graph: 1 of 3; search and ways are those of the other 2." in shown
    assert "after 1 thought" in shown and "Probability of a node by its height" in shown
    found = json.loads(call("thoughts", own, "--example", "3", "--json").stdout)
    assert (found["n"], found["graphs"]) == (3, 2) and found["forced"][0]["n"] == 3
    assert sum(found["forced"][0]["paths"].values()) == pytest.approx(1)
    refused = call("thoughts", own, "--example", "2")
    assert refused.exit_code == 2 and "--example 2: its question tells of no graph" in refused.stderr
    none = begun(tmp_path / "run", {"digits": 2, "train": 40, "valid": 2, "test": 4}, unit="step")
    picture = tmp_path / "none.png"
    shown = call("thoughts", none, "--save", picture)
    assert "No question of 4 tells of a graph" in shown.stdout and "Made to speak" in shown.stdout


def test_a_model_without_thoughts_says_why(tmp_path: Path) -> None:
    taught = {"method__name": "coconut", "method__no_thought": True}
    folder = str(run_of(tmp_path / "run", tiny_config(**taught), 2))
    shown = " ".join(call("thoughts", folder).stderr.split())
    assert "has no thoughts: it was trained with method.no_thought = true" in shown
    shown = " ".join(call("chat", folder, "--thoughts", "3").stderr.split())
    assert "no thoughts to be counted; it was trained with method.no_thought = true" in shown
    shown = call("chat", folder, text="/thoughts\n/help\n").stderr
    assert "no thoughts to be counted" in " ".join(shown.split()) and "/thoughts 3" not in shown
