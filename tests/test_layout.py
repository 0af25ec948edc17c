from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers, processors
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.small_pretrained import gpt2_files, gpt2_tokenizer, llama, published_gpt2_tokenizer
from trainer.data.layout import (
    Line,
    decode_example,
    encode_lines,
    encode_question,
    format_line,
    parse_line,
    separator_id,
    separator_ids,
    text,
)
from trainer.data.multiplication import SYMBOLS, Cot, Multiplication, encode_pairs, render, render_pairs
from trainer.data.pairs import split_pairs
from trainer.data.tokenizer import encode

TOKENIZER = Multiplication(2).tokenizer()
EXAMPLE = Line("2 1 * 4 3", "8 4 0 + 0 6 3 0", "8 0 4 0")

plain = st.text(st.characters(codec="ascii", exclude_characters="|#,", categories=["L", "N", "P", "Zs"]))
words = plain.map(str.strip)
symbols = st.lists(st.sampled_from(SYMBOLS[:-1]), min_size=1, max_size=12).map(" ".join)
lines = st.builds(Line, symbols, symbols, symbols)


def test_a_published_line_has_three_parts() -> None:
    line = "2 1 * 4 3||8 4 0 + 0 6 3 0 #### 8 0 4 0"
    assert parse_line(line + "\n") == EXAMPLE
    assert format_line(EXAMPLE) == line


@given(st.builds(Line, words.filter(bool), words, words.filter(bool)))
def test_a_line_is_read_as_it_was_written(line: Line) -> None:
    assert parse_line(format_line(line)) == line


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("2 * 3||6||6 #### 6", r"'\|\|' stands 2 times"),
        ("2 * 3||6 #### ,", "the answer is missing"),
        ("", r"'\|\|' between question and CoT is missing"),
        ("2 * 3 #### 6", r"'\|\|' between question and CoT is missing"),
        ("2 * 3||6 0", "'####' between CoT and answer is missing"),
        ("||6 0 #### 6 0", "the question is missing"),
        ("2 * 3||6 0 ####", "the answer is missing"),
        ("x" * 10_000, "is missing"),
    ],
)
def test_what_is_missing_is_said_in_one_short_line(line: str, missing: str) -> None:
    with pytest.raises(ValueError, match=missing) as caught:
        parse_line(line)
    assert len(str(caught.value)) < 200


@given(st.lists(lines, min_size=1, max_size=5))
def test_ids_are_those_of_the_official_text(examples: list[Line]) -> None:
    encoded = encode_lines(examples, TOKENIZER)
    for i, line in enumerate(examples):
        expected = encode(text(line, TOKENIZER.eos_token), TOKENIZER)
        row = encoded.ids_NT[i].tolist()
        length, question, cot = (int(n[i]) for n in (encoded.length_N, encoded.question_N, encoded.cot_N))
        assert row[:length] == expected
        assert set(row[length:]) <= {TOKENIZER.pad_token_id}
        assert row[:question] == encode_question(line.question, TOKENIZER)
        assert [k for k, id in enumerate(expected) if id == TOKENIZER.eos_token_id] == [
            question - 1,
            question + cot,
            length - 1,
        ]
        assert decode_example(encoded, i, TOKENIZER) == line


def test_an_example_without_cot_has_two_blanks_to_remove() -> None:
    encoded = encode_lines([Line("2", "", "4")], TOKENIZER)
    assert int(encoded.cot_N[0]) == 2
    assert decode_example(encoded, 0, TOKENIZER) == Line("2", "", "4")


def test_a_symbol_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="'x' is not in the vocabulary; known are"):
        encode_lines([Line("x", "1", "2")], TOKENIZER)


