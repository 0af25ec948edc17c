"""Small pretrained models for tests: random weights, tokenizers of the real kinds, and no download."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
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
    torch.manual_seed(1)
    architecture = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_layer=2,
        n_head=2,
        n_embd=16,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    GPT2LMHeadModel(architecture).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llama(folder: Path, positions: int = 64) -> Path:
    """The same with a Llama: its head is its own, and a digit is a token apart from the blank before it."""
    symbols = ["<s>", "</s>", "▁", *"0123456789*+()#"]
    backend = Tokenizer(models.BPE({symbol: id for id, symbol in enumerate(symbols)}, []))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(1)
    architecture = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(architecture).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
