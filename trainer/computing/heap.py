"""The memory that training takes. What it frees stays with the process: each step asks for the same again.

glibc gives large blocks back to the kernel as soon as they are freed, which then has to clear them anew, page
by page: some 10 % of a small model's step on a CPU (docs/log.md). Elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3), by their numbers in malloc.h."""
KEPT = 2**30
"""Bytes that stay with the process when they are free."""
LARGEST = 2**25
"""Blocks up to this size are taken from what was kept; glibc allows no more."""


def keep_memory() -> None:
    """For this process, from now on; to be called before its first thread begins.

    All threads share one heap then. One that had its own already keeps it, and what is freed there goes back
    to the kernel as before: training in such a thread is 4 % slower (docs/log.md).
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(ARENA_MAX, 1)
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, LARGEST)


def ran_out(error: BaseException) -> bool:
    """Whether there was not memory enough; where that is a CPU's torch says so in words only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def release() -> None:
    """Give up what nothing holds any more, where something else needs the room; a GPU's store of it, too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
