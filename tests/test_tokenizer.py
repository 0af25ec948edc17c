from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from trainer.data.multiplication import SYMBOLS, Multiplication
from trainer.data.tokenizer import build, encode

TOKENIZER = Multiplication(2).tokenizer()
TEXT = " 2 1 * 4 3 <|endoftext|> 8 4 0 + 0 6 3 0 <|endoftext|> #### 8 0 4 0 <|endoftext|>"
PIECES = [*(f" {symbol}" for symbol in SYMBOLS), " <|endoftext|>"]


def test_the_text_is_cut_into_symbols_blank_and_eos() -> None:
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER(" 2 1 * 4 3 <|endoftext|>").input_ids)
    assert tokens == [" 2", " 1", " *", " 4", " 3", " ", "<|endoftext|>"]


def test_there_are_seventeen_symbols_and_digits_are_their_own_ids() -> None:
    assert len(TOKENIZER) == 17
    assert encode(" 0 1 2 3 4 5 6 7 8 9", TOKENIZER) == list(range(10))


def test_padding_is_eos_as_in_gpt2() -> None:
    assert TOKENIZER.pad_token_id == TOKENIZER.eos_token_id == TOKENIZER.bos_token_id == 16


@given(st.lists(st.sampled_from(PIECES)))
def test_decoding_gives_the_text_back(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert TOKENIZER.decode(encode(text, TOKENIZER)) == text


@pytest.mark.parametrize("text", ["x", " 2 x", " 21", "2", " 2\n", " é", " １"])
def test_an_unknown_symbol_is_named_and_never_becomes_a_token(text: str) -> None:
    with pytest.raises(ValueError, match="not in the vocabulary; known are"):
        encode(text, TOKENIZER)


def test_special_tokens_are_not_offered_where_a_symbol_is_unknown() -> None:
    tokenizer = build("12")
    tokenizer.add_tokens(["<|latent|>"], special_tokens=True)
    with pytest.raises(ValueError, match=r"known are 1 2$"):
        encode(" 1 x", tokenizer)


def test_autotokenizer_loads_it_beside_a_model(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=17, n_layer=1, n_head=1, n_embd=8)).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = loaded(TEXT).input_ids
    assert ids == encode(TEXT, TOKENIZER)
    assert loaded.decode(ids) == TEXT
    assert (loaded.eos_token_id, loaded.pad_token_id) == (16, 16)
