"""Examples of a task as the papers' files have them: `stepwise data render` and `stepwise data make`."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, cast

from trainer.config import Config
from trainer.data import load_task, multiplication
from trainer.data.asking import SIGN
from trainer.data.files import DataError
from trainer.data.layout import BARS, Line, format_line, steps
from trainer.data.pairs import SPLITS

SHOWN = 5  # bad pairs that are named
GZIP, JSON = ".gz", ".json"


def render(pairs: Iterable[bytes], config: Config) -> list[Line]:
    """The examples of pairs, one a line; zeros are put before a short factor. Blank lines are nothing.

    A pair is `12 34` or `12*34`, or a question as the published files have it, `2 1 * 4 3`, digits reversed
    with blanks between; what follows `||` is passed over. Raises `DataError` for another task than
    multiplication, and with the number and fault of each bad pair.
    """
    data = config.data
    if data.task != "multiplication":
        raise DataError(
            f"only multiplication has pairs of factors; `data make` writes the lines of {data.task}"
        )
    widths = (data.digits, data.digits if data.digits_b is None else data.digits_b)
    lines, problems = [], []
    for number, raw in enumerate(pairs, start=1):
        written = raw.decode("utf-8", errors="replace").partition(BARS)[0].strip()
        if not written:
            continue
        pair = _factors(written)
        problem = _problem(pair, widths)
        if problem:
            problems.append(f"line {number}: {written[:60]!r}: {problem}")
        else:
            a, b = (factor.zfill(width) for factor, width in zip(pair, widths, strict=True))
            lines.append(multiplication.render(a, b, data.cot))
    if problems:
        more = len(problems) - SHOWN
        raise DataError("\n".join(problems[:SHOWN] + ([f"and {more:,} more bad pairs"] if more > 0 else [])))
    return lines


def _factors(written: str) -> list[str]:
    """The factors of a pair as people write them; of what is no pair anything."""
    sides = re.split(SIGN, written)
    if len(sides) != 2:
        return written.split()
    return [
        "".join(reversed(digits)) if max(map(len, digits)) == 1 else " ".join(digits)
        for digits in (side.split() or [""] for side in sides)
    ]


def _problem(pair: Sequence[str], widths: tuple[int, int]) -> str:
    """What is wrong with a pair; "" for nothing."""
    if len(pair) != 2 or not all(factor.isascii() and factor.isdigit() for factor in pair):
        return "two whole numbers are expected: 12 34, 12*34, or 2 1 * 4 3 with digits reversed"
    for factor, width in zip(pair, widths, strict=True):
        if len(factor) > width:
            return f"{factor[:60]} has {len(factor)} digits, and {width} at most are allowed"
    return ""


def make(config: Config, split: str, n: int | None) -> list[Line]:
    """The first n examples of a split of a run with this configuration; the whole split when n is None.

    Raises `DataError` when there are fewer, and what the task raises.
    """
    sizes = {name: getattr(config.data, name) for name in SPLITS[: SPLITS.index(split) + 1]}
    if n is not None:
        sizes[split] = n
    task = load_task(config)
    lines = task.lines(split, sizes, config.seed)
    if n is not None and len(lines) < n:
        raise DataError(f"{task.name}: {n:,} {split} examples were asked for, and there are {len(lines):,}")
    return lines


def write(lines: Iterable[Line], file: Path) -> None:
    """Write them one a line, or in a list as Coconut's files have them where the name ends in .json.

    Gzipped where it ends in .gz. Raises `DataError` where a new file cannot be made.
    """
    if file.exists():
        raise DataError(f"{file}: is there already, and is not written over; give another name, or remove it")
    if not file.parent.is_dir():
        raise DataError(f"{file.parent}: there is no such folder")
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as raw, _packed(raw, file) as out:
            if file.name.removesuffix(GZIP).endswith(JSON):
                out.write(
                    json.dumps([_object(line) for line in lines], ensure_ascii=False, indent=1).encode()
                )
            else:
                out.writelines(f"{format_line(line)}\n".encode() for line in lines)
        temporary.rename(file)
    finally:
        temporary.unlink(missing_ok=True)


def _object(line: Line) -> dict[str, str | list[str]]:
    return {"question": line.question, "steps": steps(line.cot) if line.cot else [], "answer": line.answer}


def _packed(raw: BinaryIO, file: Path) -> AbstractContextManager[BinaryIO]:
    """`raw`, or gzip around it without name and time: the same examples are the same bytes."""
    if file.suffix != GZIP:
        return contextlib.nullcontext(raw)
    return cast(BinaryIO, gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
