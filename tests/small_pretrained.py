"""Small pretrained models for tests: random weights, tokenizers of the real kinds, and no download."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2Tokenizer,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

EOS = "<|endoftext|>"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def reference(variable: str, default: str) -> Path:
    """A folder of published files, or a skip that says how to give one."""
    folder = Path(os.environ.get(variable, SHARED / default))
    if not folder.is_dir():
        pytest.skip(f"published files are not here; set {variable} to their folder")
    return folder


def gpt2_files(folder: Path) -> Path:
    """vocab.json and merges.txt of a byte-level BPE that joins blank and symbol, as GPT-2's does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", symbol) for symbol in "0123456789*+()"] + [("#", "#"), ("##", "##"), ("Ġ", "####")]
    tokens = [*alphabet, *("".join(pair) for pair in merges), EOS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(" ".join(pair) for pair in merges))
    return folder


def gpt2_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = GPT2Tokenizer.from_pretrained(gpt2_files(folder))
    return tokenizer


def published_gpt2_tokenizer() -> PreTrainedTokenizerBase:
    folder = reference("STEPWISE_GPT2_TOKENIZER", "gpt2-tokenizer")
    tokenizer: PreTrainedTokenizerBase = GPT2Tokenizer.from_pretrained(folder)
    return tokenizer


def gpt2(folder: Path, positions: int = 64) -> Path:
    """A folder as one downloads it, with a GPT-2 of two layers."""
    tokenizer = gpt2_tokenizer(folder)
    architecture = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_layer=2,
        n_head=2,
        n_embd=16,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _save(architecture, tokenizer, folder)


def llama(folder: Path, positions: int = 64, *, bos: bool = False) -> Path:
    """The same with a Llama: its head is its own, and a digit is a token apart from the blank before it.

    bos: whether the tokenizer begins every text with <s>, as Llama's does.
    """
    tokenizer = _symbol_tokenizer(bos=bos)
    return _save(LlamaConfig(**_sizes(tokenizer, positions), tie_word_embeddings=False), tokenizer, folder)


def mistral(folder: Path, positions: int = 64) -> Path:
    """Attention looks back 12 tokens only, as 4,096 in version 0.1."""
    tokenizer = _symbol_tokenizer(bos=True)
    architecture = MistralConfig(**_sizes(tokenizer, positions), sliding_window=12, tie_word_embeddings=False)
    return _save(architecture, tokenizer, folder)


def phi3(folder: Path, positions: int = 64) -> Path:
    """One matrix for query, key and value. Its padding is its EOS, in the model's configuration too."""
    tokenizer = _symbol_tokenizer(bos=True)
    tokenizer.pad_token = tokenizer.eos_token
    sizes = _sizes(tokenizer, positions) | {"pad_token_id": tokenizer.pad_token_id}
    architecture = Phi3Config(
        **sizes, original_max_position_embeddings=positions, sliding_window=None, tie_word_embeddings=False
    )
    return _save(architecture, tokenizer, folder)


def qwen2(folder: Path, positions: int = 64) -> Path:
    """Byte-level like GPT-2, no BOS; head and embeddings are one, as in the small models of the family."""
    tokenizer = gpt2_tokenizer(folder)
    return _save(Qwen2Config(**_sizes(tokenizer, positions), tie_word_embeddings=True), tokenizer, folder)


def qwen3(folder: Path, positions: int = 64) -> Path:
    """Heads whose size is not width / heads, and norms within attention."""
    tokenizer = gpt2_tokenizer(folder)
    sizes = _sizes(tokenizer, positions)
    return _save(Qwen3Config(**sizes, head_dim=12, tie_word_embeddings=True), tokenizer, folder)


FAMILIES: dict[str, Callable[..., Path]] = {
    "gpt2": gpt2,
    "llama": partial(llama, bos=True),
    "mistral": mistral,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen3": qwen3,
}


def _symbol_tokenizer(*, bos: bool) -> PreTrainedTokenizerFast:
    """Llama's kind: a blank is a token of its own before each symbol."""
    symbols = ["<s>", "</s>", "▁", *"0123456789*+()#"]
    backend = Tokenizer(models.BPE({symbol: id for id, symbol in enumerate(symbols)}, []))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def _sizes(tokenizer: PreTrainedTokenizerBase, positions: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": positions,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _save(architecture: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(architecture).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
