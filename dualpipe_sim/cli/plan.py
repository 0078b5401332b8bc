"""The command plan: the ranking, why the others are not in it, and why the first is first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dualpipe_sim.base.signals import stop_after_all
from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Dask, Json, Resume, Rows, Settings, Workers, simulates
from dualpipe_sim.cli.progress import interruptible, progress_bar
from dualpipe_sim.cli.terminal import print_table, say
from dualpipe_sim.errors import UserError

if TYPE_CHECKING:
    from dualpipe_sim.plan import Plan
    from dualpipe_sim.plan.why_first import Change, WhyFirst


@app.command(epilog=example("plan plan_deepseek_v2_lite --free ranks=2,4 --why"))
@simulates
def plan(  # noqa: PLR0913, PLR0917 - each is an option
    config: Config,
    free: Annotated[
        list[str] | None,
        typer.Option("--free", metavar="KEY=V,V,…", help="What may be chosen, e.g. ranks=8,16 (repeatable)."),
    ] = None,
    settings: Settings = None,
    top: Annotated[int, typer.Option("--top", metavar="N", help="How many to rank.")] = 10,
    confirm: Annotated[
        int, typer.Option("--confirm", metavar="N", help="How many to run again with links shared, at least.")
    ] = 3,
    everything: Annotated[
        bool, typer.Option("--all", help="Run all that fit, also those that are surely slower than the best.")
    ] = False,
    orders: Annotated[
        int, typer.Option("--search", metavar="N", help="Search orders, too, for the best N cuts, within their memory.")
    ] = 0,
    order: Annotated[
        str | None, typer.Option("--order", metavar="FILE", help="Write the first one's order there, as torch's CSV.")
    ] = None,
    reasons: Annotated[bool, typer.Option("--why", help="Say what makes the first one first.")] = False,
    chart: Annotated[
        str | None, typer.Option("--chart", metavar="FILE", help="Draw step time against memory (png, svg, pdf).")
    ] = None,
    output: Rows = None,
    resume: Resume = False,
    workers: Workers = 1,
    dask: Dask = None,
    as_json: Json = False,
) -> None:
    """Find the fastest way to cut and schedule a model on its GPUs, of those that the `plan:` section leaves open."""
    from dualpipe_sim.plan import plan as search
    from dualpipe_sim.plan.why_first import why_first
    from dualpipe_sim.scoring.accuracy import error_bar, plan_errors, plan_remarks

    given = [*map(_setting, free or ()), *(settings or ())]
    with interruptible(output), progress_bar() as progress:
        found = search(
            config,
            settings=given,
            top=top,
            confirm=confirm,
            exhaustive=everything,
            orders=orders,
            workers=workers,
            dask=dask,
            output=output,
            resume=resume,
            progress=progress,
        )
    if order is not None:
        _write(found, order)
    reason = why_first(found) if reasons and found.ranking else None
    if chart:
        from dualpipe_sim.pictures.plot import plan_chart, save

        save(plan_chart(found).figure, chart)
    bar = error_bar(found.experiment)
    if as_json:
        told = found.to_dict() | plan_errors(found, bar) | ({} if reason is None else {"why": reason.to_dict()})
        print_answer("plan", told)
    else:
        _print(found, plan_remarks(found, bar))
        if reason is not None:
            _print_why(reason)
    if found.interrupted:
        stop_after_all("the ranking is that of before orders were searched")


def _write(found: Plan, file: str) -> None:
    """Write the order of the first one."""
    from dualpipe_sim.base.files import written_whole
    from dualpipe_sim.order.text import format_order

    text = format_order(found.order())
    with written_whole(file) as part:
        part.write_text(text, encoding="utf-8")


def _setting(text: str) -> str:
    """Turn ``ranks=8,16`` into the setting ``plan.ranks=[8,16]``."""
    key, equals, values = text.partition("=")
    if not equals or not key or not values.strip():
        raise UserError(f"--free {text}: must be key=value,value,…, like ranks=8,16,32")
    return f"plan.{key}=[{values}]"


def _print(found: Plan, remarks: Sequence[str]) -> None:
    """Print the ranking, and below it how far off it may be, and how many are ruled out for which reason."""
    table = found.to_table()
    print_table(replace(table, notes=[*table.notes[:1], *remarks, *table.notes[1:]]))


def _print_why(reason: WhyFirst) -> None:
    """Print the step by cause, what holds it up, and what changes would buy."""
    from dualpipe_sim.analysis.critical_path import PARTS
    from dualpipe_sim.base.show import Table
    from dualpipe_sim.base.units import format_seconds

    say(f"1: {reason.first}")
    if reason.second:
        say(f"2: {reason.second}")
    rows = []
    for cause, seconds in reason.causes_s.items():
        more = [format_seconds(seconds[1] - seconds[0])] if reason.second else []
        rows.append([cause, *map(format_seconds, seconds), *more])
    headings = ("step by cause", "1", *(["2", "difference"] if reason.second else []))
    print_table(Table(headings, rows, ["step by cause"]))
    stage, seconds_alone = (reason.slowest_stage[key] for key in ("stage", "seconds"))
    say(f"slowest stage: {stage:g}, F and B alone take {format_seconds(seconds_alone)}")
    spent = ", ".join(f"{PARTS[part]} {format_seconds(seconds)}" for part, seconds in reason.critical_s.items())
    say(f"binding: {reason.binding} (longest chain of waits: {spent})")
    rows = [[_named(change), *_change(change)] for change in reason.changes]
    print_table(Table(("change to 1", "step", "tok/s/GPU", "gain", "GB"), rows, ["change to 1"]))
    for change in reason.changes:
        if change.error is not None:
            say(f"{change.what}: {change.error}")


def _named(change: Change) -> str:
    from dualpipe_sim.analysis.memory import DOES_NOT_FIT

    return change.what if change.fits else f"{change.what}, {DOES_NOT_FIT}"


def _change(change: Change) -> list[str]:
    from dualpipe_sim.base.units import format_number, format_seconds, in_gb

    if change.error is not None:
        return ["–"] * 4
    return [
        format_seconds(change.step_time_s),
        format_number(change.tokens_per_second_per_gpu),
        f"{change.gain:+.1%}",
        in_gb(cast("int", change.peak_memory_bytes), ""),
    ]
