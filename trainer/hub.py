"""The Hugging Face hub: whether it answers, and its libraries told to look only at what is here already."""

from __future__ import annotations

import contextlib
import logging
import sys
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


@contextlib.contextmanager
def no_kernels() -> Iterator[None]:
    """Within it no library finds `kernels`; `bitsandbytes`, imported, would have it fetch code and run it."""
    fetches = {"kernels": sys.modules.get("kernels")}
    sys.modules["kernels"] = None  # type: ignore[assignment]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says that it could not
    try:
        yield
    finally:
        del sys.modules["kernels"]
        sys.modules.update({name: module for name, module in fetches.items() if module is not None})
