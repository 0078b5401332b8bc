"""Sweeps: which points there are, what a row says, and that nothing is lost or done twice, however it ends."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import UserError, simulate
from dualpipe_sim.batch.points import POINT, Row
from dualpipe_sim.batch.rows import FORMATS, RowFile
from dualpipe_sim.batch.runner import evaluate_all
from dualpipe_sim.batch.study import Study, collect
from dualpipe_sim.config.axes import factors_of, parse_over, points_of, with_axes
from dualpipe_sim.config.load import experiment_of, read_config
from dualpipe_sim.result import Result
from dualpipe_sim.sweeps import SweepTable, read_table, sweep

SMALL: dict[str, object] = {
    "pipeline": {"ranks": 2, "micro_batches": 2},
    "schedule": "1f1b",
    "costs": {"forward": "1 s", "backward_input": "1 s", "backward_weight": "1 s"},
}
SUFFIXES = (".csv", ".jsonl", ".parquet")


# which points


def test_points_are_the_product_of_schedules_grid_zip_and_list_the_last_varying_fastest() -> None:
    factors = factors_of(
        {
            "list": [{"c": 5}, {"c": 6, "d": 7}],
            "zip": {"a": [1, 2], "b": [3, 4]},
            "grid": {"x": [0]},
            "schedules": ["gpipe", {"name": "hanayo", "waves": 2}],
        }
    )
    tail = [
        {"x": 0, "a": 1, "b": 3, "c": 5},
        {"x": 0, "a": 1, "b": 3, "c": 6, "d": 7},
        {"x": 0, "a": 2, "b": 4, "c": 5},
        {"x": 0, "a": 2, "b": 4, "c": 6, "d": 7},
    ]
    schedules = ["gpipe", {"name": "hanayo", "waves": 2}]
    assert points_of(factors) == [{"schedule": schedule, **point} for schedule in schedules for point in tail]


def test_an_axis_of_the_command_line_replaces_that_of_the_grid_and_varies_fastest() -> None:
    factors = with_axes(factors_of({"grid": {"pipeline.ranks": [2, 4], "x": [1, 2]}}), {"ranks": [8, 16]})
    assert points_of(factors) == [
        {"x": 1, "pipeline.ranks": 8},
        {"x": 1, "pipeline.ranks": 16},
        {"x": 2, "pipeline.ranks": 8},
        {"x": 2, "pipeline.ranks": 16},
    ]


def test_a_point_that_occurs_twice_is_one() -> None:
    assert points_of(with_axes((), {"x": [1, 2, 1]})) == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("pipeline.micro_batches=16,32,64", ("pipeline.micro_batches", [16, 32, 64])),
        ("costs.transfer=1 ms, 5 us", ("costs.transfer", ["1 ms", "5 us"])),
        ("schedules=1f1b,{name: hanayo, waves: 2}", ("schedules", ["1f1b", {"name": "hanayo", "waves": 2}])),
        ("x=[1, 2]", ("x", [[1, 2]])),
        ("costs.forward=[1, 2], [3, 4]", ("costs.forward", [[1, 2], [3, 4]])),
    ],
)
def test_over_is_a_key_and_a_list_in_yaml(text: str, axis: tuple[str, object]) -> None:
    assert parse_over(text) == axis


def test_axes_may_be_arrays_and_ranges() -> None:
    np = pytest.importorskip("numpy")
    over = {"ranks": np.array([2, 3]), "micro_batches": range(2, 4)}
    assert [(row["ranks"], row["micro_batches"]) for row in sweep(SMALL, over)] == [(2, 2), (2, 3), (3, 2), (3, 3)]


@pytest.mark.parametrize(
    ("section", "over", "said"),
    [
        ({}, {}, "config: sweep: is missing, so nothing varies"),
        ({"gird": {}}, {}, "config: sweep: gird: unknown key; did you mean 'grid'?"),
        ([1], {}, "config: sweep: must be a mapping of schedules, grid, zip, list, got [1]"),
        ({"grid": {"x": 4}}, {}, "config: sweep: grid: x: must be a list of values, got 4"),
        ({"grid": {"x": []}}, {}, "config: sweep: grid: x: must have at least one value, got none"),
        (
            {"zip": {"x": [1], "y": [1, 2]}},
            {},
            "config: sweep: zip: lists that go together must be equally long; x",
        ),
        ({"list": {"x": 1}}, {}, "config: sweep: list: must be a list of mappings of dotted keys to values, got"),
        ({"list": [3]}, {}, "config: sweep: list[0]: must be a mapping of dotted keys to values, got 3"),
        ({"schedules": "1f1b"}, {}, "config: sweep: schedules: schedule: must be a list of values, got '1f1b'"),
        ({"grid": {"x": [1]}, "list": [{"x": 1}]}, {}, "sweep: x is varied twice"),
        ({}, {"ranks": 4}, "over: pipeline.ranks: must be a list of values, got 4"),
        ({}, {"pipelin.ranks": [4]}, "config: pipelin: unknown key; did you mean 'pipeline'?"),
        ({}, {"costs.forward": ["fast", "slow"]}, "config: costs.forward: must be a time like 5 us"),
    ],
)
def test_a_mistake_in_the_axes_is_said_before_anything_runs(
    section: object, over: Mapping[str, object], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        sweep({**SMALL, "sweep": section}, over)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_a_run_checks_the_section_too() -> None:
    with pytest.raises(UserError, match="config: sweep: gird: unknown key"):
        experiment_of(*read_config({**SMALL, "sweep": {"gird": {}}}))


def test_overrides_inside_lists_do_not_leak_into_other_points() -> None:
    config = {**SMALL, "costs": {"forward": ["1 s", "1 s"], "backward_input": "1 s", "backward_weight": "1 s"}}
    points = {"list": [{"costs.forward.0": "9 s"}, {"costs.forward.1": "1 s"}]}
    slow, plain = sweep({**config, "sweep": points})
    assert plain["makespan_s"] == simulate(config).makespan_s != slow["makespan_s"]
    assert config["costs"] == {"forward": ["1 s", "1 s"], "backward_input": "1 s", "backward_weight": "1 s"}


# what a row says


def test_a_row_holds_the_axes_every_key_of_the_run_and_the_points_name() -> None:
    over = {"schedules": ["1f1b", "gpipe"], "costs.transfer": ["1 s", "2 s"]}
    table = sweep(SMALL, over)
    for row, (schedule, transfer) in zip(
        table, [("1f1b", "1 s"), ("1f1b", "2 s"), ("gpipe", "1 s"), ("gpipe", "2 s")], strict=True
    ):
        run = simulate(SMALL, schedule=schedule, **{"costs.transfer": transfer}).to_dict()
        assert row == {"costs.transfer": transfer, **run, POINT: row[POINT]}
    assert len({row[POINT] for row in table}) == 4


def test_a_point_that_fails_is_a_row_with_its_reason() -> None:
    odd, fine, unknown = sweep(SMALL, {"schedules": ["dualpipe", "1f1b", {"name": "1f2b", "x": 1}]})
    assert str(odd["error"]).startswith("dualpipe needs an even number of ranks")
    assert (odd["schedule"], odd["ranks"], odd["makespan_s"]) == ("dualpipe", 2, None)
    assert fine["error"] is None
    assert str(unknown["error"]).startswith("schedule: unknown schedule '1f2b'; did you mean '1f1b'?")
    assert (unknown["schedule"], unknown["options"]) == ("1f2b", {"x": 1})


def test_a_table_is_a_sequence_a_data_frame_and_html() -> None:
    table = sweep(SMALL, {"schedules": ["1f1b", "dualpipe"], "micro_batches": range(3, 15)})
    assert len(table) == 24
    frame = table.to_pandas()
    assert list(frame.columns) == list(table.columns)
    assert frame.makespan_s[0] == table[0]["makespan_s"]
    html = table._repr_html_()
    assert html.count("<tr>") == 1 + 20
    assert "24 rows, the first 20 shown" in html
    assert "dualpipe needs an even number of ranks" in html


def test_where_picks_rows() -> None:
    table = sweep(SMALL, {"schedules": ["1f1b", "gpipe"], "micro_batches": [2, 3]})
    assert [row["schedule"] for row in table.where(micro_batches=3)] == ["1f1b", "gpipe"]
    assert len(table.where(**{"pipeline.micro_batches": 3, "schedule": "gpipe"})) == 1
    with pytest.raises(UserError, match=r"the table has no column rank; did you mean 'ranks'\?"):
        table.where(rank=3)


# files


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_on_disk_is_the_table(suffix: str, tmp_path: Path) -> None:
    over = {
        "schedules": ["1f1b", "dualpipe", {"name": "interleaved-1f1b", "stages_per_rank": 2}],
        "costs.transfer": [1, "1 s", 1.5],
        "costs.overlapped": [None, 2],
    }
    file = tmp_path / f"table{suffix}"
    table = sweep(SMALL, over, output=file)
    assert read_table(file).rows == table.rows
    assert list(tmp_path.iterdir()) == [file]


def test_a_table_is_read_by_what_people_use(tmp_path: Path) -> None:
    import pandas as pd

    over = {"schedules": ["1f1b", "gpipe"], "micro_batches": [2, 3]}
    paths = [tmp_path / f"table{suffix}" for suffix in SUFFIXES]
    tables = [sweep(SMALL, over, output=path) for path in paths]
    frames = [
        pd.read_csv(paths[0]),
        pd.read_json(paths[1], lines=True),
        pd.read_parquet(paths[2]),
    ]
    for frame, table in zip(frames, tables, strict=True):
        for column in ("schedule", "pipeline.micro_batches", "makespan_s", "ranks"):
            assert list(frame[column]) == [row[column] for row in table]
        assert list(frame["bubble_ratio"]) == pytest.approx([row["bubble_ratio"] for row in table])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.lists(JSON, min_size=1), st.sampled_from(sorted(FORMATS)))
@settings(max_examples=60)
def test_any_row_is_one_line_that_reads_back(values: list[object], suffix: str) -> None:
    row: Row = {f"column {place}": value for place, value in enumerate(values)}
    line = FORMATS[suffix].line(row)
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert FORMATS[suffix].parse(line[:-1], list(row)) == row


# nothing lost, nothing twice


class Counted:
    """An evaluation that remembers what it was asked."""

    def __init__(self) -> None:
        self.points: list[object] = []

    def __call__(self, point: Mapping[str, object]) -> Row:
        self.points.append(point["x"])
        return {"y": 'a, "b"\n é', "error": None}


def study(evaluate: Callable[[Mapping[str, object]], Row], points: int = 3, setting: object = None) -> Study:
    return Study([{"x": x} for x in range(points)], evaluate, ["y", "error"], setting)


def log_of(path: Path) -> Path:
    return path.with_name(path.name + ".jsonl") if path.suffix == ".parquet" else path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_wherever_a_write_is_torn_resuming_gives_the_same_table_and_repeats_no_whole_row(
    suffix: str, tmp_path: Path
) -> None:
    """What is on disk when a machine dies is some prefix of what was written; every one of them is tried."""
    whole = tmp_path / f"whole{suffix}"
    rows = collect(study(Counted()), output=whole)
    written = log_of(tmp_path / "written.parquet" if suffix == ".parquet" else whole)
    if suffix == ".parquet":
        file = RowFile(tmp_path / "written.parquet", study(Counted()).columns)
        file.open(study(Counted()).by_name, resume=False)
        for row in rows:
            file.append(row)
        file.close()
    content = written.read_bytes()
    heads = 1 if suffix == ".csv" else 0
    torn = tmp_path / f"torn{suffix}"
    for length in range(len(content) + 1):
        torn.unlink(missing_ok=True)
        log_of(torn).write_bytes(content[:length])
        counted = Counted()
        assert collect(study(counted), output=torn, resume=True) == rows
        whole_rows = max(content[:length].count(b"\n") - heads, 0)
        assert counted.points == list(range(3))[whole_rows:]
        assert read_table(torn).rows == tuple(rows)
        if suffix != ".parquet":
            assert torn.read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} <= {whole.name, torn.name, written.name}


@given(lost=st.sets(st.integers(0, 5)), zeros=st.integers(0, 20), tail=st.booleans())
@settings(max_examples=40)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_lines_that_a_disk_lost_or_filled_with_zeros_are_done_again(
    suffix: str, tmp_path_factory: pytest.TempPathFactory, lost: set[int], zeros: int, tail: bool
) -> None:
    folder = tmp_path_factory.mktemp("lost")
    whole, damaged = folder / f"whole{suffix}", folder / f"damaged{suffix}"
    rows = collect(study(Counted(), 6), output=whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    heads = len(lines) - 6
    kept = [line for place, line in enumerate(lines) if place - heads not in lost]
    damaged.write_bytes(b"".join(kept) + b"\0" * zeros + b"\n" * tail)
    counted = Counted()
    if heads or kept or not (zeros or tail):
        assert collect(study(counted, 6), output=damaged, resume=True) == rows
        assert counted.points == sorted(lost)
        assert damaged.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("done", [0, 1, 2])
def test_an_interrupted_sweep_goes_on_where_it_was(suffix: str, done: int, tmp_path: Path) -> None:
    def interrupt(so_far: int, _total: int) -> None:
        if so_far == done:
            raise KeyboardInterrupt

    file = tmp_path / f"table{suffix}"
    first, second = Counted(), Counted()
    with pytest.raises(KeyboardInterrupt):
        collect(study(first), output=file, progress=interrupt)
    assert len(read_table(log_of(file))) == done
    seen: list[tuple[int, int]] = []
    rows = collect(study(second), output=file, resume=True, progress=lambda *so_far: seen.append(so_far))
    assert rows == collect(study(Counted()))
    assert (first.points, second.points) == (list(range(done)), list(range(done, 3)))
    assert seen == [(so_far, 3) for so_far in range(done, 4)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_finished_table_is_left_as_it_is_and_grows_by_new_points_only(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"table{suffix}"
    collect(study(Counted()), output=file)
    again, more = Counted(), Counted()
    collect(study(again), output=file, resume=True)
    assert again.points == []
    assert collect(study(more, 5), output=file, resume=True) == collect(study(Counted(), 5))
    assert more.points == [3, 4]


def test_a_death_between_a_parquet_file_and_the_end_of_its_log_costs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        rows = collect(study(Counted()), output=file)
    assert log_of(file).exists()
    again = Counted()
    assert collect(study(again), output=file, resume=True) == rows
    assert again.points == []
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_something_else_is_refused_and_kept(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"table{suffix}"
    collect(study(Counted(), setting="here"), output=file)
    content = file.read_bytes()
    for other in (study(Counted(), setting="there"), study(Counted(), 2, setting="here")):
        with pytest.raises(UserError, match="cannot be resumed: it holds points of other axes"):
            collect(other, output=file, resume=True)
    with pytest.raises(UserError, match="exists already; go on with it by --resume"):
        collect(study(Counted(), setting="here"), output=file)
    assert file.read_bytes() == content


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"Dear diary,\n", b'{"a": 1}\n', b"x,y\n1,2\n", b"\0\0\n"])
def test_a_file_that_is_no_table_is_refused_and_kept(suffix: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"table{suffix}"
    file.write_bytes(content)
    with pytest.raises(UserError, match="cannot be re"):
        collect(study(Counted()), output=file, resume=True)
    assert file.read_bytes() == content


def test_an_output_that_cannot_be(tmp_path: Path) -> None:
    for name, said in (
        ("table.xlsx", "must say the table's format by its end, one of .csv, .jsonl, .parquet"),
        ("table.jsonlines", "; did you mean '.jsonl'?"),
        ("no/folder.csv", "cannot be written: No such file or directory"),
    ):
        with pytest.raises(UserError) as raised:
            collect(study(Counted()), output=tmp_path / name)
        assert said in str(raised.value)
    with pytest.raises(UserError, match="there is no output to resume"):
        collect(study(Counted()), resume=True)
    with pytest.raises(UserError, match="workers must be 1 or more, got 0"):
        collect(study(Counted()), workers=0)
    with pytest.raises(UserError, match="give --workers or --dask, not both"):
        collect(study(Counted()), workers=2, dask="tcp://somewhere:8786")


# workers

EVALUATIONS = """
import os, signal, time
def square(point):
    time.sleep(point.get("sleeps", 0))
    print("not a row")
    if point["x"] == point.get("raises"):
        raise ZeroDivisionError("oh")
    if point["x"] == point.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": point["x"] ** 2, "process": os.getpid()}
