"""YAML as plain data: no tags, no key twice, and errors in one line with their place."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import TypeAlias, cast

import yaml

from dualpipe_sim.base.files import read_text
from dualpipe_sim.base.json_text import DEEPEST
from dualpipe_sim.errors import ConfigError, UserError, is_text, plain, quoted, visible

Data: TypeAlias = dict[str, object]

_TEXT = "tag:yaml.org,2002:str"


MOST_VALUES = 100_000
"""Values of a text, those that stand for others (``*a``) written out; a long text counts once for every 100 letters."""
_LONG_TEXT = 100
_LONGEST_NUMBER = 250
"""Letters of what is no text: any such number is one that a float holds."""


class _PlainLoader(yaml.SafeLoader):
    """YAML without explicit tags and repeated keys, which is as large written out as it may be.

    A few lines of aliases of aliases stand for more than any memory holds, and what reads, copies, shows or writes
    them later does not know them from values that are there once. So they are counted here, before they are values.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        self._section = ""
        self._values_of: dict[yaml.Node | None, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if self._depth == 1 and isinstance(index, yaml.ScalarNode):  # a key
            self._section = f"{plain(index.value)}: "
        tag = getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, cast("int", index))
            if node not in self._values_of:
                raise _refused(event, f"{self._section}*{plain(event.anchor)} stands inside of what it stands for")
            self._count(event, self._values_of[node])
            return node
        if tag is not None:
            raise _refused(event, f"the tag {plain(tag)} is not allowed here")
        before, self._depth = self._values, self._depth + 1
        if self._depth > DEEPEST:
            raise _refused(event, f"{self._section}is nested more than {DEEPEST} levels deep")
        self._count(event, 1 + len(getattr(event, "value", "")) // _LONG_TEXT)
        node = super().compose_node(parent, cast("int", index))
        self._depth -= 1
        self._values_of[node] = self._values - before
        return node

    def compose_scalar_node(self, anchor: dict[object, yaml.Node]) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if node.tag != _TEXT and len(node.value) > _LONGEST_NUMBER:
            raise _refused(node, f"{self._section}there is a number of more than {_LONGEST_NUMBER} digits")
        if not is_text(node.value):
            node.value = _joined(node.value)
        if not is_text(node.value):
            raise _refused(node, f"{quoted(node.value)} is no text: it holds half a character")
        return node

    def _count(self, event: yaml.Event, values: int) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise _refused(
                event, f"{self._section}there are more than {MOST_VALUES:,} values, what *aliases stand for among them"
            )

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int)):
                raise _refused(key_node, f"the key {quoted(key)} is not a word")
            if key in seen:
                raise _refused(key_node, f"the key {quoted(key)} is there twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refused(at: yaml.Event | yaml.Node, what: str) -> yaml.MarkedYAMLError:
    mark: yaml.Mark | None = at.start_mark  # type: ignore[assignment, unused-ignore]
    return yaml.MarkedYAMLError(problem=what, problem_mark=mark)


def _joined(text: str) -> str:
    """Return a text in which halves of characters, as JSON escapes them, are joined where both are there."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


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
    text = _block(value, allow_unicode=True)
    return text if visible(text) == text else _block(value, allow_unicode=False)


def _block(value: object, *, allow_unicode: bool) -> str:
    text: str = yaml.dump(
        value, Dumper=_InFull, default_flow_style=False, sort_keys=False, width=120, allow_unicode=allow_unicode
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
