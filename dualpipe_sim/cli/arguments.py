"""Arguments that several commands share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Config: TypeAlias = Annotated[
    str, typer.Argument(help="A YAML file, or the name of a packaged one such as deepseek_v3.")
]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, e.g. pipeline.micro_batches=40 (repeatable)."),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Output: TypeAlias = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write.")]
Maps: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="REGEX=ACTION",
        help=r"What other ranges than PP:… stand for, e.g. 'Forward (\d+)={rank}F\1' (repeatable).",
    ),
]
