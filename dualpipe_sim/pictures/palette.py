"""Colours of every picture: kinds of ops and their shades, hidden and exposed all-to-all, causes of idle time.

The colours of kinds follow figure 5 of the DeepSeek-V3 report (https://arxiv.org/abs/2412.19437): forward orange,
backward green, backward for the input a bluish green, backward for the weights blue, and a pair in a shared black
border. They are picked so that kinds stay apart in lightness or between yellow and blue, which people who confuse red
and green see as everybody does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from dualpipe_sim.order.ops import REDUCE_GRAD, RESHARD, UNSHARD, B, F, I, L, O, R, S, T, Vocabulary, W

Colour: TypeAlias = str
"""A colour as ``#rrggbb``."""
ThemeName: TypeAlias = Literal["light", "dark"]


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


PaletteName: TypeAlias = Literal["deepseek", "okabe-ito", "grey"]

PALETTES: dict[PaletteName, dict[int, KindStyle]] = {
    "deepseek": {
        F: KindStyle("forward", "#ffc070", "#e6831b", "#9a5208"),
        B: KindStyle("backward", "#57a551", "#2f7a3a", "#173f1d"),
        I: KindStyle("backward for input", "#9fe1d4", "#52b9aa", "#1f7268"),
        W: KindStyle("backward for weights", "#93b3ee", "#4a6dc4", "#213f86"),
        R: KindStyle("forward again", "#a173ff", "#7339e6", "#3f1a8c"),
        S: KindStyle("vocabulary: logits", "#ffffa6", "#ffff33", "#8a8a12"),
        T: KindStyle("vocabulary: gradients", "#b23e78", "#662445", "#3d0f27"),
    },
    # Okabe and Ito's colours, https://jfly.uni-koeln.de/color/, with a darker shade of each
    "okabe-ito": {
        F: KindStyle("forward", "#f0b54a", "#c98500", "#7a5100"),
        B: KindStyle("backward", "#3d8fc4", "#0072b2", "#003f63"),
        I: KindStyle("backward for input", "#8fcdf2", "#56b4e9", "#1f6f9e"),
        W: KindStyle("backward for weights", "#e0a9c5", "#cc79a7", "#7d3f61"),
        R: KindStyle("forward again", "#a173ff", "#7339e6", "#3f1a8c"),
        S: KindStyle("vocabulary: logits", "#4fc7a6", "#009e73", "#00543d"),
        T: KindStyle("vocabulary: gradients", "#f5ec8c", "#d6c41f", "#6e640a"),
    },
    # for print without colour: kinds stay apart in lightness
    "grey": {
        F: KindStyle("forward", "#f2f2f2", "#dcdcdc", "#404040"),
        B: KindStyle("backward", "#9a9a9a", "#868686", "#202020"),
        I: KindStyle("backward for input", "#c4c4c4", "#a8a8a8", "#303030"),
        W: KindStyle("backward for weights", "#565656", "#3c3c3c", "#101010"),
        R: KindStyle("forward again", "#dbdbdb", "#c2c2c2", "#505050"),
        S: KindStyle("vocabulary: logits", "#b1b1b1", "#9f9f9f", "#282828"),
        T: KindStyle("vocabulary: gradients", "#7c7c7c", "#6a6a6a", "#181818"),
    },
}
"""The looks of kinds that a chart can be drawn in."""

KIND_STYLES = PALETTES["deepseek"]
"""The usual one."""

BESIDE_STYLES: dict[int, KindStyle] = {
    O: KindStyle("copied to the host", "#d8ccb8", "#c4b59c", "#8d7f6b"),
    L: KindStyle("copied back", "#8d7f6b", "#76695a", "#4a4136"),
    UNSHARD: KindStyle("weights gathered", "#c3c8d2", "#a9b0bd", "#6c7482"),
    RESHARD: KindStyle("weights freed", "#e3e6eb", "#ced3db", "#8a92a0"),
    REDUCE_GRAD: KindStyle("gradients reduced", "#6c7482", "#586070", "#343a45"),
}
"""What is drawn below the ops that it runs beside, in every palette: copies to the host and back, shared weights."""

_VOCABULARY_AT_ONCE = "vocabulary: logits and gradients"
"""What S is where one pass of all ranks does both."""

BLACK: Colour = "#000000"
WHITE: Colour = "#ffffff"
PAIR_BORDER: Colour = BLACK


class Theme(NamedTuple):
    """The colours of a picture; what is not said of kinds depends on whether it is light or dark.

    Attributes:
        ground: what idle time and the page look like.
        ink: text and markers.
        faint_ink: axes, and text of less weight.
        row_line: lines between rows, and grids.
        over: time after a schedule's last op, where another one on the same axis still runs.
        faded: ops of micro-batches that were not asked for.
        greys: first and last grey of the legend's entry that says what shades mean.
        hidden: all-to-all beside which compute runs.
        exposed: all-to-all beside which none runs.
        transfer: a stage boundary's tensor under way.
        barrier: where one lane waits for the other.
        memory: activations held.
        limit: what there is of memory.
        kinds: how ops of each kind look, the same on light and dark.

    """

    ground: Colour
    ink: Colour
    faint_ink: Colour
    row_line: Colour
    over: Colour
    faded: Colour
    greys: tuple[Colour, Colour]
    hidden: Colour
    exposed: Colour
    transfer: Colour
    barrier: Colour
    memory: Colour
    limit: Colour
    kinds: Mapping[int, KindStyle] = KIND_STYLES


