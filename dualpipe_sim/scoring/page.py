"""A board as one HTML file that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import Template

from dualpipe_sim.base.files import read_text
from dualpipe_sim.base.show import Table, in_html
from dualpipe_sim.base.units import format_percent, format_seconds, number_of
from dualpipe_sim.pictures.palette import SERIES, Colour
from dualpipe_sim.pictures.report import Page, page_style, policy
from dualpipe_sim.scoring.board import Board, signed
from dualpipe_sim.scoring.predict import Prediction
from dualpipe_sim.scoring.scatter import MARKS, scatter, swatch

_HERE = Path(__file__).parent
_WIDTH, _HEIGHT = 1000, 60  # of a bar, in its own units


def page(board: Board, title: str, *, worst: int = 10) -> Page:
    """Return a board as a page: scatter, errors by group, the worst runs with their parts, all runs.

    >>> from dualpipe_sim.scoring import Prediction
    >>> one = Prediction("a", "dense", step_time_s=1.1, measured_step_time_s=1.0)
    >>> page(Board((one,)), "mine").save("board.html")

    Args:
        board: the runs.
        title: what stands on top.
        worst: how many of the worst runs to show with their parts.

    """
    furthest, lost = board.worst(worst), [one.unsupported for one in board.predictions if one.unsupported is not None]
    style = f"{page_style()}\n{read_text(_HERE / 'page.css')}"
    html = Template(read_text(_HERE / "page.html")).substitute(
        policy=policy(style),
        title=in_html(title),
        style=style,
        summary=f"{board.stated} of {number_of(len(board.predictions), 'run')} can be stated. An error is predicted "
        "over measured, less one; median and p90 are of errors without signs, bias is the median with signs.",
        remarks="".join(f"<p>{in_html(one[:1].upper() + one[1:])}.</p>" for one in board.remarks()),
        legend=_legend(board.predictions),
        scatter=scatter(board.predictions) or "<p>No run is both measured and predicted.</p>",
        groups="".join(f"<div>{_whole(table)}</div>" for table in board.group_tables()),
        worst=_worst(furthest) if furthest else "",
        unsupported=_unsupported(lost) if lost else "",
        runs=_whole(_runs(board.predictions)),
    )
    return Page(html)


def _whole(table: Table) -> str:
    return replace(table, most=len(table.rows)).html()


def _legend(runs: Sequence[Prediction]) -> str:
    shown = [run for run in runs if run.error is not None]
    kinds = {kind: sum(run.kind == kind for run in shown) for kind in MARKS}
    words = (
        f'<span class="swatch">{swatch(MARKS[kind])}{in_html(MARKS[kind].words)}, {number}</span>'
        for kind, number in kinds.items()
        if number
    )
    aside = sum(not run.counts for run in shown)
    return "".join(words) + (f'<span class="faint">hollow: does not count, {aside}</span>' if aside else "")


def _worst(runs: Sequence[Prediction]) -> str:
    """Return the worst runs, each with a bar of its predicted parts beside what was measured."""
    parts = list(dict.fromkeys(part for run in runs for part in run.parts_s or {}))
    colours = {part: SERIES[place % len(SERIES)] for place, part in enumerate(parts)}
    legend = "".join(
        f'<span class="swatch"><svg class="mark" viewBox="0 0 1 1"><rect width="1" height="1" fill="{colour}"/></svg>'
        f"{in_html(part)}</span>"
        for part, colour in colours.items()
    )
    rows = "".join(
        f"<tr><td>{in_html(run.id)}</td><td>{format_seconds(run.measured_step_time_s)}</td>"
        f'<td>{format_seconds(run.step_time_s)}</td><td>{signed(run.error)}</td><td class="words">'
        f"{_bar(run, colours)}</td></tr>"
        for run in runs
    )
    numbers = "".join(f"<th>{heading}</th>" for heading in ("run", "measured", "predicted", "error"))
    head = f'{numbers}<th class="words">predicted parts, and where the measured step ends</th>'
    return (
        f'<section><h2>Furthest off</h2><div class="legend">{legend}</div><div class="wide">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _bar(run: Prediction, colours: dict[str, Colour]) -> str:
    measured_s, predicted_s = run.measured_step_time_s or 0.0, run.step_time_s or 0.0
    scale = (_WIDTH - 10) / max(measured_s, predicted_s)
    bars, begin_s = [], 0.0
    for part, part_s in (run.parts_s or {}).items():
        title = in_html(f"{part}: {format_seconds(part_s)}, {format_percent(part_s / predicted_s)}")
        bars.append(
            f'<rect x="{begin_s * scale:.1f}" width="{max(part_s, 0.0) * scale:.1f}" height="{_HEIGHT}" '
            f'fill="{colours[part]}"><title>{title}</title></rect>'
        )
        begin_s += max(part_s, 0.0)
    bars.append(f'<rect class="measured" x="{measured_s * scale:.1f}" width="8" height="{_HEIGHT}"/>')
    return f'<svg class="parts" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none">{"".join(bars)}</svg>'


def _unsupported(why: Sequence[str]) -> str:
    lines = "".join(f"<li>{in_html(one)}</li>" for one in why)
    return f"<section><h2>Not stated</h2><ul>{lines}</ul></section>"


def _runs(runs: Sequence[Prediction]) -> Table:
    head = ("run", "class", "source", "GPU", "precision", "measured", "predicted", "error", "memory's error", "counts")
    rows = [
        (
            one.id,
            one.kind,
            one.source,
            one.gpu,
            one.precision,
            format_seconds(one.measured_step_time_s),
            format_seconds(one.step_time_s),
            signed(one.error),
            signed(one.memory_error),
            "yes" if one.counts else "no",
        )
        for one in runs
    ]
    return Table(head, rows, ("run", "class", "source", "GPU", "precision"))
