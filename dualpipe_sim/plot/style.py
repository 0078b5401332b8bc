"""How a chart looks: colours of kinds and their shades, borders, text. One light style for every chart.

The colours follow figure 5 of the DeepSeek-V3 report (https://arxiv.org/abs/2412.19437): forward orange, backward
green, backward for the input a bluish green, backward for the weights blue, and a pair in a shared black border.
They are picked so that kinds stay apart in lightness or between yellow and blue, which people who confuse red and
green see as everybody does.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex, to_rgb

from dualpipe_sim.ops import B, F, I, W

Colour: TypeAlias = str
"""A colour as ``#rrggbb``."""


class KindStyle(NamedTuple):
    """How the ops of one kind are drawn.

    Attributes:
        words: what the legend calls the kind.
        light: fill of a rank's first stage.
        dark: fill of a rank's last stage, where it holds several; those between are shades between.
        border: line around the op.

    """

    words: str
    light: Colour
    dark: Colour
    border: Colour


KIND_STYLES = {
    F: KindStyle("forward", "#ffc070", "#e6831b", "#9a5208"),
    B: KindStyle("backward", "#57a551", "#2f7a3a", "#173f1d"),
    I: KindStyle("backward for input", "#9fe1d4", "#52b9aa", "#1f7268"),
    W: KindStyle("backward for weights", "#93b3ee", "#4a6dc4", "#213f86"),
}

BLACK: Colour = "#000000"
WHITE: Colour = "#ffffff"
IDLE: Colour = WHITE
OVER: Colour = "#efefef"
"""Time after a schedule's last op, where another one on the same axis still runs."""
INK: Colour = "#222222"
FAINT_INK: Colour = "#8c8c8c"
ROW_LINE: Colour = "#e2e2e2"
PAIR_BORDER: Colour = BLACK
SHADE_OF_GREY = ("#d6d6d6", "#7d7d7d")
"""Lightest and darkest grey of the legend's entry that says what shades mean."""

BORDER_PT = 0.6
PAIR_BORDER_PT = 1.3
TRANSFER_PT = 0.7
TRANSFER_STYLES: dict[int, Any] = {F: "-", B: (0, (5, 2))}
"""Lines of activations and of gradients: whole and dashed."""
LARGEST_NUMBER_PT = 9.0
SMALLEST_NUMBER_PT = 5.0

_FONT_PT = 9.0
_LIGHT: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": FAINT_INK,
    "axes.facecolor": IDLE,
    "axes.labelcolor": INK,
    "axes.labelsize": "medium",
    "axes.titlesize": "large",
    "axes.titleweight": "normal",
    "figure.facecolor": IDLE,
    "legend.fontsize": "medium",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
}


def light_style(scale: float = 1.0) -> AbstractContextManager[None]:
    """Return a context in which what is created is drawn in the light style, text larger by a factor."""
    params: Any = {**_LIGHT, "font.size": _FONT_PT * scale}
    return mpl.rc_context(params)


def fill(kind: int, shade: int, shades: int) -> Colour:
    """Return the fill of a kind (a code of ``ops``) in one of several shades, the lightest first."""
    style = KIND_STYLES[kind]
    return between(style.light, style.dark, shade, shades)


def grey(shade: int, shades: int) -> Colour:
    """Return the grey that stands for a shade in the legend."""
    return between(*SHADE_OF_GREY, shade, shades)


def between(first: Colour, last: Colour, step: int, steps: int) -> Colour:
    """Return one of ``steps`` colours that lead evenly from one colour to another."""
    way = step / (steps - 1) if steps > 1 else 0.0
    red, green, blue = ((1 - way) * np.array(to_rgb(first)) + way * np.array(to_rgb(last))).tolist()
    return to_hex((red, green, blue))


def ink_on(background: Colour) -> Colour:
    """Return black or white, whichever contrasts more with a background: always more than 4.5 : 1.

    Contrast as WCAG 2 defines it, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio.
    """
    ground = _luminance(background) + 0.05
    return BLACK if ground / 0.05 >= 1.05 / ground else WHITE


def _luminance(colour: Colour) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