THEMES: dict[ThemeName, Theme] = {
    "light": Theme(
        ground=WHITE,
        ink="#222222",
        faint_ink="#8c8c8c",
        row_line="#e2e2e2",
        over="#efefef",
        faded="#dcdcdc",
        greys=("#d6d6d6", "#7d7d7d"),
        hidden="#cfc4e6",
        exposed="#a3123f",
        transfer="#7b4fa6",
        barrier="#c4161c",
        memory="#6f8fbf",
        limit="#a3123f",
    ),
    "dark": Theme(
        ground="#15181d",
        ink="#e8e8e8",
        faint_ink="#8f959e",
        row_line="#33383f",
        over="#22262d",
        faded="#3a4048",
        greys=("#c9c9c9", "#747474"),
        hidden="#54497a",
        exposed="#ff5c86",
        transfer="#b48ee0",
        barrier="#ff6b6b",
        memory="#6f8fbf",
        limit="#ff5c86",
    ),
}


class CauseStyle(NamedTuple):
    """How idle time of one cause is drawn."""

    words: str
    fill: Colour


# Okabe and Ito's colours for all eyes, https://jfly.uni-koeln.de/color/
CAUSE_STYLES = {
    "warm_up": CauseStyle("warm-up", "#56b4e9"),
    "drain": CauseStyle("drain", "#0072b2"),
    "waiting": CauseStyle("waiting for an op upstream", "#e69f00"),
    "exposed_transfer": CauseStyle("exposed transfer", "#cc79a7"),
    "blocked": CauseStyle("blocked by the order of messages", "#009e73"),
    "exposed_alltoall": CauseStyle("exposed all-to-all", "#d55e00"),
    "host": CauseStyle("not issued by the host yet", "#f0e442"),
    "exposed_gather": CauseStyle("exposed gathering of weights", "#6c7482"),
    "exposed_reduction": CauseStyle("exposed reduction of gradients", "#343a45"),
}
_PATH_FILLS: dict[str, Colour] = {
    "alltoall": "#d55e00",
    "collective": "#e69f00",
    "transfer": "#cc79a7",
    "blocked": "#009e73",
    "contention": "#7b4fa6",
    "copy": "#8d7f6b",
    "weights": "#6c7482",
    "host": "#f0e442",
    "waiting": "#56b4e9",
}
"""Parts of a critical path but compute, which is in ink: what idle time has for such a cause, where there is one."""
_TINT = 0.26  # of a cause's colour, the rest is ground, where ops lie beside it
MEMORY_FILLS: dict[str, Colour] = {
    "weights": "#56606b",
    "gradients": "#8b96a2",
    "optimizer states": "#bfc7cf",
    "communication buffers": "#cc79a7",
    "weight-gradient inputs": KIND_STYLES[W].dark,
    "activations": KIND_STYLES[F].light,
}
"""What memory is used for: greys for what stays; what a deferred W needs and what F keeps as on a Gantt chart."""
SERIES: tuple[Colour, ...] = (
    "#e69f00",
    "#0072b2",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#b8ab1f",
    "#7d7d7d",
)
"""Colours of curves and of parts of a whole; yellow and black are a little changed, to be seen on every ground."""


def fill(kind: int, shade: int, shades: int, kinds: Mapping[int, KindStyle] = KIND_STYLES) -> Colour:
    """Return the fill of a kind (a code of ``ops``) in one of several shades, the lightest first."""
    style = style_of(kind, kinds)
    return between(style.light, style.dark, shade, shades)


def style_of(kind: int, kinds: Mapping[int, KindStyle] = KIND_STYLES) -> KindStyle:
    """Return how a kind is drawn."""
    return BESIDE_STYLES[kind] if kind in BESIDE_STYLES else kinds[kind]


def words_of(kind: int, vocabulary: Vocabulary | None, kinds: Mapping[int, KindStyle] = KIND_STYLES) -> str:
    """Return what legends call a kind, in orders whose ranks share the output layer out like this, if at all.

    >>> words_of(S, "together")
    'vocabulary: logits and gradients'
    """
    if kind == S and vocabulary == "together":
        return _VOCABULARY_AT_ONCE
    return style_of(kind, kinds).words


def tint(colour: Colour, theme: Theme) -> Colour:
    """Return a colour so pale that what lies beside it in full colour stands out."""
    return _mixed(theme.ground, colour, _TINT)


def path_colour(part: str, theme: Theme) -> Colour:
    """Return the colour of a part of a critical path."""
    return _PATH_FILLS.get(part, theme.ink)


def between(first: Colour, last: Colour, step: int, steps: int) -> Colour:
    """Return one of ``steps`` colours that lead evenly from one colour to another."""
    return _mixed(first, last, step / (steps - 1) if steps > 1 else 0.0)


def ink_on(background: Colour) -> Colour:
    """Return black or white, whichever contrasts more with a background: always more than 4.5 : 1.

    Contrast as WCAG 2 defines it, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio.
    """
    ground = luminance(background) + 0.05
    return BLACK if ground / 0.05 >= 1.05 / ground else WHITE


def luminance(colour: Colour) -> float:
    """Return a colour's relative luminance as WCAG 2 defines it, from 0 (black) to 1 (white)."""
    linear = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in rgb(colour))
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def rgb(colour: Colour) -> tuple[float, float, float]:
    """Return red, green and blue of a colour, each from 0 to 1."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue


def _mixed(first: Colour, last: Colour, way: float) -> Colour:
    return _hex((1 - way) * a + way * b for a, b in zip(rgb(first), rgb(last), strict=True))


def _hex(channels: Iterable[float]) -> Colour:
    return "#" + "".join(f"{round(255 * one):02x}" for one in channels)
