"""A report as one HTML file that needs no network: data, styles and viewer inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape  # noqa: TID251 - a whole page, whose texts are safe
from pathlib import Path
from string import Template
from typing import get_args

from dualpipe_sim.analysis.critical_path import PARTS
from dualpipe_sim.base.files import read_text, written_whole
from dualpipe_sim.base.show import LEFT, all_on_one_line, in_html, line
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.palette import (
    CAUSE_STYLES,
    MEMORY_FILLS,
    SERIES,
    THEMES,
    CauseStyle,
    Theme,
    ThemeName,
    path_colour,
    tint,
)
from dualpipe_sim.pictures.report.data import Json, Run, run_data

_HERE = Path(__file__).parent
_VIEWER = (
    "draw.js",
    "decode.js",
    "derive.js",
    "charts.js",
    "lanes.js",
    "strips.js",
    "over.js",
    "legends.js",
    "tip.js",
    "moves.js",
    "steps.js",
    "svg.js",
    "export.js",
    "panel.js",
    "controls.js",
    "state.js",
    "viewer.js",
)
_CONFIG = '<section><h2>Configuration</h2><pre tabindex="0">{}</pre></section>'
_SUFFIXES = (".html", ".htm")
_NOTEBOOK_HEIGHT_PX = 900
_PAGE_COLOURS: dict[ThemeName, dict[str, str]] = {
    "light": {"soft-ink": "#5c6066", "panel": "#f4f5f7", "focus": "#1a66c2", "veil": "#ffffffb8"},
    "dark": {"soft-ink": "#a9afb8", "panel": "#20242b", "focus": "#7fb5ff", "veil": "#15181dc0"},
}
"""What a page has beside charts: less important text, panels, the focus, what lies over the rest of the overview."""


class Page:
    """A report: ``html`` is the whole page; a notebook shows it where a cell ends in it.

    >>> from dualpipe_sim import simulate
    >>> page = simulate("figure5").report("DualPipe")
    >>> page.save("report.html")
    >>> "<title>DualPipe</title>" in page.html
    True
    """

    def __init__(self, html: str) -> None:
        self.html = html

    def __repr__(self) -> str:
        return line(self, f"{len(self.html):,} characters")

    def save(self, path: str | Path) -> None:
        """Write the page to a file, whole or not at all.

        Raises:
            UserError: another suffix than ``.html``, or a path that cannot be written to.

        """
        check_suffix(path)
        with written_whole(path) as part:
            part.write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.html)}" width="100%" height="{_NOTEBOOK_HEIGHT_PX}" '
            'style="border:0" sandbox="allow-scripts allow-downloads"></iframe>'
        )


def check_suffix(path: str | Path) -> None:
    """Refuse a file's name that does not say that it is a page.

    >>> check_suffix("report.pdf")
    Traceback (most recent call last):
        ...
    dualpipe_sim.errors.UserError: report.pdf: a report is a page; end its name in .html

    Raises:
        UserError: another suffix than ``.html``.

    """
    if Path(path).suffix.lower() not in _SUFFIXES:
        raise UserError(f"{path}: a report is a page; end its name in .html")


def page(runs: Sequence[Run], *, title: str, table: str, config: str = "", first: str = "") -> Page:
    """Return a report of some runs.

    >>> from dualpipe_sim import simulate
    >>> from dualpipe_sim.pictures.report import Run
    >>> page([Run("dualpipe", simulate("figure5").played)], title="One run", table="").save("page.html")

    Args:
        runs: what to show, in the order of the switch.
        title: what stands on top.
        table: the runs' numbers as an HTML table.
        config: the configuration's text; empty for none.
        first: label of the run to show first; the first one where there is no such.

    Raises:
        UserError: no runs.

    """
    data = page_data(runs, first)
    script, style = f"{viewer_script()}\n{_text('report.js')}", page_style()
    html = Template(_text("page.html")).substitute(
        policy=policy(style, script),
        title=in_html(title),
        style=style,
        table=table,
        config=_CONFIG.format(in_html(config)) if config else "",
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        script=script,
    )
    return Page(html)


def policy(style: str, script: str = "") -> str:
    """Return what a page may do, as its Content-Security-Policy: show itself by these styles and run this script.

    Nothing else that is in it runs, wherever it came from, and nothing is loaded.

    >>> policy("p { margin: 0 }").split(";")[:2]
    ["default-src 'none'", " base-uri 'none'"]
    """
    scripts = f"; script-src {_digest(script)}" if script else ""
    styles = f"{_digest(style)} 'unsafe-hashes' {_digest(LEFT)}"  # (the second of what tables' cells have)
    return f"default-src 'none'; base-uri 'none'; form-action 'none'{scripts}; style-src {styles}"


def _digest(text: str) -> str:
    """Return a script's or a style's source expression: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page_data(runs: Sequence[Run], first: str = "", effort: int = 9) -> Json:
    """Return what a viewer shows, ready for JSON.

    >>> from dualpipe_sim import simulate
    >>> from dualpipe_sim.pictures.report import Run
    >>> data = page_data([Run("dualpipe", simulate("figure5").played)])
    >>> data["runs"][0]["label"], data["runs"][0]["makespan_s"]
    ('dualpipe', 66.0)

    Args:
        runs: what to show, in the order of the switch.
        first: label of the run to show first; the first one where there is no such.
        effort: of making it small, from 1 to 9; 3 takes a tenth of the time of 9, and half as many bytes again.

    Raises:
        UserError: no runs.

    """
    if not runs:
        raise UserError("there is no run to report; give at least one that was not refused")
    labels = [run.label for run in runs]
    shown = [run_data(run, effort) for run in runs]
    data = {
        "runs": shown,
        "first": labels.index(first) if first in labels else 0,
        "causes": _causes(shown),
        "parts": dict(PARTS),
        "memory_fills": MEMORY_FILLS,
    }
    as_words: Json = all_on_one_line(data)
    return as_words


