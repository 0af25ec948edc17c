"""The journal on a real disk: torn tails, order, waiting, and reading while it grows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.events import At, ChatToken, Event, Notice, RunStarted, SettingChanged, StateChanged, encode
from trainer.record.journal import FILE, flaws, of, read, whole_lines
from trainer.record.recorder import Recorder

WRITER = """
import sys
from pathlib import Path
from trainer.events import Notice
from trainer.record.recorder import Recorder
journal = Recorder(Path(sys.argv[1]), lambda event: None)
print("ready", flush=True)
while True:
    journal.append(Notice(message="x" * 200))
"""


def written(folder: Path, events: list[Event]) -> list[Event]:
    """What subscribers saw after `events` went through a journal."""
    seen: list[Event] = []
    journal = Recorder(folder, seen.append)
    for event in events:
        journal.append(event)
    journal.close()
    return seen


def test_events_are_numbered_published_in_order_and_numbering_goes_on(tmp_path: Path) -> None:
    seen = written(tmp_path, [Notice(message=str(i)) for i in range(50)])
    assert [e.seq for e in seen] == list(range(1, 51))
    assert list(read(tmp_path)) == seen
    assert written(tmp_path, [Notice(message="again")])[0].seq == 51


def test_transient_events_are_published_and_never_written(tmp_path: Path) -> None:
    (seen,) = written(tmp_path, [ChatToken(id="a", text="7", part="cot")])
    assert seen.seq == 0
    assert list(read(tmp_path)) == []


def test_an_event_is_on_the_disk_before_anyone_hears_of_it(tmp_path: Path) -> None:
    found: list[bool] = []
    journal = Recorder(tmp_path, lambda event: found.append(event in list(read(tmp_path))))
    journal.append(Notice(message="first"), wait=True)
    assert found == [True]
    journal.close()


@settings(max_examples=50)
@given(st.lists(st.text(), max_size=5), st.integers(0, 500))
def test_a_torn_tail_costs_only_the_torn_line(
    tmp_path_factory: pytest.TempPathFactory, messages: list[str], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    seen = written(folder, [Notice(message=m) for m in messages])
    path = folder / FILE
    size = max(0, path.stat().st_size - cut)
    os.truncate(path, size)
    whole = [e for i, e in enumerate(seen) if sum(len(encode(x).encode()) + 1 for x in seen[: i + 1]) <= size]
    assert list(read(folder)) == whole
    (after,) = written(folder, [Notice(message="after")])
    assert after.seq == len(whole) + 1
    assert list(read(folder)) == [*whole, after]
    assert whole_lines(path) == path.stat().st_size


def test_a_damaged_line_in_the_middle_does_not_hide_the_rest(tmp_path: Path) -> None:
    seen = written(tmp_path, [Notice(message="a"), Notice(message="b")])
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE).write_bytes(lines[0] + b'{"event": "no such"}\n\xff\xfe\n' + lines[1])
    assert list(read(tmp_path)) == seen


def test_events_of_some_kinds_are_chosen_by_their_name_alone(tmp_path: Path) -> None:
    resumed = SettingChanged(key="run_started", old=1, new='"event":"evaluated"')
    chosen = StateChanged(state="training"), RunStarted(name="notice")
    seen = written(tmp_path, [Notice(message='"event":"run_started"'), chosen[0], resumed, chosen[1]])
    assert list(read(tmp_path, of(RunStarted, StateChanged))) == [seen[1], seen[3]]


def test_killed_while_writing_it_is_whole_up_to_the_last_line(tmp_path: Path) -> None:
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        threading.Event().wait(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    numbers = [event.seq for event in read(tmp_path)]
    assert len(numbers) > 100
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_full_disk_holds_the_event_back_and_says_so(tmp_path: Path) -> None:
    """/dev/full in the journal's place refuses every write, as a full disk does."""
    heard: list[Event] = []
    told = threading.Event()

    def publish(event: Event) -> None:
        heard.append(event)
        told.set()

    journal = Recorder(tmp_path, publish)
    spare = os.dup(journal._descriptor)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._descriptor)
    journal.append(Notice(at=At(step=7), message="kept"))
    assert told.wait(5)
    assert journal.trouble is not None
    (notice,) = heard
    assert isinstance(notice, Notice)
    assert notice.level == "error"
    assert "No space left" in notice.message
    os.dup2(spare, journal._descriptor)
    journal.close()
    assert [e.message for e in read(tmp_path) if isinstance(e, Notice)] == ["kept"]
    assert journal.trouble is None
    os.close(full)
    os.close(spare)


def test_what_is_missing_or_broken_in_a_journal_is_told(tmp_path: Path) -> None:
    def line(seq: int) -> str:
        return encode(Notice(seq=seq, message="x")) + "\n"

    file = tmp_path / FILE
    file.write_text("".join(map(line, range(1, 8))))
    assert flaws(tmp_path, 7) == []
    file.write_text(line(1) + line(4) + '{"seq":5,"eve\n' + line(6) + line(7) + line(6)[:9])
    (told,) = flaws(tmp_path, 9)
    assert told.endswith("1 line cannot be read; events 2 to 3, 5, 8 to 9 are missing")
