"""What each tool does, on plain arguments: the functions of the commands, under limits, and the commands' answers.

A tool reads no file of the machine but the package's own and those in the folder that the server was given, and it runs
no file of Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dualpipe_sim.answers import answer
from dualpipe_sim.answers.keys import Schema, record
from dualpipe_sim.base.files import watched
from dualpipe_sim.config.load import load_experiment, packaged_configs
from dualpipe_sim.config.yaml_text import Data, as_yaml, parse_yaml, read_yaml
from dualpipe_sim.errors import UserError, did_you_mean, plain, quoted
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.serving.limits import check_size
from dualpipe_sim.serving.readable import is_readable

MOST_CHARACTERS = 200_000
"""Of all texts of a call."""

_WHO = "a tool"

_CONFIG: dict[str, Schema] = {
    "config": {
        "type": "string",
        "description": "The name of a packaged configuration, such as figure5 or deepseek_v3; or, where the server was "
        "started with a folder, a YAML file in it. Either this or yaml.",
    },
    "yaml": {
        "type": "string",
        "description": "A configuration in full, as YAML: pipeline, schedule, costs; or model, gpu, cluster, training.",
    },
    "settings": {
        "type": "object",
        "description": "Values that replace those of the configuration, by dotted key: "
        '{"pipeline.micro_batches": 40, "schedule": "zb-h1", "costs.transfer": "0.5 ms"}.',
        "propertyNames": {"pattern": r"^[A-Za-z_][\w.-]*$"},
    },
}


@dataclass(frozen=True)
class Tool:
    """A tool of the server.

    Attributes:
        command: the command whose answer it gives.
        about: what it is for, for whoever chooses among tools.
        inputs: the JSON Schema of its arguments.
        tell: what the command tells, from the arguments and the folder whose files may be read.

    """

    command: str
    about: str
    inputs: Schema
    tell: Callable[[Mapping[str, Any], Path | None], Mapping[str, object]]

    def __call__(self, arguments: Mapping[str, Any], folder: Path | None = None) -> dict[str, object]:
        """Return the answer.

        Raises:
            UserError: what is wrong, in one line.

        """
        texts = len(str(arguments))
        if texts > MOST_CHARACTERS:
            raise UserError(f"the arguments have {texts:,} characters; {MOST_CHARACTERS:,} are the most")
        with watched(partial(_check_readable, folder)), _in_words(folder):
            return answer(self.command, self.tell(arguments, folder))


@dataclass(frozen=True)
class Begin:
    """What a call begins with.

    Attributes:
        config: a packaged configuration's name, a file in the folder, or the mapping that a YAML text holds.
        settings: what replaces its values, as ``--set`` takes it.

    """

    config: str | Data
    settings: tuple[str, ...]

    @classmethod
    def of(cls, arguments: Mapping[str, Any], folder: Path | None) -> Begin:
        """Return the beginning that arguments say.

        Raises:
            UserError: neither or both of config and yaml, no such configuration, or plugins.

        """
        name, text, given = arguments.get("config"), arguments.get("yaml"), arguments.get("settings", {})
        if (name is None) == (text is None):
            raise UserError("give either config, a packaged configuration's name, or yaml, one in full")
        settings = tuple(f"{key}={as_yaml(value)}" for key, value in given.items())
        config, held = _named(str(name), folder) if text is None else _written(str(text))
        if "plugins" in held or any(key.partition(".")[0] == "plugins" for key in given):
            raise UserError("plugins: tools run no files; start the server with them: dualpipe-sim --plugin FILE mcp")
        return cls(config, settings)

    def experiment(self) -> Experiment:
        """Return the experiment."""
        return load_experiment(self.config, settings=self.settings)


@contextmanager
def _in_words(folder: Path | None) -> Iterator[None]:
    """Say of mistakes inside what is wrong, without where this machine has the files."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for name, path in packaged_configs().items():
            text = text.replace(str(path), name)
        if folder is not None and folder.name:
            text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), ".")
        raise UserError(text) from error


def _named(name: str, folder: Path | None) -> tuple[str, Data]:
    """Return what a configuration's name stands for, and what that holds."""
    packaged = packaged_configs()
    if name in packaged:
        return name, {}  # none has plugins
    if folder is None:
        hint = did_you_mean(name, packaged) or f" (known: {', '.join(packaged)})"
        raise UserError(f"config: there is no packaged configuration {quoted(name)}{hint}")
    path = Path(folder, name)
    _check_readable(folder, path)
    return str(path), read_yaml(path)


def _written(text: str) -> tuple[Data, Data]:
    data = parse_yaml(text, "yaml")
    if not isinstance(data, dict):
        raise UserError(f"yaml: must be a mapping of keys like 'pipeline:' and 'schedule:', got {quoted(data)}")
    return data, data


def _check_readable(folder: Path | None, path: Path) -> None:
    """Refuse a file that is neither the package's nor in the folder, and any of Python."""
    if not is_readable(path, folder=folder) or os.path.realpath(path).endswith(".py"):
        where = "no files of this machine" if folder is None else "only files in the folder that the server was given"
        raise UserError(f"{plain(path.name)}: tools read {where} (dualpipe-sim mcp --allow-files FOLDER)")


def _run(arguments: Mapping[str, Any], folder: Path | None) -> Mapping[str, object]:
    from dualpipe_sim.scoring.accuracy import error_bar, run_error
    from dualpipe_sim.simulation import run

    begin = Begin.of(arguments, folder)
    experiment = begin.experiment()
    check_size(experiment, (experiment.choice,), _WHO)
    return run(experiment).to_dict() | run_error(error_bar(experiment))


