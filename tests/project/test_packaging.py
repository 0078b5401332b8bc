"""What is shipped: a wheel holds all that the program reads, and every file that names a version agrees."""

import re
import subprocess
import sys
import zipfile
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dualpipe_sim"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that a user would install, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def shipped(wheel: zipfile.ZipFile, folder: str, pattern: str = "") -> set[str]:
    """Paths of a wheel's files below a folder, relative to it, whose name ends in a pattern."""
    names = (name.removeprefix(f"{folder}/") for name in wheel.namelist() if name.startswith(f"{folder}/"))
    return {name for name in names if name.endswith(pattern)}


def below(folder: Path, pattern: str) -> set[str]:
    """Paths of the files below a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


def test_the_wheel_has_every_module_and_the_marker_of_typed_packages(wheel: zipfile.ZipFile) -> None:
    assert shipped(wheel, "dualpipe_sim", ".py") == below(PACKAGE, "*.py")
    assert "dualpipe_sim/py.typed" in wheel.namelist()


def test_the_wheel_has_the_example_configs_inside_the_package(wheel: zipfile.ZipFile) -> None:
    configs = below(ROOT / "configs", "*.yaml")
    assert "deepseek_v3.yaml" in configs
    assert shipped(wheel, "dualpipe_sim/configs") == configs


def test_the_wheel_has_no_test_and_no_file_outside_the_package(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {
        "dualpipe_sim",
        f"dualpipe_sim-{version_in('pyproject.toml')}.dist-info",
    }


def test_the_wheel_carries_the_licence_and_the_command(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "dualpipe-sim = dualpipe_sim.__main__:main" in wheel.read(f"{info}/entry_points.txt").decode()


def version_in(file: str) -> str:
    """The project's version as a file says it."""
    match = re.search(
        r"^(?:__version__ = |version = |version: )\"?([^\"\n]+)\"?$", (ROOT / file).read_text(), re.MULTILINE
    )
    assert match, f"{file} names no version"
    return match[1]


@pytest.mark.parametrize("file", ["CITATION.cff", "dualpipe_sim/version.py"])
def test_every_file_names_the_same_version(file: str) -> None:
    assert version_in(file) == version_in("pyproject.toml")


def test_the_installed_package_is_this_version_and_licence() -> None:
    installed = metadata("dualpipe-sim")
    assert installed["Version"] == version_in("pyproject.toml")
    assert installed["License-Expression"] == "Apache-2.0"
    assert re.search(r"^license: Apache-2.0$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)


def test_every_declared_dependency_is_pinned_without_naming_an_index() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    declared = {re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in requires("dualpipe-sim") or []}
    assert declared - {"dualpipe-sim"} <= pinned
    assert not [line for line in lines if line.startswith("-") or "://" in line]


def test_importing_the_package_loads_none_of_the_heavy_libraries() -> None:
    heavy = {"matplotlib", "networkx", "pandas", "pydantic", "rich", "simpy", "typer", "yaml"}
    code = f"import sys, dualpipe_sim; print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
