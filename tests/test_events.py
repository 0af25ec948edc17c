"""The codec: every event survives the journal, and nothing malformed becomes an event."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.events import EVENTS, At, ChatAnswered, DecodeError, Event, Metrics, decode, encode

ats = st.builds(At, *[st.integers(0, 10**9)] * 5, time=st.floats(0, 4e9))


@st.composite
def any_event(draw: st.DrawFn) -> Event:
    cls = draw(st.sampled_from(sorted(EVENTS.values(), key=lambda c: c.__name__)))
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for f in fields(cls):
        if f.name == "at":
            values["at"] = draw(ats)
        elif hints[f.name] is Any:
            values[f.name] = draw(st.one_of(st.integers(), st.text(), st.booleans(), st.none()))
        else:
            values[f.name] = draw(st.from_type(hints[f.name]))
    return cls(**values)


def same(a: Any, b: Any) -> bool:
    """Equality in which NaN equals NaN."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if is_dataclass(a) or (isinstance(a, tuple) and hasattr(a, "_fields")):
        names = [f.name for f in fields(a)] if is_dataclass(a) else a._fields
        return type(a) is type(b) and all(same(getattr(a, name), getattr(b, name)) for name in names)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@given(any_event())
def test_every_event_survives_the_round_trip_on_one_line_of_strict_json(event: Event) -> None:
    line = encode(event)
    assert "\n" not in line
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert same(decode(line), event)


@given(
    st.one_of(
        st.text(),
        st.binary(max_size=50),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        ).map(json.dumps),
    )
)
def test_what_is_no_event_is_refused_and_nothing_else_is_raised(line: str | bytes) -> None:
    with pytest.raises(DecodeError):
        decode(line)


def test_a_wrong_kind_of_value_names_the_field() -> None:
    line = encode(ChatAnswered(id="a", asked="1*1")).replace('"tokens":0', '"tokens":"many"')
    with pytest.raises(DecodeError, match="tokens"):
        decode(line)


def test_an_older_journal_is_still_read() -> None:
    """A field added since takes its default; one removed since is passed over."""
    event = Metrics(
        loss=1.0,
        loss_answer=1.0,
        loss_cot=None,
        grad_norm=1.0,
        lr=0.1,
        steps=1,
        steps_per_second=1.0,
        tokens_per_second=1.0,
        epoch=0.5,
    )
    document = json.loads(encode(event))
    del document["skipped"]
    document["gone"] = 3
    assert decode(json.dumps(document)) == replace(event, skipped=0)
