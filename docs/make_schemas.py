"""Write docs/schemas/*.json and docs/json.md, what commands answer as JSON: ``python docs/make_schemas.py``.

The schema of a version stays as it is: what changes keys or their types is a new version, and a new file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from dualpipe_sim.answers import VERSIONS
from dualpipe_sim.answers.keys import Schema
from dualpipe_sim.answers.schemas import answer_schema, inside, types_by_path, types_of

HERE = Path(__file__).parent

INTRODUCTION = """\
# Answers as JSON

<!-- Written by docs/make_schemas.py from the program itself; change that, then run it again. -->

With `--json` a command prints one JSON object and nothing else on its standard output. `dualpipe-sim schema --of run`
prints the JSON Schema (2020-12) of what `run` answers; the same files are linked below.

- The first key, `schema`, says what an answer is: `dualpipe-sim/run/1` is version 1 of `run`. Within a version no key
  comes, goes or changes its type. A script that asks for the version that it was written for fails early, not wrongly.
- Seconds, bytes and FLOPs are in base units, in keys that end with `_s` and `_bytes`. Where costs have no unit
  (`forward: 1`), `_s` is in that unit of no clock.
- Shares and ratios are of 1. Where there is no number, there is `null`; never `NaN` or `Infinity`.
- A list by rank begins with rank 0.
- A mistake is no JSON: it is one line on the error stream and exit code 2. Only `check` prints its answer with exit
  code 2, if anything is wrong with the order. A schedule that cannot be run at these sizes is, in `compare` and
  `sweep`, a run with `error`.
- Metrics that you register are further keys of a run, by their names.

```
dualpipe-sim run figure5 --json > run.json
```

```python
import json
from pathlib import Path

told = json.loads(Path("run.json").read_text())
assert told["schema"] == "dualpipe-sim/run/1"
print(told["makespan_s"], told["idle_s_by_cause"]["warm_up"])
```

The tools of `dualpipe-sim mcp` answer the same ([Tools for agents](howto_mcp.md)).
"""


def page() -> str:
    """Return the whole page."""
    run = answer_schema("run")["properties"]
    shown = {tuple(key for key in run if key not in ("schema", "step_time_error")): "a run, see [run](#run)"}
    return INTRODUCTION + "".join("".join(_section(command, shown)) for command in VERSIONS)


def files() -> dict[str, str]:
    """Return the text of each schema's file, by its name."""
    return {
        f"{_stem(one)}.json": json.dumps(answer_schema(one), indent=2, ensure_ascii=False) + "\n" for one in VERSIONS
    }


def broken(folder: Path) -> list[str]:
    """Return in words which answers have other keys or types than the schema of their version that was written."""
    found = []
    for name, text in files().items():
        there = folder / name
        if there.exists():
            old, new = (dict(types_by_path(json.loads(one))) for one in (there.read_text(encoding="utf-8"), text))
            changed = sorted(path for path in {**old, **new} if old.get(path) != new.get(path))
            if changed:
                found.append(f"{name}: {', '.join(changed)}: not as that version has it; raise it in answers.VERSIONS")
    return found


def _stem(command: str) -> str:
    return f"{command}-{VERSIONS[command]}"


def _section(command: str, shown: dict[tuple[str, ...], str]) -> Iterator[str]:
    """Yield a command's part of the page; ``shown`` is where on the page each set of keys stands already."""
    schema = answer_schema(command)
    yield f"\n## {command}\n\n{schema['description']} [`{schema['title']}`](schemas/{_stem(command)}.json)\n\n"
    yield '<div class="keys" markdown>\n\n| key | type | meaning |\n|---|---|---|\n'
    yield from dict.fromkeys(_rows(schema, "", command, shown))
    yield "\n</div>\n"


def _rows(schema: Schema, path: str, command: str, shown: dict[tuple[str, ...], str]) -> Iterator[str]:
    for key, place in schema.get("properties", {}).items():
        below = f"{path}.{key}" if path else key
        there = "" if key in schema["required"] else " (only where asked for)"
        yield _row(below, _type(place), place.get("description", "") + there)
        yield from _rows_below(place, below, command, shown)
    for inner, step in inside(schema):
        if step == ".*" and schema.get("properties"):
            yield _row(f"{path}.*".removeprefix("."), _type(inner), inner["description"])
        yield from _rows_below(inner, path + step, command, shown)


def _rows_below(place: Schema, path: str, command: str, shown: dict[tuple[str, ...], str]) -> Iterator[str]:
    """Yield the rows of what a place holds, or one that says where on the page they stand already."""
    names = tuple(key for key in place.get("properties", {}) if key not in _OF_ROWS)
    here = f"`{path}` of [{command}](#{command})"
    where = shown.setdefault(names, here) if len(names) > 2 else here
    if where == here:
        yield from _rows(place, path, command, shown)
        return
    yield _row(f"{path}.…", "", f"the keys of {where}")
    own = {key: one for key, one in place["properties"].items() if key in _OF_ROWS and key not in shown}
    yield from _rows({**place, "properties": own}, path, command, shown)


_OF_ROWS = ("point",)
"""What a row of a file has beside the keys of what it is of."""


def _row(path: str, kind: str, meaning: str) -> str:
    escaped = meaning.replace("|", "\\|")
    return f"| `{path}` | {kind} | {escaped} |\n".replace("  ", " ")


_KINDS = {
    "number": ("number", "numbers"),
    "integer": ("whole number", "whole numbers"),
    "string": ("text", "texts"),
    "boolean": ("true or false", "true or false"),
    "array": ("list", "lists"),
    "object": ("mapping", "mappings"),
}


def _type(place: Schema, *, several: bool = False) -> str:
    """Return in words what a value is: ``mapping of lists of numbers (s), or null``."""
    if "enum" in place:
        return ", ".join(f"`{json.dumps(one)}`" for one in place["enum"])
    kinds = types_of(place)
    words = [_KINDS[kind][several] + _held(kind, place) for kind in kinds if kind != "null"]
    unit = f" ({place['x-unit']})" if "x-unit" in place else ""
    return " or ".join(words or ["any"]) + unit + ", or null" * ("null" in kinds)


def _held(kind: str, place: Schema) -> str:
    """Return what a list or a mapping with keys of any name holds."""
    if kind not in ("array", "object") or place.get("properties"):
        return ""
    held = [_type(inner, several=True) for inner, step in inside(place) if step]
    return f" of {held[0]}" if held and held != ["any"] else ""


if __name__ == "__main__":
    if wrong := broken(HERE / "schemas"):
        sys.exit("\n".join(wrong))
    (HERE / "schemas").mkdir(exist_ok=True)
    for name, text in files().items():
        (HERE / "schemas" / name).write_text(text, encoding="utf-8")
    (HERE / "json.md").write_text(page(), encoding="utf-8")
