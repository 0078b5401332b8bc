"""Calls of an agent's tools, their arguments damaged: an answer, or one line that says why there is none."""

from __future__ import annotations

import atexit
import json
import re
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

import dualpipe_sim
from dualpipe_sim.answers.schemas import answer_schema
from dualpipe_sim.config.load import packaged_configs
from dualpipe_sim.errors import UserError, visible
from dualpipe_sim.mcp_server.tools import TOOLS
from tests.fuzz.damage import NUMBERS, STRANGE, damaged
from tests.fuzz.hostile import NAMES
from tests.fuzz.kind import Kind

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from dualpipe_sim.serving.workers import Workers

_SECONDS = 20.0
_SMALL = "pipeline: {ranks: 2, micro_batches: 4}\nschedule: 1f1b\ncosts: {forward: 1, backward: 2}\n"
_ORDER = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"
_SECRET = "secret-of-this-machine"  # noqa: S105 - of a test
_FILES = (
    "in.yaml", "out.yaml", "../beside.yaml", "/etc/passwd", "/proc/self/environ", "/proc/self/cwd/in.yaml", "/dev/zero",
    "linked/beside.yaml", "a.py", ".", "", "in.yaml/", "IN.YAML", "./in.yaml", "//etc/passwd", "~/in.yaml",
)  # fmt: skip
_SETTINGS = (
    "schedule", "pipeline.ranks", "pipeline.micro_batches", "costs.transfer", "costs", "plugins", "model.hf", "compare",
    "cluster.collectives", "gpu.kernels.gemm", "plan.schedules", "cluster.name", "noise.jitter", "parallel.expert",
)  # fmt: skip


def _make(chance: Random) -> bytes:
    tool = chance.choice((*TOOLS, "run", "compare"))
    known = {
        "config": chance.choice((*packaged_configs(), *_FILES)),
        "yaml": damaged(_SMALL.encode(), chance).decode("latin-1") if chance.random() < 0.6 else _SMALL,
        "order": damaged(_ORDER.encode(), chance).decode("latin-1"),
        "settings": {_key(chance): _value(chance) for _ in range(chance.randint(0, 2))},
        "by": chance.choice(("ranks", "stages", "memory")), "activations": 9, "top": 2, "confirm": 0, "why": True,
        "placement": "v", "micro_batches": 2, "barriers": 1,
    }  # fmt: skip
    taken = [name for name in TOOLS[tool].inputs["properties"] if chance.random() < 0.5]
    if "config" in taken and "yaml" in taken and chance.random() < 0.9:
        taken.remove(chance.choice(("config", "yaml")))
    arguments: dict[str, Any] = {name: known[name] for name in taken}
    if chance.random() < 0.3:
        arguments[chance.choice((*known, _word(chance)))] = _value(chance)
    return json.dumps({"tool": tool, "arguments": arguments, "files": chance.random() < 0.5}).encode()


def _word(chance: Random) -> str:
    return chance.choice(chance.choice((NAMES, STRANGE, NUMBERS, _FILES)))


def _key(chance: Random) -> str:
    return chance.choice(_SETTINGS) if chance.random() < 0.8 else _word(chance)


def _value(chance: Random) -> Any:  # noqa: ANN401 - as JSON has it
    simple = (_word(chance), chance.choice((0, 1, -1, 4, 8, 10**30, True, None, "1f1b", "zb-h1", "1 ms")))
    of_files = [{"file": _word(chance)}, {"kind": "measured", "file": _word(chance)}, [_word(chance)]]
    return chance.choice((*simple, *simple, *of_files, {_word(chance): _word(chance)}))


def _attempt(path: Path) -> None:
    """Call a tool as the server does, and look at what it answers."""
    from dualpipe_sim.mcp_server import server

    case = json.loads(path.read_bytes())
    tool, arguments = TOOLS[case["tool"]], case["arguments"]
    portal, workers = _serving(case["files"])
    result = portal.call(server.answered, workers, tool, arguments, _SECONDS)
    (content,) = result.content
    text = content.text
    for one in (_SECRET, "root:x", str(Path(dualpipe_sim.__file__).parent.parent), str(_folder())):
        assert one not in text, f"tells {one}"
    assert visible(text) == text, "what acts on a terminal"
    if result.is_error:
        assert "\n" not in text
        assert not re.match(r"[A-Z]\w*Error: ", text), text  # no mistake of the caller's
        raise UserError(text)
    assert json.loads(text) == result.structured_content
    errors = list(Draft202012Validator(answer_schema(case["tool"])).iter_errors(result.structured_content))
    assert not errors, errors[:1]


@cache
def _folder() -> Path:
    """Return a folder that tools may read, with links that lead out of it."""
    whole = Path(tempfile.mkdtemp())
    folder = whole / "readable"
    folder.mkdir()
    (whole / "beside.yaml").write_text(f"{_SECRET}: 1\n", encoding="utf-8")
    (folder / "in.yaml").write_text(_SMALL, encoding="utf-8")
    (folder / "a.py").write_text(f"raise SystemExit({_SECRET!r})\n", encoding="utf-8")
    (folder / "out.yaml").symlink_to(whole / "beside.yaml")
    (folder / "linked").symlink_to(whole)
    return folder


@cache
def _portal() -> BlockingPortal:
    from anyio.from_thread import start_blocking_portal

    opened = start_blocking_portal()
    atexit.register(opened.__exit__, None, None, None)
    return opened.__enter__()


@cache
def _serving(files: bool) -> tuple[BlockingPortal, Workers]:
    """Return worker processes of a server that was given a folder, or none, and the loop that they are asked in."""
    from dualpipe_sim.mcp_server.tools import Answers
    from dualpipe_sim.serving.workers import Workers

    portal = _portal()

    async def started() -> Workers:
        return Workers(Answers(_folder() if files else None), count=1)

    workers = portal.call(started)
    atexit.register(portal.call, workers.close)
    return portal, workers


KIND = Kind("calls", ".json", _make, _attempt, in_tests=25, in_long=3_000)
