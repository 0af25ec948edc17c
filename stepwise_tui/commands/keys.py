"""`stepwise keys`: what each key of the cockpit does, and where other keys are chosen."""

from __future__ import annotations

import typer

from stepwise_tui import output
from stepwise_tui.output import explained


def keys() -> None:
    """The keys of the cockpit, and the file in which you can choose others."""
    with explained():
        from stepwise_tui import keymap, settings

        chosen = settings.load().keys
        rows = [
            (f"{key.shown} *" if key.action in chosen else key.shown, key.page, key.action, key.title)
            for key in keymap.mapped(chosen)
        ]
        typer.echo(output.table(("key", "over page", "action", "what it does"), rows))
        typer.echo(
            f"\nctrl+q, and ctrl+c where nothing is selected, always lead out.\n{_where(bool(chosen))}"
        )


def _where(some: bool) -> str:
    from stepwise_tui import settings

    file = settings.path()
    if some:
        return f"* as {file} says."
    there = "has no [keys] yet" if file.exists() else "does not exist yet"
    return f'{file} {there}; other keys are chosen there:\n\n[keys]\nsave = "ctrl+s"\nroll_back = "r f8"'
