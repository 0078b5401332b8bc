"""How charts are drawn on paper and on screens: lines, text, and matplotlib's settings for a light or dark one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, get_args

import matplotlib as mpl
from matplotlib.axes import Axes

from dualpipe_sim.errors import UserError, did_you_mean
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.pictures.palette import PALETTES, THEMES, Colour, PaletteName, Theme, ThemeName, luminance
from dualpipe_sim.pictures.plot.paper import ANY_PAPER, Paper
from dualpipe_sim.pictures.plot.words import keep_to_words

BORDER_PT = 0.6
PAIR_BORDER_PT = 1.3
TRANSFER_PT = 0.7
TRANSFER_STYLES: dict[int, Any] = {F: "-", B: (0, (5, 2))}
"""Lines of activations and of gradients: whole and dashed."""
LARGEST_NUMBER_PT = 9.0
SMALLEST_NUMBER_PT = 5.0

_FONT_PT = 9.0
_TEXT: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "text.parse_math": False,
    "text.usetex": False,
    "axes.labelsize": "medium",
    "axes.titlesize": "large",
    "axes.titleweight": "normal",
    "legend.fontsize": "medium",
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
}


def theme_named(name: ThemeName, palette: PaletteName = "deepseek") -> Theme:
    """Return a theme, with kinds in the colours of a palette.

    Raises:
        UserError: a word that names none.

    """
    for what, word, known in (("theme", name, get_args(ThemeName)), ("palette", palette, get_args(PaletteName))):
        if word not in known:
            raise UserError(f"{what}: {word!r} is not one of {', '.join(known)}{did_you_mean(str(word), known)}")
    return THEMES[name]._replace(kinds=PALETTES[palette])


def style(theme: Theme, scale: float = 1.0, paper: Paper = ANY_PAPER) -> AbstractContextManager[None]:
    """Return a context in which what is created is drawn in a theme, text larger by a factor or as on a paper."""
    params: Any = {
        **_TEXT,
        **({} if paper.font is None else {"font.family": paper.font}),
        "font.size": _FONT_PT * scale if paper.font_pt is None else paper.font_pt,
        "text.color": theme.ink,
        "axes.edgecolor": theme.faint_ink,
        "axes.facecolor": theme.ground,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "figure.facecolor": theme.ground,
        "legend.labelcolor": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
    }
    return mpl.rc_context(params)


def style_around(
    ax: Axes | None, theme: Theme, scale: float = 1.0, paper: Paper = ANY_PAPER
) -> AbstractContextManager[None]:
    """Return the context to draw in: a theme's for a new figure, the caller's own where there is an Axes."""
    return style(theme, scale, paper) if ax is None else _in_others(ax)


@contextmanager
def _in_others(ax: Axes) -> Iterator[None]:
    """Leave the look of somebody's Axes alone, but for names in texts, which are words."""
    with mpl.rc_context({"text.parse_math": False}):
        yield
    keep_to_words(ax)


def line_of_kind(kind: int, theme: Theme) -> Colour:
    """Return the colour of thin lines that belong to a kind: one that shows on the theme's ground."""
    kind_style = theme.kinds[kind]
    return kind_style.border if luminance(theme.ground) > 0.5 else kind_style.light
