"""Arguments that several commands share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from dualpipe_sim.cli.complete import config_names, settings

Config: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, or the name of a packaged one such as deepseek_v3.",
        autocompletion=config_names,
    ),
]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value, e.g. pipeline.micro_batches=40 (repeatable).",
        autocompletion=settings,
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Output: TypeAlias = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write.")]
Rows: TypeAlias = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Append rows to this .csv, .jsonl or .parquet file."),
]
Resume: TypeAlias = Annotated[bool, typer.Option("--resume", help="Go on with the rows that are in the file.")]
Workers: TypeAlias = Annotated[int, typer.Option("--workers", "-j", metavar="N", help="Processes on this machine.")]
Dask: TypeAlias = Annotated[
    str | None,
    typer.Option("--dask", metavar="ADDRESS", help="Use this Dask scheduler's workers, e.g. tcp://host:8786."),
]
Maps: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="REGEX=ACTION",
        help=r"What other ranges than PP:… stand for, e.g. 'Forward (\d+)={rank}F\1' (repeatable).",
    ),
]
