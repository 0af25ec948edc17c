"""The model and its tokenizer: from scratch, from the hub or from a folder; trimmed to a task's vocabulary.

Weights are fp32 unless asked otherwise, and attention is torch's SDPA. New weights are drawn from torch's
global generator, which the caller seeds. Nothing here runs code from a hub, and only safetensors are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    PreTrainedTokenizerBase,
)
from transformers.activations import NewGELUActivation

from trainer.config import LATENT, Config
from trainer.data.task import Task
from trainer.data.tokenizer import encode
from trainer.methods import tokens
from trainer.methods.base import Model
from trainer.models import attention
from trainer.models.dropout import replace_dropout
from trainer.pretrained import T, UnavailableError, fetch, read_tokenizer, silence
from trainer.seeds import generator

SCRATCH = "scratch"
SPARE = 32
"""Positions of a new model beyond its longest row: room for the markers and thoughts of a method that begins
with it later. Coconut's own tables need eight at most."""
DROPOUTS = ("embd_pdrop", "resid_pdrop", "attn_pdrop", "resid_dropout", "attention_dropout")
"""What the architectures call their dropout probabilities."""


def dtype(config: Config) -> torch.dtype:
    """Of weights, gradients and moments."""
    return torch.bfloat16 if config.model.dtype == "bfloat16" else torch.float32


def resolve_device(text: str) -> torch.device:
    """The device of `auto`, `cpu`, `cuda` or `cuda:N`. Raises `ValueError` for a GPU that is not there."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return torch.device("cuda" if gpus else "cpu")
    device = torch.device(text)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        there = f"GPUs here: cuda:0 to cuda:{gpus - 1}" if gpus else "torch finds no GPU here"
        raise ValueError(
            f"device = {text}: {there}; --device auto takes what there is, --device cpu always works"
        )
    return device


def build_tokenizer(config: Config, task: Task) -> PreTrainedTokenizerBase:
    """The task's own tokenizer, or the pretrained one with EOS as its padding; with the method's tokens.

    Raises `ValueError` when the pretrained one cannot be loaded.
    """
    tokenizer: PreTrainedTokenizerBase
    if config.model.vocab == "task":
        tokenizer = task.tokenizer()
    else:
        tokenizer = _pretrained_tokenizer(config.model.init)
        tokenizer.pad_token = tokenizer.eos_token
    for token in tokens.added(config.method):
        tokenizer.add_tokens(token, special_tokens=True)
        ids = tokenizer.encode(f" {token} ", add_special_tokens=False)
        if tokenizer.convert_tokens_to_ids(token) not in ids:
            raise ValueError(
                f"the tokenizer of model.init = {config.model.init} splits {token}, a token that "
                f"method.name = {config.method.name} adds, into {tokenizer.convert_ids_to_tokens(ids)}; "
                "give a model whose tokenizer takes new tokens"
            )
    return tokenizer


def build_model(
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    positions: int,
    told: Callable[[str], None] = lambda message: None,
    *,
    rows: int = 0,
) -> Model:
    """The model a run starts with, in train mode, on the CPU.

    positions: the longest row in tokens; a pretrained model with fewer is lengthened, a new one has `SPARE`
    more. rows: the longest before the method puts thoughts into it; where these alone fit, none is
    lengthened. The model's generation configuration is greedy and has no stop token, since a row has two
    EOS; the caller sets max_new_tokens.
    told: called with a sentence when a pretrained model is lengthened.

    Raises `ValueError` when a pretrained model cannot be loaded or lengthened.
    """
    if config.model.init == SCRATCH:
        model = _from_scratch(config, tokenizer, positions)
    else:
        model = _load(config.model.init, "model", lambda where: _from_pretrained(config, where))
        added = tokens.added(config.method)
        source = _pretrained_tokenizer(config.model.init)
        like = _rows(model, source.get_vocab().get(tokens.ANNOTATION))
        if config.model.vocab == "task":
            _trim_vocabulary(model, tokenizer, len(tokenizer) - len(added), source, config.model.init)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        new = set(added) & set(tokens.LIKE_ANNOTATIONS) - set(source.get_vocab())
        _set_rows(model, [tokenizer.get_vocab()[token] for token in new], like)
        known: int = model.config.max_position_embeddings
        if positions > known >= rows and config.method.name in LATENT:
            raise ValueError(
                f"model.init = {config.model.init} has {known:,} positions; with what method.name = "
                f'"{config.method.name}" puts into it the longest row takes {positions:,}: '
                f"{_less(known - rows, positions)}"
            )
        if positions > known:
            _lengthen(model, config.model.init, positions)
            told(
                f"model.init = {config.model.init} has {known:,} positions, and the longest example takes "
                f"{positions:,}: it is lengthened, and what lies beyond has to be learnt"
            )
    set_tokens(model, tokenizer)
    return model.train()


def _less(left: int, positions: int) -> str:
    """What helps where thoughts do not fit into the positions that the longest row leaves.

    The markers stand at stage 0 already, beside the whole CoT.
    """
    if left < len((tokens.START, tokens.END)):
        return f"a model of {positions:,} positions or more is needed"
    return "lower method.thoughts_per_step or method.max_latent_stage"


def own_memory(model: Model) -> None:
    """Have its weights lie where torch lays out new ones.

    Those of a file lie in the file as it is mapped, at whatever offset. Intel's MKL promises the same
    rounding only where all lies at multiples of 64 bytes: see "Conditional numerical reproducibility" in its
    guide.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def forget_activations(model: Model, forget: bool = True) -> None:
    """Let each block keep only what comes in, and compute the rest again in the backward pass, in training.

    forget: False lets it keep all. Raises `ValueError` where the architecture has no such way.
    """
    # What it is called in newer versions of transformers, and before.
    name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    try:
        if forget:
            getattr(model, f"{name}_checkpointing_enable")({"use_reentrant": False})
        else:
            getattr(model, f"{name}_checkpointing_disable")()
    except ValueError as error:
        raise ValueError(f"compute.activation_checkpointing: {error}") from None


