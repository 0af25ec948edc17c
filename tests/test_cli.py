"""The command line: what it prints, its exit codes, and one clear block for every mistake."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from stepwise_tui import cli, output
from tests.processes import begin, wait_for
from tests.terminal import Terminal
from tests.tiny import tiny_config
from trainer import config as configuration
from trainer import doctor, presets, runs
from trainer.events import RunFinished
from trainer.record import journal, lock
from trainer.run import Run
from trainer.saving import checkpoint

QUICK = ("optim.batch=4", "data.valid=4", "data.test=4", "model.width=16")


def call(*arguments: str | Path, text: str | None = None) -> Result:
    """A command in this process."""
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], input=text)


def refused(result: Result, code: int, *parts: str) -> None:
    """One block on stderr that says all of `parts`; nothing on stdout; no traceback."""
    said = " ".join(result.stderr.split())
    assert result.exit_code == code, result.output
    for part in parts:
        assert part in said
    assert result.stdout == ""
    assert "Traceback" not in result.output


def settings(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that went to its end; tests read it and leave it as it is."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    run = Run(tiny_config(stop__steps=12), folder)
    run.start()
    deadline = time.monotonic() + 60
    while run.state != "finished" and time.monotonic() < deadline:
        time.sleep(0.05)
    run.close()
    assert run.state == "finished"
    yield folder


# Looking around ---------------------------------------------------------------------------------------------


def test_presets_lists_name_title_and_cost() -> None:
    result = call("presets")
    assert result.exit_code == 0
    for preset in presets.listing():
        assert preset.name in result.stdout and preset.title in result.stdout and preset.cost in result.stdout


def test_presets_name_prints_a_file_that_can_be_run(tmp_path: Path) -> None:
    result = call("presets", "mult2x2-breaks")
    assert result.exit_code == 0
    file = tmp_path / "mine.toml"
    file.write_text(result.stdout, encoding="utf-8")
    assert presets.configure(file) == presets.resolve("mult2x2-breaks")


def test_runs_json_is_one_document_with_the_contract_keys(finished: Path) -> None:
    result = call("runs", "--out", finished.parent, "--json")
    (row,) = json.loads(result.stdout)
    keys = {"name", "path", "state", "step", "stage", "stages", "branch", "accuracy", "bytes", "updated"}
    assert keys <= row.keys()
    assert (row["name"], row["path"], row["state"], row["step"]) == ("done", str(finished), "finished", 12)


def test_runs_for_people(finished: Path, tmp_path: Path) -> None:
    table = call("runs", "--out", finished.parent).stdout
    assert "finished" in table and "s ago" in table
    assert "`stepwise run preset mult2x2` starts one" in call("runs", "--out", tmp_path / "none").stdout
    assert json.loads(call("runs", "--out", tmp_path / "none", "--json").stdout) == []


def test_doctor_knows_a_file_from_a_folder_and_the_extras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"nosuchmodule": ("flying", "'stepwise-tui[wings]'")})
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "beneath"):
        [disk] = doctor._disk(out)
        assert disk.verdict == "broken" and f"{tmp_path / 'file'} is a file" in disk.found
    [extras] = doctor._extras()
    assert (extras.verdict, extras.found) == ("lacking", "flying needs nosuchmodule")
    assert extras.remedy == "pip install 'stepwise-tui[wings]'"


def test_doctor_knows_a_terminal_that_can_only_take_lines() -> None:
    (found, _, _) = doctor.terminal(True, (80, 24), {"TERM": "dumb"}, "utf-8")
    assert found.verdict == "lacking" and "plain lines" in found.remedy


def test_doctor_asks_for_no_larger_a_terminal_than_the_cockpit_needs() -> None:
    (found, *_) = doctor.terminal(True, (60, 16), {}, "utf-8")
    assert found.verdict == "good"
    (found, *_) = doctor.terminal(True, (59, 16), {}, "utf-8")
    assert (found.verdict, found.remedy) == ("lacking", "make it 60×16 at least; 80×24 shows more")


def test_doctor_says_what_there_is(tmp_path: Path) -> None:
    findings = json.loads(call("doctor", "--out", tmp_path, "--json").stdout)
    names = {finding["name"] for finding in findings}
    assert {"python", "torch", "transformers", "textual", "memory", "cores", "disk", "terminal"} <= names
    assert {"colours", "characters", "hub", "packages"} <= names
    assert all(finding["remedy"] for finding in findings if finding["verdict"] != "good")


# Evaluating and asking --------------------------------------------------------------------------------------


def test_eval_json_is_one_document_with_the_contract_keys(finished: Path) -> None:
    result = call("eval", finished, "--json")
    measured = json.loads(result.stdout)
    keys = {"accuracy", "token_accuracy", "examples_per_second", "examples_per_second_batch1"}
    keys |= {"cot_tokens", "n", "split", "checkpoint", "stage"}
    assert keys | {"cot_match", "generated_tokens", "speed"} <= measured.keys()
    assert all(measured[key] is not None for key in keys)
    assert (measured["split"], measured["n"], measured["stage"]) == ("test", 40, 1)
    assert measured["checkpoint"] == checkpoint.list_checkpoints(finished)[-1].id


def test_eval_agrees_with_what_the_run_logged(finished: Path) -> None:
    lines = (finished / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    (logged,) = [e for e in map(json.loads, lines) if e["event"] == "run_finished"]
    assert json.loads(call("eval", finished, "--json").stdout)["accuracy"] == logged["accuracy"]


def test_eval_takes_a_checkpoint_by_id_and_by_folder(finished: Path) -> None:
    first = checkpoint.list_checkpoints(finished)[0]
    for where in ([finished, "--checkpoint", first.id], [finished / checkpoint.FOLDER / first.id]):
        measured = json.loads(call("eval", *where, "--split", "valid", "--limit", "5", "--json").stdout)
        assert (measured["checkpoint"], measured["n"], measured["split"]) == (first.id, 5, "valid")


def test_eval_reads_lines_of_ones_own(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("2 1 * 4 3||8 4 0 + 0 6 3 0 #### 8 0 4 0\n\n1 1 * 1 1||1 1 0 + 0 1 1 0 #### 1 2 1 0\n")
    measured = json.loads(call("eval", finished, "--data", file, "--json").stdout)
    assert (measured["n"], measured["split"]) == (2, None)


def test_bad_lines_are_named_numbered_and_counted(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.txt"
    file.write_text("no bars\n2 1 * 4 3||8 4 0 + 0 6 3 0 #### 8 0 4 0\n" + "1 * x||2 #### 3\n" * 7)
    refused(
        call("eval", finished, "--data", file, "--json"),
        2,
        "bad.txt, line 1: 'no bars': '||' between question and CoT is missing",
        "line 3:",
        "not in the vocabulary",
        "and 3 more bad lines",
    )


def test_a_few_bad_lines_are_left_out_and_told_and_none_beyond_the_limit(
    finished: Path, tmp_path: Path
) -> None:
    good, file = "2 1 * 4 3||8 4 0 + 0 6 3 0 #### 8 0 4 0\n", tmp_path / "few.txt"
    file.write_text(f"no bars\n{good * 15}1 * x||2 #### 3\n{good * 8}")
    result = call("eval", finished, "--data", file, "--json")
    assert json.loads(result.stdout)["n"] == 23
    said = " ".join(result.stderr.split())
    assert "left out are line 1: 'no bars'" in said and "; line 17: 'x'" in said
    result = call("eval", finished, "--data", file, "--limit", 3, "--json")
    assert json.loads(result.stdout)["n"] == 3 and "line 17" not in result.stderr
    file.write_text(f"{good * 3}no bars\n1 * x||2 #### 3\n")
    result = call("eval", finished, "--data", file, "--limit", 3, "--json")
    assert json.loads(result.stdout)["n"] == 3 and result.stderr == ""


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\n\n", "is empty"),
        (b"2 1 * 4 3||8 #### \xff\n", "line 1: is not text in UTF-8"),
        (b"1 " * 60 + b"* 1||1 #### 1\n", "positions this model has"),
    ],
)
def test_a_file_that_cannot_be_evaluated(
    finished: Path, tmp_path: Path, content: bytes, complaint: str
) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(content)
    refused(call("eval", finished, "--data", file), 2, "file.txt", complaint)


def test_eval_reads_gzipped_json_too(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.json.gz"
    item = {"question": "2 1 * 4 3", "steps": ["8 4 0 +", "0 6 3 0"], "answer": "8 0 4 0"}
    file.write_bytes(gzip.compress(json.dumps([item]).encode()))
    assert json.loads(call("eval", finished, "--data", file, "--json").stdout)["n"] == 1


def test_only_a_model_that_answers_both_ways_is_asked_for_all_cot(finished: Path) -> None:
    refused(call("eval", finished, "--explicit"), 2, "answers one way only", "method.explicit_share")
    result = call("chat", finished, "--explicit", text="12*34")
    assert result.exit_code == 2 and "answers one way only" in " ".join(result.stderr.split())


@pytest.mark.parametrize("option", [("--base", "gpt2"), ("--preset", "mult2x2")])
def test_a_run_knows_its_task_and_tokenizer(finished: Path, option: tuple[str, str]) -> None:
    refused(call("eval", finished, *option), 2, " ".join(option), "which knows its own")


def test_chat_answers_one_line_per_line(finished: Path) -> None:
    result = call("chat", finished, text="12*34\n\nwhat?\n34 x 12")
    first, second, third = result.stdout.splitlines()
    assert first.startswith("12 × 34 = ") and "408 is right" in first and "ms" in first
    assert "12 * 34" in second
    assert third.startswith("34 × 12 = ")


def test_chat_on_a_terminal_breaks_its_lines_between_words(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # a runner of tests may set it
    whole = call("chat", finished, text="what?").stdout.split()
    terminal = Terminal("chat", str(finished), cwd=finished.parent, columns=23)
    try:
        terminal.until("ends)")
        terminal.press("what?\n")
        answered = terminal.until(lambda seen: seen.count(">") == 2)
    finally:
        terminal.close()
    assert answered.partition("> what?")[2].split() == [*whole, ">"]
    assert "(Ctrl-D ends)" in " ".join(answered.split())


def test_an_unknown_checkpoint_names_those_there_are(finished: Path) -> None:
    first = checkpoint.list_checkpoints(finished)[0].id
    refused(call("eval", finished, "--checkpoint", first[:-1]), 2, f"did you mean {first}?")
    refused(call("chat", finished, "--checkpoint", "nonsense"), 2, "has no checkpoint 'nonsense'", first)


@pytest.mark.parametrize("file", ["model/model.safetensors", "state.json", "model/tokenizer.json"])
def test_one_flipped_byte_is_refused_and_the_others_are_named(
    finished: Path, tmp_path: Path, file: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    *others, last = (ref.id for ref in checkpoint.list_checkpoints(folder))
    path = folder / checkpoint.FOLDER / last / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if file == "state.json":
        # What cannot even be read is no longer in the list; its own folder still is.
        refused(call("eval", folder / checkpoint.FOLDER / last), 1, "state.json", "damaged", *others)
    else:
        refused(call("eval", folder, "--checkpoint", last), 1, path.name, "damaged", *others)


# Mistakes ---------------------------------------------------------------------------------------------------


def test_an_unknown_preset_names_the_nearest() -> None:
    for arguments in (["presets", "mult2x2-brakes"], ["run", "preset", "mult2x2-brakes"]):
        refused(call(*arguments), 2, "there is no preset 'mult2x2-brakes'", "did you mean mult2x2-breaks?")


def test_all_wrong_settings_are_told_at_once(tmp_path: Path) -> None:
    wrong = settings("optim.lr=fast", "optim.rate=1", "x")
    result = call("run", "preset", "mult2x2", "--out", tmp_path, *wrong, "--seed", "-1")
    refused(
        result,
        2,
        "4 problems",
        "optim.lr = 'fast': number > 0 is allowed",
        "optim.rate: there is no such field; did you mean",
        "--set x: KEY=VALUE is expected",
        "seed = -1: whole number ≥ 0",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("[optim\n", "is not TOML"), ("[optim]\nlr = 'x'\n", "optim.lr = 'x'"), (None, "No such file")],
)
def test_a_bad_file(tmp_path: Path, text: str | None, complaint: str) -> None:
    file = tmp_path / "mine.toml"
    if text is not None:
        file.write_text(text)
    refused(call("run", "config", file, "--out", tmp_path / "runs"), 2, complaint)


@pytest.mark.parametrize("command", ["resume", "eval", "chat"])
def test_a_folder_that_is_not_a_run(command: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(call(command, tmp_path / "empty"), 2, "is not a run: it has no config.toml")
    refused(call(command, "nowhere", "--out", tmp_path), 2, "there is no run 'nowhere'")


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    folder = tmp_path / "young"
    folder.mkdir()
    (folder / runs.CONFIG_FILE).write_text(configuration.dumps(tiny_config()))
    refused(call("eval", folder), 2, "has no checkpoint yet")
    assert call("resume", folder, "--plain").exit_code == 0
    assert call("eval", folder).exit_code == 0


def test_a_run_at_its_end_goes_on_with_another_limit(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "done"
    shutil.copytree(finished, folder)
    refused(call("resume", folder, "--plain"), 2, "has finished", f"{folder} --set stop.steps=N` trains it")
    refused(call("resume", folder, "--plain", "--set", "data.digits=3"), 2, "data.digits cannot change")
    assert call("resume", folder, "--plain", "--set", "stop.steps=16").exit_code == 0
    ends = [e for e in journal.read(folder) if isinstance(e, RunFinished)]
    assert [e.at.step for e in ends] == [12, 16]


def test_an_existing_name_is_refused_and_left_alone(finished: Path) -> None:
    before = sorted(finished.iterdir())
    result = call("run", "preset", "mult2x2", "--name", "done", "--out", finished.parent)
    refused(result, 2, "exists already", "give another --name", "`stepwise resume")
    assert sorted(finished.iterdir()) == before


def test_an_out_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    refused(call("run", "preset", "mult2x2", "--out", file), 2, "file: is a file, and a folder is wanted")
    beneath = call("run", "preset", "mult2x2", "--plain", "--out", file / "runs")
    refused(beneath, 2, "cannot be written: Not a directory")


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    result = call("run", "preset", "mult2x2", "--plain", "--out", tmp_path, "--device", "cuda:99")
    refused(result, 2, "device = cuda:99", "--device auto")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["tpu", "cuda:x", ""])
def test_a_device_that_is_none(tmp_path: Path, device: str) -> None:
    result = call("run", "preset", "mult2x2", "--out", tmp_path, "--device", device)
    refused(result, 2, "device = ", "auto, cpu, cuda or cuda:N")


def test_a_model_that_cannot_be_had_names_the_two_ways_out(tmp_path: Path) -> None:
    init = tmp_path / "no-such-model"
    arguments = ["run", "preset", "mult4x4", "--plain", "--out", str(tmp_path / "runs")]
    result = call(*arguments, *settings(f"model.init={init}"))
    refused(result, 2, "no-such-model", "--set model.init=PATH", "--set model.init=scratch")
    assert not list((tmp_path / "runs").iterdir())


def test_more_examples_than_there_are(tmp_path: Path) -> None:
    result = call("run", "preset", "mult2x2", "--plain", "--out", tmp_path, *settings("data.train=9000"))
    refused(result, 2, "train 9,000", "has only 8,100 pairs", "lower data.train")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_still_going_is_not_taken_up(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "live"
    shutil.copytree(finished, folder)
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "training", "pid": os.getpid()}))
    with (folder / "journal.jsonl").open("a") as journal:
        lock.take(journal.fileno())
        refused(call("resume", folder), 2, f"live runs already, as process {os.getpid()}", "stepwise attach")


@pytest.mark.parametrize("arguments", [["bogus"], ["run", "bogus"], ["eval"], ["presets", "a", "b"]])
def test_what_the_parser_refuses(arguments: list[str]) -> None:
    refused(call(*arguments), 2, "Usage: ", "Error: ")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyError("x"), 1, "nobody foresaw: KeyError: 'x'"),
        (ValueError("from a library"), 1, "nobody foresaw: ValueError: from a library"),
        (MemoryError(), 1, "there was not memory enough; a smaller batch needs less"),
        (OSError(28, "No space left on device", "/full/file"), 1, "/full/file: No space left on device"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_whatever_fails_is_one_block_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(runs, "list_runs", fail)
    refused(call("runs"), code, said)


def test_running_out_of_memory_is_told_with_a_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    def gpu() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    for full in (gpu, lambda: torch.empty(2**50)):
        with pytest.raises(typer.Exit) as caught, output.explained():
            full()
        assert caught.value.exit_code == 1
        assert "a smaller batch" in capsys.readouterr().err


# Real processes ---------------------------------------------------------------------------------------------


def start(cwd: Path, *assignments: str, name: str = "one") -> subprocess.Popen[str]:
    arguments = ["run", "preset", "mult2x2", "--plain", "--name", name, "--device", "cpu"]
    return begin(*arguments, *settings(*QUICK, *assignments), cwd=cwd)


def state(folder: Path) -> str:
    return runs.row(folder).state


def test_a_plain_run_says_its_accuracy_last_and_exits_0(tmp_path: Path) -> None:
    child = start(tmp_path, "stop.steps=12", "schedule.pretrain_steps=2", "schedule.steps_per_token=1")
    lines, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert "test accuracy" in lines.splitlines()[-1]
    assert state(tmp_path / "runs" / "one") == "finished"
    assert "loading torch" in errors.splitlines()[0]
    assert errors.splitlines()[-1] == "stepwise chat runs/one"
    assert "Traceback" not in errors


def test_the_first_signal_saves_and_exits_0_and_resume_goes_on(tmp_path: Path) -> None:
    child = start(tmp_path, "stop.steps=100_000", "log.every=1")
    wait_for(child, "loss")
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 0, errors
    folder = tmp_path / "runs" / "one"
    assert state(folder) == "interrupted"
    assert errors.splitlines()[-1] == "stepwise resume runs/one"
    step = runs.row(folder).step
    assert step >= 1

    again = begin("resume", "one", "--plain", cwd=tmp_path)
    wait_for(again, f"going on from b1-s{step:06d}")
    wait_for(again, "loss")
    again.send_signal(signal.SIGTERM)
    _, errors = again.communicate(timeout=30)
    assert again.returncode == 0, errors
    assert state(folder) == "interrupted"
    assert runs.row(folder).step > step


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_training_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    child = start(tmp_path)
    assert child.stderr is not None
    child.stderr.readline()  # "loading torch"
    child.send_signal(number)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == code, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "runs" / "one").exists()


def test_a_pipe_that_closes_early_does_no_harm(finished: Path) -> None:
    child = begin("presets", "mult2x2", cwd=finished.parent)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    child.wait(timeout=30)
    assert "Traceback" not in child.stderr.read()
