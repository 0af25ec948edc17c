"""What belongs to a pretrained model, from a folder or from the Hugging Face hub, and never its code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from trainer import hub

WHOLE_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes that add nothing to what tokenizer.json says."""

T = TypeVar("T")


class UnavailableError(ValueError):
    """Something of a pretrained model that cannot be had; the message says why."""


def fetch(name: str, what: str, load: Callable[[dict[str, bool]], T]) -> T:
    """`load`, given the options that say where from: the folder `name`, or the hub.

    what: the word for it in a message. Raises `UnavailableError`.
    """
    silence()
    is_folder = Path(name).is_dir()
    where = {"trust_remote_code": False, "local_files_only": is_folder or not hub.answers()}
    try:
        return load(where)
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        if "trust_remote_code" in str(error):
            reason = f"its {what} needs code of its own, and none is run here"
        elif is_folder:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = f"no {what} could be read from this folder ({first})"
        else:
            reason = f"its {what} could not be fetched from the Hugging Face hub, and it is no local folder"
        raise UnavailableError(reason) from error


def read_tokenizer(name: str, where: dict[str, bool]) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or of the hub, for `fetch`; transformers makes an empty one of no files.

    One that is its tokenizer.json and no more, as a task's own, is read as it is: beside some architectures
    (Qwen2) AutoTokenizer would put that architecture's rules into it.
    """
    whole = _class_of_tokenizer(name) in WHOLE_TOKENIZERS
    kind: Any = PreTrainedTokenizerFast if whole else AutoTokenizer
    tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(name, **where)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ValueError("the files of its vocabulary are missing")
    return tokenizer


def _class_of_tokenizer(name: str) -> str:
    """What a folder says of its tokenizer; "" where it says nothing."""
    try:
        return str(json.loads((Path(name) / "tokenizer_config.json").read_text())["tokenizer_class"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def silence() -> None:
    """No warnings and no progress bars of transformers: they tear a screen that is drawn over them."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
