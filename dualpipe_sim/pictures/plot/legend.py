"""The legend below a chart: what colours, borders and shades mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerBase
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.transforms import ScaledTranslation, Transform

from dualpipe_sim.order.ops import B, F, Vocabulary
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.pictures.palette import (
    BESIDE_STYLES,
    CAUSE_STYLES,
    PAIR_BORDER,
    Colour,
    Theme,
    between,
    fill,
    tint,
    words_of,
)
from dualpipe_sim.pictures.plot.style import BORDER_PT, PAIR_BORDER_PT, TRANSFER_PT, TRANSFER_STYLES, line_of_kind

_POINTS_PER_INCH = 72.0
_HANDLE_EM, _PAD_EM, _GAP_EM = 2.2, 0.8, 1.6  # of a legend's entry, in units of the font's size
_BELOW_AXIS_EM = 4.2  # ticks, their labels and the name of the axis come first


class Swatch(Rectangle):
    """A legend's sample: fills side by side in one border."""

    def __init__(self, label: str, fills: Sequence[Colour], border: Colour, border_pt: float = BORDER_PT) -> None:
        super().__init__((0, 0), 1, 1, label=label, facecolor=fills[0], edgecolor=border, linewidth=border_pt)
        self.fills = fills

    def parts(self, x: float, y: float, width: float, height: float) -> list[Rectangle]:
        """Return the rectangles that draw it in a box."""
        part = width / len(self.fills)
        inside = [
            Rectangle((x + place * part, y), part, height, facecolor=face, edgecolor="none")
            for place, face in enumerate(self.fills)
        ]
        border, border_pt = self.get_edgecolor(), self.get_linewidth()
        return [*inside, Rectangle((x, y), width, height, facecolor="none", edgecolor=border, linewidth=border_pt)]


class _SwatchHandler(HandlerBase):
    def create_artists(  # noqa: PLR0913, PLR0917 - matplotlib's signature
        self,
        legend: Legend,  # noqa: ARG002
        orig_handle: Artist,
        xdescent: float,
        ydescent: float,
        width: float,
        height: float,
        fontsize: float,  # noqa: ARG002
        trans: Transform,
    ) -> Sequence[Artist]:
        if not isinstance(orig_handle, Swatch):
            return []
        parts = orig_handle.parts(-xdescent, -ydescent, width, height)
        for part in parts:
            part.set_transform(trans)
        return parts


def add_legend(ax: Axes, handles: Sequence[Artist], room_in: float, theme: Theme) -> Legend:
    """Put a legend below an Axes and its labels, in as many lines as a width asks for."""
    em_in = FontProperties(size=mpl.rcParams["legend.fontsize"]).get_size_in_points() / _POINTS_PER_INCH
    below_in = _BELOW_AXIS_EM * float(ax.xaxis.label.get_fontsize()) / _POINTS_PER_INCH
    below = ax.transAxes + ScaledTranslation(0, -below_in, ax.figure.dpi_scale_trans)
    return ax.legend(
        handles=handles,
        handler_map={Swatch: _SwatchHandler()},
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=below,
        borderaxespad=0,
        ncols=_columns([str(handle.get_label()) for handle in handles], room_in / em_in),
        frameon=False,
        labelcolor=theme.ink,
        handlelength=_HANDLE_EM,
        handleheight=1.1,
        handletextpad=_PAD_EM,
        columnspacing=_GAP_EM,
    )


def _columns(labels: Sequence[str], room_em: float) -> int:
    """Return the most columns that fit; a legend fills them one after the other, as evenly as it can."""
    width_em = [_HANDLE_EM + _PAD_EM + _GAP_EM + text_em(label) for label in labels]
    for columns in range(len(labels), 1, -1):
        if sum(max(column) for column in np.array_split(width_em, columns)) <= room_em:
            return columns
    return 1


def text_em(text: str) -> float:
    """Return how wide a line of text is, in units of its size."""
    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=1.0), False)[0])


def kind_swatches(
    kinds: Iterable[int], shades: int, theme: Theme, vocabularies: Iterable[Vocabulary | None] = (None,)
) -> list[Artist]:
    """Return a swatch in all shades for each kind that occurs, whichever way orders share the output layer out."""
    present, ways = set(kinds), list(vocabularies)
    return [
        Swatch(
            " or ".join(dict.fromkeys(words_of(kind, way, theme.kinds) for way in ways)),
            [fill(kind, shade, shades, theme.kinds) for shade in range(shades)],
            one.border,
        )
        for kind, one in (*theme.kinds.items(), *BESIDE_STYLES.items())
        if kind in present
    ]


def pair_swatch(shades: int, theme: Theme) -> Artist:
    """Return the swatch of an overlapped pair."""
    fills = [fill(F, 0, shades, theme.kinds), fill(B, shades - 1, shades, theme.kinds)]
    return Swatch("overlapped forward & backward", fills, PAIR_BORDER, PAIR_BORDER_PT)


def idle_swatches(causes: Iterable[str], theme: Theme) -> list[Artist]:
    """Return the swatches of idle time of each cause, or of idle time where no causes are shown."""
    by_cause = [
        Swatch(f"idle: {CAUSE_STYLES[cause].words}", [tint(CAUSE_STYLES[cause].fill, theme)], theme.faint_ink)
        for cause in causes
    ]
    return list(by_cause) or [Swatch("idle", [theme.ground], theme.faint_ink)]


def host_swatch(theme: Theme) -> Artist:
    """Return the swatch of a host that issues an op."""
    return Swatch("issued by the host", [theme.faint_ink], theme.ground)


def faded_swatch(theme: Theme) -> Artist:
    """Return the swatch of micro-batches that were not asked for."""
    return Swatch("other micro-batches", [theme.faded], theme.faint_ink)


def alltoall_swatches(word: str, theme: Theme, shown: tuple[bool, bool]) -> list[Artist]:
    """Return the swatches of the all-to-all lane: of what is hidden and of what is exposed, where there is any."""
    swatches = [
        Swatch(f"{word} behind compute", [theme.hidden], theme.faint_ink),
        Swatch(f"exposed {word}", [theme.exposed], theme.faint_ink),
    ]
    return [swatch for swatch, is_there in zip(swatches, shown, strict=True) if is_there]


def shade_swatches(placements: Iterable[Placement], shades: int, theme: Theme, *, numbered: bool) -> list[Artist]:
    """Return the swatches that say what shades mean: the pipes of one schedule, the stages of a rank of another."""
    greys = [between(*theme.greys, shade, shades) for shade in range(shades)]
    pipes = {len(placement.pipes) for placement in placements if len(placement.pipes) > 1}
    stages = {len(placement.stages_of_rank(0)) for placement in placements if len(placement.pipes) == 1}
    said = []
    if pipes:
        first = "pipe 0 (numbered)" if numbered else "pipe 0"
        said.append(f"{first}, {'…, ' if max(pipes) > 2 else ''}pipe {max(pipes) - 1}")
    if stages:
        said.append(f"a rank's {' or '.join(map(str, sorted(stages)))} stages, shallowest first")
    return [Swatch(words, greys, theme.faint_ink) for words in said]


def transfer_lines(theme: Theme) -> list[Artist]:
    """Return the samples of transfers between ranks: activations, and gradients on their way back."""
    return [
        Line2D(
            [],
            [],
            color=line_of_kind(kind, theme),
            linestyle=TRANSFER_STYLES[kind],
            linewidth=1.5 * TRANSFER_PT,
            label=label,
        )
        for kind, label in ((F, "activations sent"), (B, "gradients sent"))
    ]
