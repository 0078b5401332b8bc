"""Cells of a CSV: whatever word stands in one reads back, and none is a formula for a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dualpipe_sim import sweep
from dualpipe_sim.batch.cells import cell, csv_line, value_of

FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "a;=1", " =1", "＝1")


@given(st.one_of(st.text(), st.sampled_from("=+-@").flatmap(lambda sign: st.text().map(lambda rest: sign + rest))))
@example("-1.5")
@example("null")
@example('"quoted"')
def test_every_word_reads_back_and_computes_nothing(word: str) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in word):
        return  # no file can hold it
    (row,) = csv.reader([csv_line([word])], strict=True)
    assert value_of(row[0]) == word
    assert not row[0].lstrip().startswith(tuple("=+-@＝＋－＠"))
    assert ";=" not in row[0] or row[0].startswith('"')


@pytest.mark.parametrize("number", [-1.5, 3, -2e-9, 0, True])
def test_numbers_stay_numbers(number: float) -> None:
    assert cell(number) == f"{number}".lower()
    assert value_of(cell(number)) == number


def test_a_sweep_of_such_names_goes_on_with_its_table(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    whole = sweep("small", {"cluster.name": FORMULAS}, output=file)
    text = file.read_text(encoding="utf-8")
    (head, *rows) = csv.reader(text.splitlines(), strict=True)
    assert not [one for row in rows if (one := row[head.index("cluster.name")]).strip().startswith(tuple("=+-@＝"))]
    file.write_text("".join(text.splitlines(keepends=True)[:4]), encoding="utf-8")
    again = sweep("small", {"cluster.name": FORMULAS}, output=file, resume=True)
    assert [row["cluster.name"] for row in again] == list(FORMULAS)
    assert again.rows == whole.rows
