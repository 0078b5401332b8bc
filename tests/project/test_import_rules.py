"""The import rules catch what they are there for: each is broken on purpose in a copy of the package.

And nobody uses a private name of another module.
"""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = "each folder imports from the lines below its own"
BROKEN_BY = {
    LAYERS: [
        ("schedules/dualpipe.py", "from dualpipe_sim.costs import uniform"),
        ("order/schedule.py", "import dualpipe_sim.graph.timeline"),
        ("costs/uniform.py", "import dualpipe_sim.graph.lowering"),
        ("model/job.py", "import dualpipe_sim.costs.uniform"),
        ("hardware/gpu.py", "import dualpipe_sim.model.job"),
        ("analysis/metrics.py", "from dualpipe_sim.engine import discrete_event"),
        ("pictures/plot/__init__.py", "import dualpipe_sim.config"),
        ("graph/task_graph.py", "import dualpipe_sim.simulation"),
        ("batch/rows.py", "import dualpipe_sim.order.ops"),
        ("base/units.py", "import dualpipe_sim.order.ops"),
        ("errors.py", "import dualpipe_sim.base.units"),
    ],
    "no part of the ground knows another": [("base/units.py", "import dualpipe_sim.base.files")],
    "inside order": [("order/ops.py", "import dualpipe_sim.order.placement")],
    "inside model": [("model/architecture.py", "import dualpipe_sim.model.job")],
    "a cost knows no order": [
        ("costs/uniform.py", "import dualpipe_sim.order.schedule"),
        ("model/job.py", "import dualpipe_sim.order.text"),
    ],
    "simpy is imported in engine only": [("graph/task_graph.py", "def f():\n    import simpy")],
    "matplotlib is imported in pictures.plot only": [("analysis/metrics.py", "import matplotlib.pyplot as plt")],
    "networkx is imported in hardware.cluster and graph only": [("analysis/metrics.py", "import networkx as nx")],
    "yaml and pydantic are imported in config only": [
        ("model/architecture.py", "import yaml"),
        ("experiment.py", "from pydantic import BaseModel"),
    ],
    "distributed and pyarrow are imported in batch only": [("sweeps/table.py", "import pyarrow")],
    "pandas is imported in base.plain_data only": [("result.py", "import pandas as pd")],
    "ortools is imported in bounds only": [("search/bound.py", "import ortools")],
    "typer and rich are imported in cli only": [("result.py", "from rich.table import Table")],
    "mcp is imported in mcp_server only": [
        ("cli/mcp.py", "def f():\n    import mcp"),
        ("answers/schemas.py", "import jsonschema"),
    ],
}


def test_a_folder_without_a_line_of_its_own_is_caught(tmp_path: Path) -> None:
    package = shutil.copytree(ROOT / "dualpipe_sim", tmp_path / "dualpipe_sim")
    (package / "utilities.py").touch()
    assert "dualpipe_sim.utilities" in broken(tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("rule", "file", "line"), [(rule, *broken) for rule, cases in BROKEN_BY.items() for broken in cases]
)
def test_an_import_against_a_rule_is_caught(rule: str, file: str, line: str, tmp_path: Path) -> None:
    package = shutil.copytree(ROOT / "dualpipe_sim", tmp_path / "dualpipe_sim")
    with (package / file).open("a") as module:
        module.write(f"\n{line}\n")
    assert f"{rule} BROKEN" in broken(tmp_path)


def broken(home: Path) -> str:
    """What the import rules say of a package that breaks them."""
    lint = Path(sys.executable).with_name("lint-imports")
    command = [str(lint), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return " ".join(done.stdout.split())


def private_names(code: str) -> Iterator[str]:
    """The private names of the package's modules that some other code uses: imported, or as attributes of these."""
    tree = ast.parse(code)
    imported = {
        (one.asname or one.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for one in node.names
        if getattr(node, "module", one.name or "").startswith("dualpipe_sim")
    }
    yield from (name for name in imported if is_private(name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner: ast.AST = node.value
            while isinstance(owner, ast.Attribute):
                owner = owner.value
            if isinstance(owner, ast.Name) and owner.id in imported:
                yield ast.unparse(node)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in ("_asdict", "_fields", "_replace")


def test_nobody_uses_a_private_name_of_another_module() -> None:
    folders = ("dualpipe_sim", "tests", "benchmarks", "validation")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    used = {str(file): list(private_names(file.read_text(encoding="utf-8"))) for file in files}
    assert {file: names for file, names in used.items() if names} == {}


def test_private_names_are_found() -> None:
    code = "from dualpipe_sim.base.units import _NUMBER\nfrom dualpipe_sim.base import units as u\nu._NUMBER.match('')"
    assert list(private_names(code)) == ["_NUMBER", "u._NUMBER"]
