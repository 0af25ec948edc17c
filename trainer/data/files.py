"""Reading examples from files, whatever the papers' code writes: found by content, not by name.

    text          question||CoT #### answer, one a line                                  (official code)
    JSON          [{"question", "steps": […], "answer"}, …], or {"question", "cot", "answer"}   (Coconut)
    JSON lines    the same objects, one a line; or GSM8K's own {"question", "answer"}, whose answer is a
                  text with <<…>> annotations and #### before the number

Any of them may be gzipped, begin with a BOM and end its lines as Windows does. Nothing is dropped in
silence: what is no example is in `Contents.broken`, with its line and the reason. Blank lines are nothing.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from trainer.data.layout import NEWLINES, SEPARATOR, Line, make_line, split_line

GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
NEWLINE = re.compile(rb"\r\n|\n|\r")
ARRAY = re.compile(rb"\s*\[\s*[{\]]")
OBJECT = re.compile(rb"\s*\{\s*[\"}]")
BETWEEN = re.compile(r"[\s,]*")
ANNOTATION = re.compile(r"<<.*?>>")
SNIFFED = 8192  # bytes
LONGEST = 200  # characters of a reason
EXPECTED = "expected are lines question||CoT #### answer, or JSON objects, one a line or in a list"
NO_OBJECT = "no JSON object with question, steps or cot, and answer"

DECODER = json.JSONDecoder(parse_int=str, parse_float=str)  # numbers stay as they were written

Raw = tuple[str, str, str]  # question, CoT, answer
Item = tuple[int, str, Callable[[], Raw]]  # the line it begins at, what to call it, and what parses it


class DataError(ValueError):
    """A file that gives no examples; the message says which, and what is wrong with it."""


class Broken(NamedTuple):
    """A line that is no example. line: counted from 1."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


@dataclass(slots=True)
class Contents:
    """What a file holds.

    numbers: the line that each example begins at. comma_answers: answers that lost commas (see `make_line`).
    marked_answers: answers with a further ####; as in the official code all after the first is the answer.
    """

    file: Path
    format: str
    gzipped: bool
    lines: list[Line] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    comma_answers: int = 0
    marked_answers: int = 0


def read(file: Path) -> Contents:
    """All examples of a file, and all that is broken in it.

    Raises `DataError` for a file that is not there, is empty or not text, for a JSON array that is empty or
    cut short, and for JSON objects that are neither in a list nor one a line.
    """
    data = _bytes(file)
    gzipped = data.startswith(GZIP)
    if gzipped:
        data = _unzipped(data, file)
    if data.startswith(UTF16):
        raise DataError(f"{file}: is text in UTF-16; save it in UTF-8")
    if b"\0" in data[:SNIFFED]:
        raise DataError(f"{file}: is a binary file, neither text nor gzipped text")
    data = data.removeprefix(BOM)
    if not data.strip():
        raise DataError(f"{file}: is empty; {EXPECTED}")
    if ARRAY.match(data):
        contents = _collect(file, "JSON", gzipped, _array(data, file))
        if not contents.lines and not contents.broken:
            raise DataError(f"{file}: its JSON list is empty; {EXPECTED}")
        return contents
    if OBJECT.match(data):
        _check_first(data, file)
        return _collect(file, "JSON lines", gzipped, _each_line(data, _json_line))
    if _is_json(data):
        raise DataError(f"{file}: holds {NO_OBJECT}; {EXPECTED}")
    return _collect(file, "text", gzipped, _each_line(data, split_line))


def from_objects(name: Path, objects: Iterable[Any]) -> Contents:
    """The same of objects as a JSON file has them."""
    items = ((number, "", partial(_fields, value)) for number, value in enumerate(objects, start=1))
    return _collect(name, "objects", False, items)


