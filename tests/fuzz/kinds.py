"""The kinds of inputs that are fuzzed: a new one is a module with a ``KIND`` beside this one."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.fuzz.kind import Kind

_MODULES = [file.stem for file in sorted(Path(__file__).parent.glob("*.py")) if "\nKIND = " in file.read_text("utf-8")]
_FOUND: list[Kind] = [importlib.import_module(f"tests.fuzz.{name}").KIND for name in _MODULES]

KINDS = {kind.name: kind for kind in _FOUND}
"""By name."""
