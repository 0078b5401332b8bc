"""The kinds of inputs that are fuzzed; a new one is a module with a ``KIND`` beside this one, and a name here."""

from __future__ import annotations

from tests.fuzz import problems, yaml_texts
from tests.fuzz.kind import Kind

KINDS: dict[str, Kind] = {module.KIND.name: module.KIND for module in (problems, yaml_texts)}
"""By name."""
