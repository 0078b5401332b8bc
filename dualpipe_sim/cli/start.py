"""Commands to begin with: init, configs, presets, schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from dualpipe_sim.cli.answer import print_json
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.complete import answer_names, beginnings, config_names, key_names, preset_names
from dualpipe_sim.cli.terminal import line, write
from dualpipe_sim.errors import UserError, did_you_mean

STARTER = "small"
"""The packaged configuration that `init` writes where nothing else is asked for."""


@app.command(epilog=example("init mine.yaml --from deepseek_v2_lite"))
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write.")] = Path("experiment.yaml"),
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="NAME|PATH",
            help="What to begin with: one of `configs` or `presets`, or a file of yours.",
            autocompletion=beginnings,
        ),
    ] = STARTER,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented configuration to start from."""
    from dualpipe_sim.base.files import output_file, written_whole

    if output_file(file).exists() and not force:
        raise UserError(f"{file}: is there already; name another file, or replace it with --force")
    text, data = _beginning(start)
    with written_whole(file) as part:
        part.write_text(text, encoding="utf-8")
    command = "plan" if "plan" in data else "compare"
    line(f"{file} is written; try: dualpipe-sim {command} {file}")


def _beginning(start: str) -> tuple[str, Mapping[str, object]]:
    """Return the text of a configuration to begin with, and what it holds."""
    from dualpipe_sim.base.files import read_text
    from dualpipe_sim.config.load import packaged_configs, read_config
    from dualpipe_sim.config.presets import FOLDERS, beginning_with, presets

    section = next((section for section in FOLDERS if start in presets(section)), None)
    if section is not None and start not in packaged_configs():
        return beginning_with(section, start), {}
    data, source = read_config(start)
    return read_text(source), data


@app.command(epilog=example("configs figure5"))
def configs(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, to print whole.", autocompletion=config_names)
    ] = None,
) -> None:
    """List the configurations that come with the package, or print one."""
    from dualpipe_sim.config import packaged_configs

    _show({"": packaged_configs()}, name, "configuration")


@app.command(epilog=example("presets h100"))
def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, to print whole.", autocompletion=preset_names)
    ] = None,
) -> None:
    """List the models, GPUs and clusters that a configuration can name, or print one."""
    from dualpipe_sim.config.presets import FOLDERS, presets

    _show({f"{section}:": presets(section) for section in FOLDERS}, name, "preset")


def _show(files: dict[str, dict[str, Path]], name: str | None, what: str) -> None:
    """Print the files of each heading, a line or two each, or the one that is named, as it is."""
    from dualpipe_sim.base.files import read_text
    from dualpipe_sim.cli.tables import print_names
    from dualpipe_sim.config.yaml_text import about

    if name is None:
        for heading, group in files.items():
            print_names(heading, {one: about(read_text(path)) for one, path in group.items()})
        return
    known = {one: path for group in files.values() for one, path in group.items()}
    if name not in known:
        hint = did_you_mean(name, known) or f" (known: {', '.join(known)})"
        raise UserError(f"{name}: no packaged {what} of this name{hint}")
    write(read_text(known[name]))


@app.command(epilog=example("schema training"))
def schema(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY",
            help="A key or section, like training or cluster.nvlink, to explain in words.",
            autocompletion=key_names,
        ),
    ] = None,
    answers_of: Annotated[
        str | None,
        typer.Option(
            "--of",
            metavar="COMMAND",
            help="Print the JSON Schema of what this command answers with --json instead.",
            autocompletion=answer_names,
        ),
    ] = None,
) -> None:
    """Explain keys of configurations; without KEY print their JSON Schema, for editors that complete and check YAML."""
    if answers_of is not None:
        if key is not None:
            raise UserError(f"schema: give a key or --of COMMAND, not both ('{key}', '{answers_of}')")
        from dualpipe_sim.answers.schemas import answer_schema

        print_json(answer_schema(answers_of))
        return
    if key is None:
        from dualpipe_sim.config.json_schema import json_schema

        print_json(json_schema())
        return
    from dualpipe_sim.cli.tables import print_keys
    from dualpipe_sim.config.keys import keys_below

    print_keys(keys_below(key))
