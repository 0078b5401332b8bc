"""docs/costs_appendix.md says of FP8 what the program computes now."""

from pathlib import Path

from tests.pages import script

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_what_fp8_buys_is_current() -> None:
    generator = script(DOCS / "make_costs.py")
    assert (DOCS / "costs_appendix.md").read_text(encoding="utf-8") == generator.page(), (
        "run: python docs/make_costs.py"
    )
