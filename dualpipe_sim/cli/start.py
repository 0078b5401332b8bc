"""Commands to begin with: init, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dualpipe_sim.cli.app import app
from dualpipe_sim.errors import UserError

STARTER = "small"
"""The packaged configuration that `init` writes."""


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write.")] = Path("experiment.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented configuration to start from."""
    from dualpipe_sim.base.files import read_text, written_whole
    from dualpipe_sim.config import packaged_configs

    if file.exists() and not force:
        raise UserError(f"{file}: is there already; name another file, or replace it with --force")
    with written_whole(file) as part:
        part.write_text(read_text(packaged_configs()[STARTER]), encoding="utf-8")
    typer.echo(f"{file} is written; try: dualpipe-sim compare {file}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of configurations, for editors that complete and check YAML."""
    from dualpipe_sim.config.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
