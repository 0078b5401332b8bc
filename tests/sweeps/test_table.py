"""The table of a sweep: rows, data frames, HTML, and files that others read."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualpipe_sim import UserError
from dualpipe_sim.sweeps import read_table, sweep

SUFFIXES = (".csv", ".jsonl", ".parquet")


def test_a_table_is_a_sequence_a_data_frame_and_html(unit_config: dict[str, object]) -> None:
    table = sweep(unit_config, {"schedules": ["1f1b", "dualpipe"], "micro_batches": range(3, 15)})
    assert len(table) == 24
    frame = table.to_pandas()
    assert list(frame.columns) == list(table.columns)
    assert frame.makespan_s[0] == table[0]["makespan_s"]
    html = table._repr_html_()
    assert html.count("<tr>") == 1 + 20
    assert "24 rows, the first 20 shown" in html
    assert "dualpipe needs an even number of ranks" in html


def test_where_picks_rows(unit_config: dict[str, object]) -> None:
    table = sweep(unit_config, {"schedules": ["1f1b", "gpipe"], "micro_batches": [2, 3]})
    assert [row["schedule"] for row in table.where(micro_batches=3)] == ["1f1b", "gpipe"]
    assert len(table.where(**{"pipeline.micro_batches": 3, "schedule": "gpipe"})) == 1
    with pytest.raises(UserError, match=r"the table has no column rank; did you mean 'ranks'\?"):
        table.where(rank=3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_on_disk_is_the_table(unit_config: dict[str, object], suffix: str, tmp_path: Path) -> None:
    over = {
        "schedules": ["1f1b", "dualpipe", {"name": "interleaved-1f1b", "stages_per_rank": 2}],
        "costs.transfer": [1, "1 s", 1.5],
        "costs.overlapped": [None, 2],
    }
    file = tmp_path / f"table{suffix}"
    table = sweep(unit_config, over, output=file)
    assert read_table(file).rows == table.rows
    assert list(tmp_path.iterdir()) == [file]


def test_a_table_is_read_by_what_people_use(unit_config: dict[str, object], tmp_path: Path) -> None:
    import pandas as pd

    over = {"schedules": ["1f1b", "gpipe"], "micro_batches": [2, 3]}
    paths = [tmp_path / f"table{suffix}" for suffix in SUFFIXES]
    tables = [sweep(unit_config, over, output=path) for path in paths]
    frames = [
        pd.read_csv(paths[0]),
        pd.read_json(paths[1], lines=True),
        pd.read_parquet(paths[2]),
    ]
    for frame, table in zip(frames, tables, strict=True):
        for column in ("schedule", "pipeline.micro_batches", "makespan_s", "ranks"):
            assert list(frame[column]) == [row[column] for row in table]
        assert list(frame["bubble_ratio"]) == pytest.approx([row["bubble_ratio"] for row in table])
