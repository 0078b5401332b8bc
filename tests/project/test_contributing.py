"""CONTRIBUTING.md's schedule works as it stands there: one file more, nothing else touched."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dualpipe_sim

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def with_the_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the example's file in `schedules/`."""
    home = tmp_path_factory.mktemp("contributed")
    package = Path(dualpipe_sim.__file__).parent
    shutil.copytree(package, home / "dualpipe_sim", ignore=shutil.ignore_patterns("__pycache__"))
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (home / "dualpipe_sim" / "schedules" / "eager_1f1b.py").write_text(example)
    return home


def run(home: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_order_is_1f1b_with_twice_the_warm_up(with_the_example: Path) -> None:
    printed = run(
        with_the_example,
        "-c",
        "from dualpipe_sim import build, format_order\n"
        "print(format_order(build('eager-1f1b', 3, 4)), end='')\n"
        "assert format_order(build('eager-1f1b', 3, 6, ahead=1)) == format_order(build('1f1b', 3, 6))",
    )
    assert printed.splitlines() == [
        "0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3",
        "1F0,1F1,1F2,1B0,1F3,1B1,1B2,1B3",
        "2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3",
    ]


def test_the_contract_of_every_schedule_is_tested_on_it(with_the_example: Path) -> None:
    # -c: pytest's settings; the package is the copy, found first as the working directory
    tests, settings = str(ROOT / "tests" / "schedules/test_every_order.py"), str(ROOT / "pyproject.toml")
    options = ("-p", "no:cacheprovider", "-v", "-k", "eager-1f1b or sizes")
    printed = run(with_the_example, "-m", "pytest", "-c", settings, *options, tests)
    assert "[16-64-eager-1f1b] PASSED" in printed


def test_the_command_line_knows_it(with_the_example: Path) -> None:
    start = "from dualpipe_sim.cli import main; import sys; sys.argv[0] = 'dualpipe-sim'; main()"
    printed = run(
        with_the_example, "-c", start, "schedule", "eager-1f1b", "--ranks", "2", "--micro-batches", "2", "-O", "ahead=2"
    )
    assert printed == "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"
