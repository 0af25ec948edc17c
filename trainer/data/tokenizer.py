"""A real tokenizer for a handful of symbols, made in code: no downloaded file.

A token is a symbol with its leading blank (" 5"), as GPT-2 cuts such text, or the lone blank before an
EOS. So the same text gives the same layout in a task's own vocabulary and in GPT-2's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

EOS = "<|endoftext|>"
BLANK = " "
LISTED = 40  # a vocabulary of at most so many symbols is told in full


def build(symbols: Sequence[str], marks: str = "") -> PreTrainedTokenizerFast:
    """A tokenizer whose ids are the places in `symbols`, then the marks, a blank, EOS (also bos and padding).

    symbols: without their leading blank. marks: characters that are tokens of their own, without a blank
    before them: a full stop. `save_pretrained` writes files that `AutoTokenizer` loads.
    """
    vocabulary = [*(f" {symbol}" for symbol in symbols), *marks, BLANK, EOS]
    apart = re.escape(marks)
    pieces = rf" ?[^\s{apart}]+|[{apart}]| " if marks else r" ?\S+| "
    # An unknown symbol must fail, not turn into a token: the unknown token named here does not exist.
    words = models.WordLevel({token: id for id, token in enumerate(vocabulary)}, unk_token="<unknown>")
    backend = Tokenizer(words)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
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
    return encode_texts([text], tokenizer, special=False)[0]


def encode_texts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, special: bool = True
) -> list[list[int]]:
    """Token ids of each text, all in one call, which is many times quicker.

    special: with what the tokenizer puts around any text. Raises `ValueError` as `encode` does.
    """
    ids: list[list[int]] = _encoded(texts, tokenizer, add_special_tokens=special).input_ids
    return ids


def encode_with_ends(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[list[int]], list[list[int]]]:
    """The same, and where in its text each token ends, in characters. Only of a fast tokenizer."""
    encoded = _encoded(texts, tokenizer, return_offsets_mapping=True)
    return encoded.input_ids, [[end for _, end in row] for row in encoded.offset_mapping]


def _encoded(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, **options: bool) -> Any:
    try:
        return tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, **options)
    except Exception as error:  # the tokenizers library raises plain Exception
        if "UNK" not in str(error):
            raise
        raise ValueError(_unknown(texts, tokenizer)) from None


def _unknown(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> str:
    """A sentence about the first text with a symbol that the vocabulary lacks."""
    vocabulary = tokenizer.get_vocab()
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    part, token = next(
        (part.strip(), token)
        for text in texts
        for part in text.split(tokenizer.eos_token)
        for token, _ in split(part)
        if token not in vocabulary
    )
    symbol = token.strip() or token
    where = "" if part == symbol else f" in {_short(part)}"
    typed = vocabulary.keys() - tokenizer.get_added_vocab().keys()
    return f"{_short(symbol)}{where} is not in the vocabulary{_known(typed)}"


def _known(typed: Iterable[str]) -> str:
    """typed: the tokens that a text may have; no special ones."""
    known = sorted(token.strip() for token in typed if token.strip())
    return f"; known are {' '.join(known)}" if len(known) <= LISTED else f" of {len(known):,} words"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