@pytest.fixture(params=["made here", "published"])
def gpt2(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    if request.param == "made here":
        return gpt2_tokenizer(tmp_path)
    return published_gpt2_tokenizer()


@pytest.mark.parametrize("digits", [2, 4, 7])
def test_gpt2_has_the_same_layout(gpt2: GPT2Tokenizer, digits: int) -> None:
    a, b = split_pairs(digits, digits, {"valid": 20}, seed=0)["valid"]
    full, own = encode_pairs(a, b, gpt2), encode_pairs(a, b, TOKENIZER)
    for name in ("question_N", "cot_N"):
        assert getattr(full, name).tolist() == getattr(own, name).tolist()
    for i in range(20):
        line = decode_example(own, i, TOKENIZER)
        assert decode_example(full, i, gpt2) == line
        assert full.ids_NT[i].tolist() == encode(text(line, gpt2.eos_token), gpt2)


def test_the_answer_begins_after_the_separator(gpt2: GPT2Tokenizer) -> None:
    assert gpt2.decode(separator_ids(gpt2)) == " ####"
    assert separator_id(gpt2) == separator_ids(gpt2)[-1]
    assert separator_ids(TOKENIZER) == encode(" ####", TOKENIZER)


def test_no_example_is_no_row() -> None:
    assert len(encode_lines([], TOKENIZER)) == 0


@pytest.fixture(params=["Llama's", "bytes", "digits of different lengths", "joined symbols"])
def unlike_gpt2(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedTokenizerBase:
    """Tokenizers that write a symbol and its blank in other ways than one token."""
    if request.param == "Llama's":
        backend = AutoTokenizer.from_pretrained(llama(tmp_path)).backend_tokenizer
        begin = [("<s>", backend.token_to_id("<s>"))]
        backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", begin)
        return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    gpt2_files(tmp_path)
    merges = {"bytes": "", "digits of different lengths": "Ġ 7", "joined symbols": "1 Ġ\n1Ġ 1"}
    (tmp_path / "merges.txt").write_text(merges[request.param])
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    vocabulary |= {token: len(vocabulary) + i for i, token in enumerate(("1Ġ", "1Ġ1"))}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer: PreTrainedTokenizerBase = GPT2Tokenizer.from_pretrained(tmp_path)
    if request.param == "joined symbols":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(False, use_regex=False)
    return tokenizer


@pytest.mark.parametrize("cot", ["schoolbook", "tree"])
def test_any_tokenizer_has_the_ids_of_the_text(unlike_gpt2: PreTrainedTokenizerBase, cot: Cot) -> None:
    a, b = split_pairs(3, 2, {"valid": 50}, seed=0)["valid"]
    fast = encode_pairs(a, b, unlike_gpt2, cot)
    for i, line in enumerate(render_pairs(a, b, cot)):
        whole = unlike_gpt2(text(line, unlike_gpt2.eos_token)).input_ids
        question, length = int(fast.question_N[i]), int(fast.length_N[i])
        assert fast.ids_NT[i].tolist()[:length] == whole
        assert whole[:question] == encode_question(line.question, unlike_gpt2)
        ends = [k for k, id in enumerate(whole) if id == unlike_gpt2.eos_token_id]
        assert ends == [question - 1, question + int(fast.cot_N[i]), length - 1]
        assert decode_example(fast, i, unlike_gpt2) == line
    assert unlike_gpt2.decode(separator_ids(unlike_gpt2)).strip() == "####"


def test_the_eos_within_a_text_is_refused() -> None:
    for line in (Line("2 <|endoftext|>", "1", "2"), Line("2", "1 <|endoftext|> 1", "2")):
        with pytest.raises(ValueError, match=r"'<\|endoftext\|>' is in this example"):
            encode_lines([EXAMPLE, line], TOKENIZER)
    with pytest.raises(ValueError, match="is in this example"):
        encode_question("2 <|endoftext|> 3", TOKENIZER)


@pytest.mark.parametrize("template", ["<|endoftext|> $A", "$A #"])
def test_a_tokenizer_whose_additions_hide_the_ends_is_refused(tmp_path: Path, template: str) -> None:
    tokenizer = gpt2_tokenizer(tmp_path)
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<|endoftext|>", "#")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(template, None, ids)
    with pytest.raises(ValueError, match=r"this tokenizer puts .* around every text"):
        encode_lines([EXAMPLE], tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no EOS"):
        encode_lines([EXAMPLE], tokenizer)


def test_render_and_layout_agree_on_the_number_of_removable_tokens() -> None:
    for digits, tokens in ((2, 9), (4, 47), (5, 75), (7, 149), (9, 247), (11, 369)):
        line = render("9" * digits, "8" * digits)
        assert int(encode_lines([line], TOKENIZER).cot_N[0]) == tokens
