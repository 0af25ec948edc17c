"""The page of held-out examples, as the live weights or a checkpoint answered them, or two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from stepwise_tui import answers, keymap
from stepwise_tui.answers import CURRENT, LIVE, Answers, Pair
from stepwise_tui.glyphs import Glyphs
from stepwise_tui.history import History
from stepwise_tui.keymap import Key
from stepwise_tui.screens.dialogs import ChooseWeights
from stepwise_tui.screens.page import Page
from stepwise_tui.text import clip
from stepwise_tui.widgets import answers as drawn
from stepwise_tui.widgets.lines import FAINT, Piece, fit


class Examples(Page):
    """Held-out examples, and one of them closer. Two models: the answers of both, and where they differ.

    Of the live weights it shows those of the last evaluation, until they are asked for all.
    """

    page: ClassVar[keymap.Page] = "examples"
    BINDINGS: ClassVar[list[BindingType]] = keymap.page_bindings("examples")

    class Wanted(Message):
        """These weights shall answer the examples now: ids of checkpoints, `LIVE`."""

        def __init__(self, whose: Sequence[str]) -> None:
            super().__init__()
            self.whose = whose

    def __init__(
        self, history: History, glyphs: Glyphs, keys: Sequence[Key], beside: str | None = None
    ) -> None:
        """beside: a checkpoint, to compare with the live weights."""
        super().__init__(history, keys)
        self._glyphs = glyphs
        self._whose: tuple[str, ...] = (LIVE,) if beside is None else (LIVE, beside)
        self._follows = beside is None
        """Whether the answers of the live weights are those of the last evaluation."""
        self._wrong = self._differing = False
        self._drawn: tuple[object, ...] = ()
        self._sides: list[Answers] = []
        self._shown: list[Pair] = []
        self._models = 0
        """Whose answers were shown last, how many."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="page whole") as box:
            box.border_title = "held-out examples"
            yield Static(id="heading")
            yield OptionList(id="answers", markup=False)
            with VerticalScroll(id="closer"):
                yield Static(id="detail")
            yield from self.feet()

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self._ask_those_missing()

    # What is shown ------------------------------------------------------------------------------------------

    def show(self, history: History) -> None:
        self._history = history
        found = [(whose, self._answers(whose)) for whose in self._whose]
        drawn = (found, self._wrong, self._differing, self.size)
        if drawn != self._drawn:
            self._drawn = drawn
            self._sides = [side for _, side in found if side is not None]
            self._fill(missing=[whose for whose, side in found if side is None])

    def _answers(self, whose: str) -> Answers | None:
        asked = answers.asked(self._history, whose)
        if whose == LIVE and (self._follows or asked is None):
            return answers.evaluated(self._history)
        return asked

    def _fill(self, missing: Sequence[str]) -> None:
        choices = self.query_one(OptionList)
        place, models = choices.highlighted, self._models
        before = self._shown[place].number if place is not None and place < len(self._shown) else 1
        every = answers.pairs(self._sides)
        self._shown = [pair for pair in every if self._is_wanted(pair)]
        names = [side.name for side in self._sides]
        columns = drawn.layout(every, names, self._width - 3, self._glyphs)
        self.query_one("#heading", Static).update(self._heading(every, missing, columns))
        choices.set_options(Option(drawn.row(pair, columns, self._glyphs)) for pair in self._shown)
        if self._shown:
            choices.highlighted = self._place(before, anew=models != len(self._sides))
        self._models = len(self._sides)
        self._describe()

    def _place(self, before: int, *, anew: bool) -> int:
        """Of the example that was chosen, or of one near it; anew: of the first that is worth a look."""
        pairs = self._shown
        telling = [place for place, pair in enumerate(pairs) if pair.differs or pair.wrong]
        if anew and telling:
            return max(telling, key=lambda place: (pairs[place].differs, -place))
        return min(range(len(pairs)), key=lambda place: abs(pairs[place].number - before))

    @property
    def _width(self) -> int:
        """Cells between the borders."""
        return max(40, self.size.width - 4)

    def _is_wanted(self, pair: Pair) -> bool:
        return (pair.wrong or not self._wrong) and (pair.differs or not self._differing)

    def _heading(self, every: Sequence[Pair], missing: Sequence[str], columns: drawn.Layout) -> Content:
        width = self._width - 1
        lines = [drawn.standing(side, width, self._glyphs) for side in self._sides]
        lines += [Content.styled(f"{id or 'live'}: not answered yet", FAINT) for id in missing]
        wanted = (self._wrong, " only the wrong ones "), (self._differing, " only where they differ ")
        pieces = [Piece(Content.styled(text, "reverse")) for is_so, text in wanted if is_so]
        if self._sides:
            room = width - sum(piece.text.cell_length + 3 for piece in pieces)
            pieces.insert(0, Piece(Content(clip(drawn.tally(self._sides, every, self._glyphs), room))))
        if len(self._whose) == 1 and self._follows:
            text = f"from the last evaluation; {self.key_of('answer_now')}: more, now"
            pieces.append(Piece(Content.styled(text, FAINT), 2))
        lines += [fit(pieces, width)] if pieces else []
        lines += (
            [Content.assemble(" ", drawn.head(self._sides, columns, self._glyphs))] if self._shown else []
        )
        return Content("\n").join(lines)

    def on_option_list_option_highlighted(self) -> None:
        self._describe()

    def _describe(self) -> None:
        """The chosen example, closer."""
        place = self.query_one(OptionList).highlighted
        if place is None or place >= len(self._shown):
            text = Content.styled("none of these" if self._sides else self._nothing(), FAINT)
        else:
            names = [side.name for side in self._sides]
            text = drawn.closer(self._shown[place], names, self._width - 2, self._glyphs)
        self.query_one("#detail", Static).update(text)

    def _nothing(self) -> str:
        key = self.key_of("answer_now")
        return f"None yet: they come with the first evaluation. {key} has them answered now."

    # What the keys do ---------------------------------------------------------------------------------------

    def action_only_wrong(self) -> None:
        self._wrong = not self._wrong
        self.show(self._history)

    def action_only_differing(self) -> None:
        if len(self._whose) < 2:
            self.say(f"there is nothing beside it; {self.key_of('compare_with')} compares", "warning")
            return
        self._differing = not self._differing
        self.show(self._history)

    def action_answer_now(self) -> None:
        self._follows = False
        self.post_message(self.Wanted(self._whose))

    def action_compare_with(self) -> None:
        dialog = ChooseWeights(self._history, "beside these", "compares")
        self.app.push_screen(dialog, self._compare)

    def action_whose(self) -> None:
        dialog = ChooseWeights(self._history, "whose answers", "shows its answers")
        self.app.push_screen(dialog, self._show_those_of)

    def _compare(self, chosen: tuple[str, ...] | None) -> None:
        if chosen is not None:
            self._take(self._whose[0], chosen[0])

    def _show_those_of(self, chosen: tuple[str, ...] | None) -> None:
        if chosen is not None:
            self._take(chosen[0], *self._whose[1:])

    def _take(self, *whose: str) -> None:
        """Show the answers of these from now on; twice the same is once."""
        self._whose = tuple(dict.fromkeys(whose))
        self._follows = self._whose == (LIVE,) and self._follows
        self._differing = self._differing and len(self._whose) > 1
        self._ask_those_missing()
        self.show(self._history)

    def _ask_those_missing(self) -> None:
        """Have those answer that have not; the live weights again where they have changed."""
        missing = [
            whose for whose in self._whose if not ((self._follows and whose == LIVE) or self._has(whose))
        ]
        if missing:
            self.post_message(self.Wanted(missing))

    def _has(self, whose: str) -> bool:
        event, at = self._history.answered.get(whose or CURRENT), self._history.at
        if event is None or whose:
            return event is not None
        return (event.at.branch, event.at.step) == (at.branch, at.step)
