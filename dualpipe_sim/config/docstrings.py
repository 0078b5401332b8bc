"""What a class's docstring says of it and of its attributes, in Google's style."""

from __future__ import annotations

import inspect
import re

_ATTRIBUTES = re.compile(r"^Attributes:\n((?: +.*(?:\n|$)|\n)*)", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?:(.*(?:\n {5,}.*)*)", re.MULTILINE)


def summary(cls: type) -> str:
    """Return the first paragraph of a class's docstring, or an empty string."""
    text = _docstring(cls).partition("\n\n")[0]
    return "" if text.startswith(f"{cls.__name__}(") else _flowing(text)  # dataclasses write such a one themselves


def attributes(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and of those that it inherits from say of each attribute."""
    texts = (found[1] for base in reversed(cls.__mro__) for found in _ATTRIBUTES.finditer(_docstring(base)))
    return {name: _flowing(said).removesuffix(".") for text in texts for name, said in _ATTRIBUTE.findall(text)}


def _docstring(cls: type) -> str:
    return inspect.cleandoc(vars(cls).get("__doc__") or "")


def _flowing(text: str) -> str:
    return " ".join(text.replace("``", "`").split())
