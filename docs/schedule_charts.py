"""The example that pages about schedules speak of, and its charts, light and dark."""

from __future__ import annotations

from io import BytesIO
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from schedule_sources import said_of

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import B, F, I
from dualpipe_sim.pictures.palette import Theme, ThemeName
from dualpipe_sim.schedules.registry import ScheduleSpec, schedules
from dualpipe_sim.simulation import play

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = Path(__file__).parent / "images" / "schedules"
RANKS, MICRO_BATCHES = 4, 8
COSTS = UniformCosts(1.0, 1.0, 1.0, vocab_s=0.5, vocab_t=0.5, offload=1.0, unitless=True)

_WIDTH_IN = 9.4
_ROW_IN, _BESIDE_ROWS_IN = 0.46, 1.25
_FEWER_MICRO_BATCHES = 4
_MOST_CELLS = 84  # of the narrow ones beside each other, so that their numbers can be read
_COLOURS = 192  # of the palette that an image is written with: what is drawn has fewer, but for the edges of letters


def micro_batches_of(spec: ScheduleSpec) -> int:
    """Return how many micro-batches a schedule's page speaks of: more than usual where it needs them."""
    return int(said_of(spec.name).get("micro_batches", MICRO_BATCHES))


def example(spec: ScheduleSpec, micro_batches: int | None = None) -> Timeline:
    """Play a schedule with its defaults at the size that pages speak of."""
    return play(lower(spec.build(RANKS, micro_batches or micro_batches_of(spec), {}), COSTS))


def drawn(spec: ScheduleSpec) -> Timeline:
    """Return what its chart shows: the example, or one of fewer micro-batches where its cells would be too narrow."""
    timeline = example(spec)
    narrow_s = np.percentile(timeline.task_end_s - timeline.task_start_s, 25)
    crowded = timeline.makespan_s > _MOST_CELLS * narrow_s
    return example(spec, _FEWER_MICRO_BATCHES) if crowded else timeline


def charts() -> dict[Path, tuple[ScheduleSpec, ThemeName]]:
    """Return the files of all charts, and what each shows."""
    return {
        IMAGES / f"{spec.name}{'' if theme == 'light' else f'_{theme}'}.png": (spec, theme)
        for spec, theme in product(schedules().values(), get_args(ThemeName))
    }


def draw(spec: ScheduleSpec, theme_name: ThemeName) -> bytes:
    """Return a schedule's chart as the content of a PNG file, in as few colours as it has."""
    from PIL import Image

    from dualpipe_sim.pictures.plot import gantt
    from dualpipe_sim.pictures.plot.files import new_axes, rendered
    from dualpipe_sim.pictures.plot.style import style, theme_named

    theme, timeline = theme_named(theme_name), drawn(spec)
    with style(theme):
        ax = new_axes((_WIDTH_IN, _BESIDE_ROWS_IN + _ROW_IN * RANKS))
        gantt(timeline, ax, theme=theme_name)
        _mark_phases(ax, timeline, theme)
        content = BytesIO(rendered(ax.figure, ".png"))
    image, small = Image.open(content).convert("RGB"), BytesIO()
    image.quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def _mark_phases(ax: Axes, timeline: Timeline, theme: Theme) -> None:
    """Mark where each rank's warm-up ends, with its first backward, and its drain begins, with its last forward."""
    first_backward_s, last_forward_s = phases_s(timeline)
    both = first_backward_s < last_forward_s  # where forwards and backwards take turns
    ends = [first_backward_s, last_forward_s] if both.all() else [first_backward_s]
    names = ("warm-up", "steady state", "drain") if both.all() else ("forwards", "backwards")
    if both.any() and not both.all():
        names = ("until the first backward", "from then on")
    edges = np.arange(timeline.ranks + 1) - 0.5
    for end_s in ends:
        # down the side of each rank's row, and along the edge to the next one's
        x, y = np.repeat(end_s, 2), np.repeat(edges, 2)[1:-1]
        ax.plot(x, y, color=theme.ground, linewidth=3.2, solid_capstyle="butt", zorder=5)
        ax.plot(x, y, color=theme.exposed, linewidth=1.6, solid_capstyle="butt", zorder=6)
    bounds = [0.0, *(float(end_s[0]) for end_s in ends), timeline.makespan_s]
    for name, begin_s, end_s in zip(names, bounds, bounds[1:], strict=False):
        ax.annotate(
            name,
            ((begin_s + end_s) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            color=theme.exposed,
            fontsize="small",
        )
    ax.set_title(ax.get_title(loc="left"), loc="left", pad=18, color=theme.ink)


def phases_s(timeline: Timeline) -> tuple[FloatArray, FloatArray]:
    """Return when each rank's first backward begins and when its last forward ends, shape ``(ranks,)`` each."""
    schedule = timeline.graph.schedule
    task = schedule.task_of_op
    backward, forward = schedule.of_kinds(B, I), schedule.of_kinds(F)
    first_s, last_s = np.full(timeline.ranks, np.inf), np.zeros(timeline.ranks)
    np.minimum.at(first_s, schedule.rank[backward], timeline.task_start_s[task[backward]])
    np.maximum.at(last_s, schedule.rank[forward], timeline.task_end_s[task[forward]])
    return first_s, last_s


def write() -> None:
    """Write all charts, and remove those of schedules that are no more."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    files = charts()
    for path, (spec, theme) in files.items():
        path.write_bytes(draw(spec, theme))
    for path in set(IMAGES.iterdir()) - set(files):
        path.unlink()


if __name__ == "__main__":
    write()
