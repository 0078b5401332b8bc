"""Pictures of few colours look as they did, and are smaller."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dualpipe_sim.pictures.palette import KIND_STYLES, THEMES
from dualpipe_sim.pictures.plot import gantt
from dualpipe_sim.pictures.plot.few_colours import FewColours
from dualpipe_sim.pictures.plot.files import rendered

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw, Play


def test_a_chart_in_few_colours_is_hardly_told_from_itself(timeline: Play, drawn: Draw) -> None:
    ax = gantt(timeline("dualpipe", 8, 20))
    renderer = drawn(ax)
    pixels = np.asarray(renderer.buffer_rgba())  # type: ignore[attr-defined]
    few = FewColours(pixels)
    picture = np.asarray(few.picture(pixels).convert("RGB")).astype(int)
    apart = np.abs(picture - pixels[..., :3])
    assert few.share > 0.97
    assert apart.mean() < 0.3
    for colour in (THEMES["light"].ground, KIND_STYLES[0].light, KIND_STYLES[1].dark):
        number = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        where = (pixels[..., :3] == number).all(axis=-1)
        assert where.any()
        assert (picture[where] == number).all()


def test_a_small_area_keeps_its_colour_beside_many_edges() -> None:
    generator = np.random.default_rng(1)
    pixels = np.full((300, 300, 4), 255, dtype=np.uint8)
    pixels[:150, :, :3] = generator.integers(0, 40, (150, 300, 1))  # noise of 40 greys
    pixels[:150, :, 0] = generator.integers(0, 40, (150, 300))  # of 1600 colours
    pixels[200:204, 10:14, :3] = (1, 200, 3)
    few = FewColours(pixels)
    assert np.asarray(few.picture(pixels).convert("RGB"))[202, 12].tolist() == [1, 200, 3]
    assert 0.5 < few.share < 0.7


@pytest.mark.parametrize(("ranks", "micro_batches", "few"), [(4, 8, True), (64, 512, False)])
def test_a_file_has_few_colours_where_its_chart_has(timeline: Play, ranks: int, micro_batches: int, few: bool) -> None:
    png = rendered(gantt(timeline("dualpipe", ranks, micro_batches)).figure, ".png")
    with Image.open(BytesIO(png)) as image:
        assert image.mode == ("P" if few else "RGB")
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
