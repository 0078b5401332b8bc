"""The command that takes over what others have written down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dualpipe_sim.base.show import on_one_line
from dualpipe_sim.cli.answer import print_answer
from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.terminal import line, print_table, say


@app.command("import", epilog=example("import config.json -o model.yaml"))
def import_(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A model's config.json of Hugging Face's transformers or its folder; Megatron-LM's arguments in a "
            "script or as MODEL_ARGS in YAML; torchtitan's TOML or JSON; SimuMax's JSON files or their folder; "
            "aiconfigurator's gemm_perf.txt or nccl_perf.txt.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the configuration there; of a model its `model:`."),
    ] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", metavar="NAME", help="The GPU, where the file says none.")] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", metavar="N", min=1, help="All GPUs, where the file does not say it.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="What a script gets from outside: a variable in capitals (TP=8), or a flag (vocab-size=128256).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the model's parameters as JSON.")] = False,
) -> None:
    """Take over a model or a run: count its parameters, write it as a configuration.

    What changes time or memory and is not modelled is named, a line each, on stderr.
    """
    from dualpipe_sim.base.files import output_file, written_whole
    from dualpipe_sim.base.show import Table
    from dualpipe_sim.config.yaml_text import as_block
    from dualpipe_sim.importers.reading import read

    if path.is_file() and path.suffix in (".txt", ".csv") and _took_kernels(path, output):
        return
    given = dict(setting_of(one) for one in settings or ())
    imported = read(path, gpu=gpu, gpus=gpus, settings=given)
    model = model_of(imported.config, str(path))
    counts = parameters_of(model)
    for unread in imported.unread:
        line(f"{path}: {unread}", err=True)
    if output is not None:
        output_file(output)
        with written_whole(output) as part:
            text = as_block(imported.config)
            part.write_text(f"# From {on_one_line(str(path))}, by `dualpipe-sim import`.\n{text}", encoding="utf-8")
    if as_json:
        print_answer("import", {"name": model.name, "parameters": counts, "unread": list(imported.unread)})
        return
    rows = [(name, f"{count:,}") for name, count in counts["parts"].items() if count]
    print_table(Table(["part", "parameters"], [*rows, ("all but mtp", f"{counts['total']:,}")]))
    say(f"{model.name}: {model.layers} layers; a token passes {counts['active']:,} of {counts['total']:,} parameters")
    if output is not None and "schedule" in imported.config:
        say(f"{output} is written; `dualpipe-sim run {output}` runs it")
    elif output is not None:
        say(f"{output} is written; `run` needs a gpu, a cluster, training and a schedule beside it")


def _took_kernels(path: Path, output: Path | None) -> bool:
    """Return whether a file is a table of kernels, which is written and told of."""
    from dualpipe_sim.base.files import KERNELS, output_file, read_text, written_whole
    from dualpipe_sim.importers.kernel_tables import is_kernel_table, read_kernel_table

    if not is_kernel_table(read_text(path, KERNELS)):
        return False
    text = read_kernel_table(path)
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    links = "gpus" in rows[0]
    what = "collectives" if links else f"shapes of GEMMs in {', '.join(sorted({row[1] for row in rows[1:]}))}"
    say(f"{len(rows) - 1} {what}")
    if output is not None:
        output_file(output)
        with written_whole(output) as part:
            part.write_text(text, encoding="utf-8")
        key = "cluster: {collectives: " if links else "gpu: {kernels: {gemm: "
        say(f"{output} is written; {key}{output.name}{'}' if links else '}}'} takes it")
    return True


def setting_of(text: str) -> tuple[str, str]:
    """Return the name and the value of ``NAME=VALUE``.

    Raises:
        UserError: it is no such.

    """
    from dualpipe_sim.errors import UserError, quoted

    name, equals, value = text.partition("=")
    if not name.strip("-") or not equals:
        raise UserError(f"--set: must be NAME=VALUE, got {quoted(text)}")
    return name, value


def model_of(config: dict[str, Any], source: str) -> Any:  # noqa: ANN401 - a Model, which is not imported here
    """Return the model of what was imported; a whole run must make an experiment.

    Raises:
        UserError: it does not.

    """
    from dualpipe_sim.config.load import load_experiment
    from dualpipe_sim.config.records import read
    from dualpipe_sim.model.architecture import Model
    from dualpipe_sim.simulation import build_choice

    if "schedule" not in config:
        return read(Model, config["model"], f"{source}: model")
    experiment = load_experiment(config, source=source)
    with experiment.named():
        order = build_choice(experiment, experiment.choice)  # which refuses sizes that the schedule cannot do
        experiment.costs.on(order.placement)
    return None if experiment.job is None else experiment.job.model


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
