"""What a configuration may hold, as JSON Schema, for editors that complete and check YAML, and for documentation.

A quantity's ``x-unit`` is the unit of a bare number.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dualpipe_sim.config.cost_section import is_own
from dualpipe_sim.config.presets import FOLDERS, presets
from dualpipe_sim.config.registered import section_of_costs
from dualpipe_sim.config.schema import Root
from dualpipe_sim.costs.registry import cost_models
from dualpipe_sim.model.attention.registry import USUAL

Schema: TypeAlias = dict[str, Any]

_DEFS = "#/$defs/"


def json_schema() -> Schema:
    """Return the JSON Schema of a configuration file; costs of registered kinds are in it.

    Raises:
        UserError: a registered cost model whose fields no configuration can hold.

    """
    registered = {kind: section_of_costs(model) for kind, model in cost_models().items() if not is_own(kind)}
    sections: list[type[BaseModel]] = [Root, *registered.values()]
    refs, whole = models_json_schema([(section, "validation") for section in sections])
    defs = whole["$defs"]
    root = defs.pop(_name(refs[Root, "validation"]))
    for key in FOLDERS:
        root["properties"][key] = _preset_or(key, root["properties"][key], defs)
    cluster = next(_inside(root["properties"]["cluster"], defs))
    for name in _inside(defs[cluster]["properties"]["alltoall"], defs):
        defs[name].pop("required", None)  # the cluster's preset may have the rest
    kinds = root["properties"]["costs"]["oneOf"]
    defs.pop(_name(kinds.pop()))  # a registered kind, whichever; here each of them follows
    for kind, section in registered.items():
        reference = refs[section, "validation"]
        defs[_name(reference)]["properties"]["kind"] = {"const": kind}
        kinds.append({**reference, "required": ["kind"]})
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "dualpipe-sim configuration"}
    return {**root, **about, "$defs": {name: defs[name] for name in sorted(_reached(root, defs))}}


def _reached(place: object, defs: Schema, known: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the names of all definitions that something refers to, directly or not."""
    if isinstance(place, list):
        for one in place:
            known = _reached(one, defs, known)
    if isinstance(place, dict):
        for key, one in place.items():
            if key == "$ref" and _name(place) not in known:
                known = _reached(defs[_name(place)], defs, known | {_name(place)})
            known = _reached(one, defs, known)
    return known


def _preset_or(section: str, place: Schema, defs: Schema) -> Schema:
    """Return the schema of a section that is a preset's name, or a mapping that may start from one."""
    names = {"enum": list(presets(section))}
    (whole, *parts) = _inside(place, defs)
    needed = [key for key in defs[whole].get("required", ()) if key != "name"]
    for name in (whole, *parts):
        defs[name].pop("required", None)  # the preset may have the rest
        kind = defs[name]["properties"].get("kind", {}).get("const")
        if kind not in (None, USUAL):
            defs[name]["required"] = ["kind"]  # which tells it from the others
    defs[whole]["properties"]["preset"] = {
        **names,
        "description": "the preset to start from; what stands beside it replaces its values",
    }
    beginnings = ["preset"]
    if section == "model":
        beginnings.append("hf")
        defs[whole]["properties"]["hf"] = {
            "type": "string",
            "default": None,
            "description": "a config.json of Hugging Face's transformers, or its folder, to start from",
        }
    mapping: Schema = {"$ref": _DEFS + whole}
    if needed:
        mapping["anyOf"] = [*({"required": [key]} for key in beginnings), {"required": needed}]
    null = [choice for choice in place.get("anyOf", ()) if choice == {"type": "null"}]
    about = {key: value for key, value in place.items() if key not in ("$ref", "anyOf", "allOf")}
    return {"description": defs[whole]["description"], **about, "anyOf": [names, mapping, *null]}


def _inside(place: Schema, defs: Schema) -> Iterator[str]:
    """Yield the names of the definitions that a place refers to, directly first."""
    if "$ref" in place:
        name = _name(place)
        yield name
        for inner in defs[name].get("properties", {}).values():
            yield from _inside(inner, defs)
    ways = (place.get(way, ()) for way in ("anyOf", "allOf", "oneOf"))  # `allOf`: pydantic before 2.9
    for inner in chain(*ways, [one for one in [place.get("additionalProperties")] if isinstance(one, dict)]):
        yield from _inside(inner, defs)


def _name(place: Schema) -> str:
    return str(place["$ref"]).removeprefix(_DEFS)
