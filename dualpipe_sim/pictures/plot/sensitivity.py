"""What a step depends on: a bar a cost for the share of the step that goes with it, one for what half of it saves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dualpipe_sim.pictures.palette import SERIES, Theme, ThemeName
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.legend import Swatch, add_legend
from dualpipe_sim.pictures.plot.style import style_around, theme_named

_BAR, _SAVED = 0.42, 0.26  # heights in rows
_ROW_IN, _WIDTH_IN, _BESIDE_IN, _LABELS_IN = 0.46, 9.0, 1.4, 2.2
_ROOM = 1.16  # of the longest bar: what is written behind it
_LEAST_SHARE = 0.0005  # what a bar of such a share would show is nothing


class Dependence(NamedTuple):
    """How a step depends on a cost, in seconds.

    >>> Dependence("forward", less_s=27.0, more_s=27.0, halved_s=67.5).words
    'forward'

    Attributes:
        words: what the cost is.
        less_s: by how much the step gets shorter as the cost shrinks, over the share by which that shrinks.
        more_s: the same as it grows.
        halved_s: the step with half of it.

    """

    words: str
    less_s: float
    more_s: float
    halved_s: float


def sensitivity_bars(
    rows: Sequence[Dependence], step_s: float, ax: Axes | None = None, *, title: str = "", theme: ThemeName = "light"
) -> Axes:
    """Draw the share of a step that goes with each cost, and the share that half of the cost would save.

    Where the slopes on the two sides differ, the smaller is the dark part of the bar and the larger its end.

    >>> axes = sensitivity_bars([Dependence("forward", 27.0, 27.0, 67.5)], 81.0)
    >>> [f"{bar.get_width():.1f}" for bar in axes.patches]
    ['33.3', '0.0', '16.7']

    Args:
        rows: the costs, from above to below; those that would show nothing are left out.
        step_s: seconds of the step.
        ax: where to draw them; a new figure of a fitting size if there is none.
        title: what stands above.
        theme: "light" or "dark".

    Raises:
        UserError: another word for ``theme``.

    """
    colours, step_s = theme_named(theme), step_s or 1.0
    shown = [row for row in rows if max(row.less_s, row.more_s, step_s - row.halved_s) >= _LEAST_SHARE * step_s]
    goes, saves = SERIES[0], SERIES[1]
    with style_around(ax, colours):
        ax = ax or new_axes((_WIDTH_IN, max(1, len(shown)) * _ROW_IN + _BESIDE_IN))
        ax.set_facecolor(colours.ground)
        longest = 1.0
        for place, row in enumerate(shown):
            low, high = (100 * end / step_s for end in sorted((row.less_s, row.more_s)))
            saved = 100 * (1 - row.halved_s / step_s)
            above, below = place - _SAVED / 2, place + _BAR / 2
            ax.barh(above, low, _BAR, color=goes, label=row.words)
            ax.barh(above, high - low, _BAR, left=low, color=goes, alpha=0.4)
            ax.barh(below, saved, _SAVED, color=saves)
            between = f"{low:.1f} … {high:.1f}" if f"{low:.1f}" != f"{high:.1f}" else f"{high:.1f}"
            for end, middle, words in ((high, above, f"{between} %"), (saved, below, f"{saved:.1f} %")):
                ax.annotate(
                    words, (max(end, 0), middle), (4, 0), textcoords="offset points", va="center", color=colours.ink,
                    size="small",
                )  # fmt: skip
            longest = max(longest, high, saved)
        _axes(ax, [row.words for row in shown], longest, colours)
        swatches = [
            Swatch("of the step goes with it: so much of a small change of it", [goes], goes),
            Swatch("of the step is saved with half of it (twice the bandwidth)", [saves], saves),
        ]
        add_legend(ax, swatches, _WIDTH_IN - _LABELS_IN, colours)
        ax.set_title(title, loc="left", color=colours.ink)
    return ax


def _axes(ax: Axes, names: Sequence[str], longest: float, theme: Theme) -> None:
    ax.set_xlim(0, _ROOM * longest)
    ax.set_ylim(max(1, len(names)) - 0.4, -0.6)
    ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
    ax.set_xlabel("share of the step", color=theme.ink)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="x", colors=theme.ink)
    ax.tick_params(axis="y", length=0, colors=theme.ink)
    ax.grid(axis="x", color=theme.row_line, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