"""


@pytest.fixture
def square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, object]], Row]:
    """An evaluation that worker processes can import."""
    (tmp_path / "evaluations.py").write_text(EVALUATIONS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evaluations", raising=False)
    import evaluations  # type: ignore[import-not-found]

    found: Callable[[Mapping[str, object]], Row] = evaluations.square
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_one_points_failure_is_not_the_others(workers: int, square: Callable[[Mapping[str, object]], Row]) -> None:
    """On one's own process a death is the death of all; on others it costs the point that causes it."""
    dies = 7 if workers > 1 else None
    points: list[dict[str, object]] = [{"x": x, "raises": 3, "dies": dies} for x in range(12)]
    rows = dict(evaluate_all(points, square, workers=workers))
    assert rows.pop(3) == {"error": "ZeroDivisionError: oh"}
    if workers > 1:
        assert rows.pop(7) == {"error": "its worker process died, perhaps for want of memory"}
    assert {x: row["square"] for x, row in rows.items()} == {x: x * x for x in rows}
    assert len(rows) == (10 if workers > 1 else 11)
    assert (os.getpid() in {row["process"] for row in rows.values()}) == (workers == 1)


def test_workers_change_nothing_but_the_time(tmp_path: Path) -> None:
    over = {"schedules": ["1f1b", "dualpipe", "zb-h1"], "ranks": [2, 4], "micro_batches": [4, 8, 12]}
    tables = [sweep(SMALL, over, workers=workers, output=tmp_path / f"{workers}.csv") for workers in (1, 2)]
    assert tables[0].rows == tables[1].rows
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_scripts_need_no_guard_and_may_come_from_stdin() -> None:
    script = f"from dualpipe_sim import sweep\nprint(len(sweep({SMALL}, {{'ranks': [2, 3]}}, workers=2)))\n"
    done = subprocess.run([sys.executable], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_workers_that_cannot_evaluate_say_why(
    square: Callable[[Mapping[str, object]], Row], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evaluations.py").write_text("raise RuntimeError('not here')")
    with pytest.raises(UserError, match="worker processes do not start; what they say of it stands above"):
        dict(evaluate_all([{"x": 1}, {"x": 2}], square, workers=2))
    assert "RuntimeError: not here" in capfd.readouterr().err


def test_a_long_point_does_not_outlive_its_sweep(
    square: Callable[[Mapping[str, object]], Row],
) -> None:
    rows = evaluate_all([{"x": 0}, {"x": 1, "sleeps": 600}], square, workers=2)
    assert next(rows)[0] == 0
    workers = psutil.Process().children()
    rows.close()
    assert not psutil.wait_procs(workers, timeout=5)[1]


# the command


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", "from dualpipe_sim.cli import main; main()", "sweep", *map(str, arguments)]


def dualpipe_sim(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
    environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, env=environment, **options)


def test_the_command_prints_a_table_that_fits_a_terminal() -> None:
    axes = ("--over", "pipeline.micro_batches=20,17", "--over", "costs.transfer=0,1 s")
    done = dualpipe_sim("figure5", *axes)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:7] for line in lines if " 8 × 20 " in line] == [
        ["0", "dualpipe", "8", "×", "20", "66", "s"],
        ["1", "s", "dualpipe", "8", "×", "20", "94"],
    ]
    assert max(len(line) for line in lines if "needs" not in line) <= 80
    assert "0, dualpipe, 8 × 17: dualpipe needs an even number of ranks" in done.stdout


