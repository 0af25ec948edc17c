"""ProntoQA: what is made has the statistics of the official generator, and the conclusion follows."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import ConfigError, build
from trainer.data import load_task, prontoqa
from trainer.data.layout import Line

N = 1_000
LINES = list(itertools.islice(prontoqa.lines(5, 0), N))
SENTENCE = re.compile(r"[^.]+\.")
RULE = re.compile(r"(?:(?:Every|Each) (\w+) is|(\w+) are) (not )?(?:an? )?(\w+)\.")


def sentences(line: Line) -> list[str]:
    """Those before the query."""
    return [sentence.strip() for sentence in SENTENCE.findall(line.question.split("True or false:")[0])]


def singular(noun: str) -> str:
    return noun.lower().removesuffix("es") if noun.endswith("uses") else noun


def test_sentences_templates_and_answers_are_as_counted_in_the_official_ones() -> None:
    assert {len(sentences(line)) for line in LINES} == {25}
    rules = [sentence for line in LINES for sentence in sentences(line)[:23]]
    kinds = Counter(s.split()[0] if s.startswith(("Every", "Each")) else "plural" for s in rules)
    assert [kinds[k] / len(rules) for k in ("Every", "Each", "plural")] == pytest.approx(
        [0.25, 0.25, 0.5], abs=0.01
    )
    assert sum(" not " in s for s in rules) / len(rules) == pytest.approx(0.18, abs=0.02)
    assert sum(line.answer == "True" for line in LINES) / N == pytest.approx(0.5, abs=0.05)
    assert {line.answer for line in LINES} == {"True", "False"}


def test_concepts_rules_and_facts_of_one_example() -> None:
    for line in LINES[:50]:
        rules = [RULE.fullmatch(s) for s in sentences(line)[:23]]
        told = [(singular(m[1] or m[2]), bool(m[3]), singular(m[4])) for m in rules if m]
        assert len(told) == 23
        is_a = [(of, what) for of, _, what in told if what in prontoqa.CONCEPTS]
        assert len(is_a) == 11 and len(told) - len(is_a) == 12
        assert len({word for of, _, what in told for word in (of, what) if word in prontoqa.CONCEPTS}) == 14
        *_, one, other = sentences(line)
        assert {one.split()[0], other.split()[0]} == {
            line.question.split("true or false: "[-7:])[-1].split()[0]
        }


@settings(max_examples=60, deadline=None)
@given(st.integers(1, prontoqa.MOST_HOPS), st.integers(0, 2**31))
def test_the_conclusion_follows_step_by_step(hops: int, seed: int) -> None:
    line = prontoqa.line(hops, random.Random(seed))
    thought = [s.strip() for s in SENTENCE.findall(line.cot)]
    assert len(thought) == 2 * hops + 1
    told = sentences(line)
    assert len(told) == 4 * hops + 5
    assert thought[0] in told
    for before, rule, after in zip(thought[:-2:2], thought[1::2], thought[2::2], strict=True):
        assert rule in told
        match = RULE.fullmatch(rule)
        assert match is not None
        assert before.split()[-1] == f"{singular(match[1] or match[2])}."
        assert after.split()[0] == before.split()[0]
        assert (" not " in rule, singular(match[4])) == (
            " not " in after,
            after.split()[-1].removesuffix("."),
        )
    asked = line.question.rsplit("True or false: ", 1)[1]
    assert (asked == thought[-1]) == (line.answer == "True")
    assert asked.replace(" not ", " ") == thought[-1].replace(" not ", " ")


def test_all_words_are_in_the_vocabulary_and_read_back() -> None:
    sizes = {"train": 100, "valid": 20, "test": 20}
    document = {"data": {"task": "prontoqa", **sizes}, "model": {"init": "scratch", "vocab": "task"}}
    task = load_task(build(document))
    tokenizer = task.tokenizer()
    splits = task.splits(sizes, 0, tokenizer)
    written = [task.example_text(splits["test"], i, tokenizer) for i in range(20)]
    assert [line.question for line in written] == [line.question for line in task.lines("test", sizes, 0)]
    for hops in range(1, prontoqa.MOST_HOPS + 1):
        for line in itertools.islice(prontoqa.lines(hops, 1), 50):
            assert tokenizer.decode(tokenizer(f" {line.question}").input_ids) == f" {line.question}"
    assert task.understand("2").expected in ("True", "False")


def test_too_many_hops_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.hops = 7: whole number ≥ 1 ≤ 6"):
        build({"data": {"task": "prontoqa", "hops": 7}})
