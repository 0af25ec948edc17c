"""The cockpit driven by keys, over scripted runs and over a real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.events import Key, Paste
from textual.keys import key_to_character
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, OptionList, Static

from stepwise_tui import keymap
from stepwise_tui.app import Cockpit
from stepwise_tui.glyphs import ASCII, UNICODE, plain
from stepwise_tui.link import LocalLink
from stepwise_tui.screens.dialogs import ChangeSetting, ChooseRollback, Confirm, Leave, RunSteps
from stepwise_tui.screens.examples import Examples
from stepwise_tui.screens.help import Help
from stepwise_tui.screens.main import Main
from stepwise_tui.screens.timeline import Timeline
from stepwise_tui.text import clip
from stepwise_tui.widgets.charts import ChartPanel
from stepwise_tui.widgets.chat import ChatInput, ChatPanel
from tests import scripted
from tests.scripted import Script, ScriptedLink
from tests.tiny import tiny_config
from trainer import config as configuration
from trainer.events import (
    DISK,
    AlarmCleared,
    AlarmRaised,
    At,
    ChatAnswered,
    CheckpointSaved,
    CommandAcknowledged,
    CommandReceived,
    Event,
    ReachChanged,
    StateChanged,
)
from trainer.run import Run

STATES: dict[str, Callable[[], Script]] = {
    "before the first event": Script,
    "before the first step": lambda: Script().start(),
    "training": scripted.training,
    "dip alarm": scripted.lost,
    "after a roll back": scripted.saved,
    "paused": lambda: scripted.training().pause(),
    "finished": scripted.finished,
    "crashed": lambda: scripted.training().crash(),
}


def cockpit(script: Script) -> tuple[Cockpit, ScriptedLink]:
    link = ScriptedLink(script.events)
    return Cockpit(link, glyphs=UNICODE), link


def sent(link: ScriptedLink) -> list[str]:
    return [command.text for command in link.sent]


def text_of(app: Cockpit, selector: str) -> str:
    return str(app.main.query_one(selector, Static).render())


async def tell(app: Cockpit, pilot: Pilot[None], *events: Event) -> None:
    """Let events happen, and the cockpit take notice."""
    assert isinstance(app.link, ScriptedLink)
    app.link.coming.extend(events)
    app.tick()
    app.take([])  # what is routine would wait for the next drawing
    await pilot.pause()


@pytest.mark.parametrize("state", STATES)
async def test_no_key_does_harm_in_any_state(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key of the table, and escape after it; q leaves at once only when the run has ended."""
    monkeypatch.chdir(tmp_path)  # p saves a picture
    app, link = cockpit(STATES[state]())
    async with app.run_test(size=(80, 24)) as pilot:
        for key in keymap.KEYS:
            if key.group != "leave":
                await pilot.press(key.key, "escape")
        assert isinstance(app.screen, Main)
        if app.history.started is None:
            assert sent(link) == []
        await pilot.press("q")
        assert isinstance(app.screen, Leave) or app.history.ended


@pytest.mark.parametrize(
    ("key", "command"), [("space", "pause"), ("s", "save"), ("h", "hold"), ("e", "evaluate")]
)
async def test_a_key_sends_its_command_and_says_so_at_once(key: str, command: str) -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(key)
        assert sent(link) == [command]
        assert f"requested: {command}" in text_of(app, "#message")
        asked = link.sent[0]
        at, id = app.history.at, asked.id
        done = CommandAcknowledged(at=at, id=id, command=command, source="cockpit", ok=True, message="well")
        await tell(app, pilot, done)
        assert "well (at step 1,340)" in text_of(app, "#message")


