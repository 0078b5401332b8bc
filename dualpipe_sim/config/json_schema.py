"""What a configuration may hold, as JSON Schema, for editors that complete and check YAML."""

from __future__ import annotations

from dualpipe_sim.config.schema import Root


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of a configuration file."""
    schema = Root.model_json_schema()
    # A cluster may be a preset's name; presets are read before a configuration is validated.
    cluster = schema["properties"]["cluster"]
    schema["properties"]["cluster"] = {
        "description": cluster.get("description", "the network between GPUs"),
        "anyOf": [{"type": "string"}, {"$ref": cluster["$ref"]}],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "dualpipe-sim configuration"}
