"""Commands: parsed, decided and answered without a model."""

from __future__ import annotations

import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import config as configuration
from trainer.config import Config
from trainer.control import (
    COMMANDS,
    Advance,
    Ask,
    Change,
    Command,
    CommandError,
    Control,
    Facts,
    RollBack,
    decide,
    parse,
    replay,
)
from trainer.events import At, CommandAcknowledged, RunFinished
from trainer.inbox import Answer, Inbox
from trainer.record.lineage import CheckpointRef, Fork, Lineage

CONFIG = configuration.build({"model": {"init": "scratch", "vocab": "task"}})
ENTRIES = tuple(CheckpointRef(f"b1-s{100 * s:06d}-stage{s}", 1, 100 * s, s, "stage") for s in (0, 1, 2, 4))


def facts(*, stage: int = 4, step: int = 450, stages: int = 9, ended: bool = False, branch: int = 1) -> Facts:
    lineage = Lineage(ENTRIES, {2: Fork(1, 200, 2)})
    return Facts(At(step=step, stage=stage, branch=branch), stages, CONFIG, lineage, ended)


lines = st.one_of(
    st.sampled_from(
        [
            "pause", "resume", "run 5", "save", "advance", "advance 3", "hold", "release", "rollback",
            "rollback 2", "rollback 7", "rollback nonsense", "rollback 1 --keep-weights",
            "set optim.lr 1e-4", "set optim.lr -1", "set data.digits 3", "evaluate", "ask 12*34", "stop",
        ]
    ),
    st.text(),
)  # fmt: skip


@given(st.lists(lines, max_size=30), st.integers(0, 9), st.booleans())
def test_any_sequence_of_lines_is_answered_with_a_sentence(typed: list[str], stage: int, ended: bool) -> None:
    control = Control()
    for line in typed:
        try:
            command = parse(line)
        except CommandError as error:
            assert str(error)
            continue
        before = control
        decision = decide(control, command, facts(stage=stage, ended=ended))
        control = decision.control
        assert decision.message
        if not decision.ok:
            assert control == before
            assert decision.effects == ()
        assert not (control.paused and control.pause_at is not None)
        if before.stopping:
            assert not decision.ok