async def test_a_refusal_does_not_outlast_the_alarm_that_it_was_for() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("s", "t")
        id, at = link.sent[0].id, app.history.at
        why = "no checkpoint can be written: No space left on device"
        alarm = AlarmRaised(at=at, kind="disk", message=f"training waits: {why}", remedy="make room", key="")
        refused = CommandAcknowledged(at=at, id=id, command="save", source="cockpit", ok=False, message=why)
        await tell(app, pilot, refused, alarm)
        page = app.screen.query_one("#said", Static)
        assert why in text_of(app, "#message") and why in str(page.render())
        message = "the disk takes what is written; b1-s001340-stage4-manual stands"
        await tell(app, pilot, AlarmCleared(at=at, kind="disk", message=message))
        assert text_of(app, "#message") == str(page.render()) == f"alarm over: {message}"


async def test_the_same_key_takes_back_a_pause_and_a_hold() -> None:
    script = scripted.training().pause()
    script.command("hold", "held")
    app, link = cockpit(script)
    async with app.run_test(size=(80, 24)) as pilot:
        assert "space resume" in text_of(app, "#keys")
        assert "h release" in text_of(app, "#keys")
        await pilot.press("space", "h")
        assert sent(link) == ["resume", "release"]


async def test_typing_in_the_chat_triggers_no_key() -> None:
    app, link = cockpit(scripted.training())
    letters = [key.shown for key in keymap.KEYS if len(key.shown) == 1] + ["space"]
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c")
        await pilot.press(*letters)
        typed = app.main.query_one(ChatInput).value
        assert typed == "".join(letters[:-1]) + " "
        assert sent(link) == []
        assert isinstance(app.screen, Main)
        await pilot.press("escape", "s")
        assert sent(link) == ["save"]


@pytest.mark.parametrize(
    ("typed", "commands"),
    [
        (["n", "7", "5", "enter", "s"], ["run 75", "save"]),
        (["a", "y", "s"], ["advance", "save"]),
        (["r", "2", "enter", "s"], ["rollback b1-000800", "save"]),
        (["comma", *"optim.lr", "enter", "1", "enter", "s"], ["set optim.lr 1", "save"]),
        (["c", *"12", "asterisk", *"34", "enter", "escape", "s"], ["ask 12*34", "save"]),
        (["ctrl+p", *"evaluate", "enter", "s"], ["evaluate", "save"]),
        (["n", "7", "escape", "a", "escape", "n", "8", "enter"], ["run 8"]),
        (["t", "enter", "y", "s"], ["rollback b2-001600", "save"]),
        (["t", "escape", "x", "escape", "s"], ["save"]),
        (["n", "7", "alt+s", "t", "alt+a", "y"], ["save", "advance"]),
    ],
    ids=lambda value: " ".join(value),
)
async def test_keys_typed_before_the_screen_follows_are_not_lost(
    typed: list[str], commands: list[str]
) -> None:
    """All at once, as they come when the machine was busy with something else."""
    app, link = cockpit(scripted.saved())
    async with app.run_test(size=(80, 24)) as pilot:
        for key in typed:
            app.post_message(Key(key, key_to_character(key.removeprefix("alt+"))))
        while len(link.sent) < len(commands):
            await pilot.pause(0.01)
        assert sent(link) == commands


async def test_a_model_that_answers_both_ways_is_asked_either_way() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", "ctrl+t")
        assert "one way only" in text_of(app, "#message")
    link = ScriptedLink(scripted.training().events)
    both = {"method": {"explicit_share": 0.2, "move_positions": False}}
    link.config = configuration.build(configuration.merge(link.config.model_dump(), both))
    app = Cockpit(link, glyphs=UNICODE)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", "ctrl+t", *"1*2", "enter", "ctrl+t", *"3*4", "enter")
        assert sent(link) == ["ask --explicit 1*2", "ask 3*4"]
        assert "answer alone" in str(app.main.query_one(ChatPanel).border_title)


