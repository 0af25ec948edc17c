"""What to do when the run has ended."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from textual.content import Content

from stepwise_tui.history import History
from stepwise_tui.link import Link
from stepwise_tui.text import accuracy, clean, duration
from stepwise_tui.widgets.lines import FAINT
from trainer import presets
from trainer.events import RunFinished
from trainer.paths import named


def closing(history: History, link: Link, names: Mapping[str, str]) -> Content | None:
    """How the run ended and what can be done next; None while it trains. names: of keys, by their actions."""
    end = history.crashed or history.finished
    if end is None:
        return None
    finished = history.crashed is None and history.state == "finished"
    head = _end(history) if history.crashed is None else _crash(history)
    following = _following(history.config.title)
    chat = names["chat"] if history.gone is None else ""
    rows = _next(link, saved=end.checkpoint, finished=finished, following=following, chat=chat)
    if finished and isinstance(end, RunFinished) and end.limit and history.at.stage < history.stages:
        rows[-1] = ("go on", link.command("resume", "--set", f"{end.limit}=N"))
    if history.crashed is not None:
        rows.insert(
            0,
            (names["pause_or_resume"], f"take it up again here, from {clean(end.checkpoint) or 'the start'}"),
        )
    return _rows(head, rows)


def title(history: History) -> str:
    """The word over it."""
    return "the run crashed" if history.crashed else f"the run is {history.state}"


def _end(history: History) -> list[Content]:
    end = history.finished
    assert end is not None
    lines = []
    if end.accuracy is not None:
        at, stages = history.at.stage, history.stages
        left = ""
        if stages:
            left = " with no CoT left" if at >= stages else f" at stage {at:,} of {stages:,}"
        lines.append(
            Content.assemble(
                "test accuracy ",
                (accuracy(end.accuracy), "bold $success"),
                f" ({round(end.accuracy * end.n)}/{end.n}){left}, ",
                f"after {duration(end.seconds)} of training",
            )
        )
    lines.append(Content.styled(clean(end.reason), FAINT))
    return lines


def _crash(history: History) -> list[Content]:
    crash = history.crashed
    assert crash is not None
    where = [line for line in crash.traceback.strip().splitlines() if line.startswith("  File")]
    saved = crash.checkpoint or "none: nothing was saved yet"
    lines = [Content.styled(clean(crash.error), "bold $error")]
    if where:
        lines.append(Content.styled(clean(where[-1].strip()), FAINT))
    lines.append(Content(f"last checkpoint: {clean(saved)}"))
    return lines


def _next(link: Link, *, saved: str, finished: bool, following: str, chat: str) -> list[tuple[str, str]]:
    """chat: the key that asks the run's process, "" where that is gone."""
    rows = [(chat, "ask it something, here and now")] if finished and chat else []
    if not finished and saved:
        rows.append(("go on", link.command("resume")))
    if saved:
        rows.append(("chat", link.command("chat")))
        rows.append(("measure", link.command("eval")))
        rows.append(("model", f"{named(link.folder)}/checkpoints/{saved}/model"))
    if finished:
        rows.append(("next", f"stepwise run preset {following}" if following else "stepwise presets"))
    return rows


def _following(title: str) -> str:
    """The preset after the one of that title, of its group; "" when it was none, or the last."""
    for one, after in pairwise(presets.listing()):
        if one.title == title and one.group == after.group:
            return after.name
    return ""


def _rows(head: list[Content], rows: list[tuple[str, str]]) -> Content:
    table = [Content.assemble((f"{name:<9}", "bold $accent"), clean(text)) for name, text in rows]
    return Content("\n").join([*head, *table])
