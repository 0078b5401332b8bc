"""The lanes of a rank's row, drawn: compute, and all-to-all hidden or exposed, with the names of phases."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from dualpipe_sim.pictures.palette import Theme, ink_on
from dualpipe_sim.pictures.plot.artists import CellLabels, Labels
from dualpipe_sim.pictures.plot.cells import Band
from dualpipe_sim.pictures.plot.content import Look
from dualpipe_sim.pictures.plot.groups import Group, InkTable, draw_groups, groups_of
from dualpipe_sim.pictures.plot.lanes import LaneCells


def draw_lanes(ax: Axes, lanes: LaneCells, shades: int, look: Look) -> None:
    """Draw the compute lane and the all-to-all lane of each rank, below its ops."""
    theme, bands = look.theme, look.bands
    narrow_s = lanes.compute.boxes.narrow_s()
    phases = [group._replace(label=f"compute {group.label}") for group in groups_of(lanes.compute, shades, theme)]
    draw_groups(ax, phases, bands["compute"], narrow_s)
    hidden, exposed = lanes.in_colour & ~lanes.exposed, lanes.in_colour & lanes.exposed
    parts = [
        Group("hidden all-to-all", lanes.alltoall.where(hidden), theme.hidden, theme.ground),
        Group("exposed all-to-all", lanes.alltoall.where(exposed), theme.exposed, theme.exposed, 0.0),
        Group("other all-to-all", lanes.alltoall.where(~lanes.in_colour), theme.faded, theme.ground),
    ]
    draw_groups(ax, parts, bands["all-to-all"], narrow_s)
    ax.add_artist(_phase_names(lanes, shades, bands["compute"], theme))
    ax.add_artist(_alltoall_names(lanes, bands["all-to-all"], theme))


def _phase_names(lanes: LaneCells, shades: int, band: Band, theme: Theme) -> CellLabels:
    """Return the names of compute phases that keep their colour."""
    shown, inks = lanes.compute.in_colour, InkTable(shades, theme)
    cells = lanes.compute.where(shown)
    labels = Labels(lanes.names, lanes.compute_name[shown], inks.inks, inks.of(cells))
    return CellLabels(cells.boxes, band, labels, alike=False)


def _alltoall_names(lanes: LaneCells, band: Band, theme: Theme) -> CellLabels:
    """Return the names of all-to-alls, one for each phase, on its longest piece; inks are (hidden, exposed)."""
    named = lanes.in_colour & (lanes.alltoall_name >= 0)
    inks = ink_on(theme.hidden), ink_on(theme.exposed)
    labels = Labels(lanes.names, lanes.alltoall_name[named], inks, lanes.exposed[named].astype(np.int64))
    return CellLabels(lanes.alltoall.where(named), band, labels, alike=False)
