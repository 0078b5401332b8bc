"""The command line with a hostile name at some place of it, or of the configuration that it reads."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import yaml

from dualpipe_sim.base.plugins import LOADED
from dualpipe_sim.config.load import packaged_configs
from dualpipe_sim.errors import UserError
from tests.fuzz.hostile import NAMES, check_printed, check_written
from tests.fuzz.kind import Kind

_COMMANDS = (
    ("run", "FILE"), ("run", "FILE", "--json"), ("compare", "FILE"), ("compare", "FILE", "--json"),
    *(("compare", "FILE", "--format", form) for form in ("csv", "latex", "markdown")),
    ("compare", "FILE", "--plot", "out.svg"), ("compare", "FILE", "--chart", "out.png"), ("why", "FILE"),
    ("gantt", "FILE", "-o", "out.svg"), ("gantt", "FILE", "-o", "out.png"), ("gantt", "FILE", "-o", "out.pdf"),
    ("report", "FILE", "-o", "out.html"), ("timeline", "FILE", "-o", "out.csv"), ("trace", "FILE", "-o", "out.json"),
    ("memory", "FILE"), ("layers", "FILE"), ("layers", "FILE", "-o", "out.svg"), ("sweep", "FILE"),
    ("sweep", "FILE", "-o", "out.csv"), ("sweep", "FILE", "-o", "out.jsonl"), ("check", "order.csv"),
    ("schedule", "1f1b", "--ranks", "2", "--micro-batches", "2"), ("schema", "training"), ("presets", "h100"),
    ("init", "new.yaml", "--from", "FILE"), ("import", "config.json"), ("calibrate", "trace.json", "-o", "out.yaml"),
)  # fmt: skip
_OPTIONS = (
    ("--title", "gantt", "compare"), ("--set", "run", "compare", "sweep", "gantt", "report"), ("--over", "sweep"),
    ("--by", "compare"), ("--format", "compare"), ("--ranks", "gantt"), ("--zoom", "gantt"), ("--font", "gantt"),
    ("--size", "gantt"), ("--palette", "gantt"), ("--plugin", ""), ("--map", "calibrate"), ("--of", "schema"),
    ("--option", "schedule"), ("--runtime", "schedule"), ("--dask", "sweep"),
)  # fmt: skip
_KEYS = ("cluster.name", "model.name", "schedule", "costs.kind", "gpu", "measured.source", "compare")


def _make(chance: Random) -> bytes:
    """Return the words of a command line, and the files beside it."""
    name, (way, commands) = chance.choice(NAMES), chance.choice(_WAYS)
    command = list(chance.choice(commands))
    data = yaml.safe_load(chance.choice(sorted(packaged_configs().items()))[1].read_text(encoding="utf-8"))
    data.setdefault("sweep", {"grid": {"pipeline.micro_batches": [16]}})
    way(name, data, command, chance)
    files = {"case.yaml": yaml.safe_dump(data, sort_keys=False), "order.csv": f"0F0,0B0,{name}\n"}
    files["config.json"] = json.dumps({"model_type": name, "hidden_size": 8, name: 1})
    files["trace.json"] = json.dumps({"traceEvents": [{"ph": "X", "name": name, "cat": name, "ts": 1, "dur": 2}]})
    return json.dumps({"words": command, "files": files}).encode()


def _in_name(name: str, data: dict[str, Any], command: list[str], chance: Random) -> None:
    """Put a name where any may be."""
    for section in ("model", "gpu", "cluster"):
        if section in data:
            given = data[section]
            data[section] = {**(given if isinstance(given, dict) else {"preset": given}), "name": name}
    if "model" in data:
        data["measured"] = {"source": name, "why": name, "step_time": 20.0}
    else:
        data["cluster"] = {"name": name}
    data["sweep"] = {"grid": {"cluster.name": [name, "b"]}}
    if command[0] in ("gantt", "compare") and chance.random() < 0.5:
        command += ["--title", name]


def _in_data(name: str, data: dict[str, Any], _command: list[str], chance: Random) -> None:
    """Put a name at a place of the configuration: a value, or a key."""
    places = list(_places(data))
    holder, key = chance.choice(places)
    texts = [place for place in places if isinstance(place[0][place[1]], str)]
    if texts and chance.random() < 0.6:
        holder, key = chance.choice(texts)
    if isinstance(holder, dict) and chance.random() < 0.2:
        holder[name] = holder.pop(key)
    else:
        holder[key] = name


def _places(data: Any) -> Any:  # noqa: ANN401 - as YAML has it
    for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
        yield data, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _in_sweep(name: str, data: dict[str, Any], _command: list[str], chance: Random) -> None:
    key = chance.choice((*_KEYS, name))
    data["sweep"] = {"grid": {key: [name, "b"], "pipeline.micro_batches": [16, 24]}}


def _in_words(name: str, _data: dict[str, Any], command: list[str], chance: Random) -> None:
    place = chance.randrange(len(command))
    word = command[place]
    command[place] = chance.choice((name, f"{name}{Path(word).suffix}", f"{word}{name}"))


def _in_options(name: str, _data: dict[str, Any], command: list[str], chance: Random) -> None:
    option, *_ = chance.choice([one for one in _OPTIONS if command[0] in one[1:]] or [("--title",)])
    given = chance.choice((name, f"{name}=1", f"{chance.choice(_KEYS)}={name}", f'{chance.choice(_KEYS)}="{name}"'))
    command += [option, given]


_READING = tuple(words for words in _COMMANDS if "FILE" in words)
_SWEEPS = tuple(words for words in _COMMANDS if words[0] == "sweep")
_WAYS = (
    (_in_name, _READING), (_in_name, _READING), (_in_name, _READING), (_in_sweep, _SWEEPS), (_in_sweep, _SWEEPS),
    (_in_data, _READING), (_in_words, _COMMANDS), (_in_options, _COMMANDS),
)  # fmt: skip
"""Where a name is put, and into the command lines of which commands."""


def _attempt(path: Path) -> None:
    """Run the command line, and look at all that it printed and wrote."""
    case = json.loads(path.read_bytes())
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.chdir(folder)
            for name, text in case["files"].items():
                Path(name).write_bytes(text.encode("utf-8", "surrogatepass"))
            words = ["case.yaml" if word == "FILE" else word for word in case["words"]]
            code, printed = _run([word for word in words if "\0" not in word])
            check_printed(printed)
            for file in Path().rglob("*"):
                if file.is_file() and file.name not in case["files"] and file.name != "new.yaml":
                    check_written(file)
        finally:
            os.chdir(before)
    if code:
        assert code in (1, 2), code
        raise UserError(printed[-500:])


def _run(words: list[str]) -> tuple[object, str]:
    """Return the exit code of a command line, run in this process, and what it printed."""
    from dualpipe_sim.cli import main

    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    loaded = dict(LOADED)
    with (
        mock.patch.object(sys, "argv", ["dualpipe-sim", *words]),
        mock.patch.object(sys, "excepthook", sys.excepthook),
        mock.patch.object(warnings, "showwarning", warnings.showwarning),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        else:
            code = 0
    LOADED.clear()
    LOADED.update(loaded)
    said.flush()
    return code, said.buffer.getvalue().decode()


KIND = Kind("names", ".json", _make, _attempt, in_tests=12, in_long=5_000)
