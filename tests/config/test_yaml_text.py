"""YAML as it may be: what a few lines stand for is counted before anything is made of it."""

from __future__ import annotations

import tracemalloc

import pytest

from dualpipe_sim.base.json_text import DEEPEST
from dualpipe_sim.config import yaml_text
from dualpipe_sim.config.yaml_text import MOST_VALUES, parse_yaml
from dualpipe_sim.errors import ConfigError


def lists_of_lists(times: int) -> str:
    """The billion laughs: a few lines of lists of the list before."""
    more = (f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, times))
    return "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(more)


def merges_of_merges(times: int) -> str:
    """The same of mappings, each merged of nine times the one before."""
    more = (f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, times))
    return "a0: &a0 {key: ha}\n" + "".join(more)


BOMBS = {
    "lists": (lists_of_lists(12), f"there are more than {MOST_VALUES:,} values"),
    "merges": (merges_of_merges(12), f"there are more than {MOST_VALUES:,} values"),
    "text": (f"a: &a {'x' * 10**5}\nb: [{', '.join(['*a'] * 10**4)}]", f"there are more than {MOST_VALUES:,} values"),
    "brackets": ("[" * 10**6, f"is nested more than {DEEPEST} levels deep"),
    "braces": ("{" * 10**6, f"is nested more than {DEEPEST} levels deep"),
    "dashes": ("- " * 10**6, f"is nested more than {DEEPEST} levels deep"),
    "questions": ("? " * 10**6, f"is nested more than {DEEPEST} levels deep"),
    "itself": ("&a [*a]", "stands inside of what it stands for"),
    "its own merge": ("a: &a {b: {<<: *a}}", "stands inside of what it stands for"),
    "digits of base 60": (f"a: 1{':1' * 10**5}", "there is a number of more than 250 digits"),
    "digits": (f"a: 0x{'f' * 10**5}", "there is a number of more than 250 digits"),
    "half a letter": ('"\\ud800": 1', r"'\\ud800' is no text"),
}


@pytest.mark.parametrize(("text", "said"), BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^bomb.yaml: line .*{said}") as refused:
        parse_yaml(text, "bomb.yaml")
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("kind", ["lists", "merges", "dashes"])
def test_a_bomb_takes_little_memory(kind: str) -> None:
    tracemalloc.start()
    with pytest.raises(ConfigError):
        parse_yaml(BOMBS[kind][0], "bomb.yaml")
    assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    tracemalloc.stop()


def test_aliases_and_merges_of_reasonable_size_are_read() -> None:
    text = "a: &a {x: 1}\nb: [*a, *a]\nc: {<<: [*a], y: 2}"
    assert parse_yaml(text, "a.yaml") == {"a": {"x": 1}, "b": [{"x": 1}] * 2, "c": {"x": 1, "y": 2}}


def test_as_many_values_as_may_be_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "MOST_VALUES", 21)  # two lists of nine in a list
    assert parse_yaml(f"- &a [{'1,' * 9}]\n- *a", "a.yaml") == [[1] * 9, [1] * 9]
    with pytest.raises(ConfigError, match="there are more than 21 values"):
        parse_yaml(f"- &a [{'1,' * 10}]\n- *a", "a.yaml")