def _compare(arguments: Mapping[str, Any], folder: Path | None) -> Mapping[str, object]:
    from dualpipe_sim.equal_terms import compared
    from dualpipe_sim.scoring.accuracy import comparison_errors, error_bar

    begin = Begin.of(arguments, folder)
    experiment = begin.experiment()
    check_size(experiment, experiment.choices, _WHO)
    by, most = arguments.get("by", "ranks"), arguments.get("activations")
    if (by == "memory") != (most is not None):
        raise UserError('activations: a limit goes with "by": "memory", which needs one')
    comparison = compared(experiment, by, most)
    return comparison.to_dict() | comparison_errors(comparison, error_bar(experiment))


def _why(arguments: Mapping[str, Any], folder: Path | None) -> Mapping[str, object]:
    from dualpipe_sim.why import why_run

    experiment = Begin.of(arguments, folder).experiment()
    check_size(experiment, (experiment.choice,), _WHO)
    return why_run(experiment).to_dict()


def _plan(arguments: Mapping[str, Any], folder: Path | None) -> Mapping[str, object]:
    from dualpipe_sim.plan import plan
    from dualpipe_sim.plan.why_first import why_first
    from dualpipe_sim.scoring.accuracy import error_bar, plan_errors

    begin = Begin.of(arguments, folder)
    top, confirm = arguments.get("top", 10), arguments.get("confirm", 3)
    found = plan(begin.config, settings=begin.settings, top=top, confirm=confirm)
    reasons = {"why": why_first(found).to_dict()} if arguments.get("why") and found.ranking else {}
    return found.to_dict() | plan_errors(found, error_bar(found.experiment)) | reasons


def _check(arguments: Mapping[str, Any], folder: Path | None) -> Mapping[str, object]:  # noqa: ARG001 - as all tools
    from dualpipe_sim.order.check import check_all

    placement, micro_batches = arguments.get("placement", "explicit"), arguments.get("micro_batches")
    return check_all(arguments["order"], placement, micro_batches, arguments.get("barriers", 1)).to_dict()


def _schedules(arguments: Mapping[str, Any], folder: Path | None) -> Mapping[str, object]:  # noqa: ARG001 - likewise
    from dualpipe_sim.schedules.registry import schedules

    return {"schedules": [one.to_dict() for one in schedules().values()]}


def _inputs(properties: Mapping[str, Schema], *needed: str) -> Schema:
    return record("", properties, optional=set(properties) - set(needed))


def _whole(least: int, meaning: str) -> Schema:
    return {"type": "integer", "minimum": least, "description": meaning}


_WITHIN: dict[str, Schema] = {
    "by": {
        "enum": ["ranks", "stages", "memory"],
        "description": "Equal terms: of ranks; of stages (more stages a rank, fewer ranks); or of memory (each at its "
        "best options within so many activations).",
    },
    "activations": {"type": "number", "minimum": 0, "description": "Most activations of a rank; with by: memory."},
}
_PLANNED: dict[str, Schema] = {
    "top": _whole(1, "How many to rank; 10 where it is not given."),
    "confirm": _whole(0, "How many to run again with links shared, at least; 3 where it is not given."),
    "why": {"type": "boolean", "description": "Whether to say what makes the first one first."},
}
_CHECKED: dict[str, Schema] = {
    "order": {
        "type": "string",
        "description": "The order as torch's CSV: a row a rank, a cell a task, such as 0F0,0F1,0B0,0B1.",
    },
    "placement": {
        "enum": ["explicit", "loop", "v", "bidirectional"],
        "description": "Where stages are; explicit, which is usual, takes the rank whose row names a stage.",
    },
    "micro_batches": _whole(1, "Micro-batches that there must be; those of the order where it is not given."),
    "barriers": {**_whole(1, "Barriers from S to the backward behind it, of S and T."), "maximum": 2},
}

TOOLS = {
    tool.command: tool
    for tool in (
        Tool(
            "run",
            "Simulate one pipeline-parallel training schedule: makespan or step time, bubbles and their causes by "
            "rank, activations and memory, MFU where a model is known.",
            _inputs(_CONFIG),
            _run,
        ),
        Tool(
            "compare",
            "Simulate the schedules that a configuration compares (set compare to a list of schedules, or to all) and "
            "rank them, the fastest first.",
            _inputs(_CONFIG | _WITHIN),
            _compare,
        ),
        Tool(
            "why",
            "Say why one schedule's step takes as long as it does: what its critical path is spent on, how it depends "
            "on every cost and link, and the bubble as a sum of terms.",
            _inputs(_CONFIG),
            _why,
        ),
        Tool(
            "plan",
            "Find the fastest ways to cut and schedule a model on its GPUs, of those that the configuration's plan: "
            "section leaves open, such as plan.ranks: [2, 4] and plan.schedules: [1f1b, dualpipe].",
            _inputs(_CONFIG | _PLANNED),
            _plan,
        ),
        Tool(
            "check",
            "Say all that is wrong with an order of a pipeline's tasks: ops missing or twice, ranks in a circle.",
            _inputs(_CHECKED, "order"),
            _check,
        ),
        Tool(
            "schedules",
            "List the schedules there are, with what sizes they need, their options and their source.",
            _inputs({}),
            _schedules,
        ),
    )
}
"""The tools by name."""


@dataclass(frozen=True)
class Answers:
    """Answers calls on any process.

    Attributes:
        folder: whose files may be read, or None.

    """

    folder: Path | None = None

    def __call__(self, call: Mapping[str, object]) -> dict[str, object]:
        """Return the ``answer`` to a call: a ``tool`` and its ``arguments``.

        Raises:
            UserError: what is wrong with it.

        """
        arguments: Any = call["arguments"]
        return {"answer": TOOLS[str(call["tool"])](arguments, self.folder)}
