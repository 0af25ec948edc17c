"""Tokenised examples in the cache folder: the same as tokenised anew, and never another file's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.small_pretrained import gpt2_tokenizer
from tests.test_text_data import sums
from trainer.data import kept, layout
from trainer.data.layout import Line
from trainer.data.tokenizer import build
from trainer.methods.base import Examples

LINES = [*sums(30), Line("none ?", "", "0"), Line("größer", "als 7", "1000")]
FIELDS = ("ids_NT", "question_N", "cot_N", "length_N")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "WORTH", 20)
    return kept.folder()


@pytest.fixture
def tokenised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lines were really tokenised, call by call."""
    calls: list[int] = []
    encode = layout.encode

    def counting(lines: list[Line], tokenizer: object) -> layout.Encoded:
        calls.append(len(lines))
        return encode(lines, tokenizer)  # type: ignore[arg-type]

    monkeypatch.setattr(layout, "encode", counting)
    return calls


def same(one: Examples, other: Examples) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


def test_what_is_kept_is_what_tokenising_gives(tmp_path: Path, tokenised: list[int]) -> None:
    tokenizer = gpt2_tokenizer(tmp_path / "gpt2")
    anew = layout.encode_lines(LINES, tokenizer)
    for _ in range(3):
        again = kept.encode_lines(LINES, tokenizer)
        assert same(again, anew)
        assert {getattr(again, name).dtype for name in FIELDS} == {
            getattr(anew, name).dtype for name in FIELDS
        }
    assert tokenised == [32, 32]  # ours, and the first of the three


def test_other_lines_and_another_tokenizer_are_tokenised(tmp_path: Path, tokenised: list[int]) -> None:
    words = {word for line in LINES for part in line for word in part.split()}
    for tokenizer in (gpt2_tokenizer(tmp_path / "gpt2"), build(sorted({*words, "####"}))):
        for lines in (LINES, LINES[::-1], LINES[:-1]):
            assert same(kept.encode_lines(lines, tokenizer), layout.encode_lines(lines, tokenizer))
    assert tokenised == [32, 32, 32, 32, 31, 31] * 2
    changed = gpt2_tokenizer(tmp_path / "gpt2")
    changed.add_tokens([" and"])
    assert same(kept.encode_lines(LINES, changed), layout.encode_lines(LINES, changed))


def test_few_lines_are_not_kept_and_few_files_stay(tmp_path: Path, cache: Path) -> None:
    tokenizer = gpt2_tokenizer(tmp_path / "gpt2")
    kept.encode_lines(LINES[:19], tokenizer)
    assert not cache.exists()
    for start in range(6):
        kept.encode_lines(sums(30, start), tokenizer)
    assert len(list(cache.iterdir())) == kept.STAY


def test_a_cache_that_is_damaged_or_cannot_be_written_is_none(
    tmp_path: Path, cache: Path, tokenised: list[int]
) -> None:
    tokenizer = gpt2_tokenizer(tmp_path / "gpt2")
    anew = kept.encode_lines(LINES, tokenizer)
    [file] = cache.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert same(kept.encode_lines(LINES, tokenizer), anew)
    assert same(kept.encode_lines(LINES, tokenizer), anew)
    assert tokenised == [32, 32]
    file.unlink()
    cache.rmdir()
    cache.write_text("in the way")
    assert same(kept.encode_lines(LINES, tokenizer), anew)
