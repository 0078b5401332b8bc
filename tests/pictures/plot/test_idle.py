"""Idle time by cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualpipe_sim.pictures.plot import (
    idle_by_cause,
)

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Draw, Play, Reading


def test_idle_time_of_1f1b_is_stacked_by_cause(read: type[Reading], timeline: Play) -> None:
    # Unit F and 2 of B without transfers: warm-up r, drain 2r, and the rest of (P-1)·3 waiting.
    ax = idle_by_cause(timeline("1f1b", 4, 8))
    bars: Any = {container.get_label(): container for container in ax.containers}
    widths = {cause: [bar.get_width() for bar in found] for cause, found in bars.items()}
    assert widths == {"warm_up": [0, 1, 2, 3], "drain": [0, 2, 4, 6], "waiting": [9, 6, 3, 0]}
    lefts = [bar.get_x() for bar in bars["waiting"]]
    assert lefts == [0, 3, 6, 9]
    assert [text.get_text() for text in ax.texts] == [f"{100 * 9 / 33:.1f} %"] * 4
    assert read(ax).legend() == ["warm-up", "drain", "waiting for an op upstream"]


def test_a_run_without_idle_time_has_no_bars(read: type[Reading], timeline: Play, drawn: Draw) -> None:
    ax = idle_by_cause(timeline("gpipe", 1, 4))
    drawn(ax)
    assert not ax.containers
    assert read(ax).legend() == []
