"""Files of a user's own: run once, and what is wrong with them in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim import ConfigError, UserError, allow_plugins, compare, regimes, robust, simulate, sweep
from dualpipe_sim.base.plugins import load_plugin
from dualpipe_sim.batch.points import Point, Row
from dualpipe_sim.batch.runner import evaluate_all
from dualpipe_sim.config import load_experiment
from dualpipe_sim.plan import plan
from dualpipe_sim.search import search
from dualpipe_sim.sweeps import read_table
from dualpipe_sim.why import why

if TYPE_CHECKING:
    from tests.conftest import CommandLine


def test_a_file_is_run_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from dataclasses import dataclass\n\n@dataclass\nclass A:\n    x: int = 3\n\nloaded = [A()]\n")
    module = load_plugin(file)
    module.loaded.append("again")
    assert len(load_plugin(str(file)).loaded) == 2
    file.write_text("loaded = []\n")
    assert load_plugin(file).loaded == []  # but again once it was changed


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.py", None, "gone.py: no such file"),
        ("mine.txt", "x = 1\n", r"mine.txt: is no Python file \(\.py\)"),
        ("mine.py", "x = 1\ny = 1 / 0\n", "mine.py:2: ZeroDivisionError: division by zero"),
        ("mine.py", "x = 1\ndef f(:\n", "mine.py:2: SyntaxError: invalid syntax"),
        ("mine.py", "import no_such_module\n", "mine.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("mine.py", "import sys\n\nsys.exit(3)\n", "mine.py:3: SystemExit: 3"),
        ("mine.py", "x = '\0'\n", "mine.py: (SyntaxError|ValueError): source code"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=message):
        load_plugin(file)
    if text is not None and file.suffix == ".py":
        file.write_text("x = 1\n")
        assert load_plugin(file).x == 1  # a file that failed is tried again


def test_a_name_that_no_file_can_have_is_one_line() -> None:
    with pytest.raises(UserError, match=r"'a\\x00b.py': can be no file's name"):
        load_plugin("a\0b.py")


def test_a_file_may_use_what_it_registers_by_a_configuration_that_names_it(tmp_path: Path) -> None:
    """As an example at its end does; the file is run once, as an import in a circle is."""
    config = "{'plugins': [__file__], 'schedule': 'own', 'ranks': 1, 'micro_batches': 2}"
    (tmp_path / "own.py").write_text(
        "from dualpipe_sim import Schedule, build, simulate\nfrom dualpipe_sim.schedules import register\n\n"
        "@register('own')\ndef own(ranks: int, micro_batches: int) -> Schedule:\n"
        f"    return build('gpipe', ranks, micro_batches)\n\nmakespan_s = simulate(**{config}).makespan_s\n"
    )
    assert load_plugin(tmp_path / "own.py").makespan_s == 6.0


PLUGIN = """
from dataclasses import dataclass, replace

import dualpipe_sim.analysis
import dualpipe_sim.costs
import dualpipe_sim.schedules
from dualpipe_sim import Schedule, build
from dualpipe_sim.costs.uniform import UniformCosts


@dualpipe_sim.schedules.register("two-waves")
def two_waves(ranks: int, micro_batches: int, deep: bool = False) -> Schedule:
    if deep:
        return [][ranks]
    return replace(build("gpipe", ranks, micro_batches), name="two-waves")


@dualpipe_sim.costs.register("steady")
@dataclass(frozen=True)
class Steady:
    op_s: float

    def on(self, placement):
        return UniformCosts(self.op_s, self.op_s, self.op_s).on(placement)


@dualpipe_sim.analysis.register("busy_s")
def busy_s(result):
    return result.makespan_s * (1 - result.bubble_ratio)
"""
CONFIG = """
plugins: [more/mine.py]
schedule: two-waves
compare: [1f1b, two-waves]
pipeline: {ranks: 2, micro_batches: 4}
costs: {kind: steady, op: 2 s}
"""


@pytest.fixture
def untrusted(tmp_path: Path) -> Path:
    """A configuration that uses a schedule, costs and a metric of a file beside it."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "mine.py").write_text(PLUGIN)
    file = tmp_path / "mine.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def config(untrusted: Path) -> Iterator[Path]:
    """The same, and the user's word that its file may be run."""
    with allow_plugins():
        yield untrusted


MAY_NOT = (
    "mine.py is Python code, and is run only if you say so: `dualpipe-sim --allow-plugins …` or `--plugin {}`; "
    "in Python, `with allow_plugins():`"
)


