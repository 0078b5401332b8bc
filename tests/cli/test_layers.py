"""The command layers: its tables, its JSON, its picture, and that it runs nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pages import blocks_of

if TYPE_CHECKING:
    from tests.conftest import CommandLine

PAGE = Path(__file__).parents[2] / "docs" / "howto_layers.md"
CONFIG = """
model: qwen3-30b-a3b
gpu: h100
stack: torch-eager
parallel: {tensor: 2, expert: 8, data: 4}
training: {sequence_length: 2048, precision: bf16, recompute: full}
pipeline: {ranks: 4, micro_batches: 16}
schedule: 1f1b
"""
NEEDLESS = ("simpy", "matplotlib", "dualpipe_sim.simulation", "dualpipe_sim.graph.lowering", "dualpipe_sim.plan")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(CONFIG)
    return file


def test_json_has_every_kind_of_layer_and_every_part(command_line: CommandLine) -> None:
    done = command_line("layers", "deepseek_v3", "--json")
    found = json.loads(done.stdout)
    assert [found[key] for key in ("stack", "gpu", "tokens")] == ["deepseek", "h800", 4096]
    assert [(one["kind"], one["count"]) for one in found["layers"]] == [("dense", 3), ("moe", 58)]
    moe = found["layers"][1]
    parts = ["attention", "router", "experts", "shared", "norms", "dispatch", "combine", "gaps"]
    assert [one["name"] for one in moe["parts"]] == parts
    assert moe["recompute_s"] == 0
    assert sum(one["forward_s"] for one in moe["parts"]) == pytest.approx(moe["forward_s"], abs=1e-9)
    assert (found["embedding"]["kind"], found["head"]["count"]) == ("embedding", 1)


def test_there_is_a_table_for_all_and_one_for_each(command_line: CommandLine, config: Path) -> None:
    done = command_line("layers", config)
    tables = done.stdout.strip().split("\n\n")
    assert [table.partition(":")[0] for table in tables] == [
        "torch-eager on h100, 2,048 tokens", "embedding", "moe × 48", "head",
    ]  # fmt: skip
    rows = [line.split() for line in tables[2].splitlines()]
    assert rows[1] == ["part", "F", "I", "W", "again", "saved", "source"]
    assert {row[0] for row in rows[3:-2]} >= {"attention", "experts", "norms", "dispatch", "combine", "tensor", "all"}
    assert tables[2].splitlines()[-2].startswith("F ")


@pytest.mark.parametrize("width", [80, 60, 40, 30])
def test_narrow_terminals_lose_columns_by_name_and_no_digit(
    command_line: CommandLine, config: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    def printed(columns: int) -> str:
        monkeypatch.setenv("COLUMNS", f"{columns}")
        return command_line("layers", config).stdout

    whole, narrow = printed(200), printed(width)
    assert max(map(len, narrow.splitlines())) <= width
    numbers = set(re.findall(r"[\d,.]*\d", whole))
    assert set(re.findall(r"[\d,.]*\d", re.sub(r"… \d+ more", "", narrow))) <= numbers
    assert ("more column" in narrow) == (width < 60)


def test_settings_change_it(command_line: CommandLine, config: Path) -> None:
    def forward_s(*settings: str) -> float:
        words = [word for one in settings for word in ("--set", one)]
        return float(json.loads(command_line("layers", config, "--json", *words).stdout)["head"]["forward_s"])

    assert forward_s("training.sequence_length=8192") > 3 * forward_s()


def test_costs_without_layers_are_refused_in_a_line(command_line: CommandLine) -> None:
    for config in ("figure5", "deepseek_v3_stage_level"):
        done = command_line("layers", config)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert ": parts of layers need a model, so costs of kind 'layers'; its costs know no layers" in done.stderr


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_printed(
    command_line: CommandLine, tmp_path: Path
) -> None:
    for file in ("layers.bmp", "no/such/folder.png"):
        done = command_line("layers", "deepseek_v3", "--plot", tmp_path / file)
        assert (done.returncode, done.stdout) == (2, "")
        assert file in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_picture_is_written_in_the_format_that_its_name_says(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "layers.svg"
    done = command_line("layers", "deepseek_v3", "--plot", file)
    assert done.returncode == 0, done.stderr
    assert "deepseek-v3, deepseek on h800, 4,096 tokens" in file.read_text()


def test_nothing_is_run_and_nothing_is_loaded_that_runs(config: Path) -> None:
    code = (
        "import sys\nfrom dualpipe_sim.cli import main\n"
        f"sys.argv = ['dualpipe-sim', 'layers', {str(config)!r}, '--json']\n"
        "try:\n    main()\nfinally:\n"
        f"    print([name for name in {NEEDLESS!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_the_pages_table_is_what_the_command_prints(command_line: CommandLine) -> None:
    (shown,) = blocks_of(PAGE.read_text(encoding="utf-8"), "text")
    assert shown.strip() in command_line("layers", "deepseek_v3").stdout