async def test_a_question_goes_up_as_typed_and_the_answer_appears() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", *"12*34", "enter")
        assert sent(link) == ["ask 12*34"]
        assert "requested" not in text_of(app, "#message"), "the chat shows it"
        assert app.main.query_one(ChatInput).value == ""
        await pilot.press("enter")
        assert sent(link) == ["ask 12*34"], "an empty question is no question"
        await tell(app, pilot, *scripted.training().chat().events[len(scripted.training().events) :])
        said = str(app.main.query_one("#conversation", Static).render())
        assert "408 ✓" in said
        assert "8352 ✗ 8342 is right" in said
        assert "this model was trained on 2×2" in said


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_lines_of_a_long_conversation_leave_room_for_the_scrollbar(size: tuple[int, int]) -> None:
    script = scripted.training()
    for number in range(30):
        note = f"{'o' * (1 + number % 9)}h{' so' * 40}"
        script.say(CommandReceived(at=script.at, id=f"q{number}", command="ask why?", source="cockpit"))
        script.say(ChatAnswered(at=script.at, id=f"q{number}", asked="why?", understood=False, note=note))
    app, _ = cockpit(script)
    async with app.run_test(size=size) as pilot:
        await pilot.press("c")
        await pilot.pause()
        said = app.main.query_one("#conversation", Static)
        assert app.main.query_one("#turns").show_vertical_scrollbar
        assert said.size.height == len(str(said.render()).split("\n")), "no line is broken once more"


async def test_what_the_model_wrote_is_never_markup() -> None:
    script = scripted.training()
    script.say(CommandReceived(at=script.at, id="q", command="ask [red]x[/]", source="cockpit"))
    script.say(
        scripted.answer("q", "[b]hi[/b]", script.at, question="[red]x[/]", cot=("[/]", "[@click=quit]"),
                        answer="[link]", correct=None)  # type: ignore[arg-type]
    )  # fmt: skip
    script.command("set x [/nonsense", "[bold]no[/] such [", ok=False)
    app, _ = cockpit(script)
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.pause()
        assert "[@click=quit]" in str(app.main.query_one("#conversation", Static).render())
        await tell(app, pilot, script.say(StateChanged(at=script.at, state="paused")))
        assert app.is_running


async def test_advance_asks_first_and_says_what_will_happen() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("a")
        assert isinstance(app.screen, Confirm)
        assert "stage 5 of 9" in str(app.screen.query_one(Static).render())
        await pilot.press("escape")
        assert sent(link) == []
        await pilot.press("a", "enter")
        assert sent(link) == ["advance"]


async def test_an_open_dialog_follows_the_run() -> None:
    """Its answer must not do what it does not say."""
    script = scripted.training()
    app, link = cockpit(script)
    async with app.run_test(size=(80, 24)) as pilot:

        def entering(stage: int) -> list[Event]:
            before = len(script.events)
            script.step += 10
            script.enter(stage)
            return script.events[before:]

        await pilot.press("a")
        assert isinstance(app.screen, Confirm)
        link.coming.extend(entering(5))
        app.screen.dismiss(True)  # before the next tick
        await pilot.pause()
        assert sent(link) == [] and "stage 5 came meanwhile" in text_of(app, "#message")
        await pilot.press("a", "ctrl+c")
        await tell(app, pilot, *entering(6))
        assert isinstance(app.screen, Leave), "what lies over the dialog stays"
        await pilot.press("escape")
        assert app.screen is app.main and sent(link) == []

        await pilot.press("r", "down")
        entries = app.screen.query_one(OptionList)
        assert entries.option_count == 7 and entries.highlighted is not None
        chosen = entries.get_option_at_index(entries.highlighted).id
        await tell(app, pilot, *entering(7))
        assert entries.option_count == 8
        assert entries.get_option_at_index(entries.highlighted).id == chosen
        alarm = next(e for e in scripted.lost().events if isinstance(e, AlarmRaised))
        await tell(app, pilot, replace(alarm, undo="set optim.lr 0.001"))
        assert app.screen.query_one("#undo").display
        await pilot.press("enter")
        assert sent(link) == [f"rollback {chosen}", "set optim.lr 0.001"]

        await pilot.press("q")
        assert "it is saved first" in str(app.screen.query_one("#standing", Static).render())
        await tell(app, pilot, replace(alarm, kind=DISK))
        assert f"what came after {script.saves[-1]} is lost" in str(
            app.screen.query_one("#standing", Static).render()
        )


