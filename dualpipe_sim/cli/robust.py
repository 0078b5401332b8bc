"""The commands robust and regimes: which schedule under what may happen, and which where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Json, Resume, Settings, Workers, simulates
from dualpipe_sim.cli.figure import Dark, Font, FontSize, Legend, Size, Title
from dualpipe_sim.cli.progress import interruptible, progress_bar
from dualpipe_sim.cli.terminal import print_table
from dualpipe_sim.errors import UserError

if TYPE_CHECKING:
    from dualpipe_sim.pictures.palette import ThemeName


@app.command(epilog=example("robust figure5 --set scenarios.stragglers=0.1"))
@simulates
def robust(
    config: Config,
    settings: Settings = None,
    runs: Annotated[
        int | None, typer.Option("--runs", metavar="N", help="How many scenarios; as scenarios.runs.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="What they follow from; as scenarios.seed.")
    ] = None,
    workers: Workers = 1,
    as_json: Json = False,
) -> None:
    """Play the compared schedules in the same scenarios of jitter, slow ranks and links, and routing skew.

    The section `scenarios:` says what is drawn.
    """
    from dualpipe_sim.config import load_experiment
    from dualpipe_sim.robustness.play import robust_choice

    own = {"scenarios.runs": runs, "scenarios.seed": seed}
    given = [*(settings or ()), *(f"{key}={value}" for key, value in own.items() if value is not None)]
    experiment = load_experiment(config, settings=given)
    with progress_bar() as progress:
        found = robust_choice(experiment, workers=workers, progress=progress)
    if as_json:
        print_answer("robust", found.to_dict())
        return
    print_table(found.to_table())


@app.command(epilog=example("regimes figure5 --x costs.transfer=0..2 --y ranks=4,8"))
@simulates
def regimes(  # noqa: PLR0913, PLR0917 - each is an option
    config: Config,
    x: Annotated[
        str,
        typer.Option("--x", metavar="KEY=A..B", help="An axis: a key from A to B (A..B:9 in 9 points), or =V,V,…"),
    ],
    y: Annotated[str, typer.Option("--y", metavar="KEY=A..B", help="The other axis, from below to above.")],
    settings: Settings = None,
    close: Annotated[
        float, typer.Option("--close", metavar="SHARE", help="Below which lead it is too close to call.")
    ] = 0.01,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Draw the map (png, svg, pdf), or append rows (csv, jsonl, parquet)."
        ),
    ] = None,
    resume: Resume = False,
    workers: Workers = 1,
    size: Size = None,
    font_size: FontSize = None,
    font: Font = None,
    legend: Legend = True,
    title: Title = None,
    dark: Dark = False,
    as_json: Json = False,
) -> None:
    """Map which of the compared schedules is best where, over any two keys, and where another one takes over.

    An axis `activations=4..16` is no key, but the most activations that a rank may hold.
    """
    from dualpipe_sim.robustness import regimes as find

    charts = [file for file in output or () if Path(file).suffix.lower() in {".png", ".svg", ".pdf"}]
    tables = [file for file in output or () if file not in charts]
    if len(tables) > 1:
        raise UserError(f"--output {tables[1]}: rows are in {tables[0]} already; name one table")
    table = tables[0] if tables else None
    with interruptible(table), progress_bar() as progress:
        found = find(
            config, x, y, close=close, workers=workers, output=table, resume=resume, progress=progress,
            settings=settings or (),
        )  # fmt: skip
    for chart in charts:
        from dualpipe_sim.pictures.plot import regime_chart, save

        theme: ThemeName = "dark" if dark else "light"
        drawn = regime_chart(found, size=size, font_size=font_size, font=font, legend=legend, title=title, theme=theme)
        save(drawn.figure, chart)
    if as_json:
        print_answer("regimes", found.to_dict())
        return
    print_table(found.to_table())
