"""The Hugging Face hub: whether it answers, and its libraries told to look only at what is here already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from huggingface_hub import constants, get_session

PATIENCE = 5.0  # seconds


def answers() -> bool:
    """Whether the hub can be reached; left to itself its client takes most of a minute to give up."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # the client's own errors, whose package differs between versions of the hub's library
        return False
    return True


@contextlib.contextmanager
def only_cached() -> Iterator[None]:
    """Within it nothing is asked of the hub, and what was fetched before is still found."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