async def test_roll_back_offers_the_stage_before_and_describes_it() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("r")
        assert isinstance(app.screen, ChooseRollback)
        assert app.screen.query_one(OptionList).option_count == 5
        outlook = str(app.screen.query_one("#outlook", Static).render())
        assert outlook.startswith("back to stage 3, step 1,000 (b1-001000); 340 steps become an abandoned")
        await pilot.press("enter")
        assert sent(link) == ["rollback b1-001000"]


async def test_after_an_alarm_roll_back_offers_what_the_alarm_names() -> None:
    app, link = cockpit(scripted.lost())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("r", "enter")
        assert sent(link) == ["rollback b1-001000"], "stage 3, while the run is at 5"


async def test_a_setting_that_an_alarm_suspects_is_taken_back_with_it_unless_one_says_no() -> None:
    script = scripted.lost()
    raised = next(e for e in script.events if isinstance(e, AlarmRaised))
    script.say(replace(raised, undo="set optim.lr 0.002"))
    for presses, commands in (
        (["r", "enter"], ["rollback b1-001000", "set optim.lr 0.002"]),
        (["r", "t", "enter"], ["rollback b1-001000"]),
    ):
        app, link = cockpit(script)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press(*presses[:-1])
            shown = str(app.screen.query_one("#undo", Static).render())
            assert shown.startswith("[t] set optim.lr 0.002, as it was: ")
            await pilot.press(presses[-1])
            assert sent(link) == commands


async def test_a_run_with_another_seed_is_named_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def restart(folder: Path, name: str) -> Path:
        begun.append(name)
        return Path("restart.log")

    monkeypatch.setattr("stepwise_tui.detached.restart", restart)
    app, _ = cockpit(scripted.lost())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("f")
        text = str(app.screen.query_one(Static).render())
        await pilot.press("escape")
        assert begun == []
        await pilot.press("f", "y")
        assert begun and "stepwise attach" in text and "is saved and stopped" in text
        assert f"{begun[0]} begins: restart.log" in str(app.main.query_one("#message").render())


async def test_roll_back_can_keep_the_weights() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("r", "k")
        assert "yes" in str(app.screen.query_one("#keep", Static).render())
        assert "with the present weights" in str(app.screen.query_one("#outlook", Static).render())
        await pilot.press("up", "enter")
        assert sent(link) == ["rollback b1-001200 --keep-weights"]


async def test_what_cannot_be_done_is_refused_with_the_reason_at_once() -> None:
    app, link = cockpit(scripted.finished())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("a")
        assert "the run has ended" in text_of(app, "#message")
        await pilot.press("r")
        assert isinstance(app.screen, Main)
        assert sent(link) == []


async def test_run_n_takes_a_number_and_nothing_else() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        assert isinstance(app.screen, RunSteps)
        await pilot.press(*"0x", "enter")
        assert "not a whole number" in str(app.screen.query_one(".problem", Static).render())
        await pilot.press("backspace", *"250", "enter")
        assert sent(link) == ["run 0250"] or sent(link) == ["run 250"]


async def test_a_setting_is_changed_by_key_and_value_and_checked_beforehand() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("comma")
        assert isinstance(app.screen, ChangeSetting)
        await pilot.press(*"optim.lr", "enter")
        assert app.screen.query_one(Input).value == "optim.lr "
        await pilot.press(*"fast", "enter")
        assert "number > 0" in str(app.screen.query_one(".problem", Static).render())
        assert sent(link) == []
        await pilot.press(*["backspace"] * 4, *"0.001", "enter")
        assert sent(link) == ["set optim.lr 0.001"]


