"""The palette: kinds, shades, lanes and causes stay apart for all eyes, and texts can be read."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.order.ops import REDUCE_GRAD, UNSHARD, Kind, L, O
from dualpipe_sim.pictures.palette import CAUSE_STYLES, KIND_STYLES, THEMES, fill, ink_on

# Machado, Oliveira & Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# severity 1.0: matrices on linear RGB.
SEEN_BY = {
    "everybody": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def linear(colour: str) -> FloatArray:
    channels = np.array(to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def lab(colour: str, eyes: str) -> FloatArray:
    """CIE L*a*b* under D65 of a colour as some eyes see it."""
    xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    x, y, z = np.cbrt(np.maximum(xyz @ (SEEN_BY[eyes] @ linear(colour)).clip(0, 1) / [0.9505, 1.0, 1.0888], 0.009))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("shades", [1, 2, 4])
def test_kinds_and_shades_stay_apart_for_the_colour_blind(eyes: str, shades: int) -> None:
    # 2.3 is a just noticeable difference (Mahy et al. 1994): kinds keep six of them apart, anything from idle five,
    # and shades two.
    seen = {(kind, shade): lab(fill(kind, shade, shades), eyes) for kind in KIND_STYLES for shade in range(shades)}
    grounds = [lab(theme.ground, eyes) for theme in THEMES.values()]
    for (one, colour), (other, another) in combinations(seen.items(), 2):
        distance = float(np.linalg.norm(colour - another))
        assert distance > 2.3 * (6 if one[0] != other[0] else 2), (one, other)
    for ground in grounds:
        assert min(float(np.linalg.norm(colour - ground)) for colour in seen.values()) > 2.3 * 5


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("kinds", [(O, L), (UNSHARD, REDUCE_GRAD)])
def test_what_runs_beside_compute_and_idle_stay_apart_for_all_eyes(eyes: str, kinds: tuple[Kind, Kind]) -> None:
    out, back = ([lab(fill(kind, shade, 2), eyes) for shade in range(2)] for kind in kinds)
    grounds = [lab(theme.ground, eyes) for theme in THEMES.values()]
    assert min(float(np.linalg.norm(one - other)) for one in out for other in back) > 2.3 * 6
    assert min(float(np.linalg.norm(one - ground)) for one in (*out, *back) for ground in grounds) > 2.3 * 5


@pytest.mark.parametrize("shades", [1, 2, 4])
def test_numbers_contrast_with_their_cells(shades: int) -> None:
    # WCAG 2 asks 3:1 of large text and 4.5:1 of any text.
    for ground in (fill(kind, shade, shades) for kind in KIND_STYLES for shade in range(shades)):
        dark, light = sorted((luminance(ground), luminance(ink_on(ground))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("theme", THEMES)
def test_hidden_exposed_and_idle_stay_apart_for_all_eyes_on_both_grounds(eyes: str, theme: str) -> None:
    # Ten just noticeable differences (2.3, Mahy et al. 1994) between hidden and exposed, five from the ground.
    look = THEMES[theme]  # type: ignore[index]
    hidden, exposed, ground = (lab(colour, eyes) for colour in (look.hidden, look.exposed, look.ground))
    assert np.linalg.norm(hidden - exposed) > 2.3 * 10
    assert min(np.linalg.norm(hidden - ground), np.linalg.norm(exposed - ground)) > 2.3 * 5


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_causes_of_idle_time_stay_apart_for_all_eyes(eyes: str) -> None:
    seen = [lab(one.fill, eyes) for one in CAUSE_STYLES.values()]
    nearest = min(np.linalg.norm(a - b) for place, a in enumerate(seen) for b in seen[:place])
    assert nearest > 2.3 * 5
