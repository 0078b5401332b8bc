"""The commands that run a configuration: run, compare, gantt, timeline."""

from __future__ import annotations

import csv
import json
import re
import warnings
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import CommandLine

RUN_KEYS = {
    "schedule",
    "ranks",
    "micro_batches",
    "makespan_s",
    "bubble_ratio",
    "bubble_ratio_by_rank",
    "span_bubble_ratio",
    "micro_batches_per_s",
    "idle_s_by_cause",
    "peak_in_flight_by_rank",
    "peak_activations_by_rank",
    "theory",
    "error",
}


def test_run_prints_every_key_as_json(command_line: CommandLine) -> None:
    done = command_line("run", "figure5", "--json")
    run = json.loads(done.stdout)
    assert set(run) >= RUN_KEYS
    assert (run["makespan_s"], run["error"]) == (66.0, None)
    assert [sum(rank) for rank in zip(*run["idle_s_by_cause"].values(), strict=True)] == [6.0] * 8


def test_compare_sorts_by_throughput_and_puts_refusals_last(command_line: CommandLine) -> None:
    setting = "compare=[chimera, gpipe, dualpipe, {name: chimera, micro_batches: 24}]"
    runs = json.loads(command_line("compare", "figure5", "--set", setting, "--json").stdout)["runs"]
    assert [run["schedule"] for run in runs] == ["dualpipe", "chimera", "gpipe", "chimera"]
    assert all(set(run) >= RUN_KEYS for run in runs)
    assert [run["error"] is None for run in runs] == [True, True, True, False]
    assert "16 micro-batches or 24 micro-batches" in runs[-1]["error"]


def test_tables_fit_a_terminal_of_80_columns(command_line: CommandLine) -> None:
    for command in ("run", "compare"):
        done = command_line(command, "deepseek_v3")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert "dualpipe" in done.stdout
        assert max(map(len, lines)) <= 80
        assert "…" not in done.stdout


