"""Colours, and none."""

from __future__ import annotations

import contextlib
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


@pytest.mark.slow
def test_no_color_writes_no_colour_at_all(terminal: Terminal) -> None:
    """Neither greys nor the terminal's own: lines, charts, log, chat, pages, dialogs and palette."""

    def closed(by: str, sign: str) -> None:
        """Close what shows `sign`: an escape that is read together with the next key would be another key."""
        terminal.press(by)
        terminal.until(lambda screen: sign not in screen)

    terminal.until("tok/s")
    terminal.press("c", *"12*34", "enter")
    terminal.until("CoT tokens ·")
    closed("escape", "┏━ chat")
    pages = ("x", "esc close"), ("t", "esc close"), ("?", "escape closes"), ("ctrl+p", "Search")
    for key, sign in (*pages, ("r", "escape cancels")):
        terminal.press(key)
        terminal.until(sign)
        closed("escape", sign)
    terminal.press("q")
    terminal.until("keep training")
    terminal.press("s")
    assert terminal.leave() == 0
    said = {parameter for sequence in SGR.findall(terminal.raw) for parameter in re.split(b"[;:]", sequence)}
    assert said <= ATTRIBUTES
    assert b"7" in said, "what is chosen is reversed"


@pytest.mark.slow
def test_an_alarm_rings_notifies_and_stands_in_the_windows_title(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run whose updates are not finite; then inside tmux, which passes a wrapped notification on."""
    file = endless(tmp_path, optim__lr=1e30, watch__skipped=3)
    said = b"\x1b]9;stepwise, run: "
    ways = (
        (("run", "config", file, "--out", ".", "--name", "run"), "", said, ("d",)),
        (("attach", "run", "--out", "."), "/tmp/tmux-0/default,1,0",
         said.replace(b"\x1b", b"\x1bPtmux;\x1b\x1b"), ("q", "s")),
    )  # fmt: skip
    try:
        for command, tmux, wanted, leaving in ways:
            monkeypatch.setenv("TMUX", tmux)
            with contextlib.closing(Terminal(*command, cwd=tmp_path)) as terminal:
                terminal.until("PAUSED")
                terminal.until(lambda screen, seen=terminal.screen: seen.title.startswith("▲ "))
                assert wanted in terminal.raw
                assert b"\x07" in terminal.raw
                terminal.press(*leaving)
                assert terminal.leave() == 0
                assert terminal.raw.index(b"\x1b[22;2t") < terminal.raw.index(b"\x1b[23;2t")
    finally:
        kill(tmp_path / "run")
