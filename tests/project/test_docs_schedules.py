"""docs/schedules.md is what the registry says now."""

from pathlib import Path
from types import ModuleType

import pytest

from dualpipe_sim.schedules.registry import schedules
from tests.pages import script

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return script(DOCS / "make_schedules.py")


def test_the_page_is_current(generator: ModuleType) -> None:
    written = (DOCS / "schedules.md").read_text(encoding="utf-8")
    assert written == generator.page(), "run: python docs/make_schedules.py"


def test_every_schedule_has_a_chart_and_every_chart_a_schedule(generator: ModuleType) -> None:
    charts = {path.name for path in (DOCS / "images" / "schedules").glob("*.png")}
    assert charts == {f"{name}.png" for name in schedules()}
    page = generator.page()
    assert all(f"(images/schedules/{chart})" in page for chart in charts)


def test_every_option_of_every_schedule_is_explained(generator: ModuleType) -> None:
    lines = [line for line in generator.page().splitlines() if line.startswith("- Option ")]
    assert len(lines) == sum(len(spec.options) for spec in schedules().values())
    assert not [line for line in lines if line.endswith(": ")]
