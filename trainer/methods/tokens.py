"""Tokens that a method adds to the vocabulary, and which of them a configuration needs.

FILLER stands where a CoT token was removed. DIRECT and EXPLICIT stand before the EOS of a question and ask
for the answer alone or for all of the CoT.
"""

from __future__ import annotations

from trainer.config import MethodConfig

FILLER = "<|filler|>"
DIRECT = "<|direct|>"
EXPLICIT = "<|explicit|>"


def added(config: MethodConfig) -> list[str]:
    """The tokens that this method needs beside the task's."""
    return ([FILLER] if config.fillers else []) + ([DIRECT, EXPLICIT] if config.explicit_share else [])
