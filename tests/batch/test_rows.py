"""Rows on disk: nothing is lost and nothing done twice, however a program ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import UserError
from dualpipe_sim.batch.points import Evaluate, Row
from dualpipe_sim.batch.rows import FORMATS, RowFile
from dualpipe_sim.batch.study import Study, collect
from dualpipe_sim.sweeps import read_table

SUFFIXES = (".csv", ".jsonl", ".parquet")

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


class Counted:
    """An evaluation that remembers what it was asked."""

    def __init__(self) -> None:
        self.points: list[object] = []

    def __call__(self, point: Mapping[str, object]) -> Row:
        self.points.append(point["x"])
        return {"y": 'a, "b"\n é', "error": None}


def study(evaluate: Evaluate, points: int = 3, setting: object = None) -> Study:
    return Study([{"x": x} for x in range(points)], evaluate, ["y", "error"], setting)


def log_of(path: Path) -> Path:
    return path.with_name(path.name + ".jsonl") if path.suffix == ".parquet" else path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.slow
@pytest.mark.thorough
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


@given(first=st.integers(0, 200), zeros=st.integers(1, 60))
@settings(max_examples=40)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_zeros_that_a_disk_left_in_the_middle_are_no_values(
    suffix: str, tmp_path_factory: pytest.TempPathFactory, first: int, zeros: int
) -> None:
    file = tmp_path_factory.mktemp("zeros") / f"table{suffix}"
    rows = collect(study(Counted(), 6), output=file)
    content = file.read_bytes()
    begins = len(content.split(b"\n")[0]) + 1 + first
    assert begins + zeros < len(content)
    file.write_bytes(content[:begins] + b"\0" * zeros + content[begins + zeros :])
    assert collect(study(Counted(), 6), output=file, resume=True) == rows
    assert file.read_bytes() == content


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_that_somebody_removes_meanwhile_are_there_at_the_end(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"table{suffix}"

    def remove(done: int, _total: int) -> None:
        if done == 2:
            log_of(file).unlink()

    rows = collect(study(Counted()), output=file, progress=remove)
    assert read_table(file).rows == tuple(rows)
    assert len(rows) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_second_writer_is_kept_out_and_the_first_goes_on(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"table{suffix}"
    seen: list[int] = []

    def begin_another(done: int, _total: int) -> None:
        seen.append(done)
        for resume in (False, True):
            with pytest.raises(UserError, match=r"is being written by this process already; name another file or wait"):
                collect(study(Counted()), output=file, resume=resume)

    assert collect(study(Counted()), output=file, progress=begin_another) == collect(study(Counted()))
    assert seen == [0, 1, 2, 3]
    assert list(tmp_path.iterdir()) == [file]


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
