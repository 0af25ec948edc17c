"""The one table of keys."""

from __future__ import annotations

import pytest

from stepwise_tui import keymap
from stepwise_tui.app import Cockpit
from trainer.control import COMMANDS

CONTRACT = {
    "space": "pause_or_resume",
    "s": "save",
    "a": "advance",
    "r": "roll_back",
    "h": "hold_or_release",
    "e": "evaluate",
    "n": "run_steps",
    "c": "chat",
    "x": "examples",
    "t": "timeline",
    "d": "detach",
    "y": "log_scale",
    "tab": "next_panel",
    "question_mark": "help",
    "q": "leave",
    "ctrl+p": "command_palette",
}


def test_the_contract_holds() -> None:
    table = {key.key: key.action for key in keymap.KEYS}
    assert CONTRACT.items() <= table.items()


def test_no_key_is_given_twice() -> None:
    keys = [key.key for key in keymap.KEYS] + [
        k for key in keymap.KEYS if key.also for k in key.also.split(",")
    ]
    assert len(keys) == len(set(keys))
    assert {"ctrl+c", "ctrl+q"} <= set(keys)


def test_each_key_has_an_action_a_title_and_a_sentence() -> None:
    for key in keymap.KEYS:
        assert hasattr(Cockpit, f"action_{key.action}")
        assert key.title and key.label and key.help


def test_each_command_is_within_reach_of_a_key() -> None:
    said = " ".join(key.help for key in (*keymap.KEYS, *keymap.PAGE_KEYS))
    chat = {"ask": "ask the live weights", "quiz": "/quiz", "interrupt": "stops the answer"}
    assert [name for name, spec in COMMANDS.items() if chat.get(name, spec.help) not in said] == []


@pytest.mark.parametrize("width", range(1, 260, 7))
def test_the_footer_fits(width: int) -> None:
    assert keymap.footer(width, {"pause_or_resume": "resume"}).cell_length <= width


def test_the_footer_of_80_columns_has_the_keys_one_cannot_do_without() -> None:
    text = keymap.footer(80, {}).plain
    for word in ("pause", "save", "advance", "roll back", "hold", "chat", "help", "quit"):
        assert word in text


def test_a_wide_footer_has_them_all() -> None:
    text = keymap.footer(400, {}).plain
    assert all(key.label in text for key in keymap.KEYS)
