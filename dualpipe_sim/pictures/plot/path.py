"""The critical path over a chart: a line from start to end, in the colours of what its stretches are spent on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from dualpipe_sim.analysis.critical_path import PARTS, CriticalPath
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.pictures.palette import Colour, Theme, path_colour
from dualpipe_sim.pictures.plot.content import Content, Look

_PATH_PT, _HALO_PT = 2.0, 4.2
_BELOW_MIDDLE = 0.3  # of the ops' band: below the numbers of micro-batches


def draw_path(ax: Axes, path: CriticalPath, content: Content, look: Look) -> None:
    """Draw a critical path along its ranks' rows, slanting from row to row where a tensor is sent.

    What is on ranks that are not shown is left out. Where the path turns from one rank to another in no time, it goes
    straight up or down.
    """
    ends = path_ends(path, content, look)
    theme = look.theme
    whole = ax.plot(*ends.reshape(-1, 2).T, color=theme.ground, linewidth=_HALO_PT, zorder=5, label="critical path")
    whole[0].set_solid_joinstyle("round")
    turns = np.stack([ends[:-1, 1], ends[1:, 0]], axis=1)
    _draw(ax, turns[turns[:, 0, 1] != turns[:, 1, 1]], theme.ink, "turns")
    for part in np.unique(path.part).tolist():
        name = list(PARTS)[part]
        _draw(ax, ends[path.part == part], path_colour(name, theme), name)


def path_ends(path: CriticalPath, content: Content, look: Look) -> FloatArray:
    """Return where the stretches of a path begin and end, shape ``(stretches, 2, 2)``: two ends, each (time, row).

    Rows are NaN of ranks that are not shown.
    """
    band = content.bands(look)["ops"]
    row = np.stack([content.window.row_of_rank[rank] for rank in (path.rank, path.to_rank)], axis=1).astype(np.float64)
    row[row < 0] = np.nan
    return np.stack(
        [np.stack([path.begin_s, path.end_s], axis=1), row + band.middle + _BELOW_MIDDLE * band.height], axis=2
    )


def path_samples(content: Content, theme: Theme) -> Iterator[Artist]:
    """Yield a sample of each part of a chart's critical path, for its legend."""
    for name in content.path.seconds_by_part() if content.path is not None else ():
        yield Line2D([], [], color=path_colour(name, theme), linewidth=_PATH_PT, label=f"critical path: {PARTS[name]}")


def _draw(ax: Axes, lines: FloatArray, colour: Colour, label: str) -> None:
    """Draw lines of one colour, shape ``(lines, 2, 2)``, as one path."""
    corners = lines[~np.isnan(lines).any(axis=(1, 2))].reshape(-1, 2)
    if len(corners):
        outline = Path(corners, np.tile([Path.MOVETO, Path.LINETO], len(corners) // 2))
        look = PathPatch(outline, fill=False, edgecolor=colour, linewidth=_PATH_PT, zorder=5.1, label=f"path: {label}")
        look.set_capstyle("butt")
        ax.add_patch(look)
