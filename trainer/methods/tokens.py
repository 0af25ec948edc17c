"""Tokens that a method adds to the vocabulary, and which of them a configuration needs.

FILLER stands where a CoT token was removed. DIRECT and EXPLICIT stand before the EOS of a question and ask
for the answer alone or for all of the CoT. START and END stand around what is in the place of steps: LATENT,
whose embedding a continuous thought replaces, or PAUSE (Coconut's code; the paper calls them bot and eot).
"""

from __future__ import annotations

from trainer.config import LATENT as METHODS
from trainer.config import MethodConfig

FILLER = "<|filler|>"
DIRECT = "<|direct|>"
EXPLICIT = "<|explicit|>"
START = "<|start-latent|>"
END = "<|end-latent|>"
LATENT = "<|latent|>"
PAUSE = "<|pause|>"
LIKE_ANNOTATIONS = (START, END, LATENT, PAUSE)
"""Tokens whose embedding begins as a copy of that of ANNOTATION, where there is one (Coconut's code)."""
ANNOTATION = "<<"


def added(config: MethodConfig) -> list[str]:
    """The tokens that this method needs beside the task's."""
    if config.name in METHODS:
        return [] if config.no_thought else [START, END, LATENT if config.name == "coconut" else PAUSE]
    return ([FILLER] if config.fillers else []) + ([DIRECT, EXPLICIT] if config.explicit_share else [])
