"""What commands and tools answer as JSON: each answer says which it is, and has a JSON Schema.

The first key of every answer, ``schema``, is a name and a version: ``dualpipe-sim/run/1``. Within a version keys and
their types stay as they are; a key more or less, or of another type, is the next version.

>>> answer("schedules", {"schedules": []})
{'schema': 'dualpipe-sim/schedules/1', 'schedules': []}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite

from dualpipe_sim.errors import UserError, did_you_mean

VERSIONS = {
    "run": 1,
    "compare": 1,
    "why": 1,
    "memory": 1,
    "layers": 1,
    "sweep": 1,
    "robust": 1,
    "regimes": 1,
    "plan": 1,
    "search": 1,
    "score": 1,
    "compare-run": 1,
    "import": 1,
    "schedules": 1,
    "check": 1,
}
"""The version of each command's answer, in the order of the help."""


def name_of(command: str) -> str:
    """Return what an answer of a command calls itself: its name and version.

    Raises:
        UserError: no such command, or one that answers nothing as JSON.

    """
    if command not in VERSIONS:
        hint = did_you_mean(command, VERSIONS) or f" (known: {', '.join(VERSIONS)})"
        raise UserError(f"{command}: no command of this name prints JSON{hint}")
    return f"dualpipe-sim/{command}/{VERSIONS[command]}"


def answer(command: str, told: Mapping[str, object]) -> dict[str, object]:
    """Return what a command says as its answer: named, and plain JSON, in which None stands for what is no number."""
    return {"schema": name_of(command), **{key: _finite(value) for key, value in told.items()}}


def strict_json(data: object) -> str:
    """Return data as JSON text that every parser reads.

    Raises:
        ValueError: a number that is none, which JSON cannot write.

    """
    return json.dumps(data, indent=2, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value
