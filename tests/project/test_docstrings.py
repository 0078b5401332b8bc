"""Examples in docstrings say what the program does, and whatever a package exports has one."""

from __future__ import annotations

import inspect
import pkgutil
from doctest import DocTest, DocTestFinder, DocTestRunner
from importlib import import_module
from pathlib import Path

import pytest

import dualpipe_sim

_FOUND = list(pkgutil.walk_packages(dualpipe_sim.__path__, f"{dualpipe_sim.__name__}."))
MODULES = [dualpipe_sim.__name__, *(found.name for found in _FOUND if not found.name.endswith("__main__"))]
PACKAGES = [dualpipe_sim.__name__, *(found.name for found in _FOUND if found.ispkg)]

EXAMPLES = [
    example
    for module in MODULES
    for example in DocTestFinder(exclude_empty=True).find(import_module(module))
    if example.examples
]
EXPORTED = {
    f"{value.__module__}.{value.__name__}": value
    for package in PACKAGES
    if package != "dualpipe_sim.cli"  # whose only name is the program
    for value in (getattr(import_module(package), name) for name in getattr(import_module(package), "__all__", ()))
    if inspect.isclass(value) or inspect.isfunction(value)
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let examples write files."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_prints_what_it_says(example: DocTest) -> None:
    said: list[str] = []
    failed = DocTestRunner(verbose=False).run(example, out=said.append, clear_globs=False).failed
    assert not failed, "".join(said)


@pytest.mark.parametrize("name", EXPORTED)
def test_what_a_package_exports_has_an_example(name: str) -> None:
    assert ">>> " in (EXPORTED[name].__doc__ or ""), f"{name}: show it in its docstring, in a line or two after >>>"


def test_the_public_names_were_found() -> None:
    assert {"dualpipe_sim.simulation.simulate", "dualpipe_sim.order.ops.Op"} <= EXPORTED.keys()
    assert {"dualpipe_sim.simulation.simulate", "dualpipe_sim.base.units.format_seconds"} <= {
        one.name for one in EXAMPLES
    }