def test_the_command_writes_a_file_and_says_what_failed(tmp_path: Path) -> None:
    file = tmp_path / "table.jsonl"
    axes = ("--over", "schedules=1f1b,dualpipe", "--over", "pipeline.ranks=2,3", "--set", "pipeline.micro_batches=4")
    done = dualpipe_sim("figure5", *axes, "-o", file, "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{file}: 4 rows, 1 of them with an error, such as: dualpipe needs an even number")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["schedule"], row["ranks"], row["error"] is None) for row in rows] == [
        ("1f1b", 2, True),
        ("1f1b", 3, True),
        ("dualpipe", 2, True),
        ("dualpipe", 3, False),
    ]
    assert set(rows[0]) >= set(Result("", 0, 0).to_dict())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pipeline.ranks", "--over pipeline.ranks: must be key=value,value,…, like pipeline.micro_batches=16,32,64"),
        ("pipeline.ranks=", "--over pipeline.ranks=: must be key=value,value"),
        ("=2,4", "--over =2,4: must be key=value,value"),
        ("pipeline.ranks=[1,", "--over pipeline.ranks: line 1, column"),
    ],
)
def test_an_axis_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_over(text)
    assert str(raised.value).startswith(said)


def test_a_mistake_is_one_line_and_exit_code_2() -> None:
    done = dualpipe_sim("figure5", "--over", "pipeline.rank=2,4")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("figure5.yaml: pipeline.rank: unknown key; did you mean 'ranks'?\n")
    assert done.stderr.count("\n") == 1


