"""What is shipped: a wheel holds all that the program reads, runs where it is installed, and versions agree."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dualpipe_sim"
PYTHONS = re.findall(
    r"Python :: (3\.\d+)$", "\n".join(metadata("dualpipe-sim").get_all("Classifier", [])), re.MULTILINE
)
EXTRAS = sorted(set(metadata("dualpipe-sim").get_all("Provides-Extra", [])) - {"dev", "docs", "torch"})
UV = [sys.executable, "-m", "uv"]


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


def found(version: str) -> Path | None:
    """A Python of this version: on the search path, or where pyenv keeps them."""
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for one in (shutil.which(f"python{version}"), *kept):  # (on the path may be pyenv's mere promise of one)
        if one and subprocess.run([one, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return Path(one)
    return None


HERE = {version: python for version in PYTHONS if (python := found(version))}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program prints that must not fail."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(folder: Path, python: str | Path, *what: str | Path) -> Path:
    """The Python of a new environment with nothing but what is named, and what that needs."""
    run(*UV, "venv", "--quiet", "--no-python-downloads", "--python", python, folder)
    inside = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    run(*UV, "pip", "install", "--quiet", "--python", inside, *what)
    return inside


def came_of_extras(python: Path) -> dict[str, str]:
    """In which line an environment refuses what each extra is for; empty where it does that."""
    lines: dict[str, str] = json.loads(run(python, "-I", ROOT / "tests/project/extras.py", *EXTRAS))
    return lines


@pytest.mark.thorough
@pytest.mark.parametrize("version", HERE)
def test_the_wheel_alone_runs_on_every_python_here(wheel: zipfile.ZipFile, tmp_path: Path, version: str) -> None:
    python = environment(tmp_path / "env", HERE[version], str(wheel.filename), "--constraint", ROOT / "constraints.txt")
    program = (python, "-I", "-W", "error", "-m", "dualpipe_sim")
    assert run(python, "-I", "-c", "import sys, dualpipe_sim; print(*sys.version_info[:2], sep='.')") == f"{version}\n"
    assert "dualpipe        66    9.1%" in run(*program, "run", "figure5")
    run(*program, "compare", "figure5", "--plot", "chart.png", cwd=tmp_path)
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    sweep = ("sweep", "figure5", "--over", "pipeline.micro_batches=16,20", "--workers", "2", "-o", "rows.csv")
    assert run(*program, *sweep, cwd=tmp_path).endswith("rows.csv: 2 rows\n")


@pytest.mark.thorough
@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_each_extra_alone_does_what_it_is_for_and_what_others_are_for_is_refused_in_a_line_that_names_them(
    wheel: zipfile.ZipFile, tmp_path: Path, extra: str
) -> None:
    what = f"dualpipe-sim[{extra}] @ {Path(str(wheel.filename)).as_uri()}"
    came_of = came_of_extras(
        environment(tmp_path / "env", sys.executable, what, "--constraint", ROOT / "constraints.txt")
    )
    works = {name for name, line in came_of.items() if not line}
    brought = {"mcp": {"explore"}, "optimum": {"notebook"}}  # by mcp its servers, by ortools pandas
    assert works - brought.get(extra, set()) == ({extra} if extra else set())
    assert [line for name, line in came_of.items() if line and f"pip install 'dualpipe-sim[{name}]'" not in line] == []
    assert [line for line in came_of.values() if len(line.splitlines()) > 1] == []


@pytest.mark.thorough
@pytest.mark.parametrize("version", list(HERE)[:1])
def test_every_extra_works_with_the_oldest_of_what_it_allows(
    wheel: zipfile.ZipFile, tmp_path: Path, version: str
) -> None:
    oldest = tmp_path / "oldest.txt"
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    compiled = ("pip", "compile", "--quiet", "--resolution", "lowest-direct", "--python", HERE[version], *extras)
    run(*UV, *compiled, "--output-file", oldest, ROOT / "pyproject.toml")
    python = environment(tmp_path / "env", HERE[version], "--requirements", oldest, str(wheel.filename))
    assert came_of_extras(python) == dict.fromkeys(EXTRAS, "")
