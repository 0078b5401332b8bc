"""The command that takes over what others have written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dualpipe_sim.cli.app import app, example


@app.command("import", epilog=example("import config.json -o model.yaml"))
def import_(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="A model's config.json of Hugging Face's transformers, or the folder that has it."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write a configuration's `model:` there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the model's parameters as JSON.")] = False,
) -> None:
    """Take over a model: count its parameters, and write it as a configuration has it."""
    from dualpipe_sim.base.files import output_file, written_whole
    from dualpipe_sim.base.show import Table
    from dualpipe_sim.cli.tables import print_table, say
    from dualpipe_sim.config.records import read
    from dualpipe_sim.config.yaml_text import as_block
    from dualpipe_sim.importers.huggingface import read_model
    from dualpipe_sim.model.architecture import Model

    keys = read_model(path)
    model = read(Model, keys, f"{path}: model")
    counts = parameters_of(model)
    if output is not None:
        output_file(output)
        with written_whole(output) as part:
            part.write_text(f"# From {path}, by `dualpipe-sim import`.\n{as_block({'model': keys})}", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps({"name": model.name, "parameters": counts}))
        return
    rows = [(name, f"{count:,}") for name, count in counts["parts"].items() if count]
    print_table(Table(["part", "parameters"], [*rows, ("all but mtp", f"{counts['total']:,}")]))
    say(f"{model.name}: {model.layers} layers; a token passes {counts['active']:,} of {counts['total']:,} parameters")
    if output is not None:
        say(f"{output} is written; `run` needs a gpu, a cluster, training and a schedule beside it")


def parameters_of(model: Any) -> dict[str, Any]:  # noqa: ANN401 - a Model, which is not imported here
    """Return a model's parameters: all, those that a token passes, and by part; multi-token prediction is extra."""
    found = model.parameters()
    parts = {
        "embedding": found.embedding,
        "attention": found.attention,
        "mlp": found.dense,
        "experts": found.routed,
        "shared": found.shared,
        "gate": found.gate,
        "norm": found.norms,
        "head": found.head,
        "mtp": model.mtp_depth * model.mtp_parameters().total if model.mtp_depth else 0,
        "other": 0,
    }
    return {"total": found.total, "active": model.passed_parameters(), "parts": parts}
