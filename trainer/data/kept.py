"""Tokenised examples kept in the user's cache folder.

To tokenise the 378,000 lines of GSM8K takes a minute, nearly all of it in the tokenizer, and whatever opens
a run needs them: `resume`, `eval`, `chat`. What is kept is named by a digest of the texts and of the
tokenizer, so it is never out of date; the few used last stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerBase

from trainer.data import layout
from trainer.data.layout import Encoded, Line
from trainer.methods.base import Examples

WORTH = 20_000  # examples; fewer are tokenised in a few seconds
STAY = 4  # files
ENDING = ".safetensors"


def encode_lines(lines: Sequence[Line], tokenizer: PreTrainedTokenizerBase) -> Examples:
    """As `layout.encode_lines`, from the cache where they are many and have been tokenised before."""
    if len(lines) < WORTH or not tokenizer.is_fast:
        return layout.encode_lines(lines, tokenizer)
    file = folder() / (_digest(lines, tokenizer) + ENDING)
    try:
        encoded = Encoded(**load_file(file))
        os.utime(file)
    except (OSError, SafetensorError, TypeError):
        encoded = layout.encode(lines, tokenizer)
        with contextlib.suppress(OSError, SafetensorError):  # a cache that cannot be written is none
            _keep(encoded, file)
    return layout.padded(encoded, tokenizer)


def folder() -> Path:
    """Where they lie."""
    return user_cache_path("stepwise") / "tokenised"


def _digest(lines: Sequence[Line], tokenizer: PreTrainedTokenizerBase) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(
        f"{version('tokenizers')} {tokenizer.eos_token} {tokenizer.backend_tokenizer.to_str()}".encode()
    )
    for line in lines:
        digest.update("\0".join(line).encode() + b"\0\0")
    return digest.hexdigest()


def _keep(encoded: Encoded, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        save_file(encoded._asdict(), temporary)
        temporary.rename(file)
    finally:
        temporary.unlink(missing_ok=True)
    by_use = sorted(file.parent.glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in by_use[STAY:]:
        old.unlink(missing_ok=True)
