"""What tests of the documentation share: the blocks of a page, and scripts that are no part of the package."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType


def blocks(text: str) -> list[tuple[str, str]]:
    """Return language and text of a page's fenced blocks."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def blocks_of(text: str, language: str) -> list[str]:
    """Return the blocks of one language."""
    return [block for name, block in blocks(text) if name == language]


def commands(block: str) -> list[str]:
    """Return the commands of a block, without comments; a line that goes on is joined to the next."""
    lines = block.replace("\\\n", " ").splitlines()
    return [re.split(r"\s+#", line)[0] for line in lines if line.startswith("dualpipe-sim ")]


def script(file: Path) -> ModuleType:
    """Return a script of the checkout as a module."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module