def test_a_timeline_is_a_csv_of_every_op_and_transfer(command_line: CommandLine, tmp_path: Path) -> None:
    """Two ranks, one micro-batch, unit costs, a transfer of one second: worked out by hand."""
    file = tmp_path / "timeline.csv"
    settings = ("pipeline.ranks=2", "pipeline.micro_batches=1", "schedule=1f1b", "costs.transfer=1")
    done = command_line("timeline", "figure5", "-o", file, *(word for one in settings for word in ("--set", one)))
    assert done.returncode == 0, done.stderr
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows == [
        ["rank", "lane", "task", "start_s", "end_s"],
        ["0", "compute", "0F0", "0.0", "1.0"],
        ["0", "compute", "0B0", "6.0", "8.0"],
        ["0", "send", "0SEND_F0", "1.0", "2.0"],
        ["0", "recv", "0RECV_B0", "5.0", "6.0"],
        ["1", "compute", "1F0", "2.0", "3.0"],
        ["1", "compute", "1B0", "3.0", "5.0"],
        ["1", "send", "1SEND_B0", "5.0", "6.0"],
        ["1", "recv", "1RECV_F0", "1.0", "2.0"],
    ]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_gantt_writes_the_format_its_name_says(command_line: CommandLine, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"chart.{suffix}"
    done = command_line("gantt", "figure5", "-o", file)
    assert done.returncode == 0, done.stderr
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert file.read_bytes().startswith(begins)


def texts(svg: Path) -> list[str]:
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8"))]


def test_gantt_explains_itself_where_it_is_asked_to(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"
    asked = ("--critical-path", "--terms", "--zoom", "ends")
    long = ("gantt", "figure5", "--set", "schedule=1f1b", "--set", "pipeline.micro_batches=100", "-o", file)
    assert command_line(*long, *asked).returncode == 0
    said = texts(file)
    assert {"a mean rank's 321 units", "the critical path's 321 units"} <= set(said)
    assert {"warm-up: 14 = 7 B", "drain: 7 in 7 waits = 7 F", "× 92"} <= set(
        said
    )  # a backward and a forward of all but 8
    plain = command_line(*long, "--no-causes")
    assert plain.returncode == 0
    assert not [text for text in texts(file) if "mean rank" in text or "critical" in text]


def test_compare_draws_ends_paths_and_how_much_longer_others_take(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"
    settings = ("--set", "compare=[dualpipe, 1f1b]", "--set", "pipeline.micro_batches=100")
    done = command_line("compare", "figure5", *settings, "--plot", file, "--zoom", "ends", "--critical-path")
    assert done.returncode == 0, done.stderr
    said = texts(file)
    assert [text for text in said if text.startswith("+")] == ["+15 (+4.9 %)"]  # 321 instead of 306
    assert sum(text.startswith("the critical path's") for text in said) == 2


def test_ends_of_a_run_without_a_middle_are_the_run_and_a_line_says_so(
    command_line: CommandLine, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        done = command_line("gantt", "figure5", "--zoom", "ends", "-o", tmp_path / "chart.svg")
    said = "zoom: no middle of dualpipe repeats on every rank, so the whole is drawn"
    assert (done.returncode, done.stderr.strip()) == (0, f"dualpipe-sim: {said}")
    refused = command_line("gantt", "figure5", "--zoom", "end", "-o", tmp_path / "other.svg")
    assert (refused.returncode, refused.stderr.strip()) == (2, "dualpipe-sim: zoom: must be ends, got 'end'")
    assert not (tmp_path / "other.svg").exists()


def test_a_run_with_rendezvous_says_what_the_waiting_costs(command_line: CommandLine, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        "pipeline: {ranks: 8, micro_batches: 16, transfers: rendezvous}\n"
        "schedule: {name: interleaved-1f1b, stages_per_rank: 2}\n"
        "costs: {kind: uniform, forward: 1 s, backward_input: 1 s, backward_weight: 1 s, transfer: 100 ms}\n"
    )
    words = "with async transfers, which wait for no rank's turn: 61.5 s"
    assert words in command_line("run", config).stdout
    asynchronous = command_line("run", config, "--set", "pipeline.transfers=async").stdout
    assert "61.5 s" in asynchronous
    assert words not in asynchronous


@pytest.mark.parametrize(
    "command",
    ["compare deepseek_v3 --set pipeline.micro_batches=32", "compare small", "run figure5", "memory deepseek_v3"],
)
def test_narrow_terminals_lose_columns_by_name_and_no_digit(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def printed(width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        return command_line(*command.split()).stdout

    def rows(text: str) -> list[str]:
        """Return all tables' rows: what follows a rule, up to an empty line."""
        return [row for table in re.findall(r"(?s)─\n(.*?)\n\n", text) for row in table.splitlines()]

    def cells(text: str) -> set[str]:
        """Return the words with a digit in all tables' rows."""
        return {word for row in rows(text) for word in row.split() if any(map(str.isdigit, word))}

    whole = printed(200)
    assert "more column" not in whole
    assert rows(whole)
    for width in (30, 40, 60, 61, 80):
        text = printed(width)
        assert max(map(len, text.splitlines())) <= width
        assert all(any(word in other for other in cells(whole)) for word in cells(text))  # (long names are parted)
    assert re.search(r"(?m)^… \d more columns?:", printed(30))


def test_columns_that_have_no_place_are_named(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert "\n… 3 more columns: bubble, hidden, GB\n" in command_line("compare", "deepseek_v3").stdout


def test_a_run_that_its_host_holds_up_says_so_and_shows_it(command_line: CommandLine, tmp_path: Path) -> None:
    runs = Path(__file__).parents[2] / "validation" / "torch_runs"
    files = [runs / f"medium-zb-v-m8{ending}" for ending in (".csv", ".memory.csv")]
    costs, config = tmp_path / "costs.yaml", tmp_path / "config.yaml"
    assert command_line("calibrate", *files, "--runtime", "torch", "-o", costs).returncode == 0
    config.write_text(
        "pipeline: {ranks: 2, micro_batches: 8, runtime: torch}\n"
        "schedule: zb-v\ncosts: {kind: measured, file: costs.yaml}\n"
    )
    said = command_line("run", config).stdout
    patterns = r"zb-v +([\d.]+) ms", r"in no time:\s([\d.]+) ms"
    whole, without = (float(re.findall(pattern, said)[0]) for pattern in patterns)
    assert without < 0.8 * whole
    assert " host " in said
    assert "peak memory: 5." in said
    assert command_line("gantt", config, "--host", "-o", tmp_path / "chart.png").returncode == 0
    refused = command_line("gantt", "figure5", "--host", "-o", tmp_path / "other.png")
    assert (refused.returncode, (tmp_path / "other.png").exists()) == (2, False)
    assert "do not know how long the host takes" in refused.stderr
