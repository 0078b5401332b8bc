"""Memory over time: activations in steps, bytes in a stack below the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from dualpipe_sim.analysis import metrics, occupancy
from dualpipe_sim.analysis.occupancy import Occupancy
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.palette import THEMES
from dualpipe_sim.pictures.plot import (
    activations_over_time,
    memory_over_time,
)

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Play, Reading


def test_activations_of_1f1b_fall_from_rank_to_rank_and_of_gpipe_they_do_not(timeline: Play) -> None:
    # Rank r of 1F1B holds P - r micro-batches at most, of GPipe all of them (Narayanan et al. 2021, section 2.2).
    for name, peaks in (("1f1b", ["4", "3", "2", "1"]), ("gpipe", ["8", "8", "8", "8"])):
        ax = activations_over_time(timeline(name, 4, 8))
        assert [text.get_text() for text in ax.texts] == [*peaks, "peak"]


def test_activations_are_steps_from_the_start_of_f_to_the_end_of_b(timeline: Play) -> None:
    # 0F0 0-1, 0F1 1-2, 0B0 2-4, 0B1 4-6 (1F1B on one rank is F B F B; GPipe is F F B B)
    (live,) = occupancy.activations_over_time(timeline("gpipe", 1, 2))
    at = {time: float(amount) for time, amount in zip(live.at_s.tolist(), live.total.tolist(), strict=True)}
    assert at == {0.0: 1, 1.0: 2, 2.0: 2, 4.0: 1, 6.0: 0}


@pytest.mark.parametrize("name", ["1f1b", "dualpipe", "zb-h1", "interleaved-1f1b"])
def test_the_most_that_is_held_is_the_peak_that_metrics_count(timeline: Play, name: str) -> None:
    played = timeline(name, 4, 8, UniformCosts(2, 3, 1, transfer_s=0.5))
    peaks = [one.total.max() for one in occupancy.activations_over_time(played)]
    assert peaks == pytest.approx(metrics.peak_activations_by_rank(played))
    assert [one.total[-1] for one in occupancy.activations_over_time(played)] == [0] * 4


def two_kinds(highest: float) -> list[Occupancy]:
    at_s = np.array([0.0, 1.0, 3.0])
    return [Occupancy(at_s, {"weights": np.full(3, 30e9), "activations": np.array([0.0, highest - 30e9, 0.0])})]


def test_bytes_stack_by_kind_to_one_scale_below_the_limit(read: type[Reading]) -> None:
    ax = memory_over_time(two_kinds(60e9), 4.0, limit=80e9, title="one rank")
    areas = {str(one.get_label()): one.get_paths()[0].vertices for one in ax.collections if type(one) is PolyCollection}
    # The limit of 80 GB, which is the most there is, stands 0.9 of the row above its floor at 0.5.
    heights = {kind: (0.5 - np.asarray(corners)[:, 1]) / 0.9 * 80e9 for kind, corners in areas.items()}
    assert heights["weights"].max() == pytest.approx(30e9)
    assert heights["activations"].max() == pytest.approx(60e9)
    (limit,) = (one for one in ax.collections if one.get_label() == "limit")
    assert limit.get_segments()[0][:, 1] == pytest.approx([-0.4, -0.4])  # type: ignore[attr-defined]
    assert read(ax).legend() == ["weights", "activations", "limit, 80 GB"]
    assert ax.texts[0].get_text() == "60 GB"


def test_a_rank_over_the_limit_is_said_in_its_colour() -> None:
    below, above = (memory_over_time(two_kinds(most), 4.0, limit=80e9).texts[0] for most in (60e9, 90e9))
    assert (below.get_color(), below.get_fontweight()) == (THEMES["light"].ink, "normal")
    assert (above.get_color(), above.get_fontweight()) == (THEMES["light"].limit, "bold")


def test_memory_of_no_rank_is_refused() -> None:
    with pytest.raises(UserError, match=r"^there is no rank whose memory to draw; give at least one$"):
        memory_over_time([], 1.0)
