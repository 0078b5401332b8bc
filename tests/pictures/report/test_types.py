"""The types that the viewer is checked with are those of what a page holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import dualpipe_sim.pictures.report
from dualpipe_sim.pictures.report import Page
from tests.pictures.report.test_page import Tags

FOLDER = Path(dualpipe_sim.pictures.report.__file__).parent
TYPES = (FOLDER / "types.d.ts").read_text(encoding="utf-8")


def fields(interface: str) -> dict[str, str]:
    """Names and types of an interface's own fields."""
    (body,) = re.findall(rf"^interface {interface}\b[^{{]*\{{\n(.*?)^\}}", TYPES, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r'^  "?([\w-]+)"?: (.+);$', body, re.MULTILINE))


def is_a(value: Any, kind: str) -> bool:  # noqa: ANN401
    """Whether a value read from JSON is of one of the simpler types of TypeScript."""
    if kind.endswith("[]"):
        return isinstance(value, list) and all(is_a(one, kind[:-2]) for one in value)
    if mapping := re.fullmatch(r"Record<string, ([^{}]+)>", kind):
        return isinstance(value, dict) and all(is_a(one, mapping[1]) for one in value.values())
    kinds: dict[str, set[type]] = {
        "string": {str}, "number": {int, float}, "boolean": {bool}, "null": {type(None)}, "Look": {list},
    }  # fmt: skip
    return any(type(value) in kinds[one] for one in kind.split(" | "))


@pytest.fixture(scope="module")
def held(deepseek_v3_page: Page) -> Any:  # noqa: ANN401
    """What a page with layers and memory holds, so that nothing is left out."""
    return json.loads(Tags(deepseek_v3_page.html).json)


def test_a_page_holds_what_its_type_says(held: Any) -> None:  # noqa: ANN401
    assert held.keys() == fields("PageData").keys()
    assert is_a(held["memory_fills"], fields("PageData")["memory_fills"])
    (cause,) = re.findall(r"\{ (.*) \}", fields("PageData")["causes"])
    declared = dict(one.split(": ") for one in cause.split("; "))
    assert all(one.keys() == declared.keys() for one in held["causes"].values())


def test_a_run_holds_what_its_type_says(held: Any) -> None:  # noqa: ANN401
    (run,) = held["runs"]
    head = fields("RunHead")
    assert run.keys() == head.keys() | fields("RunData").keys()
    assert [name for name, kind in head.items() if not is_a(run[name], kind)] == []
    (look,) = re.findall(r"^type Look = \[(.*)\];$", TYPES, re.MULTILINE)
    assert {len(one) for one in run["looks"]} == {len(look.split(", "))}


def test_columns_have_the_arrays_of_their_type(held: Any) -> None:  # noqa: ANN401
    (run,) = held["runs"]
    written = {name: kind for name, (kind, _, _) in run["columns"].items()}
    declared = {name: kind.removesuffix("Array").lower() for name, kind in fields("Columns").items()}
    assert written == declared
    (names,) = re.findall(r"^type ArrayName = (.*);$", TYPES, re.MULTILINE)
    assert set(names.replace('"', "").split(" | ")) == set(written.values())


def test_the_viewer_has_every_element_that_it_finds() -> None:
    viewer = (FOLDER / "viewer.js").read_text(encoding="utf-8")
    tags = Tags(viewer.partition("`")[2].partition("`")[0]).tags
    classes = {name for _, attributes in tags for name in (attributes.get("class") or "").split()}
    assert fields("ViewerElements").keys() <= classes
    assert not [attributes for _, attributes in tags if "id" in attributes]  # several fit into one page
