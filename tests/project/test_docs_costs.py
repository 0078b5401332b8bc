"""docs/costs_appendix.md says of FP8 what the program computes now."""

import importlib
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_what_fp8_buys_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    generator = importlib.import_module("make_costs")
    assert (DOCS / "costs_appendix.md").read_text(encoding="utf-8") == generator.page(), (
        "run: python docs/make_costs.py"
    )