@pytest.mark.parametrize("name", COMMANDS)
def test_every_usage_line_of_the_table_parses_as_its_own_command(name: str) -> None:
    plain = re.sub(r" \[[^]]*\]", "", COMMANDS[name].usage)
    line = plain.replace("N", "7").replace("KEY VALUE", "eval.every 20").replace("TEXT", "12*34")
    assert parse(line).name == name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "there is no command"),
        ("paus", "did you mean pause"),
        ("pause now", "takes nothing more"),
        ("run", "how many"),
        ("run 0", "whole number from 1"),
        ("run ٣", "whole number from 1"),
        ("advance -1", "whole number from 1"),
        ("set optim.lr", "set KEY VALUE"),
        ("ask", "ask .*TEXT"),
        ("ask --explicit", "ask .*TEXT"),
        ("rollback 1 2", "one target"),
        ("rollback --seed stale", "fresh or replay"),
        ("rollback --force", "not known"),
        ("rollback 'x", "No closing quotation"),
    ],
)
def test_a_malformed_line_is_told_what_is_allowed(line: str, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        parse(line)


def test_pause_and_run_n() -> None:
    control = decide(Control(), parse("pause"), facts()).control
    assert control.paused
    control = decide(control, parse("run 30"), facts(step=450)).control
    assert control == Control(paused=False, pause_at=480)
    assert decide(control, parse("resume"), facts()).control == Control()


def test_advance_stops_at_the_last_stage_and_then_refuses() -> None:
    assert decide(Control(), parse("advance 99"), facts(stage=4)).effects == (Advance(9),)
    refused = decide(Control(), parse("advance"), facts(stage=9))
    assert not refused.ok
    assert "nothing is left" in refused.message


@pytest.mark.parametrize(
    ("line", "stage", "expected"),
    [
        ("rollback", 4, "b1-s000200-stage2"),  # stage 3 was skipped: the nearest before it
        ("rollback 4", 4, "b1-s000400-stage4"),
        ("rollback 0", 4, "b1-s000000-stage0"),
        ("rollback b1-s000100-stage1", 4, "b1-s000100-stage1"),
        ("rollback", 0, "b1-s000000-stage0"),
    ],
)
def test_rollback_finds_its_checkpoint(line: str, stage: int, expected: str) -> None:
    decision = decide(Control(), parse(line), facts(stage=stage))
    (effect,) = decision.effects
    assert isinstance(effect, RollBack)
    assert effect.checkpoint.id == expected
    assert expected in decision.message


def test_rollback_counts_the_steps_it_abandons() -> None:
    message = decide(Control(), parse("rollback 2"), facts(step=3_232)).message
    assert message.startswith("back to stage 2, step 200")
    assert "3,032 steps" in message


@pytest.mark.parametrize("target", ["5", "8", "nowhere", "10"])
def test_a_rollback_that_cannot_be_lists_what_it_can_return_to(target: str) -> None:
    decision = decide(Control(), parse(f"rollback {target}"), facts(stage=4))
    assert not decision.ok
    assert "0, 1, 2, 4" in decision.message


def test_a_branch_sees_its_parents_entries_only_up_to_the_fork() -> None:
    decision = decide(Control(), parse("rollback 4"), facts(stage=4, branch=2))
    (effect,) = decision.effects
    assert isinstance(effect, RollBack)
    assert effect.checkpoint.id == "b1-s000200-stage2"


def test_set_changes_the_configuration_or_says_why_not() -> None:
    (effect,) = decide(Control(), parse("set optim.lr 1e-3"), facts()).effects
    assert isinstance(effect, Change)
    assert effect.config.optim.lr == 1e-3
    assert decide(Control(), parse("set save.disk_gb none"), facts()).message == "save.disk_gb = none"
    for line in ("set optim.lr fast", "set data.digits 3", "set optim.lrr 1"):
        assert not decide(Control(), parse(line), facts()).ok


def test_after_the_end_only_questions_are_answered() -> None:
    assert decide(Control(), parse("ask 1*1"), facts(ended=True)).ok
    refused = decide(Control(), parse("advance"), facts(ended=True))
    assert not refused.ok
    assert "ended" in refused.message


def test_a_journal_gives_back_what_the_operator_holds() -> None:
    def acknowledged(line: str, step: int, ok: bool = True) -> CommandAcknowledged:
        return CommandAcknowledged(
            at=At(step=step), id=str(step), command=line, source="cockpit", ok=ok, message="."
        )

    events = [acknowledged("hold", 1), acknowledged("release", 2, ok=False), acknowledged("run 50", 3)]
    assert replay(events) == Control(held=True, pause_at=53)
    assert replay([*events, acknowledged("pause", 9), acknowledged("release", 10)]) == Control()
    ended = RunFinished(
        at=At(step=20), reason="", state="interrupted", accuracy=None, n=0, seconds=0.0, checkpoint=""
    )
    assert replay([*events, ended]) == Control(held=True), "who ends a run does not want it to pause later on"


def test_the_inbox_keeps_order_and_first_answers() -> None:
    inbox = Inbox()
    threads = [
        threading.Thread(target=inbox.put, args=(Command("save", "save", id=str(i)),)) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inbox.wait(1.0)
    assert {c.id for c in inbox.take()} == {str(i) for i in range(8)}
    assert inbox.take() == []
    inbox.answered("3", Answer(True, "saved", 1))
    inbox.answered("3", Answer(False, "later", 2))
    assert inbox.answer("3") == Answer(True, "saved", 1)
    assert not inbox.stop_asked()
    inbox.put(parse("stop"))
    assert inbox.stop_asked()


def test_config_is_untouched_by_decisions() -> None:
    assert isinstance(CONFIG, Config)
    with pytest.raises(ValueError, match="frozen"):
        CONFIG.optim.lr = 1.0  # type: ignore[misc]


def test_the_whole_cot_is_asked_only_of_a_model_that_answers_both_ways() -> None:
    asked = parse("ask --explicit 12*34")
    assert asked.question == "12*34"
    refused = decide(Control(), asked, facts())
    assert not refused.ok and "explicit_share" in refused.message
    both = configuration.build(
        {"model": {"init": "scratch", "vocab": "task"}, "method": {"explicit_share": 0.2}}
    )
    assert decide(Control(), asked, facts()._replace(config=both)).effects == (Ask("12*34", explicit=True),)


def test_a_setting_may_be_written_with_an_equals_sign() -> None:
    """As `--set` has it; it was refused, with the right form."""
    for text in ("set optim.lr=1e-3", "set optim.lr = 1e-3", "set optim.lr 1e-3"):
        command = parse(text)
        assert (command.key, command.value) == ("optim.lr", 1e-3)
    for text in ("set optim.lr=", "set optim.lr", "set =1", "set"):
        with pytest.raises(CommandError, match="set what to what"):
            parse(text)
