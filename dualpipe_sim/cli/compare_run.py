"""The command compare-run: simulated against measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Json, Maps, Settings, simulates
from dualpipe_sim.cli.terminal import line, print_table

if TYPE_CHECKING:
    from dualpipe_sim.calibration.compare_run import Both, RunComparison


@app.command(name="compare-run", epilog=example("compare-run mine.yaml rank0.json rank1.json"))
@simulates
def compare_run(
    config: Config,
    files: Annotated[
        list[str],
        typer.Argument(metavar="TIMELINE", help="The measured run: a timeline as CSV, or the traces of all ranks."),
    ],
    settings: Settings = None,
    maps: Maps = None,
    worst: Annotated[int, typer.Option("--worst", min=0, metavar="N", help="How many of the worst ops to show.")] = 5,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE", help="Draw both Gantt charts on one time axis (png, svg, pdf)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a simulated run beside a measured one: makespan, by rank, by kind, worst ops."""
    from dualpipe_sim.calibration import compare_run as comparing
    from dualpipe_sim.config import load_experiment

    if plot:
        from dualpipe_sim.pictures.plot import check_format

        check_format(plot)
    compared = comparing.compare_run(load_experiment(config, settings=settings or ()), files, maps or ())
    if plot:
        from dualpipe_sim.pictures.plot import compare_gantt, save

        save(compare_gantt({"simulated": compared.simulated, "measured": compared.measured}), plot)
    if as_json:
        print_answer("compare-run", compared.to_dict(worst))
    else:
        _print(compared, worst)


def _print(compared: RunComparison, worst: int) -> None:
    """Print the makespans, then a row a rank, a kind and a worst op."""
    from dualpipe_sim.base.show import Table
    from dualpipe_sim.base.units import format_seconds

    makespan = compared.makespan_s
    schedule = compared.measured.graph.schedule
    steps = len(compared.steps_s)
    shortest, longest = format_seconds(min(compared.steps_s)), format_seconds(max(compared.steps_s))
    of_steps = f", the median of {steps} steps from {shortest} to {longest}" if steps > 1 else ""
    line(f"{schedule.name}, {schedule.ranks} × {schedule.micro_batches} (ranks × micro-batches)")
    line(
        f"makespan: simulated {format_seconds(makespan.simulated)} ({_error(makespan)}), "
        f"measured {format_seconds(makespan.measured)}{of_steps}"
    )
    ranks = enumerate(zip(compared.busy_s, compared.idle_s, strict=True))
    rows = [[f"{rank}", *_with_error(busy), *_texts(idle)] for rank, (busy, idle) in ranks]
    print_table(Table(("rank", *_headings("busy"), "error", *_headings("idle")), rows, ["rank"]))
    kinds = compared.kinds.items()
    rows = [[kind, f"{one.ops}", *_with_error(one.median_s)] for kind, one in kinds]
    print_table(Table(("kind", "ops", *_headings("median"), "error"), rows, ["kind"]))
    if worst:
        rows = [
            [one.label, f"{one.rank}", *_with_error(one.length_s), *_texts(one.start_s)]
            for one in compared.worst(worst)
        ]
        print_table(Table(("worst", "rank", *_headings("length"), "error", *_headings("start")), rows, ["worst"]))


def _headings(number: str) -> tuple[str, str]:
    return f"{number}, simulated", "measured"


def _texts(both: Both) -> tuple[str, str]:
    from dualpipe_sim.base.units import format_seconds

    return format_seconds(both.simulated), format_seconds(both.measured)


def _with_error(both: Both) -> tuple[str, str, str]:
    return *_texts(both), _error(both)


def _error(both: Both) -> str:
    return "–" if both.error is None else f"{both.error:+.1%}"