def quicken(model: Model) -> Model:
    """The same model with our attention and dropout, and GPT-2's GELU in one kernel instead of seven.

    The same mathematics and weights, less time and memory.
    """
    model.set_attn_implementation(attention.NAME)
    replace_dropout(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model


def set_tokens(model: Model, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the model know its tokenizer's special tokens, and decode greedily without a stop token.

    But not the padding, which is EOS: the embedding of a `config.pad_token_id` would no longer be trained.
    Which one that is, if any, is the pretrained model's matter, as it is in the official code.
    """
    for name in ("bos_token_id", "eos_token_id"):
        setattr(model.config, name, getattr(tokenizer, name))
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=tokenizer.pad_token_id)


def _from_scratch(config: Config, tokenizer: PreTrainedTokenizerBase, positions: int) -> Model:
    """A GPT-2 of new weights. The spare positions have a generator of their own: all others are what they
    would be without them."""
    architecture = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_layer=config.model.layers,
        n_head=config.model.heads,
        n_embd=config.model.width,
        initializer_range=config.model.initializer_range,
        embd_pdrop=config.model.dropout,
        resid_pdrop=config.model.dropout,
        attn_pdrop=config.model.dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    silence()
    model = AutoModelForCausalLM.from_config(architecture, attn_implementation="sdpa", dtype=dtype(config))
    spare = torch.empty(SPARE, config.model.width)
    spare.normal_(std=config.model.initializer_range, generator=generator(config.seed, "spare positions"))
    table = model.transformer.wpe.weight.detach()
    set_positions(model, torch.cat([table, spare.to(table)]))
    return model


def _from_pretrained(config: Config, where: dict[str, bool]) -> Model:
    architecture = AutoConfig.from_pretrained(config.model.init, **where)
    for name in DROPOUTS:
        if hasattr(architecture, name):
            setattr(architecture, name, config.model.dropout)
    return AutoModelForCausalLM.from_pretrained(
        config.model.init,
        config=architecture,
        dtype=dtype(config),
        attn_implementation="sdpa",
        use_safetensors=True,
        **where,
    )


def _pretrained_tokenizer(init: str) -> PreTrainedTokenizerBase:
    tokenizer = _load(init, "tokenizer", lambda where: read_tokenizer(init, where))
    if tokenizer.eos_token is None:
        raise ValueError(f"model.init = {init}: its tokenizer has no EOS token, which every row needs")
    return tokenizer


def _load(init: str, what: str, load: Callable[[dict[str, bool]], T]) -> T:
    """As `fetch`, for `model.init`, with the ways out."""
    try:
        return fetch(init, what, load)
    except UnavailableError as error:
        raise ValueError(
            f"model.init = {init}: {error}; give a local folder that holds one (--set model.init=PATH), or "
            "begin from scratch (--set model.init=scratch --set model.vocab=task)"
        ) from error


def _trim_vocabulary(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    size: int,
    source: PreTrainedTokenizerBase,
    init: str,
) -> None:
    """Reduce embeddings and head to the task's `size` symbols, each row copied from the pretrained token.

    Where the pretrained tokenizer writes a symbol as several tokens, the last of them is taken: a leading
    blank comes first, the symbol last. Raises ValueError for a symbol that it cannot write.
    """
    rows = torch.tensor([_row(str(tokenizer.decode([id])), tokenizer, source, init) for id in range(size)])
    layers = (model.get_input_embeddings, model.get_output_embeddings)
    kept = [{name: old.detach()[rows] for name, old in layer().named_parameters()} for layer in layers]
    model.resize_token_embeddings(size, mean_resizing=False)
    for layer, values in zip(layers, kept, strict=True):
        layer().load_state_dict(values)
    model.config.pad_token_id = model.get_input_embeddings().padding_idx = None


def _row(symbol: str, tokenizer: PreTrainedTokenizerBase, source: PreTrainedTokenizerBase, init: str) -> int:
    """The pretrained token whose row a symbol takes."""
    if symbol == tokenizer.eos_token:
        return int(source.eos_token_id)
    try:
        return int(encode(symbol, source)[-1])
    except (ValueError, IndexError):
        raise ValueError(
            f"model.init = {init}: its vocabulary lacks {symbol.strip()!r}, which is in the examples: it was "
            "trained on other data; give one that was trained on these, or a pretrained model"
        ) from None


def _rows(model: Model, id: int | None) -> list[Tensor] | None:
    """Copies of a token's rows in the embeddings and in the head."""
    if id is None:
        return None
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return [layer.weight.detach()[id].clone() for layer in layers]


def _set_rows(model: Model, ids: list[int], rows: list[Tensor] | None) -> None:
    """Let new tokens begin as another one, as in Coconut's code; where there are `rows`."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    for layer, row in zip(layers, rows or (), strict=False):
        layer.weight.data[ids] = row


def set_positions(model: Model, table: Tensor) -> None:
    """Let these be GPT-2's learned positions."""
    embedding = model.base_model.wpe
    embedding.weight = nn.Parameter(table)
    embedding.num_embeddings = model.config.n_positions = len(table)


def _lengthen(model: Model, init: str, positions: int) -> None:
    """Room for `positions` tokens.

    Rotary positions need no weights. GPT-2's learned ones go on from the start again, row p + n_positions
    being a copy of row p: what attention does between neighbours holds there at once, as Longformer found
    (arXiv 2004.05150, section 5).
    """
    known: int = model.config.max_position_embeddings
    if model.config.model_type == "gpt2":
        table = model.base_model.wpe.weight.detach()
        set_positions(model, table[torch.arange(positions) % known])
        return
    if not _is_rotary(model.config):
        raise ValueError(
            f"model.init = {init}: the examples take {positions} positions, the model has {known}, and those "
            f"of a {model.config.model_type} model cannot be lengthened; choose fewer digits or a GPT-2 model"
        )
    model.config.max_position_embeddings = positions


def _is_rotary(architecture: Any) -> bool:
    return bool(getattr(architecture, "rope_parameters", None))
