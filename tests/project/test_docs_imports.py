"""Pages and notebooks import names from where they live."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from tests.pages import blocks_of

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "examples").glob("*.ipynb"),
]


def python_of(page: Path) -> list[str]:
    """Return a page's blocks, or a notebook's cells, of Python."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return blocks_of(text, "python")


IMPORTS = {
    (page.name, ast.unparse(node))
    for page in PAGES
    for code in python_of(page)
    for node in ast.walk(ast.parse(code))
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualpipe_sim")
}


@pytest.mark.parametrize(("page", "line"), sorted(IMPORTS))
def test_what_it_imports_is_there(page: str, line: str) -> None:
    exec(compile(line, page, "exec"), {})  # noqa: S102


def test_pages_and_notebooks_were_read() -> None:
    assert {Path(page).suffix for page, _ in IMPORTS} == {".md", ".ipynb"}
