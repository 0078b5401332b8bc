"""What a page holds of a run, as it packs it."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dualpipe_sim import build, parse_order
from dualpipe_sim.analysis.alltoall import collective_times
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.longest_path import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import S
from dualpipe_sim.pictures.report import Run
from dualpipe_sim.pictures.report.data import run_data


def columns_of(run: dict[str, Any]) -> dict[str, NDArray[Any]]:
    raw = zlib.decompress(base64.b64decode(run["bytes"]))
    return {
        name: np.frombuffer(raw, np.dtype(kind).newbyteorder("<"), length, offset)
        for name, (kind, offset, length) in run["columns"].items()
    }


def times_s(run: dict[str, Any], name: str) -> tuple[FloatArray, FloatArray]:
    """Starts and ends of what a page draws, as it adds them up."""
    columns, tick_s = columns_of(run), run["makespan_s"] / 2**30
    start = np.cumsum(columns[f"{name}_start"], dtype=np.int64)
    return start * tick_s, (start + columns[f"{name}_length"]) * tick_s


def test_a_page_holds_what_happened_to_a_tick(layered: Timeline) -> None:
    run = run_data(Run("pair", layered))
    graph, columns = layered.graph, columns_of(run)
    schedule, phases = graph.schedule, graph.first_transfer
    tick_s = layered.makespan_s / 2**30
    assert columns["kind"].tolist() == schedule.kind.tolist()
    assert np.cumsum(columns["stage"]).tolist() == schedule.stage.tolist()
    assert np.cumsum(columns["micro_batch"]).tolist() == schedule.micro_batch.tolist()
    for name, start_s, end_s in (
        ("phase", layered.start_s[:phases], layered.end_s[:phases]),
        ("transfer", layered.start_s[phases:], layered.end_s[phases:]),
    ):
        start, end = times_s(run, name)
        assert start == pytest.approx(start_s, abs=tick_s)
        assert end == pytest.approx(end_s, abs=tick_s)
    start, end = times_s(run, "op")
    first, last = schedule.first_op, np.append(schedule.first_op[1:], len(schedule.rank)) - 1
    assert start[first] == pytest.approx(layered.task_start_s, abs=tick_s)
    assert end[last] == pytest.approx(layered.task_end_s, abs=tick_s)
    start, end = times_s(run, "exposed")
    exposed_s = np.bincount(columns["exposed_rank"], weights=end - start)
    assert exposed_s == pytest.approx(collective_times(layered).alltoall.exposed_s, abs=1000 * tick_s)
    looks = [run["looks"][look] for look in columns["look"]]
    assert looks == [
        [one.name, one.kind, one.layer, one.lane, one.half] for one in map(graph.phases.__getitem__, graph.phase)
    ]


def test_copies_are_where_their_lane_runs_them() -> None:
    """Beside compute: they take time of their own lane, though none of their rank's."""
    costs = UniformCosts(1, 1, 1, offload=2)
    run = run_data(Run("copies", play(lower(parse_order("0F0,0O0,0F1,0L0,0B0,0B1\n"), costs))))
    assert np.cumsum(columns_of(run)["copy"]).tolist() == [1, 3]
    start, end = times_s(run, "copy")
    assert start == pytest.approx([1, 3])
    assert end == pytest.approx([3, 5])


def test_kinds_are_called_what_they_are_in_this_order() -> None:
    costs = UniformCosts(1, 1, 1, vocab_s=1, vocab_t=1)
    words = {
        name: run_data(Run(name, play(lower(build(name, 2, 4), costs))))["words"] for name in ("1f1b", "interlaced")
    }
    assert words["1f1b"][:2] == words["interlaced"][:2] == ["forward", "backward"]
    assert [one[S] for one in words.values()] == ["vocabulary: logits", "vocabulary: logits and gradients"]
