"""A run whose data change under it: noticed when it goes on, and when it is measured."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stepwise_tui import cli
from tests.test_text_data import sums, text_task
from tests.tiny import tiny_config
from trainer import runs
from trainer.config import Config
from trainer.data.layout import format_line
from trainer.run import Run, RunError


def config(file: Path) -> Config:
    return tiny_config(
        data__task="text", data__train_file=str(file), data__valid=5, data__test=5, save__stages=1
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the file `sums.txt` beside it, stopped before its first step."""
    folder = tmp_path_factory.mktemp("text")
    file = folder / "sums.txt"
    file.write_text("".join(f"{format_line(line)}\n" for line in sums(60)))
    run = Run(config(file), folder / "run", paused=True)
    run.start()
    run.close()
    return folder / "run"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def test_other_examples_stop_a_resume_and_are_told_when_it_is_measured(stopped: Path) -> None:
    file = stopped.parent / "sums.txt"
    before = file.read_text()
    try:
        file.write_text("".join(before.splitlines(keepends=True)[:-1]))
        with pytest.raises(RunError, match=r"sums.txt has not the examples .*60 then, 59 now.*run config"):
            Run(config(file), stopped, resume=True).start()
        row = runs.row(stopped)
        assert (row.state, row.stages) == ("interrupted", 4)  # as before, and neither starting nor crashed
        result = call("eval", stopped, "--limit", 2)
        assert result.exit_code == 0 and "60 then, 59 now" in result.stderr
        file.write_text(before.replace("7 + 1 ?", "7 and 1 ?"))
        with pytest.raises(RunError, match="as many, 60, but others"):
            Run(config(file), stopped, resume=True).start()
        file.write_text(before.replace("7 + 1 ?", "unheard"))  # what its vocabulary lacks
        with pytest.raises(ValueError, match=r"as many, 60, but others.*unheard' is not in the vocabulary"):
            Run(config(file), stopped, resume=True).start()
    finally:
        file.write_text(before)


def test_the_same_examples_in_other_bytes_are_the_same(stopped: Path) -> None:
    file = stopped.parent / "sums.txt"
    before = file.read_bytes()
    try:
        file.write_bytes(gzip.compress(before.replace(b"\n", b"\r\n")))
        run = Run(config(file), stopped, resume=True, paused=True)
        run.start()
        run.close()
        result = call("eval", stopped, "--limit", 2)
        assert result.exit_code == 0 and result.stderr == ""
    finally:
        file.write_bytes(before)


def test_a_digest_belongs_to_the_examples_of_one_split(tmp_path: Path) -> None:
    one = text_task(tmp_path, train=sums(20), valid=sums(20))
    train, valid = one.sources
    assert (train.split, train.examples, train.digest) == ("train", 20, valid.digest)
    other = text_task(tmp_path, train=sums(20)[::-1])
    assert other.sources[0].digest != train.digest  # the order decides what is held out


def test_an_exported_model_tells_the_name_of_its_data_and_not_their_place(stopped: Path) -> None:
    plain = stopped.parent / "plain"
    assert call("export", stopped, plain).exit_code == 0
    files = [file.read_text() for file in plain.iterdir() if file.suffix in (".toml", ".json", ".md")]
    assert files and not any(str(stopped.parent) in text for text in files)
    result = call("eval", plain)
    assert result.exit_code == 2 and "comes without its data, sums.txt; --data FILE" in result.stderr
    measured = call("eval", plain, "--data", stopped.parent / "sums.txt", "--limit", 3)
    assert measured.exit_code == 0 and "3 of the file" in measured.stdout


def test_where_its_data_are_gone_its_model_can_still_be_asked(stopped: Path) -> None:
    file = stopped.parent / "sums.txt"
    away = file.rename(file.with_suffix(".away"))
    try:
        refused = call("eval", stopped)
        assert refused.exit_code == 2 and "sums.txt: cannot be read" in refused.stderr
        _, _, command = refused.stderr.replace("\n", "").rpartition("stepwise ")
        asked = CliRunner().invoke(cli.app, command.split(), input="7 + 1 ?\n")
        assert asked.exit_code == 0 and asked.stdout.startswith("7 + 1 ?")
        plain = stopped.parent / "without-data"
        assert call("export", stopped, plain).exit_code == 0
        measured = call("eval", stopped, "--data", away, "--limit", 3)
        assert measured.exit_code == 0 and "sums.txt: cannot be read" in measured.stderr
        asked = CliRunner().invoke(cli.app, ["chat", str(stopped)], input="7 + 1 ?\n")
        assert asked.exit_code == 0 and asked.stdout.startswith("7 + 1 ?")
    finally:
        away.rename(file)
    beside = stopped.parent / "beside-data"
    assert call("export", stopped, beside).exit_code == 0
    for name in ("stepwise.json", "config.json", "generation_config.json", "model.safetensors"):
        assert (plain / name).read_bytes() == (beside / name).read_bytes()
    again = call("eval", stopped, "--data", file, "--limit", 3)
    assert again.stdout.partition("examples/s")[0] == measured.stdout.partition("examples/s")[0]
