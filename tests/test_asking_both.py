"""Asking saved checkpoints beside the live weights, quizzes, and the line one types questions into."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from stepwise_tui.app import Cockpit
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.history import Turn
from stepwise_tui.screens.dialogs import ChooseWeights
from stepwise_tui.widgets import replies
from stepwise_tui.widgets.chat import ChatInput, ChatPanel
from tests import scripted
from tests.scripted import ScriptedLink
from tests.terminal import until
from tests.test_cockpit import sent, tell, text_of
from tests.tiny import tiny_config
from trainer.answering.evaluate import evaluate
from trainer.asking import inspection
from trainer.asking.chat import beside, respond, summary, take_quiz
from trainer.config import MethodConfig
from trainer.control import Ask, Command, CommandError, Control, Examine, Facts, Quiz, decide, parse
from trainer.events import (
    At,
    ChatAnswered,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    Event,
    ExamplesAnswered,
    QuizTaken,
    ReachChanged,
    decode,
    encode,
)
from trainer.inbox import Answer, Inbox
from trainer.parts import Parts, assemble
from trainer.record import journal
from trainer.record.lineage import Lineage
from trainer.run import Run
from trainer.saving import checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run that has ended, with checkpoints of several stages."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = Run(tiny_config(), folder)
    run.start()
    run.wait()
    run.close()
    return folder


@pytest.fixture
def parts(trained: Path) -> Parts:
    return assemble(tiny_config(), checkpoint.model_folder(_entry(trained, 9)))


def _entry(folder: Path, stage: int) -> Path:
    ref = next(c for c in checkpoint.list_checkpoints(folder) if c.is_entry and c.stage == stage)
    return folder / checkpoint.FOLDER / ref.id


# Commands ---------------------------------------------------------------------------------------------------


def test_options_stand_before_the_question() -> None:
    asked = parse("ask --at b1-s000000-stage0 --explicit 12 * 34")
    assert (asked.checkpoint, asked.explicit, asked.question) == ("b1-s000000-stage0", True, "12 * 34")
    assert parse("ask what is --at ?").question == "what is --at ?"
    for text in (
        "ask --at",
        "ask --at b1",
        "ask --explicit",
        "quiz --at",
        "quiz 0",
        "quiz x",
        "quiz 1.5",
        "quiz 1 2",
        "examples --at",
        "examples 5",
        "evaluate --at b1",
        "interrupt it",
    ):
        with pytest.raises(CommandError):
            parse(text)
    assert parse("quiz").n == 100
    quiz = parse("quiz --at b1 20")
    assert (quiz.n, quiz.checkpoint) == (20, "b1")


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(trained: Path) -> None:
    facts = Facts(
        At(step=60, stage=9), 9, tiny_config(), Lineage(tuple(checkpoint.list_checkpoints(trained)))
    )
    for text in ("ask --at b7 1*2", "quiz --at b7"):
        decision = decide(Control(), parse(text), facts)
        assert not decision.ok and "there is no checkpoint 'b7'" in decision.message
        assert _entry(trained, 9).name in decision.message
    chosen = decide(Control(), parse(f"ask --at {_entry(trained, 9).name} 1*2"), facts)
    (effect,) = chosen.effects
    assert isinstance(effect, Ask) and effect.checkpoint is not None
    assert decide(Control(), parse("quiz 5"), facts).effects == (Quiz(5),)
    assert decide(Control(), parse("examples"), facts).effects == (Examine(tiny_config().eval.examples),)


# Answers ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_answers_as_it_does_alone_and_the_live_weights_stay(parts: Parts, trained: Path) -> None:
    early = _entry(trained, 0)
    ref = next(c for c in checkpoint.list_checkpoints(trained) if c.id == early.name)
    before = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    chance, python = torch.get_rng_state(), random.getstate()
    turn = respond(Ask("12*34", False, ref), parts, 9, trained, id="q", at=At(step=60))
    assert isinstance(turn, ChatAnswered)
    alone = inspection.ask(inspection.open_checkpoint(str(early), None, trained.parent), "12*34")
    assert (turn.cot, turn.answer, turn.checkpoint) == (alone.cot, alone.answer, early.name)
    assert (turn.cot_removed, turn.at.step) == (0, 60), "of the checkpoint, and of the run"
    assert turn.saved is not None and turn.saved == max(0, 9 - len(turn.cot))
    assert torch.equal(chance, torch.get_rng_state()) and python == random.getstate()
    assert parts.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in parts.model.state_dict().items())
    live = respond(Ask("12*34", False), parts, 9, trained, id="q", at=At(step=60))
    assert isinstance(live, ChatAnswered) and live.checkpoint == "current weights"
    assert live.cot_removed is None and live.saved is not None


def test_nothing_is_left_of_a_checkpoint_that_was_asked(parts: Parts, trained: Path) -> None:
    with beside(parts, _entry(trained, 0)) as (theirs, state):
        assert state.stage == 0
        assert theirs.model is not parts.model and not theirs.model.training
        asked = theirs.model
    assert {p.device.type for p in asked.parameters()} == {"meta"}


def test_a_damaged_checkpoint_is_not_asked(parts: Parts, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    weights = next(checkpoint.model_folder(_entry(copy, 0)).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    ref = next(c for c in checkpoint.list_checkpoints(copy) if c.id == _entry(copy, 0).name)
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        respond(Ask("1*2", False, ref), parts, 9, copy, id="q", at=At())


def test_a_quiz_asks_as_an_evaluation_does_and_draws_by_its_id(parts: Parts) -> None:
    whole = take_quiz(parts, 0, 10_000, id="a", at=At())
    assert whole is not None and whole.n == len(parts.splits["valid"]) == 40
    result = evaluate(parts.method, parts.model, parts.splits["valid"], 0, parts.tokenizer)
    assert result is not None and result.correct == whole.correct
    assert whole.cot_tokens == pytest.approx(result.cot_tokens)
    assert whole.saved == pytest.approx(max(0, 9 - result.cot_tokens))
    assert len(whole.wrong) == min(3, 40 - whole.correct)
    assert all(not shown.correct for shown in whole.wrong)
    few = [take_quiz(parts, 0, 5, id=id, at=At()) for id in ("a", "a", "b")]
    asked = [[shown.question for shown in quiz.wrong] for quiz in few if quiz is not None]
    assert asked[0] == asked[1] != asked[2]
    assert take_quiz(parts, 0, 5, id="a", at=At(), interrupted=lambda: True) is None


def test_a_checkpoint_answers_the_examples_of_evaluations_and_so_do_the_live_weights(
    parts: Parts, trained: Path
) -> None:
    ref = next(c for c in checkpoint.list_checkpoints(trained) if c.id == _entry(trained, 0).name)
    early = respond(Examine(40, ref), parts, 9, trained, id="x", at=At(step=60))
    live = respond(Examine(40), parts, 9, trained, id="x", at=At(step=60))
    assert isinstance(early, ExamplesAnswered) and isinstance(live, ExamplesAnswered)
    assert (early.checkpoint, live.checkpoint) == (ref.id, "current weights")
    assert [one.question for one in early.examples] == [one.question for one in live.examples]
    for turn, removed in ((early, 0), (live, 9)):
        assert turn.n == len(turn.examples) == 40
        assert turn.correct == sum(one.correct for one in turn.examples)
        assert {one.removed for one in turn.examples} == {removed}
        assert decode(encode(turn)) == turn
        assert summary(turn).startswith(
            f"validation accuracy {turn.correct / 40:.3f} ({turn.correct}/40) of "
        )
    assert respond(Examine(40), parts, 9, trained, id="x", at=At(), interrupted=lambda: True) is None


def test_an_answer_that_is_cut_short_is_not_judged(parts: Parts, trained: Path) -> None:
    looks = count()
    turn = respond(
        Ask("12*34", False), parts, 0, trained, id="q", at=At(), interrupted=lambda: next(looks) >= 3
    )
    assert isinstance(turn, ChatAnswered)
    assert (turn.correct, turn.note, turn.tokens) == (None, "cut short", 3)


def test_an_interruption_holds_until_it_is_served() -> None:
    inbox = Inbox()
    inbox.put(parse("interrupt", id="i"))
    assert inbox.interrupted() and not inbox.stop_asked()
    inbox.answered("i", Answer(True, "", 0))
    assert not inbox.interrupted()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[Run, Callable[[str], CommandAcknowledged], list[Event]]]:
    run = Run(tiny_config(stop__steps=100_000, schedule__steps_per_token=10**6), tmp_path / "live")
    told: list[Event] = []
    run.start(on_event=told.append)

    def do(text: str) -> CommandAcknowledged:
        command = parse(text)
        run.submit(command)
        until(lambda: any(isinstance(e, CommandAcknowledged) and e.id == command.id for e in list(told)))
        return next(e for e in told if isinstance(e, CommandAcknowledged) and e.id == command.id)

    yield run, do, told
    run.close()


def test_a_run_is_asked_at_a_checkpoint_while_it_trains(
    live: tuple[Run, Callable[[str], CommandAcknowledged], list[Event]],
) -> None:
    run, do, told = live
    until(lambda: any(isinstance(e, CheckpointSaved) for e in list(told)))
    entry = checkpoint.list_checkpoints(run.folder)
    answer = do(f"ask --at {entry[0].id} 12*34")
    assert answer.ok and answer.message.startswith("12 × 34 = ")
    turn = [e for e in told if isinstance(e, ChatAnswered)][-1]
    assert turn.checkpoint == entry[0].id
    assert run.at.step >= turn.at.step, "the run stands where it stood"
    quiz = do(f"quiz 7 --at {entry[0].id}")
    assert quiz.ok and "of 7 right" in quiz.message
    assert [e.n for e in told if isinstance(e, QuizTaken)] == [7]
    assert not do("ask --at nowhere 12*34").ok
    found = do(f"examples --at {entry[0].id}")
    assert found.ok and found.message.endswith(f" of {entry[0].id}")
    assert [e.checkpoint for e in told if isinstance(e, ExamplesAnswered)] == [entry[0].id]
    assert not do("examples --at nowhere").ok
    assert do("interrupt").ok
    assert do("ask 12*34").ok
    assert [e.note for e in told if isinstance(e, ChatAnswered)][-1] == "", "it is whole again"
    events = list(journal.read(run.folder))
    assert not any(isinstance(e, ExamplesAnswered) for e in events), "only its score is kept"


# The chat ---------------------------------------------------------------------------------------------------


def cockpit() -> tuple[Cockpit, ScriptedLink]:
    link = ScriptedLink(scripted.training().events)
    return Cockpit(link, glyphs=UNICODE), link


async def test_up_and_down_go_through_earlier_questions_and_keep_the_draft() -> None:
    link = ScriptedLink(scripted.training().chat().events)
    app = Cockpit(link, glyphs=UNICODE)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", *"9*", "up")
        field = app.main.query_one(ChatInput)
        assert field.value == "how are you?"
        await pilot.press("up", "up", "up", "up", "up")
        assert field.value == "12*34"
        await pilot.press("down", "down", "down", "down")
        assert field.value == "9*"
        await pilot.press("down")
        assert field.value == "9*"
        await pilot.press("up", "up", "up", "enter")
        assert sent(link) == ["ask 97 x 86"]
        await pilot.press("up")
        assert field.value == "how are you?"


async def test_an_example_is_offered_another_one_each_time() -> None:
    app, _ = cockpit()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", "ctrl+n")
        first = app.main.query_one(ChatInput).value
        assert first == app.history.shown[0].question
        await pilot.press("ctrl+n")
        assert app.main.query_one(ChatInput).value == app.history.shown[1].question


async def test_where_there_is_no_example_yet_ctrl_n_says_when_one_comes() -> None:
    app = Cockpit(ScriptedLink(scripted.Script().start().events), glyphs=UNICODE)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("c", "ctrl+n")
        assert app.main.query_one(ChatInput).value == ""
        (told,) = app._notifications
        assert told.message == "a held-out example comes with the evaluation at step 500"


async def test_one_chooses_whom_to_ask_one_or_both() -> None:
    app, link = cockpit()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", *"1*2", "ctrl+o")
        assert isinstance(app.screen, ChooseWeights)
        await pilot.press("down", "enter", "enter")
        assert sent(link) == ["ask --at b1-001200 1*2"]
        panel = app.main.query_one(ChatPanel)
        assert panel.border_title == "chat · b1-001200"
        await pilot.press("ctrl+o", "down", "down", "b", *"3*4", "enter")
        assert sent(link)[1:] == ["ask 3*4", "ask --at b1-001000 3*4"]
        assert panel.border_title == "chat · live + b1-001000"
        await pilot.press(*"/quiz 20", "enter")
        assert sent(link)[3:] == ["quiz 20", "quiz 20 --at b1-001000"]
        await pilot.press("ctrl+o", "enter", *"5*6", "enter", "ctrl+o", "escape")
        assert sent(link)[5:] == ["ask 5*6"]
        assert "step 1,340" in str(panel.border_title)


async def test_two_answers_to_one_question_stand_under_each_other() -> None:
    script = scripted.training()
    app, link = cockpit()
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("c", "ctrl+o", "down", "b", *"12*34", "enter")
        events: list[Event] = []
        for command, said in zip(link.sent, ("408", "480"), strict=True):
            events.append(
                CommandReceived(at=script.at, id=command.id, command=command.text, source="cockpit")
            )
            turn = scripted.answer(
                command.id, "12*34", script.at, question="12 × 34", cot=("1",), answer=said,
                correct=said == "408", expected="408",
            )  # fmt: skip
            events.append(
                replace(turn, checkpoint=command.checkpoint or "current weights", cot_removed=3, saved=4)
            )
        await tell(app, pilot, *events)
        shown = text_of(app, "#conversation")
        assert shown.count("12*34") == 1
        assert shown.index("408 ✓") < shown.index("480 ✗")
        assert "1 CoT token · 4 saved · 38 ms\n  step 1,340, stage 4" in shown
        assert "b1-001200" in shown
        assert "\n\n" not in shown


async def test_a_quiz_shows_its_score_and_what_was_wrong() -> None:
    script = scripted.training()
    app, link = cockpit()
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("c", *"/quiz", "enter")
        assert sent(link) == ["quiz"]
        id = link.sent[0].id
        wrong = tuple(s for s in scripted.examples(4, 0.5) if not s.correct)[:2]
        taken = QuizTaken(
            at=script.at, id=id, n=100, correct=87, cot_tokens=5.0, saved=4.0, milliseconds=3.25, wrong=wrong
        )
        await tell(app, pilot, CommandReceived(at=script.at, id=id, command="quiz", source="cockpit"), taken)
        shown = text_of(app, "#conversation")
        assert "> /quiz 100" in shown
        assert "87 of 100 right, .870" in shown
        assert "5 CoT tokens each · 4 saved · 3.25 ms each" in shown
        assert shown.count("✗") == 2
        again = Turn(id, "/quiz", answered=replace(taken, cot_tokens=9.0, saved=-0.4))
        told = replies.turn(again, MethodConfig(), 80, UNICODE).plain
        assert "9 CoT tokens each · 3.25 ms each" in told.replace("\xa0", " ")


def test_an_acknowledgement_speaks_of_no_saving_and_no_answer_where_there_is_none() -> None:
    quiz = QuizTaken(at=At(), id="a", n=2, correct=1, cot_tokens=9.4, saved=0.0, milliseconds=3.0)
    assert summary(quiz) == "1 of 2 right (0.500); CoT tokens a question: 9.4; 3.0 ms each"
    assert summary(ChatAnswered(at=At(), id="a", asked="3", question="3 ?")) == "3 ? = no answer"


async def test_what_is_no_command_comes_back_into_the_line() -> None:
    app, link = cockpit()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", *"/quiz many", "enter")
        assert sent(link) == []
        assert "not a whole number" in text_of(app, "#message")
        assert app.main.query_one(ChatInput).value == "/quiz many"


async def test_a_question_that_one_of_two_was_asked_does_not_come_back() -> None:
    app, link = cockpit()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", "ctrl+o", "down", "b", *"1*2")
        send = link.send

        def last(command: Command) -> None:
            send(command)
            link.coming.append(ReachChanged(gone="crashed", advice="its process is gone"))

        link.send = last  # type: ignore[method-assign]
        await pilot.press("enter")
        await pilot.pause()
        assert sent(link) == ["ask 1*2"]
        assert app.main.query_one(ChatInput).value == ""
        app.main.query_one(ChatInput).value = "3*4"
        app.main.query_one(ChatPanel).give_back("5*6")
        assert app.main.query_one(ChatInput).value == "3*4", "what was begun since stands"
