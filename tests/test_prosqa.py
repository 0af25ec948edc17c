"""ProsQA: what is made has the published statistics, and what is told of a graph is so."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small_pretrained import SHARED
from trainer import graph
from trainer.config import ConfigError, build
from trainer.data import NotUnderstood, Task, files, load_task, prosqa
from trainer.data.files import DataError
from trainer.data.layout import Line
from trainer.graph import Graph

PUBLISHED = SHARED / "prosqa" / "valid.json"


@cache
def made(nodes: int = 28, n: int = 1_500, seed: int = 0) -> list[tuple[Line, Graph]]:
    return [(line, graph.read(line.question)) for line in itertools.islice(prosqa.lines(nodes, 38, seed), n)]


def task(**data: object) -> Task:
    sizes = {"task": "prosqa", "nodes": 12, "train": 300, "valid": 40, "test": 50}
    return load_task(build({"data": sizes | data, "model": {"init": "scratch", "vocab": "task"}}))


SIZES = {"train": 300, "valid": 40, "test": 50}


def statistics(graphs: list[Graph], steps: list[int]) -> dict[str, float]:
    n = len(graphs)
    found = {
        "nodes": sum(len(g.names) for g in graphs) / n,
        "edges": sum(len(g.edges) for g in graphs) / n,
        "parentless": sum(not above for g in graphs for above in g.parents) / n,
        "leaves": sum(not below for g in graphs for below in g.children) / n,
        "out of the root": sum(len(g.children[g.root]) for g in graphs) / n,
        "into the target": sum(len(g.parents[g.target or 0]) for g in graphs) / n,
        "reached": sum(len(g.depth) for g in graphs) / sum(len(g.names) for g in graphs),
        "right one first": sum(g.asked[0] == g.target for g in graphs) / n,
    }
    counted = Counter(steps)
    return found | {f"{length} steps": counted[length] / n for length in (3, 4, 5, 6)}


TOLERANCE = {
    "nodes": 0.25, "edges": 0.7, "parentless": 0.12, "leaves": 0.25, "out of the root": 0.2,
    "into the target": 0.12, "reached": 0.02, "right one first": 0.06,
    "3 steps": 0.06, "4 steps": 0.06, "5 steps": 0.04, "6 steps": 0.02,
}  # fmt: skip
"""Three standard errors of 300 published examples and 1,500 of ours, or a little more."""


def test_what_is_made_has_the_statistics_of_the_published_files() -> None:
    found = statistics([g for _, g in made()], [line.cot.count(".") for line, _ in made()])
    reported = {"nodes": 22.8, "edges": 36.0, "parentless": 2.56, "right one first": 0.5}
    reported |= {"3 steps": 0.41, "4 steps": 0.44, "5 steps": 0.13, "6 steps": 0.02}
    for name, value in reported.items():
        assert found[name] == pytest.approx(value, abs=TOLERANCE[name]), name
    assert sum(found[f"{length} steps"] for length in (3, 4, 5, 6)) == pytest.approx(1)
    assert max(known.depth[known.target or 0] for _, known in made(nodes=40)) > prosqa.LONGEST


def test_labels_are_as_in_the_published_files() -> None:
    """.034, .39, .516 and .06 of the nodes that are left."""
    import torch

    is_parent_BNN, labels_BN = prosqa.grow(28, 2_000, torch.Generator().manual_seed(0))
    kept_BN = is_parent_BNN.any(1) | is_parent_BNN.any(2)
    shares = [float((labels_BN[kept_BN] == label).float().mean()) for label in range(4)]
    assert shares == pytest.approx([0.034, 0.39, 0.516, 0.06], abs=0.02)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is not here")
def test_what_is_made_is_like_the_published_file_in_all_that_can_be_counted() -> None:
    published = json.loads(PUBLISHED.read_text())
    graphs = [graph.read(one["question"]) for one in published]
    theirs = statistics(graphs, [len(one["steps"]) for one in published])
    ours = statistics([g for _, g in made()], [line.cot.count(".") for line, _ in made()])
    for name, tolerance in TOLERANCE.items():
        assert ours[name] == pytest.approx(theirs[name], abs=tolerance), name


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is not here")
def test_a_published_graph_is_read_from_its_question() -> None:
    for one in json.loads(PUBLISHED.read_text()):
        known = graph.read(one["question"])
        names = one["idx_to_symbol"]
        told = {(names[node], names[child]) for node, child in one["edges"]}
        assert {(known.names[a], known.names[b]) for a, b in known.edges} == told
        assert known.target is not None
        assert (known.names[known.root], known.names[known.target]) == (
            names[one["root"]],
            names[one["target"]],
        )
        assert known.answer(known.target) == one["answer"]
        assert len(known.steps(known.target)) == len(one["steps"])  # there may be two shortest ways


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is not here")
def test_the_published_file_trains_as_it_is() -> None:
    file = str(PUBLISHED)
    read = task(train_file=file, valid_file=file, test_file=file)
    splits = read.splits({"train": 100, "valid": 40, "test": 50}, 0, read.tokenizer())
    assert [len(splits[name]) for name in ("train", "valid", "test")] == [100, 40, 50]
    contents = files.read(PUBLISHED)
    assert read.example_text(splits["valid"], 3, read.tokenizer()).question == contents.lines[3].question
    assert [source.split for source in read.sources] == ["train", "valid", "test"]


def test_a_file_of_more_nouns_than_the_vocabulary_has_names_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "published.json"
    objects = [
        {"question": line.question, "steps": line.cot.split("\n"), "answer": line.answer}
        for line, _ in made(n=20)
    ]
    file.write_text(json.dumps(objects))
    small = task(nouns=10, train_file=str(file))
    with pytest.raises(DataError, match=r"is not in the vocabulary.*--set data\.nouns=38"):
        small.splits({"train": 10, "valid": 4, "test": 4}, 0, small.tokenizer())
    whole = task(train_file=str(file))
    assert len(whole.splits({"train": 10, "valid": 4, "test": 4}, 0, whole.tokenizer())["train"]) == 10
    objects[0]["question"] = f"Nobody {objects[0]['question']}"
    file.write_text(json.dumps(objects))
    other = task(train_file=str(file))
    with pytest.raises(ValueError, match="'Nobody'") as caught:
        other.splits({"train": 20, "valid": 0, "test": 0}, 0, other.tokenizer())
    assert "data.nouns" not in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 40), st.integers(0, 2**31 - 1))
def test_an_example_is_true_of_its_graph(nodes: int, seed: int) -> None:
    for line in itertools.islice(prosqa.lines(nodes, 38, seed), 3):
        known = graph.read(line.question)
        asked, told = set(known.asked), line.question
        target = known.target
        assert target is not None, "one of the two is reached and the other is not"
        assert line.answer == f"{known.names[known.root]} is a {known.names[target]}."
        steps = [f"{step.strip()}." for step in line.cot.split(".") if step.strip()]
        assert len(steps) == known.depth[target] >= prosqa.SHORTEST
        assert all(step in told for step in steps)
        assert steps[0].startswith(known.names[known.root]) and steps[-1].endswith(f" {known.names[target]}.")
        ends = [(step.split()[-4], step.split()[-1].removesuffix(".")) for step in steps]
        assert all(before[1] == after[0] for before, after in itertools.pairwise(ends)), (
            "each begins at the last"
        )
        assert all(not known.children[node] for node in asked)
        assert len(set(known.names)) == len(known.names)
        assert all((not known.parents[n]) == name[0].isupper() for n, name in enumerate(known.names))


@settings(max_examples=50, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1))
def test_distances_are_the_shortest(edges: set[tuple[int, int]]) -> None:
    found = graph.distances(graph.adjacent(9, sorted(edges)), [0])
    by_length = {0: 0}
    for length in range(1, 9):
        reached = {b for a, b in edges if by_length.get(a) == length - 1}
        by_length |= {node: length for node in reached if node not in by_length}
    assert found == by_length


def test_depth_height_and_the_way() -> None:
    known = graph.read(
        "Tom is a bompus. Every bompus is a dumpus. Every dumpus is a felpus. Every bompus is a gerpus. "
        "Every gerpus is a dumpus. Max is a hilpus. Is Tom a hilpus or felpus?"
    )
    by_name = {name: node for node, name in enumerate(known.names)}
    assert known.target == by_name["felpus"]
    assert {known.names[n]: d for n, d in known.depth.items()} == {
        "Tom": 0, "bompus": 1, "dumpus": 2, "gerpus": 2, "felpus": 3,
    }  # fmt: skip
    assert known.height[by_name["Tom"]] == 3 and known.height[by_name["gerpus"]] == 2
    assert known.height[by_name["felpus"]] == 0 == known.height[by_name["hilpus"]]
    assert known.steps(known.target) == [
        "Tom is a bompus.", "Every bompus is a dumpus.", "Every dumpus is a felpus."
    ]  # fmt: skip


def test_splits_are_disjoint_and_a_function_of_the_seed() -> None:
    tokenizer = task().tokenizer()
    texts = {}
    for seed in (0, 0, 1):
        one = task()
        splits = one.splits(SIZES, seed, tokenizer)
        found = [
            one.example_text(splits[name], i, tokenizer).question
            for name in SIZES
            for i in range(SIZES[name])
        ]
        assert len(set(found)) == sum(SIZES.values())
        assert texts.setdefault(seed, found) == found
    assert not set(texts[0]) & set(texts[1])
    fewer = task().lines("test", {"valid": 40, "test": 50}, 0)
    assert [line.question for line in fewer] == texts[0][-50:]


def test_a_name_and_its_full_stop_are_two_tokens() -> None:
    tokenizer = task().tokenizer()
    ids = tokenizer(" Every bompus is a dumpus. Is Tom a hilpus or felpus?").input_ids
    assert len(ids) == 13
    assert tokenizer.decode(ids) == " Every bompus is a dumpus. Is Tom a hilpus or felpus?"


def test_a_question_is_asked_by_its_number_or_in_full() -> None:
    one = task()
    splits = one.splits(SIZES, 0, one.tokenizer())
    first = one.example_text(splits["valid"], 0, one.tokenizer())
    by_number = one.understand("1")
    assert (by_number.question, by_number.expected) == (first.question, first.answer)
    own = (
        "Tom is a bompus. Every bompus is a dumpus. Every dumpus is a felpus. Max is a hilpus. "
        "Is Tom a hilpus or felpus?"
    )
    assert one.understand(own).expected == "Tom is a felpus."
    with pytest.raises(NotUnderstood, match="a number, 1 to 40"):
        one.understand("41")
    with pytest.raises(NotUnderstood, match="nothing is said of Bob"):
        one.understand("Tom is a bompus. Is Bob a bompus or hilpus?")


def test_fields_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match=r"data.nodes = 7: whole number ≥ 8 ≤ 40"):
        task(nodes=7)
