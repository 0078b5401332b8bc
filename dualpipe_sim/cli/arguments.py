"""Arguments that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Annotated, TypeAlias

import typer

from dualpipe_sim.cli.complete import config_names, runtime_names, settings
from dualpipe_sim.errors import ScheduleError

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
Runtime: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="The runtime whose program it is: torch, megatron or deepseek.",
        autocompletion=runtime_names,
    ),
]
RuntimeOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--runtime-option", metavar="KEY=VALUE", help="An option of the runtime (repeatable)."),
]


MaxMemory: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Refuse what would take more of this machine's memory than this, e.g. 8GB; default: than is free.",
    ),
]


def simulates(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that runs what a configuration describes the option ``--max-memory``, which is a key of that."""

    @wraps(command)
    def within(*, settings: list[str] | None = None, max_memory: str | None = None, **others: object) -> None:
        most = [] if max_memory is None else [f"max_memory={max_memory}"]
        command(settings=[*(settings or ()), *most], **others)

    own = inspect.signature(command, eval_str=True)  # by the names of its own module
    added = inspect.Parameter("max_memory", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=MaxMemory)
    parameters = [*own.parameters.values(), added]
    within.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    within.__annotations__ = {one.name: one.annotation for one in parameters}
    return within


def pairs(option: str, given: list[str] | None, example: str) -> Iterator[tuple[str, str]]:
    """Yield what was given as key=value."""
    for pair in given or ():
        key, equals, text = pair.partition("=")
        if not equals:
            raise ScheduleError(f"{option} {pair}: must be key=value, like {example}")
        yield key, text
