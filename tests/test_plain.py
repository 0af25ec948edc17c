"""The same events as lines."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepwise_tui import plain
from tests import scripted
from tests.scripted import Script, ScriptedLink
from trainer.events import At, ChatAnswered, Metrics, Notice, RunStarted, StateChanged

ROOT = Path(__file__).parent.parent


def printed(script: Script) -> tuple[int, list[str]]:
    out = io.StringIO()
    code = plain.follow(ScriptedLink(script.events), out)
    return code, out.getvalue().splitlines()


def test_each_event_is_one_line_of_printable_text() -> None:
    for script in (scripted.saved().chat(), scripted.finished(), scripted.training().crash()):
        for event in script.events:
            text = plain.line(event)
            assert text is None or text.isprintable()


def test_a_pause_is_a_line_since_nothing_else_comes_then() -> None:
    lines = [plain.line(event) for event in scripted.training().pause().events[-1:]]
    assert [line and line.split()[-1] for line in lines] == ["paused"]


class Screen(io.StringIO):
    """A terminal to write to."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_lines_that_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = Screen()
    plain.follow(ScriptedLink(scripted.finished().events), out)
    _, whole = printed(scripted.finished())
    lines = out.getvalue().splitlines()
    assert max(map(len, whole)) > 60 >= max(map(len, lines))
    assert " ".join(out.getvalue().split()) == " ".join(" ".join(whole).split())
    assert all(text[:4] == "step" or not text[: plain.INDENT].strip() for text in lines)


def test_a_step_reads_well() -> None:
    event = Metrics(
        at=At(1_200, 1, 3, 3, 3, 1.0),
        loss=0.412,
        loss_answer=0.381,
        loss_cot=0.455,
        grad_norm=1.0,
        lr=1e-3,
        steps=10,
        steps_per_second=9.0,
        tokens_per_second=1_234.0,
        epoch=1.0,
    )
    assert plain.line(event) == "step   1,200  stage  3  loss 0.412 (answer 0.381, CoT 0.455)  1.2k tok/s"


def test_the_final_accuracy_comes_last() -> None:
    code, lines = printed(scripted.finished())
    assert code == 0
    assert "test accuracy .994 (497/500)" in lines[-1]
    assert any("valid accuracy" in line for line in lines)


def test_a_crash_names_the_last_checkpoint_and_is_a_failure() -> None:
    code, lines = printed(scripted.training().crash())
    assert code == 1
    assert "OutOfMemoryError" in lines[-1]
    assert "b1-001000" in lines[-1]


def test_of_a_resumed_run_only_what_is_new_is_printed() -> None:
    script = scripted.training()
    old = len(script.events)
    script.say(RunStarted(at=script.at, name="brisk-otter", checkpoint="b1-001200"))
    script.finish()
    code, lines = printed(script)
    assert code == 0
    assert len(lines) <= len(script.events) - old
    assert "going on from b1-001200" in lines[0]


def test_it_waits_for_events_that_are_still_to_come() -> None:
    script = scripted.finished()
    link, rest = ScriptedLink(script.events[:50]), script.events[50:]
    out = io.StringIO()
    assert plain.follow(link, out, sleep=lambda _: link.coming.extend(rest)) == 0
    assert "test accuracy" in out.getvalue()


def test_what_the_model_wrote_cannot_command_the_terminal() -> None:
    answer = ChatAnswered(
        at=At(), id="a", asked="1*1", question="1 × 1", answer="\x1b[31m1\n2", correct=False
    )
    text = plain.line(answer)
    assert text is not None
    assert text.isprintable()


@pytest.mark.parametrize("event", [StateChanged(state="evaluating"), StateChanged(state="training")])
def test_what_says_nothing_new_is_left_out(event: StateChanged) -> None:
    assert plain.line(event) is None


def test_a_warning_is_called_one() -> None:
    text = plain.line(Notice(message="disk nearly full", level="warning"))
    assert text is not None
    assert "warning: disk nearly full" in text


def test_a_closed_pipe_ends_the_lines_and_not_the_run() -> None:
    """As with `stepwise run … | head -1`: no traceback, and the run is followed to its end."""
    program = (
        "import sys; from tests import scripted; from stepwise_tui import plain; "
        "sys.exit(plain.follow(scripted.ScriptedLink(scripted.finished().events), sys.stdout))"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
