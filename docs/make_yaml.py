"""Write docs/yaml.md, every key of a configuration, from what the program itself says: ``python docs/make_yaml.py``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from dualpipe_sim.config.keys import Key, all_keys

HERE = Path(__file__).parent

INTRODUCTION = """\
# Every key of a configuration

<!-- Written by docs/make_yaml.py from the program itself; change that, then run it again. -->

A configuration is YAML. `dualpipe-sim init mine.yaml` writes one with comments, `--from NAME` begins with another of
the package's or with a preset; `dualpipe-sim schema KEY` explains a key on the command line, and `dualpipe-sim schema`
prints the JSON Schema with which editors complete and check.

- A quantity has its unit with it: `5 us`, `160 GB/s`, `80 GiB`; the unit below is that of a bare number.
- Any key can be set for one run: `--set training.precision=fp8`, in Python `**{"training.precision": "fp8"}`.
- `model`, `gpu` and `cluster` may be a preset's name, or a mapping that begins with `preset:` and replaces some of its
  values.

The examples are values of configurations and presets that come with the package, where there are any.
"""


def page() -> str:
    """Return the whole page."""
    keys = all_keys()
    sections = {key.path: key for key in keys if key.section}
    told = [key for key in keys if not key.path.endswith("]")]  # a kind of a section has a table, and no row
    parts = [INTRODUCTION, "\n## The file\n\n", *_table([key for key in told if "." not in key.path])]
    inside = [key for key in told if "." in key.path]
    for section, group in groupby(inside, key=lambda key: key.path.rpartition(".")[0]):
        about = sections[section]
        parts += [f"\n## `{section}`\n\n", f"{about.meaning[:1].upper()}{about.meaning[1:]}.\n\n".replace("..", ".")]
        parts += _table(list(group))
    return "".join(parts)


def _table(keys: list[Key]) -> Iterator[str]:
    yield "| key | meaning | unit | default | example |\n|---|---|---|---|---|\n"
    for key in keys:
        name = key.path.rpartition(".")[2]
        default = "must be given" if key.default is None and not key.section else _code(key.default)
        meaning = key.meaning.replace("|", "\\|")
        yield f"| `{name}` | {meaning} | {key.unit} | {default} | {_code(key.example)} |\n".replace("  ", " ")


def _code(text: str | None) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


if __name__ == "__main__":
    (HERE / "yaml.md").write_text(page(), encoding="utf-8")
