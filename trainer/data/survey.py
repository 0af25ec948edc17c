"""What is in a file of examples: `stepwise data check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from trainer.data import files, layout, proposal, text
from trainer.data import tokenizer as vocabulary
from trainer.data.files import DataError
from trainer.data.layout import Line
from trainer.data.proposal import Lengths
from trainer.pretrained import UnavailableError, fetch, read_tokenizer

REPEATED = 10  # how often a word stands in the file on average, at least, for many words to be a vocabulary
FEW_WORDS = 500  # so few are one in any case
PERCENTILES = {"least": 0.0, "median": 50.0, "p90": 90.0, "p99": 99.0, "most": 100.0}
PARTS = ("question", "CoT", "answer")
ROW = "row"
HELD_OUT = ("valid", "test")  # what is cut off
WORDS = "words"


@dataclass(frozen=True, slots=True)
class Survey:
    """What `stepwise data check` tells; its fields are the keys of `--json`.

    broken: line and reason of each. duplicates: examples whose question stood before. several_answers:
    questions that have them. non_ascii: examples with other characters. comma_answers: answers that lose
    their commas. marked_answers: answers with a further ####. with_eos: examples that have the tokenizer's
    EOS in their text, and are left out. words: different blank-separated ones. unit: what the lengths are
    counted in. lengths: by part and percentile; "row" has EOS, #### and the blanks between as well, where it
    is tokens. obstacle: why nothing can be trained on it. configuration: TOML for `stepwise run config`,
    where there is no obstacle.
    """

    file: str
    format: str
    gzipped: bool
    examples: int
    broken: tuple[dict[str, int | str], ...]
    duplicates: int
    several_answers: int
    without_cot: int
    non_ascii: int
    comma_answers: int
    marked_answers: int
    with_eos: int
    words: int
    unit: str
    lengths: dict[str, Lengths]
    obstacle: str | None
    configuration: str | None


def survey(file: Path, model: str | None = None) -> Survey:
    """Look through a file. model: the name or folder of a pretrained one, to count in its tokens.

    Without one, lengths are in tokens of a vocabulary of the file's own words where it is small enough, else
    in words. Raises `DataError` for a file that cannot be read at all, and for a tokenizer that cannot be had
    or used.
    """
    contents = files.read(file)
    tokenizer = None if model is None else _tokenizer(model)
    eos = vocabulary.EOS if tokenizer is None else str(tokenizer.eos_token)
    lines = [line for line in contents.lines if not text.has(line, eos)]
    words = Counter(word for line in lines for part in line for word in part.split())
    most = text.MOST_WORDS if words.total() >= REPEATED * len(words) else FEW_WORDS
    own = tokenizer is None and len(words) <= most
    if own:
        tokenizer = vocabulary.build(sorted({*words, layout.SEPARATOR}))
        lengths, unit = _in_tokens([text.one_blank(line) for line in lines], tokenizer), "tokens, a word each"
    elif tokenizer is not None:
        lengths, unit = _in_tokens(lines, tokenizer), f"tokens of {model}"
    else:
        lengths, unit = _in_words(lines), WORDS
    obstacle, configuration = _obstacle(contents, lines), None
    if obstacle is None:
        configuration = proposal.propose(
            file,
            lengths,
            len(lines),
            any(line.cot for line in lines),
            words=len(words) if own else None,
            model=model,
        )
    return Survey(
        file=str(file),
        format=contents.format,
        gzipped=contents.gzipped,
        examples=len(contents.lines),
        broken=tuple({"line": broken.line, "reason": broken.reason} for broken in contents.broken),
        duplicates=len(contents.lines) - len({line.question for line in contents.lines}),
        several_answers=text.several_answers(contents.lines),
        without_cot=sum(not line.cot for line in contents.lines),
        non_ascii=sum(not all(part.isascii() for part in line) for line in contents.lines),
        comma_answers=contents.comma_answers,
        marked_answers=contents.marked_answers,
        with_eos=len(contents.lines) - len(lines),
        words=len(words),
        unit=unit,
        lengths=lengths,
        obstacle=obstacle,
        configuration=configuration,
    )


def _obstacle(contents: files.Contents, lines: Sequence[Line]) -> str | None:
    """Why nothing can be trained on the usable lines of a file."""
    good, broken = len(contents.lines), len(contents.broken)
    if not text.is_usable(contents):
        if good == 0:
            return "none of its lines is an example"
        return f"{broken:,} of {good + broken:,} lines are broken, and one in {text.BROKEN} is the most"
    questions = len({line.question for line in lines})
    if questions <= len(HELD_OUT):
        return (
            f"it has {questions} different question{'' if questions == 1 else 's'}, and "
            f"{len(HELD_OUT) + 1} are the least: one to train on, one for {' and one for '.join(HELD_OUT)}"
        )
    return None


def _tokenizer(model: str) -> PreTrainedTokenizerBase:
    try:
        return fetch(model, "tokenizer", lambda where: read_tokenizer(model, where))
    except UnavailableError as error:
        raise DataError(f"--tokenizer {model}: {error}") from None


def _in_tokens(lines: Sequence[Line], tokenizer: PreTrainedTokenizerBase) -> dict[str, Lengths]:
    lengths = {ROW: layout.encode_lines(lines, tokenizer).length_N.numpy()}
    for i, name in enumerate(PARTS):
        texts = [f" {layout.one_line(line[i])}" if line[i] else "" for line in lines]
        encoded = vocabulary.encode_texts(texts, tokenizer, special=False) if texts else []
        lengths[name] = np.array([len(ids) for ids in encoded])
    return _percentiles({name: lengths[name] for name in (*PARTS, ROW)})


def _in_words(lines: Sequence[Line]) -> dict[str, Lengths]:
    counts = np.array([[len(part.split()) for part in line] for line in lines], int).reshape(-1, len(PARTS))
    return _percentiles({**dict(zip(PARTS, counts.T, strict=True)), ROW: counts.sum(1)})


def _percentiles(lengths: Mapping[str, np.ndarray]) -> dict[str, Lengths]:
    """Each is a length that there is."""
    return {
        part: {
            name: int(np.percentile(values, share, method="inverted_cdf")) if len(values) else 0
            for name, share in PERCENTILES.items()
        }
        for part, values in lengths.items()
    }
