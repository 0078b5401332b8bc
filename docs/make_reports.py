"""Write docs/reports.md out of the notebooks ``examples/report_*.ipynb`` as they are stored.

``make update-notebooks`` runs them first. On the site each notebook is a page of its own, too (``docs/hooks.py``).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
PAGE = HERE / "reports.md"
REPORTS = ("deepseek_v3", "zero_bubble", "chimera", "megatron_interleaving", "llama3", "vocabulary_parallelism")
"""The notebooks, in the page's order."""

INTRODUCTION = """\
# Published reports, replayed

<!-- Written by docs/make_reports.py; change that, or a notebook, then run it again. -->

What papers print of their pipelines, beside what the simulator makes of the same setting: a notebook a report, a few
minutes each, with a sentence on every difference. Published numbers stand in `examples/data/published.yaml` with their
tables; nothing here was fitted to them. Where figures are drawn and not printed, their claims are replayed, and the
notebook says so. `none`: alike in all digits that are printed.
"""


def cells_of(report: str) -> list[dict[str, Any]]:
    """Return the cells of a report's notebook."""
    found: list[dict[str, Any]] = json.loads(notebook_of(report).read_text(encoding="utf-8"))["cells"]
    return found


def notebook_of(report: str) -> Path:
    """Return where a report's notebook is."""
    return EXAMPLES / f"report_{report}.ipynb"


def name_of(report: str) -> str:
    """Return what a report is called where there is little room: its notebook's title up to ", replayed"."""
    return _source(cells_of(report)[0]).partition(", replayed")[0].removeprefix("# ")


def page() -> str:
    """Return the text of docs/reports.md."""
    return "\n".join([INTRODUCTION, *map(_section, REPORTS)])


def _section(report: str) -> str:
    cells = cells_of(report)
    title, opening = _source(cells[0]).split("\n\n")[:2]
    answer = _source(cells[-1]).partition("\n\n")[0]
    table = [output for cell in cells for output in _outputs(cell) if "text/markdown" in output][-1]["text/markdown"]
    where = notebook_of(report)
    link = f"[`examples/{where.name}`](../examples/{where.name})"
    return f"#{title}\n\n{opening}\n\nThe notebook: {link}\n\n{table.strip()}\n\n{answer}\n"


def site_pages() -> Iterator[tuple[str, str | bytes]]:
    """Yield each notebook as a page of the site, and its pictures, by their paths there."""
    for report in REPORTS:
        parts = []
        for place, cell in enumerate(cells_of(report)):
            source = _source(cell)
            parts.append(source.replace("](../docs/", "](../") if cell["cell_type"] == "markdown" else _code(source))
            for output in _outputs(cell):
                if "image/png" in output:
                    picture = f"{report}_{place}.png"
                    yield f"reports/{picture}", base64.b64decode(output["image/png"])
                    parts.append(f"![What the cell above draws]({picture})")
                else:
                    parts.append(_shown(output))
        yield f"reports/{report}.md", "\n\n".join(parts)


def _outputs(cell: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yield what a cell shows, each output by its MIME types."""
    for output in cell.get("outputs", []):
        data = output.get("data") or {"text/plain": output.get("text", "")}
        yield {kind: "".join(text) for kind, text in data.items()}


def _shown(output: dict[str, str]) -> str:
    if "text/markdown" in output:
        return output["text/markdown"]
    if "text/html" in output:
        return re.sub(r"<style.*?</style>", "", output["text/html"], flags=re.DOTALL).replace("\n", "")
    return f"```text\n{output['text/plain'].rstrip()}\n```"


def _code(source: str) -> str:
    return f"```python\n{source}\n```"


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
