"""One file per method of the papers, and the table that finds them by `method.name`."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from trainer.config import LATENT, MethodConfig
from trainer.methods.base import Examples, Method
from trainer.methods.coconut import Coconut
from trainer.methods.stepwise import Stepwise


def build(
    config: MethodConfig, tokenizer: PreTrainedTokenizerBase, train: Examples, separator_id: int
) -> Method:
    """The method a configuration names, for these training data."""
    teach = Coconut if config.name in LATENT else Stepwise
    return teach(config, tokenizer, train, separator_id)
