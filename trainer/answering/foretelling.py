"""Greedy decoding without decoding, where one pass over the true rows tells what it would write.

Where every label of a row, given the true ones before it, is the likeliest token, decoding writes that row
and no other: it begins with the same question, and so each of its tokens is the next label. One pass over all
columns then stands for a pass per token. Rounding can turn a near tie, since a pass over a row adds up in
another order than one over a token. So a label counts only with a lead that rounding does not turn; all other
rows, right or wrong, are decoded. And so is each `AUDITED`th of the rows that were told: where one of these
comes out otherwise, nothing that was told is believed, and all is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from trainer.methods.base import Decoded, Examples, Method, Model
from trainer.methods.decode import inference

AUDITED = 16
"""One in so many of the rows that were told is decoded as well."""
WORTH = 0.5
"""Share of the examples that must be told for it to pay: what is not told costs a pass more than before."""
TOKENS = 2**14
"""Tokens of one pass; hidden states of as many exist at once."""


def shortened(
    method: Method,
    model: Model,
    examples: Examples,
    scheduled: int,
    decode: Callable[[Examples], Decoded | None],
    interrupted: Callable[[], bool] = lambda: False,
) -> Decoded | None:
    """What `decode` writes to all of `examples`, asked of it for those only that a pass does not tell.

    None when interrupted. `foretold` and `disagreed` of what comes back say how it was come by.
    """
    told = _told(method, model, examples, scheduled, interrupted)
    index_S = torch.tensor(sorted(told))
    audited = index_S[::AUDITED].tolist()
    asked = [i for i in range(len(examples)) if i not in told or i in set(audited)]
    decoded = decode(examples[torch.tensor(asked, dtype=torch.long)]) if asked else Decoded([], [], [], 0.0)
    if decoded is None:
        return None
    written = {i: decoded.rows(place, place + 1) for place, i in enumerate(asked)}
    disagreed = sum(_differ(written[i], told[i]) for i in audited)
    if disagreed:
        rest = torch.tensor([i for i in range(len(examples)) if i not in written], dtype=torch.long)
        more = decode(examples[rest]) if len(rest) else Decoded([], [], [], 0.0)
        if more is None:
            return None
        told = {int(i): more.rows(place, place + 1) for place, i in enumerate(rest)}
    rows = [written.get(i) or told[i] for i in range(len(examples))]
    foretold = 0 if disagreed else len(examples) - len(written)
    return replace(Decoded.joined(rows), foretold=foretold, disagreed=disagreed)


def _told(
    method: Method, model: Model, examples: Examples, scheduled: int, interrupted: Callable[[], bool]
) -> dict[int, Decoded]:
    """Rows by the number of their example; it gives up where too few are told."""
    found: dict[int, Decoded] = {}
    rows = max(1, TOKENS // examples.ids_NT.shape[1])
    for start in range(0, len(examples), rows):
        with inference(model):
            some = method.foretell(model, examples[start : start + rows], scheduled)
        if some is None or interrupted():
            return found
        sure_B, written = some
        for place in sure_B.nonzero().flatten().tolist():
            found[start + place] = written.rows(place, place + 1)
        if len(found) < WORTH * (start + len(sure_B)):
            return found
    return found


def _differ(one: Decoded, other: Decoded) -> bool:
    return (one.cot, one.answer, one.tokens) != (other.cot, other.answer, other.tokens)
