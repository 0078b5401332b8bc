"""YAML as plain data: no tags, no key twice, and errors in one line with their place."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import TypeAlias

import yaml

from dualpipe_sim.base.files import read_text
from dualpipe_sim.errors import ConfigError, UserError, quoted

Data: TypeAlias = dict[str, object]


class _PlainLoader(yaml.SafeLoader):
    """YAML without explicit tags and without repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag is not None and not isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem=f"the tag {tag} is not allowed here", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int)):
                raise yaml.MarkedYAMLError(
                    problem=f"the key {quoted(key)} is not a word", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {quoted(key)} is there twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Data:
    """Return a YAML file's top-level mapping.

    Raises:
        ConfigError: a file that cannot be read, or is no mapping.

    """
    try:
        text = read_text(path)
    except UserError as error:
        raise ConfigError(str(error)) from error
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping of keys like 'pipeline:' and 'schedule:', got {_kind_of(data)}")
    return data


def parse_yaml(text: str, source: str) -> object:
    """Return what a YAML text holds; ``source`` names it in errors."""
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{source}: {place}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError, OverflowError) as error:
        raise ConfigError(f"{source}: cannot be read as YAML: {type(error).__name__}: {error}") from error


def as_yaml(value: object) -> str:
    """Return a value as YAML on one line.

    >>> as_yaml([1, "10 ms"]), as_yaml(True)
    ('[1, 10 ms]', 'true')
    """
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()


class _InFull(yaml.SafeDumper):
    """Writes what is there twice twice, without anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - of all
        return True


def as_block(value: object) -> str:
    """Return a value as YAML over several lines.

    >>> print(as_block({"a": {"b": [1, 2]}}), end="")
    a:
      b:
      - 1
      - 2
    """
    text: str = yaml.dump(
        value, Dumper=_InFull, default_flow_style=False, sort_keys=False, width=120, allow_unicode=True
    )
    return text


def about(text: str) -> str:
    r"""Return the first sentence of what a YAML text says of itself in its leading comment.

    >>> about("# A model of 2024 (https://a.b/c). Its source: a table.\n# ...\nhidden: 4096\n")
    'A model of 2024 (https://a.b/c).'
    """
    comment = takewhile(lambda line: line.startswith("# "), text.splitlines())
    return re.split(r"(?<=\.)\s", " ".join(line[2:].strip() for line in comment), maxsplit=1)[0]


def _kind_of(data: object) -> str:
    return "nothing" if data is None else f"a {type(data).__name__}"
