"""Who hangs is found out from the signs of life, and named; who only takes long is not."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.distributed.signs import Sign, Vigil, sign


def of(rank: int, number: int, order: int = 7, *, busy: bool = True, waits: bool = False) -> Sign:
    return Sign(rank, 100 + rank, "here", number, order, busy, waits, "trainer/computing/passes.py:63")


def told(*moments: tuple[Sign, ...], every: float = 10.0) -> str | None:
    """What a vigil says after these signs, so many seconds apart, and at once then."""
    vigil = Vigil(silent=30, stuck=300)
    for moment, signs in enumerate(moments):
        vigil.hear(signs, moment * every)
    return vigil.complaint((len(moments) - 1) * every)


def test_a_frozen_rank_is_named() -> None:
    moments = [(of(0, n), of(1, min(n, 3))) for n in range(9)]
    said = told(*moments)
    assert said is not None and "rank 1 (process 101 on here) gives no sign of life for 30 s" in said
    assert told(*moments[:6]) is None


def test_of_a_frozen_rank_it_is_said_where_its_process_is_gone() -> None:
    vigil = Vigil(silent=30, lives=lambda last: last.rank == 0)
    vigil.hear([of(0, 1), of(1, 1)], 0)
    vigil.hear([of(0, 2), of(1, 1)], 31)
    said = vigil.complaint(31)
    assert (
        said is not None and "rank 1 (process 101 on here)" in said and said.endswith("its process is gone")
    )


@pytest.mark.parametrize(("last", "first"), [((9, 9, 4), 2), ((9, 9, 8), None), ((4, 9, 4), None)])
def test_who_fell_silent_first(last: tuple[int, ...], first: int | None) -> None:
    vigil = Vigil()
    for second in range(10):
        vigil.hear([of(rank, min(second, silent)) for rank, silent in enumerate(last)], second)
    found = vigil.first_silent()
    assert (None if found is None else found.rank) == first


def test_a_stuck_rank_is_named_with_the_place_where_others_wait_for_it() -> None:
    moments = [(of(0, n, waits=True), of(1, n)) for n in range(40)]
    said = told(*moments)
    assert said is not None and said.startswith("rank 1") and "trainer/computing/passes.py:63" in said


def test_a_rank_that_never_began_is_named() -> None:
    moments = [(of(0, n, waits=True), of(1, n, order=6, busy=False, waits=True)) for n in range(40)]
    said = told(*moments)
    assert said is not None and said.startswith("rank 1")


def test_of_several_that_are_behind_the_first_is_named() -> None:
    """On a GPU nobody is seen to wait: rank 0 reads a loss, the others ask for a sum of gradients."""
    others = ((0, 9, False), (1, 8, True), (3, 8, True))
    moments = [
        (of(2, n, order=7), *(of(rank, n, order=order, busy=busy) for rank, order, busy in others))
        for n in range(40)
    ]
    said = told(*moments)
    assert said is not None and said.startswith("rank 2")


@given(st.integers(0, 1), st.booleans())
def test_what_takes_long_is_not_a_hang(rank: int, paused: bool) -> None:
    """A pause, where all wait for an order; a long answer, for which nobody waits within one."""
    long = [
        (of(rank, n, busy=not paused), of(1 - rank, n, busy=False, waits=not paused or rank == 0))
        for n in range(100)
    ]
    assert told(*long) is None


def test_a_thread_says_where_it_is() -> None:
    mine = sign(0, 1, 1, True, threading.get_ident())
    assert not mine.waits and mine.place.startswith("trainer/distributed/signs.py")
