"""The command search: the best order found, how far it may be from the best there is, and what it is for."""

from __future__ import annotations

from typing import Annotated

import typer

from dualpipe_sim.base.signals import stop_after_all
from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Json, Settings, simulates
from dualpipe_sim.cli.progress import seconds_bar
from dualpipe_sim.cli.terminal import print_table


@app.command(epilog=example("search search_nemotron_nano --order best.csv"))
@simulates
def search(  # noqa: PLR0913, PLR0917 - each is an option
    config: Config,
    settings: Settings = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", help="How long it may take; as search.seconds.")
    ] = None,
    order: Annotated[
        str | None, typer.Option("--order", metavar="FILE", help="Write the order there, as torch's CSV.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Keep where the search stands in this file (JSON)."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from that file.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", metavar="N", help="Processes; default: as many as cores.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for the fastest partition, placement and order, beside all registered schedules, with a lower bound."""
    from dualpipe_sim.order.text import format_order
    from dualpipe_sim.search import search as find

    given = [*(settings or ()), *([] if seconds is None else [f"search.seconds={seconds}"])]
    with seconds_bar() as watched:
        found = find(config, settings=given, workers=workers, output=state, resume=resume, watched=watched)
    if order is not None:
        from dualpipe_sim.base.files import written_whole

        with written_whole(order) as part:
            part.write_text(format_order(found.schedule), encoding="utf-8")
    if as_json:
        print_answer("search", found.to_dict())
    else:
        print_table(found.to_table())
    if found.interrupted:
        stop_after_all(f"{state} keeps where it stands; --resume goes on" if state else "this is the best so far")
