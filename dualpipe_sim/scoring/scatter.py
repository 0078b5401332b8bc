"""Predicted against measured steps as one SVG, for a page that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor, log10
from typing import NamedTuple

from dualpipe_sim.base.show import in_html
from dualpipe_sim.base.units import format_seconds
from dualpipe_sim.pictures.palette import SERIES, Colour
from dualpipe_sim.scoring.board import signed
from dualpipe_sim.scoring.predict import Prediction
from dualpipe_sim.scoring.rows import Class

_SIDE = 520.0
_LEFT, _BELOW, _BESIDE = 74.0, 52.0, 28.0
_BAND = 0.1
"""Errors that the band along the diagonal holds."""


class Mark(NamedTuple):
    """How the runs of a class are drawn.

    Attributes:
        words: what the legend calls them.
        colour: of the mark.
        path: its outline around 0, 0, in SVG's words.

    """

    words: str
    colour: Colour
    path: str


MARKS: dict[Class, Mark] = {
    "megatron-dense": Mark("dense, Megatron's kind", SERIES[0], "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z"),
    "dense": Mark("dense, other software", SERIES[1], "M-4 -4h8v8h-8z"),
    "moe": Mark("with experts", SERIES[2], "M0 -5.5L5.5 4.5H-5.5z"),
}
"""Shape and colour of each class, neither of which is needed to tell them apart."""


def scatter(runs: Sequence[Prediction]) -> str:
    """Return a chart of runs that are measured and predicted, both axes logarithmic; empty where there are none.

    >>> scatter([])
    ''
    >>> one = Prediction("a<b", "moe", step_time_s=1.1, measured_step_time_s=1.0)
    >>> "<title>a&lt;b: measured 1 s, predicted 1.1 s, +10.0%</title>" in scatter([one])
    True
    """
    shown = [(run, run.measured_step_time_s, run.step_time_s) for run in runs if run.measured_step_time_s]
    both = [(run, measured_s, predicted_s) for run, measured_s, predicted_s in shown if predicted_s]
    if not both:
        return ""
    times_s = [time_s for _, *pair in both for time_s in pair]
    scale = _Scale(floor(log10(min(times_s))), max(ceil(log10(max(times_s))), floor(log10(min(times_s))) + 1))
    width, height = _LEFT + _SIDE + _BESIDE, _BESIDE + _SIDE + _BELOW
    marks = "".join(_mark(run, scale.x(measured_s), scale.y(predicted_s)) for run, measured_s, predicted_s in both)
    return (
        f'<svg class="scatter" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="predicted against measured seconds of a step">{"".join(_frame(scale))}{marks}</svg>'
    )


def swatch(mark: Mark) -> str:
    """Return a mark alone, for a legend."""
    return f'<svg class="mark" viewBox="-7 -7 14 14"><path fill="{mark.colour}" d="{mark.path}"/></svg>'


class _Scale(NamedTuple):
    """Both axes, from one power of ten to another."""

    first: int
    last: int

    def x(self, time_s: float) -> float:
        return _LEFT + _SIDE * (log10(time_s) - self.first) / (self.last - self.first)

    def y(self, time_s: float) -> float:
        return _LEFT + _SIDE + _BESIDE - self.x(time_s)


def _frame(scale: _Scale) -> Iterator[str]:
    """Yield the band, the diagonal, the grid and the words of the axes."""
    first_s, last_s = 10.0**scale.first, 10.0**scale.last
    low, high = first_s / (1 + _BAND), last_s * (1 + _BAND)
    corners = ((low, 1 + _BAND), (high, 1 + _BAND), (high, 1 - _BAND), (low, 1 - _BAND))
    band = " ".join(f"{scale.x(time_s):.1f},{scale.y(time_s * factor):.1f}" for time_s, factor in corners)
    left, right, top, bottom = scale.x(first_s), scale.x(last_s), scale.y(last_s), scale.y(first_s)
    inside = f'<rect x="{left:g}" y="{top:g}" width="{_SIDE:g}" height="{_SIDE:g}"/>'
    yield f'<clipPath id="inside">{inside}</clipPath>'
    yield f'<polygon class="band" clip-path="url(#inside)" points="{band}"/>'
    for power in range(scale.first, scale.last + 1):
        x, y, words = scale.x(10.0**power), scale.y(10.0**power), in_html(format_seconds(10.0**power))
        yield f'<path class="grid" d="M{x:.1f} {top:g}V{bottom:g}M{left:g} {y:.1f}H{right:g}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18:g}" text-anchor="middle">{words}</text>'
        yield f'<text x="{left - 8:g}" y="{y + 4:.1f}" text-anchor="end">{words}</text>'
    yield f'<path class="diagonal" d="M{left:g} {bottom:g}L{right:g} {top:g}"/>'
    middle = (left + right) / 2
    yield f'<text x="{middle:g}" y="{bottom + 42:g}" text-anchor="middle">measured step</text>'
    turned = f"rotate(-90 14 {(top + bottom) / 2:g})"
    yield (
        f'<text x="14" y="{(top + bottom) / 2:g}" transform="{turned}" text-anchor="middle">'
        f"predicted step, band ±{_BAND:.0%}</text>"
    )


def _mark(run: Prediction, x: float, y: float) -> str:
    mark, times = MARKS[run.kind], map(format_seconds, (run.measured_step_time_s, run.step_time_s))
    words = "{}: measured {}, predicted {}, {}".format(run.id, *times, signed(run.error))
    aside = "" if run.counts else ' class="aside"'
    title = in_html(words if run.counts else f"{words}, does not count")
    return (
        f'<path{aside} fill="{mark.colour}" stroke="{mark.colour}" transform="translate({x:.1f} {y:.1f})" '
        f'd="{mark.path}"><title>{title}</title></path>'
    )
