"""Which entry a roll back offers, and how a person chooses another."""

from __future__ import annotations

import pytest
from textual.widgets import OptionList, Static

from stepwise_tui import returns
from stepwise_tui.app import Cockpit
from stepwise_tui.glyphs import UNICODE
from stepwise_tui.history import History, replay
from stepwise_tui.screens.dialogs import ChooseRollback
from tests import scripted
from tests.scripted import SCRIPTED, Script, ScriptedLink
from tests.test_cockpit import sent
from trainer.events import AlarmRaised


def history(script: Script) -> History:
    return replay([e for e in script.events if not isinstance(e, AlarmRaised)], SCRIPTED)


def broken(step: int) -> Script:
    """A run that does not recover from its fourth removal, at step 1,200, and that nobody looked after."""
    return Script(lost=True).start().train_to(step)


@pytest.mark.parametrize("step", [1_700, 2_100])
def test_the_entry_before_the_dip_is_offered_however_many_stages_ago_it_was(step: int) -> None:
    offer = returns.before_the_dip(history(broken(step)))
    assert offer is not None and offer.entry is not None
    assert (offer.entry.stage, offer.entry.step) == (4, 1_200)
    assert "before the dip: accuracy was .9" in offer.reason


def test_a_dip_that_is_over_or_fresh_is_none() -> None:
    assert returns.before_the_dip(history(scripted.training(1_390))) is None
    assert returns.before_the_dip(history(broken(1_290))) is None, "it is given time"
    assert returns.before_the_dip(history(Script().start())) is None


def test_after_a_roll_back_what_was_abandoned_is_no_dip() -> None:
    assert returns.before_the_dip(history(broken(2_100).roll_back(3, 1_000).train_to(1_180))) is None


def test_a_branch_is_measured_against_the_one_it_left() -> None:
    again = broken(2_100).roll_back(4, 1_200)
    again.lost = True
    offer = returns.before_the_dip(history(again.train_to(1_700)))
    assert offer is not None and offer.entry is not None
    assert (offer.entry.branch, offer.entry.stage) == (1, 4)


async def test_the_dialog_says_why_and_a_number_goes_to_that_stage() -> None:
    link = ScriptedLink([e for e in broken(2_100).events if not isinstance(e, AlarmRaised)])
    app = Cockpit(link, glyphs=UNICODE)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("r")
        assert isinstance(app.screen, ChooseRollback)
        outlook = app.screen.query_one("#outlook", Static)
        assert str(outlook.render()).startswith("Before the dip: accuracy was .9")
        await pilot.press("2")
        assert str(outlook.render()).startswith("back to stage 2, step 800")
        assert "dip" not in str(outlook.render())
        await pilot.press("9", "0")  # there are no 9 stages yet, and no 90
        choices = app.screen.query_one(OptionList)
        assert choices.highlighted == choices.option_count - 1
        await pilot.press("4", "enter")
        assert sent(link) == ["rollback b1-001200"]
