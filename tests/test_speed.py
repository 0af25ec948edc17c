"""The relative speed: what is timed, in which order, and on how many tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny import tiny_config
from trainer.answering.evaluate import answer_room
from trainer.answering.speed import Timing, one_at_a_time
from trainer.parts import Parts, assemble


@pytest.fixture
def parts() -> Parts:
    torch.manual_seed(0)
    return assemble(tiny_config())


def test_the_median_of_each_example_s_own_ratio() -> None:
    timing = Timing(own=[1.0, 2.0, 100.0], no_cot=[1.0, 1.0, 1.0])
    assert timing.relative == 0.5, "an example that something disturbed does not count for more"
    assert timing.per_second == 3 / 103


def test_both_are_timed_on_every_example_in_turn(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The no-CoT side writes as many tokens as an answer without CoT has, whatever the model would say."""
    written: list[int] = []
    who: list[str] = []
    real = type(parts.method).generate

    def generate(*arguments: Any, **options: Any) -> Any:
        who.append("own")
        assert options["max_new_tokens"] == answer_room(parts.splits["test"])
        return real(*arguments, **options)

    def greedy(model: Any, asked: list[list[int]], *, max_new_tokens: int, eos_id: int, **_: Any) -> None:
        assert len(asked) == 1 and eos_id < 0
        who.append("no CoT")
        written.append(max_new_tokens)

    monkeypatch.setattr(type(parts.method), "generate", generate)
    monkeypatch.setattr("trainer.answering.speed.greedy", greedy)
    examples = parts.splits["test"][:4]
    timing = one_at_a_time(parts.method, parts.model, examples, 0)
    assert len(timing.own) == len(timing.no_cot) == 4
    assert written == [1 + 1 + 4 + 2] * 5, "EOS, ####, four digits, blank and EOS; the first once more"
    assert who[2:] == ["own", "no CoT", "no CoT", "own"] * 2


def test_writing_goes_on_to_the_last_token(parts: Parts) -> None:
    """Also where the model would have ended: both EOS count as tokens like any other."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    with torch.no_grad():
        parts.model.lm_head.weight.zero_()  # every token is as likely: the first is written, over and over
    handle = parts.model.register_forward_hook(count)
    one_at_a_time(parts.method, parts.model, parts.splits["test"][:1], 0)
    handle.remove()
    own = answer_room(parts.splits["test"])
    assert calls == 2 * (own + 8)
