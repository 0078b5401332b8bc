"""CONTRIBUTING.md's examples work as they stand there, in a file of a user's own, and are short."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim import allow_plugins, build, format_order, simulate
from dualpipe_sim.base.plugins import load_plugin
from dualpipe_sim.config import load_experiment
from dualpipe_sim.equal_terms import at_equal_stages
from tests.pages import blocks_of

if TYPE_CHECKING:
    from tests.conftest import CommandLine

ROOT = Path(__file__).parents[2]
PAGES = re.split(r"^## ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
NAMES = ("schedule", "cost model", "attention", "metric")


@pytest.fixture
def allowed() -> Iterator[None]:
    """The user's word that configurations may run the files that they name."""
    with allow_plugins():
        yield


def page(name: str) -> str:
    (found,) = (one for one in PAGES if one.startswith(f"Write your own {name}\n"))
    return found


def blocks(name: str, language: str) -> list[str]:
    return blocks_of(page(name), language)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(name: str, folder: Path) -> Path:
    """Write a page's files into a folder, its code by the name that the text gives it, and return that."""
    (code,) = blocks(name, "python")
    file: str
    (file,) = set(re.findall(r"`(\w+\.py)`", page(name).partition("```python")[0]))
    (folder / file).write_text(code, encoding="utf-8")
    for config in blocks(name, "yaml"):
        (folder / "mine.yaml").write_text(config, encoding="utf-8")
    return folder / file


def test_it_is_twenty_lines_at_most(name: str) -> None:
    (code,) = blocks(name, "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20


def test_the_commands_of_its_page_run(
    name: str, command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks(name, "") for line in block.splitlines() if line.startswith("dualpipe-sim")]
    for command in [
        *commands,
        *(["dualpipe-sim --allow-plugins compare mine.yaml"] if Path("mine.yaml").exists() else []),
    ]:
        done = command_line(*command.split()[1:])
        assert (done.returncode, done.stderr) == (0, "")


def test_a_notebook_runs_it_as_a_cell(name: str, tmp_path: Path) -> None:
    """Twice, as people do, with every object of the module `__main__`."""
    (code,) = blocks(name, "python")
    run = "\nfrom dualpipe_sim import simulate\nprint(simulate('figure5').makespan_s)\n"
    cells = f"for _ in range(2):\n    exec({code!r})\n{run}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", cells], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("66.0\n", "")


def test_the_schedule_is_1f1b_with_more_warm_up(tmp_path: Path) -> None:
    module = load_plugin(written("schedule", tmp_path))
    assert format_order(build("eager-1f1b", 3, 4)).splitlines() == [
        "0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3",
        "1F0,1F1,1F2,1B0,1F3,1B1,1B2,1B3",
        "2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3",
    ]
    assert format_order(build("eager-1f1b", 3, 6, ahead=1)) == format_order(build("1f1b", 3, 6))
    by_name = simulate(schedule="eager-1f1b", ranks=4, micro_batches=12)
    assert simulate(schedule=module.eager_1f1b(4, 12)).makespan_s == by_name.makespan_s == (12 + 3) * 3.0


def test_eager_warm_up_hides_transfers(allowed: None, tmp_path: Path) -> None:
    """What the paper is about: with transfers of half a forward, 1F1B waits in every round and eager 1F1B does not."""
    written("schedule", tmp_path)
    eager = simulate(tmp_path / "mine.yaml")
    plain = simulate(tmp_path / "mine.yaml", schedule="1f1b")
    assert eager.makespan_s is not None
    assert plain.makespan_s is not None
    # by hand: the first micro-batch there and back, 3 hops each way, then a round of 3 ms for each of the others
    assert eager.makespan_s == pytest.approx(4 * 3e-3 + 2 * 3 * 0.5e-3 + 11 * 3e-3)
    assert plain.makespan_s > eager.makespan_s


@pytest.mark.slow
def test_the_contract_of_every_schedule_is_tested_on_it_once_it_is_in_the_package(tmp_path: Path) -> None:
    plugin = written("schedule", tmp_path)
    options = ("-p", "no:cacheprovider", "-v", "-k", "eager-1f1b and 16-64")
    start = (
        f"from dualpipe_sim.base.plugins import load_plugin; load_plugin({str(plugin)!r})\n"
        f"import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
    )
    tests = str(ROOT / "tests" / "schedules" / "test_every_order.py")
    done = subprocess.run(
        [sys.executable, "-c", start, *options, tests], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "[16-64-eager-1f1b] PASSED" in done.stdout, done.stdout + done.stderr


def test_the_cost_model_pays_a_launch_for_every_op(tmp_path: Path) -> None:
    module = load_plugin(written("cost model", tmp_path))
    one, two = (simulate(tmp_path / "mine.yaml", schedule=name) for name in ("1f1b", "interleaved-1f1b"))
    # (8 + 3) rounds of F = 1 + 0.5 ms and B = 2 + 0.5 ms
    assert one.makespan_s == pytest.approx(11 * 4e-3)
    made = simulate(schedule="1f1b", ranks=4, micro_batches=8, costs=module.WithLaunch(1e-3, 5e-4))
    assert made.makespan_s == one.makespan_s
    # two stages of half the work: the fill is half of 3 rounds' work and 3 half rounds of twice the launches
    assert two.makespan_s == pytest.approx((8 + 1.5) * (3e-3 + 2 * 1e-3))


def test_the_cost_model_compares_schedules_on_the_same_work(allowed: None, tmp_path: Path) -> None:
    written("cost model", tmp_path)
    runs = {run.schedule: run for run in at_equal_stages(load_experiment(tmp_path / "mine.yaml"))}
    # on half the ranks a rank has twice the work, in two stages, and each stage's op its launch as before
    assert runs["interleaved-1f1b"].ranks == 2
    assert runs["interleaved-1f1b"].makespan_s == pytest.approx((8 + 0.5) * 2 * 4e-3)


def test_the_metric_is_shown_by_name(command_line: CommandLine, tmp_path: Path) -> None:
    plugin = written("metric", tmp_path)
    load_plugin(plugin)
    # figure 5: DualPipe's ranks work 60 of 66 s
    assert simulate("figure5").metrics["mean_watts"] == pytest.approx((60 * 700 + 6 * 150) / 66)
    printed = json.loads(command_line("--plugin", plugin, "run", "figure5", "--json").stdout)
    assert printed["mean_watts"] == pytest.approx(650)
    assert "mean_watts" in command_line("--plugin", plugin, "compare", "figure5").stdout
