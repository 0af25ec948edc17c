"""Commands about a run that another process trains: attach to it, send it a command."""

from __future__ import annotations

import gc
import time
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from stepwise_tui import output
from stepwise_tui.commands.options import RUNS, AnyRun, Frugal, Json, Out, Plain
from stepwise_tui.output import explained

if TYPE_CHECKING:
    from stepwise_tui.link import Link
    from trainer.control import Command
    from trainer.events import ChatAnswered, CommandAcknowledged


def attach(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run; the only live one if not given.")
    ] = None,
    out: Out = RUNS,
    plain: Plain = False,
    frugal: Frugal = False,
    ssh: Annotated[
        str | None, typer.Option("--ssh", metavar="HOST", help="The run is on that machine.")
    ] = None,
    beside: Annotated[
        str | None, typer.Option("--beside", metavar="RUN", help="Draw the curves of this run too.")
    ] = None,
) -> None:
    """See and steer a run that another process trains; one that has ended is shown."""
    gc.set_threshold(50_000)  # hardly anything that is made before the screen stands is ever let go
    with explained():
        from stepwise_tui import link, session
        from stepwise_tui.relay import RelayLink
        from stepwise_tui.terminal import Terminal
        from trainer import runs

        whole = not plain and Terminal().whole
        if whole:  # the screen is loaded while the run gathers its history
            Thread(target=import_module, args=("stepwise_tui.app",), daemon=True).start()
        other = runs.find(beside, out) if beside else None
        there: Link
        if ssh is not None:
            there = RelayLink(ssh, run, out)
        else:
            # Lines of a run that has ended would have no end.
            there = link.attach(
                runs.find(run, out) if run else runs.find_live(out), ended=whole and run is not None
            )
        session.watch(there, plain=plain, frugal=frugal, beside=other)


def relay(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="As for attach.")] = None,
    out: Out = RUNS,
) -> None:
    """What `stepwise attach --ssh` runs at the other end."""
    with explained():
        from stepwise_tui.relay import serve
        from trainer import runs

        serve(runs.find(run, out) if run else runs.find_live(out))


def send(
    run: AnyRun,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND…", help="As in the cockpit: advance 2.")],
    out: Out = RUNS,
    as_json: Json = False,
) -> None:
    """Give a command to a run that trains, and print its answer."""
    with explained():
        from stepwise_tui import glyphs
        from stepwise_tui.link import SocketLink
        from stepwise_tui.search import below
        from stepwise_tui.words import with_step
        from trainer import config as configuration
        from trainer import control, runs

        asked = control.parse(" ".join(command), source="send")
        folder = runs.find(run, out)
        link = SocketLink(folder, history=False)
        link.send(asked)
        turn, answer = _answer(link, asked)
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
            output.say(with_step(answer.message, answer.at.step), err=not answer.ok)
            if turn is not None:
                method = configuration.build(configuration.load(folder / runs.CONFIG_FILE)).method
                typer.echo("\n".join(below(turn, method.thoughts_per_step, glyphs.detect())))
        raise typer.Exit(0 if answer.ok else output.FAILURE)


def _answer(link: Link, asked: Command) -> tuple[ChatAnswered | None, CommandAcknowledged]:
    """What was answered after thoughts, where it was, and the acknowledgement of a command. Raises
    `LostError` when none comes."""
    from trainer.events import ChatAnswered, CommandAcknowledged, Notice

    turn = None
    while True:
        for event in link.drain():
            if isinstance(event, ChatAnswered) and event.id == asked.id and event.thoughts:
                turn = event
            if isinstance(event, CommandAcknowledged) and event.id == asked.id:
                return turn, event
            if isinstance(event, Notice) and not event.seq:
                raise LostError(event.message)
        time.sleep(0.01)


class LostError(ValueError):
    """The run went away, or did not understand."""

    exit_code = output.FAILURE