def test_a_configuration_alone_runs_no_code(
    command_line: CommandLine, untrusted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = untrusted.parent / "more" / "mine.py"
    plugin.write_text(f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch()\n{PLUGIN}")
    done = command_line("run", untrusted)
    refusal = f"{untrusted}: plugins[0]: {plugin.parent}{os.sep}{MAY_NOT.format(plugin)}"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"dualpipe-sim: {refusal}\n")
    axis = "costs.transfer=0..1"
    for ask in (
        simulate,
        compare,
        sweep,
        plan,
        search,
        robust,
        partial(regimes, x=axis, y="ranks=2,4"),
        why,
        load_experiment,
    ):
        with pytest.raises(ConfigError, match="is run only if you say so"):
            ask({"plugins": [plugin], "schedule": "1f1b"})
    assert not (tmp_path / "ran").exists()
    for allowed in (("--allow-plugins",), ("--plugin", plugin)):
        assert command_line(*allowed, "run", untrusted).returncode == 0
    assert simulate(untrusted).schedule == "two-waves"  # which was run by name as it is
    plugin.write_text(f"{PLUGIN}\n")
    with pytest.raises(ConfigError, match="is run only if you say so"):
        simulate(untrusted)  # and not as it is now


def test_what_is_allowed_here_is_allowed_to_workers(untrusted: Path) -> None:
    points: list[Point] = [{"x": str(untrusted)}, {"x": str(untrusted)}]
    with allow_plugins():
        assert [row for _, row in evaluate_all(points, makespan, workers=2)] == [{"makespan_s": 30.0}] * 2
    assert "only if you say so" in str(dict(evaluate_all(points, makespan, workers=2))[0]["error"])


def makespan(point: Point) -> Row:
    return {"makespan_s": simulate(str(point["x"])).makespan_s}


def test_a_configuration_names_the_files_that_register_what_it_uses(config: Path) -> None:
    run = simulate(config)
    # 4 micro-batches and a fill of 1, each F, I and W of 2 s; a rank is busy for the 4
    assert (run.schedule, run.makespan_s) == ("two-waves", 30.0)
    assert run.metrics == {"busy_s": pytest.approx(24.0)}


def test_worker_processes_know_what_plugins_register(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "table.jsonl"
    schedules = ("two-waves", "1f1b")
    over = {"schedules": schedules, "micro_batches": [4, 6]}
    table = sweep(config, over, workers=2, output=file)
    assert [(row["schedule"], row["busy_s"], row["error"]) for row in table] == [
        (schedule, pytest.approx(6.0 * count), None) for schedule in schedules for count in (4, 6)
    ]
    assert len(sweep(config, over, output=file, resume=True)) == 4
    plugin = tmp_path / "more" / "mine.py"
    plugin.write_text(PLUGIN.replace("1 - result", "2 - result"))
    with pytest.raises(UserError, match="another configuration, plugin or version"):
        sweep(config, over, output=file, resume=True)  # rows of a metric that says other things
    assert len(read_table(file)) == 4


def test_workers_get_what_the_file_held(tmp_path: Path) -> None:
    """Other machines may have no such file, or another: what runs there is what ran here."""
    file = tmp_path / "mine.py"
    file.write_text("def evaluate(point):\n    return {'twice': 2 * point['x']}\n")
    module = load_plugin(file)
    file.unlink()
    points: list[Point] = [{"x": 1}, {"x": 2}]
    assert sorted(evaluate_all(points, module.evaluate, workers=2)) == [(0, {"twice": 2}), (1, {"twice": 4})]


def test_the_command_line_runs_plugins(command_line: CommandLine, config: Path) -> None:
    done = command_line("compare", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert "two-waves" in done.stdout
    assert "busy_s" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    plugin = config.parent / "more" / "mine.py"
    done = command_line("--plugin", plugin, "schedule", "two-waves", "--ranks", "1", "--micro-batches", "2")
    assert done.stdout == "0F0,0F1,0B0,0B1\n"


def test_a_fault_in_a_plugin_is_one_line_with_its_place(command_line: CommandLine, config: Path) -> None:
    done = command_line("run", config, "--set", "schedule={name: two-waves, deep: true}")
    assert (done.returncode, done.stdout) == (2, "")
    plugin = (config.parent / "more" / "mine.py").resolve()
    assert done.stderr == (
        f"dualpipe-sim: {config}: schedule: two-waves: its generator fails: {plugin}:14: "
        "IndexError: list index out of range\n"
    )
    table = command_line("compare", config, "--set", "compare=[1f1b, {name: two-waves, deep: true}]")
    assert table.returncode == 0  # the others are compared
    assert "mine.py:14" in table.stdout.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ("[gone.py]", r"mine.yaml: plugins\[0\]: .*gone.py: no such file"),
        ("[more/mine.py, 3]", r"mine.yaml: plugins\[1\]: must be a file's name, got 3"),
        ("more/mine.py", "mine.yaml: plugins: must be a list of files, got 'more/mine.py'"),
    ],
)
def test_what_is_wrong_with_plugins_names_their_place(config: Path, plugins: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(config, settings=[f"plugins={plugins}"])


def test_an_installed_package_brings_its_own_and_a_broken_one_is_a_line(
    process: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both as pip leaves them: a module, and a folder that names it as an entry point."""
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[dualpipe_sim.schedules]\ntwo-waves = theirs\nbroken = nowhere\n")
    (tmp_path / "theirs.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    done = process("schedule", "two-waves", "--ranks", "1", "--micro-batches", "2")
    assert (done.returncode, done.stdout) == (0, "0F0,0F1,0B0,0B1\n")
    assert done.stderr == (
        "dualpipe-sim: entry point 'broken = nowhere' of dualpipe_sim.schedules does not load: "
        "ModuleNotFoundError: No module named 'nowhere'\n"
    )
    assert process("schedule", "1f1b", "--ranks", "1", "--micro-batches", "1").stderr == ""
