"""The JSON Schema of every command's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from dualpipe_sim.answers import VERSIONS, name_of, runs, searches
from dualpipe_sim.answers.keys import Schema, record

_ABOUT: dict[str, tuple[str, Callable[[], dict[str, Schema]]]] = {
    "run": ("One schedule, run. What needs a model is null without one.", runs.run),
    "compare": ("Several schedules on the same costs.", runs.compare),
    "why": ("Why one schedule's step takes as long as it does.", runs.why),
    "memory": ("What the memory of every rank's GPU is used for.", runs.memory),
    "layers": ("What one micro-batch takes and leaves on one GPU, by kind of layer and part.", runs.layers),
    "sweep": ("A configuration at many points.", runs.sweep),
    "robust": ("Schedules in the same scenarios.", searches.robust),
    "regimes": ("Which schedule is best at each point of a map.", searches.regimes),
    "plan": ("The fastest ways to cut and schedule a model on its GPUs.", searches.plan),
    "search": ("The best order that a search found.", searches.search),
    "score": ("Measured runs, each predicted.", searches.score),
    "compare-run": ("A simulated run beside a measured one.", runs.compare_run),
    "import": ("What was taken over of a model or a run.", runs.imported),
    "schedules": ("The schedules there are.", searches.schedules),
    "check": ("What is wrong with an order.", searches.check),
}
_OPTIONAL = {"plan": ("why", "searched")}
"""Keys that are there only where they were asked for."""
_METRICS = ("run",)
"""What has registered metrics as further keys."""


def answer_schema(command: str) -> Schema:
    """Return the JSON Schema of what a command answers.

    >>> answer_schema("check")["properties"]["schema"]["const"]
    'dualpipe-sim/check/1'

    Raises:
        UserError: no such command, or one that answers nothing as JSON.

    """
    name = name_of(command)
    about, shape = _ABOUT[command]
    own: Schema = {"type": "string", "const": name, "description": "what this answer is: its name and version"}
    others = runs.METRIC if command in _METRICS else None
    whole = record(about, {"schema": own, **shape()}, optional=_OPTIONAL.get(command, ()), others=others)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, **whole}


def all_answer_schemas() -> dict[str, Schema]:
    """Return the JSON Schemas of all answers, by command."""
    return {command: answer_schema(command) for command in VERSIONS}


def types_by_path(schema: Schema, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of every key of an answer with the types of its values: what a version promises.

    >>> list(types_by_path(answer_schema("check")))[:4]
    [('schema', 'string'), ('legal', 'boolean'), ('findings', 'array'), ('findings[].rule', 'string')]
    """
    for key, place in schema.get("properties", {}).items():
        below = f"{path}.{key}" if path else key
        yield below, " or ".join(types_of(place)) or "any"
        yield from types_by_path(place, below)
    for inner, step in inside(schema):
        yield from types_by_path(inner, path + step)


def types_of(place: Schema) -> list[str]:
    """Return the types that a value may have; none where it may have any."""
    if "anyOf" in place:
        return list(dict.fromkeys(one for choice in place["anyOf"] for one in types_of(choice)))
    found = place.get("type", [])
    return [found] if isinstance(found, str) else list(found)


def inside(place: Schema) -> Iterator[tuple[Schema, str]]:
    """Yield what a value may hold beside keys that are always the same, each with what its path goes on with."""
    yield from ((choice, "") for choice in place.get("anyOf", ()))
    if "items" in place:
        yield place["items"], "[]"
    others = place.get("additionalProperties")
    if isinstance(others, Mapping):
        yield dict(others), ".*"