async def test_the_list_of_settings_is_leafed_through_while_one_types() -> None:
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("comma", "o", "pagedown")
        choices = app.screen.query_one(OptionList)
        assert choices.scroll_y == choices.scrollable_content_region.height
        await pilot.press("pageup")
        assert (choices.scroll_y, app.screen.query_one(Input).has_focus) == (0, True)


async def test_the_timeline_rolls_back_to_a_checkpoint_after_asking() -> None:
    app, link = cockpit(scripted.saved())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("t")
        assert isinstance(app.screen, Timeline)
        assert app.screen.query_one(DataTable).row_count == len(app.history.timeline)
        await pilot.press("up", "enter")
        assert isinstance(app.screen, Confirm)
        await pilot.press("y")
        assert sent(link) == ["rollback b2-001400"]


async def test_pages_open_and_close_with_their_own_key() -> None:
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        for key, page in (("question_mark", Help), ("x", Examples), ("t", Timeline)):
            await pilot.press(key)
            assert isinstance(app.screen, page)
            await pilot.press(key)
            assert isinstance(app.screen, Main)


async def test_the_alarm_rings_once_and_names_its_key() -> None:
    app, _ = cockpit(scripted.training())
    rung: list[None] = []
    app.bell = lambda: rung.append(None)  # type: ignore[method-assign]
    async with app.run_test(size=(80, 24)) as pilot:
        alarm = next(e for e in scripted.lost().events if isinstance(e, AlarmRaised))
        assert not app.main.query_one("#alarm").display
        await tell(app, pilot, alarm)
        await tell(app, pilot, StateChanged(at=app.history.at, state="training"))
        assert app.main.query_one("#alarm").display
        assert "r  roll back to stage 3" in text_of(app, "#alarm")
        assert len(rung) == 1


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
async def test_leaving_asks_and_staying_stays(key: str) -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(key)
        assert isinstance(app.screen, Leave)
        said = str(app.screen.query_one("#standing", Static).render())
        assert all(f"`stepwise {does} runs/brisk-otter`" in said for does in ("attach", "resume"))
        await pilot.press("enter")
        assert isinstance(app.screen, Main)
        assert sent(link) == []


async def test_leaving_works_while_typing_too() -> None:
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c", "ctrl+c")
        assert isinstance(app.screen, Leave)


async def test_stop_and_save_waits_for_the_run_to_end() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("q", "s")
        assert sent(link) == ["stop"]
        assert app.is_running
        await tell(app, pilot, *Script().finish().events)
        assert app._exit


async def test_the_cockpit_stays_open_when_the_run_ends_and_says_what_is_next() -> None:
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await tell(app, pilot, *Script().finish().events)
        assert app.is_running
        closing = text_of(app, "#closing")
        for word in (".994", "stepwise chat runs/brisk-otter", "stepwise eval runs/brisk-otter", "/model"):
            assert word in closing


async def test_a_crash_leaves_the_cockpit_standing_with_the_error_and_the_last_checkpoint() -> None:
    app, _ = cockpit(scripted.training().crash())
    async with app.run_test(size=(80, 24)):
        closing = text_of(app, "#closing")
        assert "OutOfMemoryError" in closing
        assert "last checkpoint: b1-001000" in closing
        assert "stepwise resume runs/brisk-otter" in closing
        assert any("[red]not markup[/red]" in line.text for line in app.history.log)


async def test_it_can_be_resized_at_any_time() -> None:
    app, _ = cockpit(scripted.saved().chat())
    async with app.run_test(size=(80, 24)) as pilot:
        for size in ((200, 60), (59, 15), (20, 5), (3, 1), (120, 34), (60, 16), (119, 60), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            app.tick()
        assert app.is_running


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 30), (200, 60)])
async def test_nothing_is_cut_off_the_lines(size: tuple[int, int]) -> None:
    for state in ("training", "dip alarm", "paused", "finished"):
        app, _ = cockpit(STATES[state]())
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            for id in ("#status", "#removal", "#example"):
                assert len(text_of(app, id)) <= size[0] - 2, (state, id)


