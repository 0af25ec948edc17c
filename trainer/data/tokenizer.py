"""A real tokenizer for a handful of symbols, made in code: no downloaded file.

A token is a symbol with its leading blank (" 5"), as GPT-2 cuts such text, or the lone blank before an
EOS. So the same text gives the same layout in a task's own vocabulary and in GPT-2's.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

EOS = "<|endoftext|>"
BLANK = " "


def build(symbols: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose ids are the places in `symbols`, then a blank, then EOS (also bos and padding).

    symbols: without their leading blank. `save_pretrained` writes files that `AutoTokenizer` loads.
    """
    vocabulary = [*(f" {symbol}" for symbol in symbols), BLANK, EOS]
    # An unknown symbol must fail, not turn into a token: the unknown token named here does not exist.
    words = models.WordLevel({token: id for id, token in enumerate(vocabulary)}, unk_token="<unknown>")
    backend = Tokenizer(words)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\S+| "), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=EOS,
        eos_token=EOS,
        pad_token=EOS,
        clean_up_tokenization_spaces=False,
    )


def encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a text, nothing added. Raises `ValueError` for what the tokenizer has no symbol for."""
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    except Exception as error:  # the tokenizers library raises plain Exception
        if "UNK" not in str(error):
            raise
        known = " ".join(sorted(token.strip() for token in tokenizer.get_vocab() if token.strip()))
        shown = text if len(text) <= 60 else text[:57] + "…"
        raise ValueError(f"{shown!r} has a symbol that is not in the vocabulary; known are {known}") from None
    return ids