def _is_json(data: bytes) -> bool:
    """Whether all of it is one JSON value."""
    try:
        DECODER.decode(data.decode("utf-8", errors="replace"))
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def _check_first(data: bytes, file: Path) -> None:
    """Raises `DataError` where the first JSON object is no line of examples but holds them, or many lines."""
    try:
        text = data.decode("utf-8", errors="replace")
        value, end = DECODER.raw_decode(text, text.index("{"))
    except (json.JSONDecodeError, RecursionError):
        return  # that line is broken
    if not text[end:].strip() and "question" not in value:
        lists = [key for key, inner in value.items() if isinstance(inner, list)]
        what = f"with its examples under {lists[0]!r}: save that list" if lists else "and no example"
        raise DataError(f"{file}: is one JSON object, {what}; {EXPECTED}")
    if "\n" in text[:end].strip() and text[end:].strip():
        raise DataError(f"{file}: its JSON objects go over several lines each; {EXPECTED}")


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None


def _unzipped(data: bytes, file: Path) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: its gzip is damaged or cut short ({error})") from None


def _collect(file: Path, format: str, gzipped: bool, items: Iterable[Item]) -> Contents:
    contents = Contents(file, format, gzipped)
    for number, name, read_raw in items:
        try:
            raw = read_raw()
            line = make_line(*raw)
        except ValueError as error:
            contents.broken.append(Broken(file, number, f"{name}{error}"))
        else:
            contents.lines.append(line)
            contents.numbers.append(number)
            contents.comma_answers += "," in raw[2]
            contents.marked_answers += SEPARATOR in line.answer
    return contents


def _each_line(data: bytes, parse: Callable[[str], Raw]) -> Iterator[Item]:
    for number, line in enumerate(NEWLINE.split(data), start=1):
        if line.strip():
            yield number, "", partial(_parse_line, line, parse)


def _parse_line(line: bytes, parse: Callable[[str], Raw]) -> Raw:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(_no_utf8(error)) from None
    return parse(text)


def _no_utf8(error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return f"is not text in UTF-8 (byte {byte:#04x}); what is Latin-1: iconv -f latin1 -t utf8 FILE > NEW"


def _json_line(line: str) -> Raw:
    try:
        value = DECODER.decode(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"is not JSON: {error}") from None
    return _fields(value)


def _array(data: bytes, file: Path) -> Iterator[Item]:
    """Each item of a JSON array with the line it begins at."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}, line {line}: {_no_utf8(error)}") from None
    at, count = text.index("[") + 1, 0
    line = text.count("\n", 0, at) + 1
    while True:
        start = _next(text, at)
        line += text.count("\n", at, start)
        if text[start : start + 1] == "]":
            if text[start + 1 :].strip():
                raise DataError(f"{file}, line {line}: something follows the end of its JSON array")
            return
        try:
            value, at = DECODER.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(
                f"{file}, line {line}: is not JSON from item {count + 1} on, or is cut short: {error}"
            ) from None
        count += 1
        yield line, f"item {count}: ", partial(_fields, value)
        line += text.count("\n", start, at)


def _next(text: str, at: int) -> int:
    """Where the next item of an array begins, or its end."""
    match = BETWEEN.match(text, at)
    assert match is not None
    return match.end()


def _fields(value: Any) -> Raw:
    """Question, CoT and answer of a JSON object."""
    if not isinstance(value, dict):
        raise DataError(f"is {NO_OBJECT}")
    question, answer = _text(value, "question"), _text(value, "answer")
    steps = value.get("steps")
    if steps is not None:
        if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
            raise DataError("its steps are no list of texts")
        return question, "\n".join(NEWLINES.sub(" ", step.strip()) for step in steps if step.strip()), answer
    if value.get("cot") is not None:
        return question, _text(value, "cot"), answer
    worked, separator, number = answer.partition(SEPARATOR)
    if not separator:
        raise DataError(
            f"has neither steps, nor cot, nor '{SEPARATOR}' in its answer; without CoT, cot is an empty text"
        )
    return question, " ".join(ANNOTATION.findall(worked)), number


def _text(value: dict[str, Any], key: str) -> str:
    text = value.get(key)
    if text is None:
        raise DataError(f"the {key} is missing; its keys are {', '.join(value) or 'none'}"[:LONGEST])
    if not isinstance(text, str):
        raise DataError(f"its {key} is no text")
    return text