def widget_module() -> str:
    """Return the viewer as a module that anywidget renders; see ``pictures/widget.py``.

    >>> widget_module().endswith("export default { render };")
    True
    """
    return f"{viewer_script()}\n{_text('widget.js')}\nexport default {{ render }};"


def viewer_script() -> str:
    """Return the viewer, which defines one name: ``mountViewer(root, data, options)``, as ``types.d.ts`` has it.

    Whatever page shows :func:`page_data` runs this script and calls that; it asks for nothing from outside.

    >>> viewer_script().startswith("var mountViewer = ")
    True
    """
    # (var, because several outputs of a notebook may bring the script to one page)
    inside = "\n".join(map(_text, _VIEWER))
    return f'var mountViewer = (() => {{\n"use strict";\n{inside}\nreturn mountViewer;\n}})();'


def _text(name: str) -> str:
    return read_text(_HERE / name)


def _causes(runs: Sequence[Json]) -> dict[str, dict[str, str]]:
    """Return words and fill of every cause that a run has."""
    causes = dict.fromkeys(cause for run in runs for cause in run["causes"])
    styles = (
        CAUSE_STYLES.get(cause, CauseStyle(cause.replace("_", " "), SERIES[place % len(SERIES)]))
        for place, cause in enumerate(causes)
    )
    return {cause: one._asdict() for cause, one in zip(causes, styles, strict=True)}


def page_style() -> str:
    """Return the styles of a page with a viewer: the colours of both themes, text and tables, and the viewer's own.

    >>> "prefers-color-scheme: dark" in page_style()
    True
    """
    return f"{viewer_style()}\n{_text('style.css')}"


def viewer_style() -> str:
    """Return the styles of a viewer alone, for a page that has styles of its own.

    >>> ".viewer .chart" in viewer_style()
    True
    """
    return f"{_colours()}\n{_text('viewer.css')}"


def _colours() -> str:
    """Return the themes as custom properties, the dark one for whoever prefers it."""
    light, dark = (_properties(THEMES[name], _PAGE_COLOURS[name]) for name in get_args(ThemeName))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def _properties(theme: Theme, more: Mapping[str, str]) -> str:
    colours = {name: value for name, value in theme._asdict().items() if isinstance(value, str)}
    idle = {f"idle-{cause}": tint(style.fill, theme) for cause, style in CAUSE_STYLES.items()}
    path = {f"path-{part}": path_colour(part, theme) for part in PARTS}
    of_theme = {name.replace("_", "-"): value for name, value in {**colours, **more}.items()}
    return " ".join(f"--{name}: {value};" for name, value in {**of_theme, **idle, **path}.items())
