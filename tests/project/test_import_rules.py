"""The import rules catch what they are there for: each is broken on purpose in a copy of the package."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BROKEN_BY = {
    "order, cost and time stay apart": [
        ("schedules/dualpipe.py", "from dualpipe_sim.costs import uniform"),
        ("schedule.py", "import dualpipe_sim.graph.timeline"),
        ("costs/uniform.py", "import dualpipe_sim.schedules.dualpipe"),
        ("metrics.py", "from dualpipe_sim.engine import discrete_event"),
        ("plot/__init__.py", "import dualpipe_sim.config"),
        ("graph.py", "import dualpipe_sim.simulation"),
    ],
    "a cost knows no order": [("costs/uniform.py", "import dualpipe_sim.order.schedule")],
    "an order knows no cost": [("schedules/gpipe.py", "import dualpipe_sim.hardware.cluster")],
    "simpy is imported in engine only": [("graph.py", "def f():\n    import simpy")],
    "matplotlib is imported in plot only": [("metrics.py", "import matplotlib.pyplot as plt")],
    "networkx is imported in cluster and graph only": [("metrics.py", "import networkx as nx")],
    "yaml and pydantic are imported in config only": [
        ("model.py", "import yaml"),
        ("experiment.py", "from pydantic import BaseModel"),
    ],
    "distributed, pandas and pyarrow are imported in sweep only": [("result.py", "import pandas as pd")],
    "ortools is imported in optimum only": [("bounds.py", "import ortools")],
    "typer and rich are imported in cli only": [("result.py", "from rich.table import Table")],
}


@pytest.mark.parametrize(
    ("rule", "file", "line"), [(rule, *broken) for rule, cases in BROKEN_BY.items() for broken in cases]
)
def test_an_import_against_a_rule_is_caught(rule: str, file: str, line: str, tmp_path: Path) -> None:
    package = shutil.copytree(ROOT / "dualpipe_sim", tmp_path / "dualpipe_sim")
    with (package / file).open("a") as module:
        module.write(f"\n{line}\n")
    lint = Path(sys.executable).with_name("lint-imports")
    command = [str(lint), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{rule} BROKEN" in " ".join(done.stdout.split())
