"""Registries of any kind: what stands in them, who wins, and what other packages' faults do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dualpipe_sim import UserError
from dualpipe_sim.base import registry
from dualpipe_sim.base.plugins import load_plugin
from dualpipe_sim.base.registry import Registry


def thing() -> None:
    """Be registered."""


def other() -> None:
    """Be registered in its place."""


@pytest.fixture
def things() -> Registry[str]:
    return Registry("thing", "", "their.things", UserError)


def test_a_name_that_is_taken_is_refused_with_who_has_it(things: Registry[str]) -> None:
    things.add("one", thing, "first", replace=False)
    things.add("one", thing, "again", replace=False)  # as when a notebook's cell runs twice
    message = r"thing 'one' is there already \(.*test_registry\.thing\); take another name, or replace=True"
    with pytest.raises(UserError, match=message):
        things.add("one", other, "second", replace=False)
    assert things.get("one") == "again"
    things.add("one", other, "second", replace=True)
    assert things.all() == {"one": "second"}


def test_an_unknown_name_is_told_its_neighbour(things: Registry[str]) -> None:
    things.add("first", thing, "1", replace=False)
    with pytest.raises(UserError, match=r"unknown thing 'frist'; did you mean 'first'\? \(known: first\)"):
        things.get("frist")


def test_what_is_registered_for_a_while_is_forgotten(things: Registry[str]) -> None:
    things.add("one", thing, "first", replace=False)
    with things.restored():
        things.add("one", other, "second", replace=True)
        things.add("two", other, "third", replace=False)
    assert things.all() == {"one": "first"}


def test_a_file_that_is_run_under_two_names_does_not_clash_with_itself(
    things: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my_own_things.py"
    file.write_text("def made():\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    imported = __import__("my_own_things")
    things.add("one", imported.made, "imported", replace=False)
    things.add("one", load_plugin(file).made, "as a plugin", replace=False)
    assert things.get("one") == "as a plugin"


class Entry:
    """An entry point that does what a test gives."""

    value = "their_package.things"

    def __init__(self, name: str, load: Callable[[], object]) -> None:
        self.name, self.load = name, load


def no_such_package() -> None:
    raise ImportError("No module named 'their_package'")


def test_things_of_other_packages_are_found_and_broken_ones_harm_nobody(
    things: Registry[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [
        Entry("broken", no_such_package),
        Entry("theirs", lambda: things.add("theirs", thing, "found", replace=False)),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == "their.things" else [])
    things.add("one", other, "ours", replace=False)
    assert things.get("one") == "ours"  # no entry point is asked for what is there
    message = (
        "entry point 'broken = their_package.things' of their.things does not load: "
        "ImportError: No module named 'their_package'"
    )
    with pytest.warns(UserWarning, match=message):
        assert things.all() == {"one": "ours", "theirs": "found"}
    with pytest.raises(UserError, match=message):
        things.get("broken")
