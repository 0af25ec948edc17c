"""`stepwise data render | make | check`: what they print and write, and one clear block for every mistake."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from stepwise_tui import cli
from tests.small_pretrained import gpt2, published_gpt2_tokenizer, reference
from trainer import presets
from trainer.config import Config, build
from trainer.data import load_task
from trainer.data.layout import Line, format_line, parse_line
from trainer.data.multiplication import render

ROOT = Path(__file__).parent.parent
APPLES = [
    Line(f"Ann has {a} apples . Ben gives {b} . How many ?", f"{a} + {b} = {a + b}", str(a + b))
    for a in range(1, 10)
    for b in range(1, 10)
]


def call(*arguments: str | Path, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli.app, ["data", *map(str, arguments)], input=text)


def refused(result: Result, *parts: str) -> None:
    """Exit code 2, one block on stderr that says all of `parts`, and nothing on stdout."""
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2, result.output
    for part in parts:
        assert part in said
    assert result.stdout == "" and "Traceback" not in result.output


def pair(line: str) -> str:
    """ "A B" of a line, as people write numbers."""
    return " ".join(factor.replace(" ", "")[::-1] for factor in parse_line(line).question.split(" * "))


def written(file: Path, lines: list[Line]) -> Path:
    file.write_text("".join(f"{format_line(line)}\n" for line in lines), encoding="utf-8")
    return file


# render


@pytest.mark.parametrize("k", [4, 5, 7, 9, 11])
def test_the_published_files_come_out_of_the_command_line_by_line(k: int) -> None:
    file = reference("STEPWISE_MULT_DATA", "mult") / f"valid-{k}x{k}.txt"
    published = file.read_text()
    pairs = "".join(f"{pair(line)}\n" for line in published.splitlines())
    questions = "".join(f"{line.partition('||')[0]}\n" for line in published.splitlines())
    for text in (pairs, questions, published):
        result = call("render", f"mult{k}x{k}", text=text)
        assert result.exit_code == 0 and result.stdout == published and result.stderr == ""


@pytest.mark.parametrize(
    "text", ["12 34", "12*34", " 12 × 34\r", "12 x 34", "2 1 * 4 3", "2 1*4 3", "2 1 * 34"]
)
def test_a_pair_is_written_as_people_or_the_files_write_it(text: str) -> None:
    assert call("render", "mult2x2", text=text).stdout == format_line(render("12", "34")) + "\n"


def test_render_in_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stepwise_tui", "data", "render", "mult2x2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input="12 34\r\n\n5 6",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2 1 * 4 3||8 4 0 + 0 6 3 0 #### 8 0 4 0\n5 0 * 6 0||0 3 0 + 0 0 0 0 #### 0 3 0 0\n"


def test_render_of_the_tree_and_of_unequal_factors() -> None:
    result = call("render", "mult4x4", "--set", "data.cot=tree", text="2365 4347")
    assert result.stdout == format_line(render("2365", "4347", "tree")) + "\n"
    result = call("render", "mult4x4", "--set", "data.digits_b=1", text="2365 4")
    assert result.stdout == format_line(render("2365", "4")) + "\n"
    assert call("render", "mult2x2", text="").stdout == ""


def test_bad_pairs_are_told_with_their_lines_and_nothing_is_printed() -> None:
    pairs = (
        "12 34\nx 3\n\n123 45\n1\n-3 4\n1 2 3\n1.5 2\n4 ٣\n1 23 * 4\n*\n1*2*3\n".encode()
        + b"\xff 3\n"
        + b"9" * 9_000
        + b" 1"
    )
    result = call("render", "mult2x2", text=pairs)
    refused(
        result,
        "line 2: 'x 3': two whole numbers are expected: 12 34, 12*34, or 2 1 * 4 3 with",
        "line 4: '123 45': 123 has 3 digits, and 2 at most are allowed",
        "line 5: '1': two",
        "line 6: '-3 4': two",
        "and 7 more bad pairs",
    )
    assert len(result.stderr) < 1_000
    refused(call("render", "gsm8k-gpt2", text="1 2"), "only multiplication has pairs")
    refused(call("render", "mult5", text="1 2"), "no preset 'mult5'; did you mean mult5x5?")


# make


def test_make_writes_the_split_of_a_run_with_that_seed(tmp_path: Path) -> None:
    file = tmp_path / "test.txt"
    result = call("make", "mult2x2", "--split", "test", "--n", "30", "--seed", "7", "--out", file)
    assert result.exit_code == 0 and result.stdout == f"{file}: 30 test examples\n"
    config = presets.configure("mult2x2", seed=7)
    task = load_task(config)
    tokenizer = task.tokenizer()
    sizes = {"train": config.data.train, "valid": config.data.valid, "test": 30}
    examples = task.splits(sizes, 7, tokenizer)["test"]
    lines = [format_line(task.example_text(examples, i, tokenizer)) for i in range(30)]
    assert file.read_text().splitlines() == lines

    other = tmp_path / "other.txt"
    call("make", "mult2x2", "--split", "test", "--n", "30", "--seed", "8", "--out", other)
    assert other.read_text() != file.read_text()
    refused(call("make", "mult2x2", "--out", file), f"{file}: is there already")
    assert file.read_text().splitlines() == lines


def test_make_gzips_by_the_name_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    files = [tmp_path / "a.txt", tmp_path / "b.txt.gz", tmp_path / "c.gz"]
    for file in files:
        assert call("make", "mult2x2", "--split", "valid", "--out", file).exit_code == 0
    plain, *packed = (file.read_bytes() for file in files)
    assert gzip.decompress(packed[0]) == plain and packed[0] == packed[1]
    assert len(plain.splitlines()) == 250
    assert sorted(tmp_path.iterdir()) == files


def test_make_writes_coconuts_json_which_reads_back_with_its_steps(tmp_path: Path) -> None:
    file, again = tmp_path / "made.json", tmp_path / "again.json.gz"
    assert call("make", "prontoqa-short", "--split", "valid", "--n", "4", "--out", file).exit_code == 0
    objects = json.loads(file.read_text())
    assert [sorted(one) for one in objects] == [["answer", "question", "steps"]] * 4
    assert all(len(one["steps"]) == 2 and one["steps"][0].count(".") == 2 for one in objects)
    own = tmp_path / "own.toml"
    own.write_text(
        f'[data]\ntask = "prontoqa"\ntrain_file = "{file}"\n[model]\ninit = "scratch"\nvocab = "task"\n'
    )
    assert call("make", own, "--split", "train", "--n", "2", "--out", again).exit_code == 0
    written = json.loads(gzip.decompress(again.read_bytes()))
    assert len(written) == 2 and all(one in objects for one in written)


def test_make_of_a_file_of_ones_own(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    source = written(tmp_path / "apples.txt", APPLES)
    config.write_text(f"[data]\ntask = 'text'\ntrain_file = '{source}'\n")
    for split, n in (("train", 65), ("valid", 8), ("test", 8)):
        assert call("make", config, "--split", split, "--out", tmp_path / split).exit_code == 0
        assert len((tmp_path / split).read_text().splitlines()) == n
    rows = [
        row for split in ("train", "valid", "test") for row in (tmp_path / split).read_text().splitlines()
    ]
    assert sorted(rows) == sorted(source.read_text().splitlines())
    refused(
        call("make", config, "--split", "test", "--n", "9", "--out", tmp_path / "more"),
        "apples.txt: 9 test examples were asked for, and there are 8",
    )
    assert not (tmp_path / "more").exists()


def test_what_make_cannot_do(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    refused(call("make", "mult2x2", "--split", "test", "--n", "9000", "--out", out), "only 8,100 pairs")
    refused(
        call("make", "mult2x2", "--out", tmp_path / "nowhere" / "out.txt"), "nowhere: there is no such folder"
    )
    refused(call("make", "mult2x2", "--out", out, "--n", "0"), "--n")
    refused(call("make", "mult2x2", "--out", out, "--split", "dev"), "--split")
    refused(call("make", tmp_path / "no.toml", "--out", out), "no.toml: cannot be read")
    refused(
        call("make", "gsm8k-gpt2", "--out", out, "--set", f"data.train_file={tmp_path / 'no.txt'}"),
        "no.txt: cannot be read: No such file",
    )
    assert not out.exists()


# check


def surveyed(file: Path, *arguments: str | Path) -> dict[str, Any]:
    result = call("check", file, "--json", *arguments)
    assert result.stderr == ""
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (1 if found["configuration"] is None else 0)
    return found


def proposed(found: dict[str, Any]) -> Config:
    return build(tomllib.loads(found["configuration"]))


def test_check_counts_all_that_is_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt.gz"
    rows = [format_line(line) for line in APPLES]
    rows += [rows[0], "Wer ? || #### Ö", "1||1,000 #### 1,000", "1||<|endoftext|> #### 1 #### 2"]
    rows += ["broken", "a||b"]
    file.write_bytes(gzip.compress("\r\n".join(rows).encode()))
    found = surveyed(file)
    counts = {name: value for name, value in found.items() if isinstance(value, int)}
    assert counts == {
        "gzipped": True,
        "examples": 85,
        "duplicates": 2,
        "several_answers": 1,
        "without_cot": 1,
        "non_ascii": 1,
        "comma_answers": 1,
        "marked_answers": 1,
        "with_eos": 1,
        "words": 33,
    }
    assert found["broken"] == [
        {"line": 86, "reason": "'broken': '||' between question and CoT is missing"},
        {"line": 87, "reason": "'a||b': '####' between CoT and answer is missing"},
    ]
    assert found["unit"] == "tokens, a word each"
    assert found["lengths"]["CoT"] == {"least": 0, "median": 5, "p90": 5, "p99": 5, "most": 5}
    assert found["lengths"]["answer"]["most"] == 1


def test_check_counts_steps_of_json_as_the_same_cot_in_one_line(tmp_path: Path) -> None:
    steps = [f"{i} + 1 .\n{i} + 2 .\n3 ." if i % 2 else "<<1+1=2>>" for i in range(40)]
    objects = [
        {"question": f"count {i} ?", "steps": cot.split("\n"), "answer": "3"} for i, cot in enumerate(steps)
    ]
    file = tmp_path / "steps.json"
    file.write_text(json.dumps(objects))
    found = surveyed(file)
    rows = [Line(f"count {i} ?", cot.replace("\n", " "), "3") for i, cot in enumerate(steps)]
    assert found["lengths"] == surveyed(written(tmp_path / "lines.txt", rows))["lengths"]
    assert found["lengths"]["CoT"]["most"] == 10


def test_what_check_prints_is_a_configuration_with_the_findings_as_comments(tmp_path: Path) -> None:
    file = written(tmp_path / 'my "own".txt', APPLES)
    result = call("check", file)
    assert result.exit_code == 0 and result.stderr == ""
    assert "# examples  81\n" in result.stdout
    config = build(tomllib.loads(result.stdout))
    assert config == proposed(surveyed(file))
    assert (config.data.task, config.data.train_file) == ("text", str(file))
    assert (config.model.init, config.model.vocab) == ("scratch", "task")
    assert (config.data.train, config.data.valid, config.data.test) == (81, 8, 8)
    # all of the CoT is gone, and there is time left, when the run ends
    assert config.stop.steps is not None and config.schedule.steps_per_token is not None
    assert config.stop.steps > 500 + 6 * config.schedule.steps_per_token


def test_cot_of_different_lengths_goes_all_at_once_beyond_the_ninetieth_percentile(tmp_path: Path) -> None:
    lines = [Line(f"count {i} ?", " ".join("a" * (i % 20 + 1)), "1") for i in range(20)]
    lines += [Line(f"count {i} ?", " ".join("a" * 60), "1") for i in (20, 21)]
    found = surveyed(written(tmp_path / "uneven.txt", lines))
    assert proposed(found).method.remove_all_beyond == found["lengths"]["CoT"]["p90"] == 20


def test_a_row_that_is_far_longer_than_the_others_is_left_out(tmp_path: Path) -> None:
    lines = [Line(f"{i} ?", "a b", "1") for i in range(400)]
    found = surveyed(written(tmp_path / "long.txt", [*lines, Line("long ?", "a " * 900, "1")]))
    assert proposed(found).data.max_len_train == found["lengths"]["row"]["p99"] == 12
    assert proposed(surveyed(written(tmp_path / "even.txt", lines))).data.max_len_train is None


def test_the_published_gsm8k_has_the_numbers_of_the_paper(tmp_path: Path) -> None:
    folder = reference("STEPWISE_GSM8K_DATA", "gsm8k")
    published_gpt2_tokenizer().save_pretrained(tmp_path)
    found = surveyed(folder / "train.txt", "--tokenizer", tmp_path)
    assert found["lengths"]["CoT"]["p90"] == 39
    config = proposed(found)
    assert (config.model.init, config.model.vocab) == ("gpt2", "full")
    assert (config.method.remove_all_beyond, config.schedule.tokens_per_epoch) == (39, 1.0)
    assert config.data.max_len_train == found["lengths"]["row"]["p99"] == 170
    valid = surveyed(folder / "valid.txt", "--tokenizer", tmp_path)
    assert [valid["lengths"][part]["median"] for part in ("question", "CoT")] == [51, 21]  # Table 1

    found = surveyed(folder / "train.txt")
    assert found["unit"] == "words"
    assert proposed(found).method.remove_all_beyond is None
    assert "`data check --tokenizer` finds a value" in found["configuration"]


def test_a_model_with_its_tokenizer_is_what_the_configuration_begins_with(tmp_path: Path) -> None:
    lines = [Line(f"{i} + 1", "( 1 )", f"{i}") for i in range(9)]
    folder = gpt2(tmp_path / "model")
    found = surveyed(written(tmp_path / "sums.txt", lines), "--tokenizer", folder)
    assert found["unit"] == f"tokens of {folder}"
    assert proposed(found).model.init == str(folder)


def test_data_without_cot_are_for_no_cot(tmp_path: Path) -> None:
    lines = [Line(f"{i} ?", "", "1") for i in range(30)]
    found = surveyed(written(tmp_path / "plain.txt", lines))
    assert proposed(found).method.name == "no_cot"
    assert "[schedule]" not in found["configuration"], "there is nothing to take away"


def test_a_file_that_is_too_broken_has_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("1 #### 2\n" * 7 + "1||2 #### 3\n")
    result = call("check", file)
    assert result.exit_code == 1
    assert "# broken lines  7 " in result.stdout and "and 2 more broken lines" in result.stdout
    assert "no configuration for it: 7 of 8 lines are broken, and one in 10 is the most" in result.stdout
    assert tomllib.loads(result.stdout) == {}
    assert len(surveyed(file)["broken"]) == 7
    file.write_text("\n".join(format_line(line) for line in APPLES[:2]))
    found = surveyed(file)
    assert (
        found["configuration"] is None and "2 different questions, and 3 are the least" in found["obstacle"]
    )
    file.write_text(format_line(APPLES[0]))
    assert "1 different question, and 3" in surveyed(file)["obstacle"]


def test_a_small_file_begins_from_scratch_with_its_own_words(tmp_path: Path) -> None:
    """However seldom each word stands in it: there is nothing to download for a first try."""
    found = surveyed(written(tmp_path / "mine.txt", APPLES[:5]))
    assert proposed(found).model.init == "scratch" and found["unit"] == "tokens, a word each"
    many = [Line(f"w{i} x{i} ?", f"y{i}", f"z{i}") for i in range(200)]
    found = surveyed(written(tmp_path / "many.txt", many))
    assert found["words"] == 801 and proposed(found).model.init == "gpt2"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\0\1", "binary"),
        (gzip.compress(b"1||2 #### 3", mtime=0)[:-9], "gzip"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, data: bytes | None, reason: str) -> None:
    file = tmp_path / "mine.txt"
    if data is not None:
        file.write_bytes(data)
    refused(call("check", file), str(file), reason)
    refused(call("check", file, "--json"), str(file), reason)


def test_a_tokenizer_that_cannot_be_had(tmp_path: Path) -> None:
    file = written(tmp_path / "mine.txt", APPLES)
    (tmp_path / "empty").mkdir()
    refused(
        call("check", file, "--tokenizer", tmp_path / "empty"), "--tokenizer", "no tokenizer could be read"
    )


# docs/your-data.md


def test_the_page_goes_from_a_file_to_a_model_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "your-data.md").read_text(encoding="utf-8")
    [program] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    line = next(row.strip() for row in page.splitlines() if "||5 + 4 = 9" in row)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    rows = Path("sums.txt").read_text().splitlines()
    assert len(rows) == 5_000 and len(rows[0].split()) == len(line.split())
    Path("sums.toml").write_text(call("check", "sums.txt").stdout)
    small = ("--set", "stop.steps=3", "--set", "data.valid=9", "--set", "data.test=9", "--device", "cpu")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "stepwise_tui",
            "run",
            "config",
            "sums.toml",
            "--name",
            "sums",
            "--plain",
            *small,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "12 stages" in done.stdout and "finished" in done.stdout
    runner = CliRunner()
    monkeypatch.chdir(tmp_path.parent)  # the run knows where its data are
    folder = str(tmp_path / "runs" / "sums")
    assert json.loads(runner.invoke(cli.app, ["eval", folder, "--json"]).stdout)["n"] == 9
    asked = runner.invoke(cli.app, ["chat", folder], input=line.partition("||")[0] + "\nHow?\n")
    assert asked.exit_code == 0
    assert "CoT tokens" in asked.stdout.splitlines()[0]
