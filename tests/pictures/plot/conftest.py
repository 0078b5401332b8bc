"""Timelines to draw, and what can be read off the charts drawn of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from dualpipe_sim import build
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.phases import Costs, Phase
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.longest_path import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import B, F, I, Kind, TaskShape, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.pictures.plot import gantt
from dualpipe_sim.pictures.plot.artists import CellLabels, CellPolygons

UNIT = UniformCosts(1, 1, 1)


def played(name: str, ranks: int, micro_batches: int, costs: Costs = UNIT, **options: int) -> Timeline:
    """Return when a registered schedule's ops run, at unit costs where no others are given."""
    return play(lower(build(name, ranks, micro_batches, **options), costs))


class TwoLanes(NamedTuple):
    """One MoE layer a stage, in round numbers. Alone, an op takes its phases one after the other.

    In a pair::

        compute     attn F 2 .  mlp I 4   mlp W 1  mlp F 3     ends after 0-2, 3-7, 7-8, 8-11
        alltoall    combine I 3, dispatch F 2                  0-3, 3-5

    so that of its five seconds of all-to-all the third second is exposed, and it lasts 11.
    """

    transfer_s: float = 0.0
    transfer_bytes: float = 0.0

    def on(self, placement: Placement) -> TwoLanes:  # noqa: ARG002
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        if len(task) == 2:
            return (
                Phase(Lane.ALLTOALL, 3, I, "combine", 5, half=1),
                Phase(Lane.COMPUTE, 2, F, "attn", 2),
                Phase(Lane.ALLTOALL, 2, F, "dispatch", 2, after=(1,)),
                Phase(Lane.COMPUTE, 4, I, "mlp", 5, half=1, after=(0,)),
                Phase(Lane.COMPUTE, 1, W, "mlp", 5, half=1),
                Phase(Lane.COMPUTE, 3, F, "mlp", 2, after=(2,)),
            )
        ((kind, _),) = task
        combine, mlp = Phase(Lane.ALLTOALL, 3, I, "combine", 5), Phase(Lane.COMPUTE, 4, I, "mlp", 5, after=(0,))
        return {
            F: (
                Phase(Lane.COMPUTE, 2, F, "attn", 2),
                Phase(Lane.ALLTOALL, 2, F, "dispatch", 2, after=(0,)),
                Phase(Lane.COMPUTE, 3, F, "mlp", 2, after=(1,)),
            ),
            B: (combine, mlp, Phase(Lane.COMPUTE, 1, W, "mlp", 5)),
            I: (combine, mlp),
            W: (Phase(Lane.COMPUTE, 1, W, "mlp", 5),),
        }[Kind(kind)]


def draw(chart: Axes | Figure) -> RendererBase:
    """Draw a figure, or that of an Axes, as on a screen of 100 dots an inch."""
    figure: Any = chart.figure
    figure.set_dpi(100)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    renderer: RendererBase = canvas.get_renderer()
    return renderer


def text_of(labels: CellLabels, cell: int) -> str:
    return str(labels.labels.texts[labels.labels.text[cell]])


class Reading:
    """What can be read off an Axes.

    Attributes:
        cells: its groups of cells, by what they are labelled.

    """

    def __init__(self, ax: Axes) -> None:
        self.ax = ax
        self.cells = {str(one.get_label()): one for one in ax.collections if isinstance(one, CellPolygons)}

    def ops(self) -> dict[str, CellPolygons]:
        """The cells but idle time and the borders of pairs around two of them."""
        return {label: one for label, one in self.cells.items() if label != "pairs" and not label.startswith("idle")}

    def idle(self) -> dict[str, CellPolygons]:
        """Idle time by its cause."""
        return {label[len("idle: ") :]: one for label, one in self.cells.items() if label.startswith("idle: ")}

    def beside(self) -> list[list[str]]:
        """Every block of sums beside the chart, as its texts: the title, then seconds, shares and words in columns."""
        figure: Any = self.ax.figure
        boxes = [one for one in figure.artists if one.get_label() == f"beside {self.ax.get_title(loc='left')}"]
        blocks = [block for box in boxes for block in box.get_children()[0].get_children()]
        return [[text.get_text() for text in block.findobj(Text)] for block in blocks]

    def fill(self, label: str) -> str:
        colours: Any = self.cells[label].get_facecolor()
        return to_hex(colours[0])

    def border(self, label: str) -> str:
        colours: Any = self.cells[label].get_edgecolor()
        return to_hex(colours[0])

    def border_pt(self, label: str) -> float:
        return float(np.ravel(np.asarray(self.cells[label].get_linewidth(), dtype=float))[0])

    def seconds_by_row(self, label: str) -> dict[int, float]:
        """How long the cells of some groups last, on each row."""
        boxes = [one.boxes for name, one in self.cells.items() if name.startswith(label)]
        rows = {row for one in boxes for row in one.row.tolist()}
        return {row: float(sum(one.width_s()[one.row == row].sum() for one in boxes)) for row in sorted(rows)}

    def labels(self) -> list[CellLabels]:
        """What cells may say: the micro-batches' numbers, then the names of phases."""
        return [artist for artist in self.ax.get_children() if isinstance(artist, CellLabels)]

    def numbers(self) -> list[tuple[int, float, str]]:
        """(row, middle, number) of every micro-batch's number that is shown now."""
        found = self.labels()[0]
        at, _ = found.shown(draw(self.ax))
        middle_s = found.boxes.middle_s()
        return [(int(found.boxes.row[one]), float(middle_s[one]), text_of(found, one)) for one in at.tolist()]

    def texts(self) -> list[str]:
        """Everything that cells say where they are drawn now."""
        renderer = draw(self.ax)
        return [text_of(found, one) for found in self.labels() for one in found.shown(renderer)[0].tolist()]

    def legend(self) -> list[str]:
        found = self.ax.get_legend()
        return [] if found is None else [text.get_text() for text in found.get_texts()]

    def ticks(self, axis: str) -> list[str]:
        draw(self.ax)
        ticks = self.ax.get_xticklabels() if axis == "x" else self.ax.get_yticklabels()
        return [tick.get_text() for tick in ticks]

    def pixels(self) -> NDArray[np.uint8]:
        """What its figure looks like, shape ``(lines, columns, 3)``."""
        renderer: Any = draw(self.ax)
        return np.asarray(renderer.buffer_rgba())[..., :3]


Play: TypeAlias = Callable[..., Timeline]
Draw: TypeAlias = Callable[["Axes | Figure"], RendererBase]


@pytest.fixture(scope="session")
def timeline() -> Play:
    """Return a function that gives a registered schedule's timeline; see `played`."""
    return played


@pytest.fixture(scope="session")
def drawn() -> Draw:
    """Return a function that draws a chart."""
    return draw


@pytest.fixture(scope="session")
def read() -> type[Reading]:
    """Return what reads a chart."""
    return Reading


@pytest.fixture(scope="session")
def two_lanes() -> TwoLanes:
    return TwoLanes()


@pytest.fixture(scope="session")
def layered(two_lanes: TwoLanes) -> Timeline:
    """DualPipe on two ranks, with all-to-all."""
    return played("dualpipe", 2, 8, two_lanes)


@pytest.fixture(scope="session")
def figure5() -> Axes:
    """The chart of figure 5 of DeepSeek-V3's report; only looked at."""
    return gantt(played("dualpipe", 8, 20))
