"""What ranks send each other, as lines between their rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.path import Path

from dualpipe_sim.order.ops import B, F, Kind
from dualpipe_sim.pictures.plot.content import Content, Look
from dualpipe_sim.pictures.plot.groups import MOST_VECTOR_CELLS
from dualpipe_sim.pictures.plot.style import TRANSFER_PT, TRANSFER_STYLES, line_of_kind


def transfer_lines(content: Content, look: Look) -> Iterator[PathCollection]:
    """Yield the activations' lines, then the gradients': from the edge of the sender's cell to the receiver's.

    ``lines`` is of shape ``(transfers, 2, 2)``: two ends, each (time, row). A line begins and ends at the edge of the
    cells that faces the other rank, ``reach`` below the middle of a row (+) or above it (-).
    """
    graph, window = content.timeline.graph, content.window
    schedule, transfers = graph.schedule, graph.transfers
    sender = window.row_of_rank[schedule.rank[transfers.producer]]
    receiver = window.row_of_rank[schedule.rank[transfers.consumer]]
    begin_s, end_s = content.timeline.start_s[graph.first_transfer :], content.timeline.end_s[graph.first_transfer :]
    asked = window.in_colour[schedule.micro_batch[transfers.producer]]
    shown = (sender >= 0) & (receiver >= 0) & asked & (end_s >= window.begin_s) & (begin_s <= window.end_s)
    if window.cut is not None:
        shown &= (begin_s <= window.cut.begin_s) | (end_s >= window.cut.end_s)
    reach = np.sign(receiver - sender) * look.reach
    x = np.stack([begin_s, end_s], axis=1)
    lines = np.stack([x, np.stack([sender + reach, receiver - reach], axis=1)], axis=2)
    forward = schedule.kind[transfers.producer] == F
    for kind, chosen in ((F, forward & shown), (B, ~forward & shown)):
        ends = lines[chosen].reshape(-1, 2)
        yield PathCollection(  # of one path: in a vector format each path says its colour, width and pattern
            [Path(ends, np.tile([Path.MOVETO, Path.LINETO], len(ends) // 2))],
            facecolors="none",
            edgecolors=line_of_kind(kind, look.theme),
            linestyles=TRANSFER_STYLES[kind],
            linewidths=TRANSFER_PT,
            zorder=0.9,
            rasterized=len(content.cells.kind) > MOST_VECTOR_CELLS,
            label=f"transfers after {Kind(kind)}",
        )
