"""Reading models that others have trained: the official codes' checkpoints, and plain Hugging Face folders.

ICoT-SI's (da03/Internalize_CoT_Step_by_Step) saves a folder of two files:

    config.json       base_model and tokenizer_name: a hub name, most often "gpt2"
    state_dict.bin    a pickle of the weights, their names beginning with `base_model.`

Coconut's (facebookresearch/coconut) saves one file an epoch:

    checkpoint_N      a pickle of the weights, their names beginning with `base_causallm.`, and the embeddings
                      once more as `embedding.weight`; of its runs without latent thoughts, the bare names

Architecture and tokenizer are the base's; Coconut's adds three tokens (`LATENT`). This module is the only one
that reads a pickle, and it lets torch read nothing from it but tensors (`weights_only`).
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from trainer.methods.base import Model
from trainer.models.model import set_tokens
from trainer.pretrained import UnavailableError, fetch, read_tokenizer

CONFIG = "config.json"
STATE = "state_dict.bin"
PREFIXES = ("base_model.", "base_causallm.")
LATENT = ("<|start-latent|>", "<|end-latent|>", "<|latent|>")
"""In the order in which Coconut's code adds them."""
TORCH = (b"PK\x03\x04", b"\x80")
"""How a file that torch has saved begins: a zip archive, or a pickle as before torch 1.6."""
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Constants that older versions of transformers saved beside the weights."""
POSITIONS = "transformer.wpe.weight"
CODE = re.compile(r"GLOBAL (\S+)")
"""What torch says a pickle asks for beside tensors."""
SHOWN_NAMES = 3


class ForeignError(ValueError):
    """A folder that holds no model which can be read; the message says why, and what would help."""


def is_model(folder: Path) -> bool:
    """Whether a folder looks like one that holds a model."""
    return (folder / CONFIG).is_file()


def is_official(folder: Path) -> bool:
    """Whether a folder, or a file, looks like a checkpoint of one of the official codes."""
    if folder.is_dir():
        return (folder / STATE).is_file()
    try:
        with folder.open("rb") as file:
            return file.read(4).startswith(TORCH)
    except OSError:
        return False


def caveat(tokenizer: PreTrainedTokenizerBase) -> str:
    """What whoever asks a model with this tokenizer should know, "" for nothing."""
    if not set(LATENT) <= set(tokenizer.get_vocab()):
        return ""
    return (
        "This model has the tokens of Coconut's code: it was trained to think in latents, in a layout of its "
        "own, and is asked here without them, in the layout of ICoT"
    )


def load(folder: Path, base: str | None) -> tuple[Model, PreTrainedTokenizerBase]:
    """The model of a folder of either kind, or of Coconut's file, on the CPU, and its tokenizer.

    base: folder or hub name that gives an official checkpoint its architecture and tokenizer; what its
    config.json names when None. Raises `ForeignError`.
    """
    if is_official(folder):
        model, tokenizer = load_official(folder, base)
    elif base is None:
        model, tokenizer = load_plain(str(folder))
    else:
        raise ForeignError(
            f"--base is for checkpoints of the official codes; {folder} brings its own tokenizer"
        )
    if tokenizer.eos_token is None:
        raise ForeignError(
            f"the tokenizer of {base or folder} has no EOS token, which ends question, CoT and answer"
        )
    tokenizer.pad_token = tokenizer.eos_token
    set_tokens(model, tokenizer)
    return model, tokenizer


def load_plain(name: str) -> tuple[Model, PreTrainedTokenizerBase]:
    """A Hugging Face model as it is, from a folder or the hub, with its tokenizer. Raises `ForeignError`."""
    try:
        model: Model = fetch(
            name,
            "model",
            lambda where: AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, **where),
        )
        tokenizer = fetch(name, "tokenizer", lambda where: read_tokenizer(name, where))
    except UnavailableError as error:
        raise ForeignError(f"{name}: {error}") from None
    _check_vocabulary(model.get_input_embeddings().num_embeddings, name, tokenizer, name)
    return model, tokenizer


def load_official(folder: Path, base: str | None) -> tuple[Model, PreTrainedTokenizerBase]:
    """A checkpoint of an official code. Its position table may be longer than the base's.

    Raises `ForeignError`: the base cannot be had, the file is no plain pickle of tensors, or the weights are
    not those of such a model.
    """
    name = base or _base_name(folder)
    try:
        architecture = fetch(name, "architecture", lambda where: AutoConfig.from_pretrained(name, **where))
        tokenizer = fetch(name, "tokenizer", lambda where: read_tokenizer(name, where))
    except UnavailableError as error:
        if base is not None:
            raise ForeignError(f"--base {base}: {error}") from None
        raise ForeignError(
            f"{folder} is built on {name}: {error}; --base DIR takes architecture and tokenizer from a "
            f"folder with {CONFIG} and the tokenizer's files"
        ) from None
    path = folder / STATE if folder.is_dir() else folder
    weights = _read_weights(path)
    if POSITIONS in weights and architecture.model_type == "gpt2":
        architecture.n_positions = len(weights[POSITIONS])
    embeddings = weights.get(_name_of_embeddings(architecture))
    if embeddings is not None and len(embeddings) == len(tokenizer) + len(LATENT):
        tokenizer.add_tokens(list(LATENT))
        architecture.vocab_size = len(embeddings)
    _check_names_and_sizes(architecture, weights, path, name)
    dtype = next(tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    model = AutoModelForCausalLM.from_config(architecture, dtype=dtype)
    model.load_state_dict(weights, strict=False)  # the names were checked; a tied head may be left out
    _check_vocabulary(model.get_input_embeddings().num_embeddings, str(path), tokenizer, name)
    return model, tokenizer


def _base_name(folder: Path) -> str:
    """What the checkpoint was built on, by its config.json."""
    if folder.is_file():
        raise ForeignError(f"{folder} does not say what it is built on; --base MODEL|DIR does, e.g. gpt2")
    path = folder / CONFIG
    try:
        name: Any = json.loads(path.read_text(encoding="utf-8"))["base_model"]
    except (OSError, ValueError, LookupError, TypeError):
        name = None
    if not isinstance(name, str) or not name:
        raise ForeignError(f"{path} names no base_model; --base MODEL|DIR says what {STATE} is built on")
    return name


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The weights by their names in the base model, without the constants that old versions saved."""
    try:
        with warnings.catch_warnings(action="ignore"):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = CODE.search(str(error))
        if code is None:
            raise ForeignError(f"{path} is damaged, or no file that torch has saved") from None
        raise ForeignError(
            f"{path} holds more than weights: reading it would call {code[1]}; nothing of it was run"
        ) from None
    except OSError as error:
        raise ForeignError(f"{path} cannot be read: {error.strerror or error}") from None
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError):
        raise ForeignError(f"{path} is damaged, or no file that torch has saved") from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ForeignError(f"{path} holds no state dict: names, each with its tensor, are expected")
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in content)), "")
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in content.items()
        if name.startswith(prefix) and not name.endswith(BUFFERS)
    }


