"""The critical path: one chain from the start to the end, whatever plays and whatever it waits for."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import simulate
from dualpipe_sim.analysis.critical_path import PARTS, CriticalPath, critical_path
from dualpipe_sim.costs.measured import MeasuredCosts, OpTime
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import B, F

NAMES = ("1f1b", "gpipe", "zb-h1", "dualpipe", "interleaved-1f1b", "chimera", "po-h", "stp", "vocab-1f1b")
TIMES = st.floats(0.1, 3.0)


def check_continuous(path: CriticalPath, timeline: Timeline) -> None:
    assert path.begin_s[0] == 0
    assert path.end_s[-1] == timeline.makespan_s
    assert np.array_equal(path.begin_s[1:], path.end_s[:-1])
    assert sum(path.seconds_by_part().values()) == pytest.approx(timeline.makespan_s, rel=1e-12)
    moved = path.rank != path.to_rank
    assert (path.node[moved] >= timeline.graph.first_transfer).all()
    # each ends where the next can begin: the next waits for it
    for before, node in pairwise(path.nodes.tolist()):
        begin, end = timeline.graph.predecessor_start[node : node + 2]
        assert before in {int(timeline.graph.previous_on_lane[node]), *timeline.graph.edges[0][begin:end].tolist()}


@given(st.sampled_from(NAMES), st.integers(1, 6), st.integers(1, 12), TIMES, TIMES, st.floats(0, 1), st.data())
def test_it_goes_from_the_start_to_the_end_without_a_gap(
    name: str, ranks: int, batches: int, forward: float, backward: float, transfer: float, data: st.DataObject
) -> None:
    transfers = data.draw(st.sampled_from(["async", "rendezvous"]))
    engine = data.draw(st.sampled_from(["auto", "simpy"]))
    settings: dict[str, Any] = {"forward": forward, "backward": backward, "transfer": transfer}
    settings |= {"vocab_s": 0.3, "vocab_t": 0.2} if name.startswith("vocab") else {}
    settings |= {"costs.offload": 0.1} if name == "po-h" else {}
    settings |= {"pipeline.transfers": transfers, "engine": engine}
    try:
        result = simulate(schedule=name, ranks=ranks, micro_batches=batches, **settings)
    except ScheduleError:
        return
    timeline = result.played
    path = critical_path(timeline)
    check_continuous(path, timeline)
    assert timeline.graph.duration_s[path.nodes].sum() == pytest.approx(timeline.makespan_s)
    if transfers == "async":
        assert "blocked" not in path.seconds_by_part()


@pytest.mark.parametrize("settings", [{}, {"contention": "fair"}, {"pipeline.transfers": "rendezvous"}])
def test_by_layer_it_passes_all_to_alls_and_what_shared_links_add(settings: dict[str, Any]) -> None:
    result = simulate("deepseek_v3", schedule="1f1b", micro_batches=32, **settings)
    path = critical_path(result.played)
    check_continuous(path, result.played)
    parts = path.seconds_by_part()
    assert {"compute", "alltoall", "transfer"} <= set(parts)
    assert ("blocked" in parts) == ("pipeline.transfers" in settings)


def test_flows_that_share_a_link_take_longer_and_the_path_says_so() -> None:
    """Activations go down over InfiniBand while the all-to-alls of other GPUs of the rank use it."""
    settings: dict[str, Any] = {"schedule": "1f1b", "micro_batches": 32}
    alone, shared = (simulate("deepseek_v3", contention=way, **settings).played for way in ("none", "fair"))
    assert "contention" not in critical_path(alone).seconds_by_part()
    assert critical_path(shared).seconds_by_part()["contention"] > 0
    assert shared.makespan_s > alone.makespan_s


def test_where_the_host_is_slow_the_path_is_the_hosts() -> None:
    """The last rank's host takes 16 x 5 s and 15 x 2 s until 3B7 is issued; three backwards of 1 s are left then."""
    ops: dict[tuple[int, int], OpTime] = {
        (kind, stage): OpTime(1.0, 0.0, 5.0, 2.0) for kind in (F, B) for stage in range(4)
    }
    costs = MeasuredCosts(source="costs.yaml", stages=4, pipes=1, ops=ops)
    timeline = simulate(schedule="1f1b", ranks=4, micro_batches=8, costs=costs).played
    path = critical_path(timeline)
    check_continuous(path, timeline)
    assert path.seconds_by_part() == {"host": 110.0, "compute": 3.0}
    assert (path.node[0], path.rank[0]) == (-1, 3)
    computed = path.nodes[path.nodes < timeline.graph.first_transfer]
    assert [timeline.graph.label(node) for node in computed.tolist()] == ["2B7", "1B7", "0B7"]


def test_parts_have_words() -> None:
    assert all(words and words == words.strip() for words in PARTS.values())