LONG = ("figure5", "--over", "schedules=1f1b,zb-h1,gpipe", "--over", "pipeline.ranks=8,12,16", "--over")
LONG_AXIS = "pipeline.micro_batches=" + ",".join(map(str, range(100, 112)))


@pytest.mark.parametrize(("ended_by", "suffix"), [(signal.SIGKILL, ".parquet"), (signal.SIGINT, ".csv")])
def test_a_sweep_that_is_ended_midway_leaves_rows_and_no_process_behind(
    ended_by: signal.Signals, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"table{suffix}"
    arguments = (*LONG, LONG_AXIS, "-o", file, "--workers", "2")
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and (not log_of(file).exists() or log_of(file).read_bytes().count(b"\n") < 5):
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(ended_by)
    _, said = process.communicate(timeout=10)
    assert not psutil.wait_procs(workers, timeout=5)[1]
    if ended_by == signal.SIGINT:
        assert process.returncode == 130
        assert said == f"dualpipe-sim: interrupted; {file} keeps the rows so far; --resume goes on\n"
    kept = len(read_table(log_of(file)))
    assert 4 <= kept < 108
    seen: list[int] = []
    over = dict(parse_over(axis) for axis in (LONG[2], LONG[4], LONG_AXIS))
    table = sweep("figure5", over, output=file, resume=True, progress=lambda done, _total: seen.append(done))
    assert seen == list(range(kept, 109))
    assert len(table) == 108
    assert {row["error"] for row in table} == {None}


def test_a_full_disk_is_one_line_and_loses_no_row(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    arguments = ("figure5", "--over", "pipeline.micro_batches=20,22,24,26", "-o", file)
    limit = 3000  # bytes that a file may have, some two rows

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = dualpipe_sim(*arguments, preexec_fn=limit_files)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"dualpipe-sim: {file}: cannot be written: File too large\n"
    assert 0 < len(read_table(file)) < 4
    assert dualpipe_sim(*arguments, "--resume").stdout == f"{file}: 4 rows\n"


def test_a_packaged_config_sweeps_as_its_section_says() -> None:
    data, source = read_config("sweep_schedules")
    table = sweep(data, {"pipeline.micro_batches": [64]})
    assert isinstance(table, SweepTable)
    assert source.endswith("sweep_schedules.yaml")
    assert {row["error"] for row in table} == {None}
    assert len(table) == 6 * 3 * 2