async def test_in_60_columns_the_settings_say_how_to_leave_them() -> None:
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(60, 18)) as pilot:
        await pilot.press("comma")
        await pilot.pause()
        shown = "".join(s.text for strip in app.screen._compositor.render_strips() for s in strip)
        assert "escape cancels" in shown


async def test_too_small_a_terminal_is_told_so() -> None:
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(59, 15)) as pilot:
        await pilot.pause()
        assert not app.main.query_one("#cockpit").display
        assert "too small (59×15); 60×16 is needed" in text_of(app, "#too-small")


async def test_tab_goes_through_the_panels() -> None:
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        seen = []
        for _ in range(5):
            seen.append(
                [p for p in ("charts", "log", "chat", "system") if app.main.query_one(f"#{p}").display]
            )
            await pilot.press("tab")
        assert seen == [["charts"], ["log"], ["chat"], ["system"], ["charts"]]
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(200, 60)) as pilot:
        focused = []
        for _ in range(5):
            await pilot.press("tab")
            focused.append(app.focused.id if app.focused else None)
        assert focused == ["loss", "accuracy", "gradient", "log", "question"]


async def test_charts_are_not_drawn_again_when_nothing_changed() -> None:
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        loss = app.main.query_one("#loss", ChartPanel)
        picture = loss.render()
        app.show_charts()
        await pilot.pause()
        assert loss.render() is picture
        await pilot.press("y")
        await pilot.pause()
        assert loss.render() is not picture


async def test_a_terminal_without_utf8_gets_ascii_on_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")  # what has the focus has another border then
    app = Cockpit(ScriptedLink(scripted.saved().chat().events), glyphs=ASCII)
    async with app.run_test(size=(80, 24)) as pilot:
        for keys in ([], ["o"], ["question_mark"], ["x"], ["t"], ["comma"], ["r"], ["q"], ["g"], ["ctrl+p"]):
            await pilot.press(*keys)
            await pilot.pause()
            shown = [segment.text for strip in app.screen._compositor.render_strips() for segment in strip]
            assert [text for text in shown if not text.isascii()] == [], keys
            if len(app.screen_stack) > 1:
                await pilot.press("escape")


def test_in_ascii_too_one_sees_that_a_text_was_cut() -> None:
    """It had "saved b1-s0014.", which reads as the end of a sentence."""
    assert plain(clip("saved b1-s001400", 14)) == "saved b1-s001~"


async def test_a_real_run_is_steered_from_launch_to_quit(tmp_path: Path) -> None:
    run = Run(tiny_config(stop__steps=100_000), tmp_path / "real")
    run.start()
    app = Cockpit(LocalLink(run), glyphs=UNICODE)

    async def until(condition: Callable[[], bool]) -> None:
        for _ in range(400):
            if condition():
                return
            await pilot.pause(0.05)
        raise AssertionError(f"in vain; the log says {[line.text for line in app.history.log][-5:]}")

    try:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(lambda: app.history.metrics is not None)
            await pilot.press("space")
            await until(lambda: app.history.state == "paused")
            await pilot.press("c", *"12*34", "enter")
            await until(lambda: bool(app.history.chat) and app.history.chat[0].answered is not None)
            await pilot.press("escape")
            await pilot.press("e")
            await until(lambda: any("validation accuracy" in line.text for line in app.history.log))
            await pilot.press("r", "enter")
            await until(lambda: app.history.at.branch == 2)
            await pilot.press("space")
            await until(lambda: app.history.state != "paused")
            await pilot.press("q", "s")
            await until(lambda: app.history.finished is not None)
    finally:
        run.close()
    assert run.state == "interrupted"


