"""Examples read from files: every format, and every kind of broken line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.small_pretrained import reference
from trainer.data.files import DataError, from_objects, read
from trainer.data.layout import Line, format_line, make_line

LINES = [Line("1 + 1 + 1 ?", "1 + 1 = 2 . 2 + 1 = 3", "3"), Line("2 + 2 ?", "", "4"), Line("Wer?", "Öl", "Ö")]


def as_text(lines: list[Line]) -> str:
    return "".join(f"{format_line(line)}\n" for line in lines)


WRITTEN = {
    "text": as_text(LINES).encode(),
    "text without a last newline": as_text(LINES).strip().encode(),
    "CRLF": as_text(LINES).replace("\n", "\r\n").encode(),
    "BOM": b"\xef\xbb\xbf" + as_text(LINES).encode(),
    "blank lines": ("\n \n" + as_text(LINES).replace("\n", "\n\t\n")).encode(),
    "gzip": gzip.compress(as_text(LINES).encode()),
    "JSON": json.dumps([line._asdict() for line in LINES], indent=2).encode(),
    "JSON in one line": json.dumps([line._asdict() for line in LINES], ensure_ascii=False).encode(),
    "JSON lines": "\n".join(json.dumps(line._asdict()) for line in LINES).encode(),
    "JSON lines, gzip, BOM": gzip.compress(
        b"\xef\xbb\xbf" + "\r\n".join(json.dumps(line._asdict()) for line in LINES).encode()
    ),
}


@pytest.mark.parametrize("text", ['[["1 + 1", "2"]]', "null", '["1 + 1||1 #### 2"]', "\n 3.5 "])
def test_json_without_objects_is_told_what_json_is_expected(tmp_path: Path, text: str) -> None:
    file = tmp_path / "examples.json"
    file.write_text(text)
    with pytest.raises(DataError, match="holds no JSON object with question, steps or cot, and answer; exp"):
        read(file)


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_kind_of_file_is_read_by_its_content(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "examples.whatever"
    file.write_bytes(WRITTEN[kind])
    contents = read(file)
    assert contents.lines == LINES
    assert not contents.broken
    assert contents.gzipped == ("gzip" in kind)
    assert contents.format == (
        "JSON lines" if "lines" in kind and "JSON" in kind else kind.split()[0] if "JSON" in kind else "text"
    )


def test_steps_are_lines_and_numbers_stay_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "coconut.json"
    file.write_text('[{"question": "a\\nb ", "steps": ["one.", "", " two."], "answer": 1.50, "edges": []}]')
    assert read(file).lines == [Line("a b", "one.\ntwo.", "1.50")]


def test_the_raw_lines_of_gsm8k(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    worked = "Half of 48 is 48/2 = <<48/2=24>>24.\nIn all <<48+24=72>>72.\n#### 1,072"
    empty = "No sum here.\n#### 5"
    objects = [{"question": "How many?", "answer": worked}, {"question": "And now?", "answer": empty}]
    file.write_text("\n".join(map(json.dumps, objects)))
    contents = read(file)
    assert contents.lines == [
        Line("How many?", "<<48/2=24>> <<48+24=72>>", "1072"),
        Line("And now?", "", "5"),
    ]
    assert contents.comma_answers == 1


def test_a_further_mark_belongs_to_the_answer_as_in_the_official_code(tmp_path: Path) -> None:
    file = tmp_path / "twice.txt"
    file.write_text("a||b #### 1 #### 2\nc||d #### 3\n")
    contents = read(file)
    assert contents.lines == [Line("a", "b", "1 #### 2"), Line("c", "d", "3")]
    assert (contents.marked_answers, contents.broken) == (1, [])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[]", "its JSON list is empty; expected are lines"),
        (
            '{"data": [{"question": "a", "cot": "b", "answer": "c"}]}',
            "one JSON object, with its examples under 'd",
        ),
        ('{"a": 1}', "is one JSON object, and no example"),
        ('{\n"question": "a",\n"answer": "b"}\n{\n"question"', "its JSON objects go over several lines each"),
    ],
)
def test_json_in_another_shape_is_refused_with_the_right_one(tmp_path: Path, written: str, said: str) -> None:
    file = tmp_path / "examples.json"
    file.write_text(written)
    with pytest.raises(DataError, match=f"examples.json: .*{said}.*one a line or in a list"):
        read(file)


def test_what_is_broken_in_a_line_is_said(tmp_path: Path) -> None:
    file = tmp_path / "latin"
    file.write_bytes("Zoë||a #### b\n".encode("latin-1"))
    assert "not text in UTF-8 (byte 0xeb); what is Latin-1: iconv" in read(file).broken[0].reason
    file.write_text('{"prompt": "a", "answer": "b"}\n' * 2)
    assert read(file).broken[0].reason == "the question is missing; its keys are prompt, answer"


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=20)


@example([("|", "", "0")], "text")
@given(
    st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=4),
    st.sampled_from(["text", "lines", "array"]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, raw: list[tuple[str, ...]], kind: str
) -> None:
    made = []
    for question, cot, answer in raw:
        try:
            made.append(make_line(f"q{question}", cot, answer))
        except ValueError:
            continue
    file = tmp_path_factory.getbasetemp() / "examples"
    objects = [line._asdict() for line in made]
    written = {
        "text": as_text(made),
        "lines": "".join(f"{json.dumps(o, ensure_ascii=False)}\n" for o in objects),
        "array": json.dumps(objects, indent=1),
    }[kind]
    file.write_text(written, encoding="utf-8", newline="")
    if made:
        contents = read(file)
        if kind == "text":  # one line each: the steps of a CoT stand beside each other
            made = [line._replace(cot=line.cot.replace("\n", " ")) for line in made]
        assert (contents.lines, contents.broken) == (made, [])


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_every_line_is_counted(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes"
    file.write_bytes(data)
    try:
        contents = read(file)
    except DataError as error:
        assert str(error).startswith(f"{file}")
    else:
        assert len(contents.lines) == len(contents.numbers)
        if contents.format == "text" and not contents.gzipped:
            rows = (
                data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            )
            assert len(contents.lines) + len(contents.broken) == sum(bool(row.strip()) for row in rows)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1 + 1 #### 2", "'||' between question and CoT is missing"),
        (b"1 + 1||2", "'####' between CoT and answer is missing"),
        (b"a||b||c #### 2", "'||' stands 2 times"),
        (b"||b #### 2", "the question is missing"),
        (b"a||b ####  ", "the answer is missing"),
        (b"a||b #### ,", "the answer is missing"),
        (b"caf\xe9||b #### 2", "is not text in UTF-8"),
    ],
)
def test_a_broken_line_of_text_has_its_number_and_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    file = tmp_path / "train.txt"
    file.write_bytes(b"1||2 #### 3\r\n\r\n" + line + b"\r\n4||5 #### 6")
    contents = read(file)
    assert [numbered.question for numbered in contents.lines] == ["1", "4"]
    assert contents.numbers == [1, 4]
    [broken] = contents.broken
    assert str(broken).startswith(f"{file}, line 3: ") and reason in str(broken)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ('{"answer": "2", "cot": ""}', "the question is missing"),
        ('{"question": "a", "cot": ""}', "the answer is missing"),
        ('{"question": "a", "cot": "", "answer": null}', "the answer is missing"),
        ('{"question": "a", "cot": "", "answer": true}', "its answer is no text"),
        ('{"question": ["a"], "cot": "", "answer": "2"}', "its question is no text"),
        ('{"question": "a", "steps": "b", "answer": "2"}', "its steps are no list of texts"),
        ('{"question": "a", "steps": [1, ["b"]], "answer": "2"}', "its steps are no list of texts"),
        ('{"question": "a", "answer": "2"}', "has neither steps, nor cot, nor '####'"),
        ('{"question": "a", "cot": "b #### c", "answer": "2"}', "'####' stands inside a part"),
        ('{"question": "a||b", "cot": "", "answer": "2"}', "'||' stands inside a part"),
        ('["a", "b", "2"]', "is no JSON object"),
    ],
)
def test_a_broken_object_has_its_number_and_reason(tmp_path: Path, item: str, reason: str) -> None:
    good = '{"question": "a", "cot": "b", "answer": "2"}'
    lines, array = tmp_path / "lines", tmp_path / "array"
    lines.write_text(f"{good}\n{item}\n{good}")
    array.write_text(f"[\n{good},\n{item},\n{good}\n]")
    for file, number, where in ((lines, 2, "line 2: "), (array, 3, "line 3: item 2: ")):
        contents = read(file)
        assert len(contents.lines) == 2
        [broken] = contents.broken
        assert broken.line == number
        assert f"{file}, {where}" in str(broken) and reason in str(broken)


def test_a_line_that_is_no_json_is_one_broken_line(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text('{"question": "a", "cot": "b", "answer": "2"}\n{"question": "a"\n' + "[" * 100_000)
    contents = read(file)
    assert [broken.line for broken in contents.broken] == [2, 3]
    assert all("is not JSON" in broken.reason for broken in contents.broken)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \r\n\r\n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (gzip.compress(b"1||2 #### 3\n" * 50, mtime=0)[:-20], "its gzip is damaged or cut short"),
        (b"\x1f\x8b\x08 this is no gzip", "its gzip is damaged or cut short"),
        ("1||2 #### 3".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04\0\0\0\0", "is a binary file"),
        (
            b'[{"question": "a", "cot": "b", "answer": "2"},\n\n{"question"',
            "line 3: is not JSON from item 2 on",
        ),
        (b'[{"question": "a", "cot": "\xff"}]', "line 1: is not text in UTF-8"),
        (b"[{", "is not JSON from item 1 on"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "train.txt"
    file.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(file)
    assert str(caught.value).startswith(str(file)) and reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_and_one_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read(tmp_path)


def test_objects_of_the_hub_are_read_as_those_of_files() -> None:
    contents = from_objects(Path("hub"), [{"question": "q", "answer": "<<1+1=2>> #### 2"}, {"question": "q"}])
    assert contents.lines == [Line("q", "<<1+1=2>>", "2")]
    assert str(contents.broken[0]) == "hub, line 2: the answer is missing; its keys are question"


def test_the_published_files_of_gsm8k() -> None:
    folder = reference("STEPWISE_GSM8K_DATA", "gsm8k")
    train, valid = read(folder / "train.txt"), read(folder / "valid.txt")
    assert (len(train.lines), len(train.broken), sum(not line.cot for line in train.lines)) == (6_973, 0, 89)
    assert (len(valid.lines), len(valid.broken), valid.comma_answers) == (500, 0, 4)
    assert (
        "".join(f"{format_line(line)}\n" for line in train.lines).encode()
        == (folder / "train.txt").read_bytes()
    )


def test_the_published_file_of_prosqa() -> None:
    contents = read(reference("STEPWISE_PROSQA_DATA", "prosqa") / "valid.json")
    assert (contents.format, len(contents.lines), contents.broken) == ("JSON", 300, [])
    assert contents.lines[0].cot == "Tom is a terpus.\nEvery terpus is a brimpus.\nEvery brimpus is a lempus."
