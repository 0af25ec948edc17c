"""Colours, and none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terminal import Terminal
from tests.tiny import endless, kill

SGR = re.compile(rb"\x1b\[([\d;:]*)m")
ATTRIBUTES = {b"", *(str(number).encode() for number in (*range(10), *range(21, 30)))}
"""Parameters that say nothing of a colour: bold, dim, reversed and their ends."""


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("NO_COLOR", "1")
    command = ("run", "config", endless(tmp_path), "--out", ".", "--name", "run")
    opened = Terminal(*command, cwd=tmp_path, columns=130, rows=40)
    yield opened
    opened.close()
    kill(tmp_path / "run")


def test_no_color_writes_no_colour_at_all(terminal: Terminal) -> None:
    """Neither greys nor the terminal's own: lines, charts, log, chat, pages, dialogs and palette."""
    terminal.until("tok/s")
    terminal.press("c", *"12*34", "enter")
    terminal.until("CoT tokens ·")
    terminal.press("escape", "tab")
    for key, seen in (("x", "examples"), ("t", "timeline"), ("?", "Steer"), ("ctrl+p", "Search")):
        terminal.press(key)
        terminal.until(lambda screen, seen=seen: seen.lower() in screen.lower())
        terminal.press("escape")
    terminal.press("r")
    terminal.until("escape cancels")
    terminal.press("escape", "q")
    terminal.until("keep training")
    terminal.press("s")
    assert terminal.leave() == 0
    said = {parameter for sequence in SGR.findall(terminal.raw) for parameter in re.split(b"[;:]", sequence)}
    assert said <= ATTRIBUTES
    assert b"7" in said, "what is chosen is reversed"