async def test_a_run_is_left_and_goes_on() -> None:
    for keys, owner in (
        (["d"], True),
        (["q", "k"], True),
        (["q", "q"], True),
        (["ctrl+c"] * 2, True),
        (["ctrl+c"] * 2, False),
    ):
        app, link = cockpit(scripted.training())
        link.owner = owner
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press(*keys)
            await pilot.pause()
            assert not app.is_running or app._exit
        assert app.return_value == "leave"
        assert sent(link) == []


async def test_a_run_that_is_gone_is_not_said_to_train_until_it_is_back() -> None:
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        advice = "its process is gone; `stepwise resume runs/x` goes on with it"
        await tell(app, pilot, ReachChanged(gone="crashed", advice=advice))
        app.main._forget()
        await pilot.pause()
        assert "CRASHED" in text_of(app, "#status")
        assert "tok/s" not in text_of(app, "#status") and "all gone in" not in text_of(app, "#status")
        assert "next in" not in text_of(app, "#removal")
        assert advice in text_of(app, "#alarm")
        assert "pause" not in text_of(app, "#keys") and "quit" in text_of(app, "#keys")
        await tell(app, pilot, ReachChanged())
        assert "pause" in text_of(app, "#keys")
        assert "TRAINING" in text_of(app, "#status")
        assert "next in" in text_of(app, "#removal")
        assert app.main.query_one("#alarm").display is False


async def test_a_message_has_a_second_row_where_it_needs_one_and_no_third() -> None:
    app, _ = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        message = app.main.query_one("#message")
        for words, rows in ((8, 1), (16, 2), (60, 2), (8, 1)):
            app.say(" ".join(["because"] * words), "warning")
            await pilot.pause()
            assert message.size.height == rows
            assert text_of(app, "#message").endswith("…") == (words == 60)


async def test_pasted_lines_are_one_question() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c")
        app.post_message(Paste("every Davis is\n  a fompus.\nIs it?"))
        await pilot.press("enter")
        assert sent(link) == ["ask every Davis is a fompus. Is it?"]


async def test_nothing_is_asked_of_a_run_that_is_gone_and_no_question_is_lost() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await tell(app, pilot, ReachChanged(gone="crashed", advice="its process is gone"))
        for key in ("r", "a", "n", "comma"):
            await pilot.press(key)
            assert isinstance(app.screen, Main), key
        assert "its process is gone" in text_of(app, "#message")
        assert "chat" not in text_of(app, "#keys")
        await pilot.press("c", *"12*34", "enter")
        assert app.main.query_one(ChatInput).value == "12*34"
        await tell(app, pilot, ReachChanged())
        await pilot.press("enter")
        assert sent(link) == ["ask 12*34"]


async def test_a_run_that_is_gone_is_left_without_a_question() -> None:
    app, link = cockpit(scripted.training())
    async with app.run_test(size=(80, 24)) as pilot:
        await tell(app, pilot, ReachChanged(gone="crashed", advice="its process is gone"))
        await pilot.press("q")
        await pilot.pause()
    assert app.return_value == "leave" and sent(link) == []


async def test_roll_back_offers_what_the_alarm_names_whatever_was_saved_there() -> None:
    saved = CheckpointSaved(
        at=At(step=1_444, stage=4, scheduled=4, time=1.0), checkpoint="b1-s001444-stage4-time", cause="time",
        seconds=0.1, bytes=1,
    )  # fmt: skip
    alarm = AlarmRaised(
        at=At(step=1_500, stage=4), kind="not finite", message="", remedy="", key="r", target=saved.checkpoint
    )
    app, link = cockpit(scripted.training(1_500))
    async with app.run_test(size=(80, 24)) as pilot:
        await tell(app, pilot, saved, alarm)
        await pilot.press("r", "enter")
        assert sent(link) == [f"rollback {saved.checkpoint}"]
