"""What the page's buttons give: the experiment as YAML and Python, its charts, and its runs for other programs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from pprint import pformat
from typing import NamedTuple

from dualpipe_sim.answers import answer, strict_json
from dualpipe_sim.batch.points import Row
from dualpipe_sim.config.yaml_text import as_block
from dualpipe_sim.explore.answer import Explored, explored
from dualpipe_sim.explore.link import Start
from dualpipe_sim.version import __version__


class Download(NamedTuple):
    """A file that the page offers.

    Attributes:
        words: what its button says.
        media_type: what it is for a browser.
        content: makes it of an experiment.

    """

    words: str
    media_type: str
    content: Callable[[Explored], bytes]


def _yaml(found: Explored) -> bytes:
    return as_block(found.data).encode()


_PYTHON = '''\
"""An experiment of dualpipe-sim {version}."""

from dualpipe_sim import compare

config = {config}

runs = compare(config)
print(runs)
runs.gantt().savefig("chart.png")
'''


def _python(found: Explored) -> bytes:
    config = pformat(found.data, width=110, sort_dicts=False).replace("\n", "\n" + " " * len("config = "))
    return _PYTHON.format(version=__version__, config=config).encode()


def _chart(suffix: str) -> Callable[[Explored], bytes]:
    def draw(found: Explored) -> bytes:
        from dualpipe_sim.pictures.plot.files import rendered

        return rendered(found.compared().gantt(lanes=False), suffix)

    return draw


def _order(found: Explored) -> bytes:
    from dualpipe_sim.order.text import format_order

    return format_order(found.own().played.graph.schedule).encode()


def _trace(found: Explored) -> bytes:
    from dualpipe_sim.export import write_chrome

    own = found.own()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        write_chrome(own.played, file, own.memory)
        return file.read_bytes()


def _numbers(found: Explored) -> bytes:
    from dualpipe_sim.scoring.accuracy import comparison_errors, error_bar

    runs = found.compared()
    told = runs.to_dict() | comparison_errors(runs, error_bar(found.experiment))
    return strict_json(answer("compare", told)).encode()


DOWNLOADS: dict[str, Download] = {
    "experiment.yaml": Download("YAML", "application/yaml", _yaml),
    "experiment.py": Download("Python", "text/x-python", _python),
    "chart.png": Download("PNG", "image/png", _chart(".png")),
    "chart.svg": Download("SVG", "image/svg+xml", _chart(".svg")),
    "numbers.json": Download("JSON", "application/json", _numbers),
    "order.csv": Download("torch CSV", "text/csv", _order),
    "trace.json": Download("Perfetto", "application/json", _trace),
}
"""The page's files by name; the last two are of the schedule that ``run`` plays."""


def _row(download: Download) -> Callable[[Start, str, int], Row]:
    return lambda start, query, _place: {"content": download.content(explored(start, query))}


FILES = {name: _row(download) for name, download in DOWNLOADS.items()}
"""The same as parts of an answer."""