def _skeleton(architecture: Any) -> Model:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(architecture)


def _name_of_embeddings(architecture: Any) -> str:
    model = _skeleton(architecture)
    table = model.get_input_embeddings().weight
    return str(next(name for name, parameter in model.named_parameters() if parameter is table))


def _check_names_and_sizes(architecture: Any, weights: dict[str, Tensor], path: Path, base: str) -> None:
    model = _skeleton(architecture)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    what = f"{path} is no {architecture.model_type} model as {base} is"
    tied = model._tied_weights_keys if architecture.tie_word_embeddings else ()
    missing = [name for name in wanted if name not in found and name not in tied]
    if missing:
        raise ForeignError(f"{what}: these weights are missing: {_some(missing)}")
    foreign = [name for name in found if name not in wanted]
    if foreign:
        raise ForeignError(f"{what}: these weights have no place there: {_some(foreign)}")
    other = [name for name in wanted if name in found and found[name] != wanted[name]]
    if not other:
        return
    first, more = other[0], f", and {len(other) - 1} more differ" if len(other) > 1 else ""
    if first == _name_of_embeddings(architecture) and found[first][1:] == wanted[first][1:]:
        raise ForeignError(
            f"{path} has a vocabulary of {found[first][0]:,} tokens and {base} one of {wanted[first][0]:,}; "
            "--base MODEL|DIR names the right one"
        )
    raise ForeignError(
        f"{what}: {first} is {_size(found[first])}, there {_size(wanted[first])}{more}; --base MODEL|DIR "
        "names the right one"
    )


def _check_vocabulary(rows: int, what: str, tokenizer: PreTrainedTokenizerBase, base: str) -> None:
    """Embeddings may be more than the tokenizer has tokens (padded tables), never fewer."""
    if len(tokenizer) > rows:
        raise ForeignError(
            f"{what} knows {rows:,} tokens, and the tokenizer of {base} has {len(tokenizer):,}: they do not "
            "belong together"
        )


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"
