"""Commands about a run that another process trains: attach to it, send it a command."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from stepwise_tui import output
from stepwise_tui.commands.options import RUNS, AnyRun, Json, Out, Plain
from stepwise_tui.output import explained


def attach(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run; the only live one if not given.")
    ] = None,
    out: Out = RUNS,
    plain: Plain = False,
) -> None:
    """See and steer a run that another process trains."""
    with explained():
        from stepwise_tui import session
        from stepwise_tui.link import SocketLink
        from trainer import runs

        link = SocketLink(runs.find(run, out) if run else runs.find_live(out))
        session.watch(link, plain=plain)


def send(
    run: AnyRun,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND…", help="As in the cockpit: advance 2.")],
    out: Out = RUNS,
    as_json: Json = False,
) -> None:
    """Give a command to a run that trains, and print its answer."""
    with explained():
        from stepwise_tui.link import SocketLink
        from trainer import control, runs
        from trainer.events import CommandAcknowledged

        asked = control.parse(" ".join(command), source="send")
        link = SocketLink(runs.find(run, out), history=False)
        link.send(asked)
        answer: CommandAcknowledged | None = None
        while answer is None:
            for event in link.drain():
                if isinstance(event, CommandAcknowledged) and event.id == asked.id:
                    answer = event
                elif not event.seq and hasattr(event, "message"):
                    raise LostError(event.message)
            time.sleep(0.01)
        if as_json:
            output.document(
                {
                    "id": answer.id,
                    "command": answer.command,
                    "applied_at_step": answer.at.step,
                    "ok": answer.ok,
                    "message": answer.message,
                }
            )
        else:
            typer.echo(f"{answer.message} (at step {answer.at.step:,})", err=not answer.ok)
        raise typer.Exit(0 if answer.ok else output.FAILURE)


class LostError(ValueError):
    """The run went away, or did not understand."""

    exit_code = output.FAILURE
