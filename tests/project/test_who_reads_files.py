"""Files are read in one place, which knows limits and devices: nobody else opens one to read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "dualpipe_sim"
READS = {"read_text", "read_bytes", "fdopen", "mmap"}
OF_LIBRARIES = {"load", "loadtxt", "genfromtxt", "fromfile", "memmap", "read_table", "read_csv", "read_json", "imread"}
LIBRARIES = {"np", "numpy", "json", "yaml", "pickle", "pq", "pa", "pd", "tomllib", "plt", "Image"}
ARCHIVES = {"gzip", "bz2", "lzma", "zipfile", "tarfile"}
OWN = {
    "base/files.py": "is the place",
    "base/locks.py": "who has a lock",
    "__main__.py": "what is no file",
    "base/memory.py": "what the system says of itself",
    "base/compiled.py": "the package's own code",
    "explore/downloads.py": "what it just wrote",
    "batch/processes.py": "a worker's pipe",
    "batch/worker.py": "its own pipe",
}
"""Modules that read what no user gave, and why."""


def readings(code: str) -> Iterator[str]:
    """The calls of some code that read a file, other than by the functions of base.files."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        owner = called.value.id if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) else ""
        if (
            (isinstance(called, ast.Attribute) and name in READS)
            or (name in OF_LIBRARIES and owner in LIBRARIES and not (owner == "yaml" and names_a_text(node)))
            or (owner in ARCHIVES or name == "GzipFile")
            or (name == "open" and not writes(node))
        ):
            yield ast.unparse(node)


def names_a_text(call: ast.Call) -> bool:
    """Whether what is parsed is a text that is there already."""
    return isinstance(call.args[0], ast.Name) and call.args[0].id == "text"


def writes(call: ast.Call) -> bool:
    """Whether a call of ``open`` says that it writes, or opens no file."""
    mode = call.args[isinstance(call.func, ast.Name) :][:1]  # behind the path, where there is one
    if mode and isinstance(mode[0], ast.Constant) and set(str(mode[0].value)) & set("wax+"):
        return True
    keywords = {key.arg for key in call.keywords}
    into_memory = bool(call.args) and ast.unparse(call.args[0]).startswith("BytesIO(")
    return "resume" in keywords or into_memory or "os.O_WRONLY" in ast.unparse(call)


@pytest.mark.parametrize(
    "code",
    [
        "Path('a').read_text()",
        "path.read_bytes()",
        "open('a')",
        "path.open()",
        "path.open('rb', buffering=0)",
        "gzip.open(path)",
        "np.load(path)",
        "json.load(file)",
        "yaml.load(file, Loader=SafeLoader)",
        "pq.read_table(path)",
        "Image.open(path)",
    ],
)
def test_what_reads_a_file_is_found(code: str) -> None:
    assert list(readings(code))


def test_nobody_else_reads_a_file() -> None:
    files = {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob("*.py")}
    found = {name: list(readings(file.read_text(encoding="utf-8"))) for name, file in files.items()}
    assert {name: calls for name, calls in found.items() if calls and name not in OWN} == {}
    assert not [name for name in OWN if not found[name]], "reads no more"
