"""Shared SMs: compute is slower beside an all-to-all, and gets all of its work done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.phases import Flow, Phase
from dualpipe_sim.engine import discrete_event
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.hardware.cluster import Cluster, Link
from dualpipe_sim.order.ops import F, TaskShape
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.schedules.registry import build


@dataclass(frozen=True)
class Script:
    """Costs of a test: F is the phases given, B takes no time."""

    forward: tuple[Phase, ...]
    transfer_s: float | None = 0.0
    transfer_bytes: float = 0.0

    def on(self, placement: Placement) -> Script:  # noqa: ARG002 - the same at every stage
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        return self.forward if task[0][0] == F else (Phase(Lane.COMPUTE, 0.0, task[0][0]),)


def ends_of(*forward: Phase) -> list[float]:
    """Ends of the phases of one forward on one rank."""
    graph = lower(build("gpipe", 1, 1), Script(forward))
    assert not graph.fixed_durations
    return list(map(float, discrete_event.play(graph).end_s[: len(forward)]))


def test_compute_is_fast_once_the_all_to_all_is_over() -> None:
    # A third of the compute is done beside the all-to-all, the other two thirds take 2/3 x 2 s.
    assert ends_of(Phase(Lane.ALLTOALL, 1, F), Phase(Lane.COMPUTE, 3, F, alone_s=2)) == pytest.approx([1, 1 + 4 / 3])


def test_compute_slows_down_when_an_all_to_all_starts() -> None:
    # The second compute phase starts with the all-to-all, does two thirds of its work in those 2 s, the rest in 2/3 s.
    assert ends_of(
        Phase(Lane.COMPUTE, 1.5, F, alone_s=1),
        Phase(Lane.ALLTOALL, 2, F, after=(0,)),
        Phase(Lane.COMPUTE, 3, F, alone_s=2),
        Phase(Lane.COMPUTE, 1.5, F, alone_s=1),
    ) == pytest.approx([1, 3, 3 + 2 / 3, 4 + 2 / 3])


def test_all_to_alls_in_a_row_count_as_one() -> None:
    assert ends_of(
        Phase(Lane.ALLTOALL, 1, F), Phase(Lane.ALLTOALL, 1, F), Phase(Lane.COMPUTE, 3, F, alone_s=2)
    ) == pytest.approx([1, 2, 2 + 2 / 3])


def test_a_rank_has_its_sms_for_itself() -> None:
    """The all-to-all of one rank slows the compute of no other: each rank's forward lasts the same."""
    forward = (Phase(Lane.ALLTOALL, 1, F), Phase(Lane.COMPUTE, 3, F, alone_s=2))
    timeline = discrete_event.play(lower(build("gpipe", 4, 4), Script(forward)))
    is_forward = timeline.task_end_s > timeline.task_start_s
    lasted_s = (timeline.task_end_s - timeline.task_start_s)[is_forward]
    assert lasted_s == pytest.approx(np.full(16, 1 + 4 / 3))


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Phases on both lanes, some waiting for earlier ones on the other."""
    seconds = st.floats(0.1, 5)
    phases = [Phase(Lane.COMPUTE, 1.0, F)]
    for position in range(1, draw(st.integers(2, 8))):
        after = tuple(draw(st.lists(st.integers(0, position - 1), max_size=1)))
        if draw(st.booleans()):
            phases.append(Phase(Lane.ALLTOALL, draw(seconds), F, after=after))
        else:
            beside_s = draw(seconds)
            phases.append(Phase(Lane.COMPUTE, beside_s, F, after=after, alone_s=beside_s * draw(st.floats(0.1, 1.0))))
    return Script(tuple(phases), transfer_s=draw(st.floats(0, 1)))


@given(scripts(), st.sampled_from(["gpipe", "1f1b"]))
def test_the_work_of_every_compute_phase_gets_done(script: Script, name: str) -> None:
    """Time beside an all-to-all over its time there, plus time alone over its time alone, is the whole phase."""
    timeline = discrete_event.play(lower(build(name, 2, 3), script))
    graph = timeline.graph
    for node in range(graph.first_transfer):
        phase = graph.phases[graph.phase[node]]
        lasted_s = timeline.end_s[node] - timeline.start_s[node]
        if phase.alone_s is None:
            assert lasted_s == pytest.approx(phase.duration_s, abs=1e-9)
            continue
        others = np.flatnonzero(graph.on(Lane.ALLTOALL, int(graph.rank[node])))
        begin = np.maximum(timeline.start_s[others], timeline.start_s[node])
        beside_s = np.maximum(np.minimum(timeline.end_s[others], timeline.end_s[node]) - begin, 0).sum()
        done = beside_s / phase.duration_s + (lasted_s - beside_s) / phase.alone_s
        assert done == pytest.approx(1, abs=1e-6)


def test_no_all_to_all_at_all_leaves_every_sm_to_compute() -> None:
    phases = (Phase(Lane.COMPUTE, 3, F, alone_s=2), Phase(Lane.COMPUTE, 3, F, alone_s=1))
    assert ends_of(*phases) == [2, 3]


def test_without_sms_of_its_own_an_all_to_all_starts_when_a_kernel_ends() -> None:
    # Compute of 4 s alone in two kernels begins at 1 s, and the all-to-all comes at once: the first kernel ends at 3 s,
    # and of the second 2/3 are done beside it, the rest in 2/3 s. The next all-to-all comes at 5 s, as that goes on.
    assert ends_of(
        Phase(Lane.COMPUTE, 1, F),
        Phase(Lane.COMPUTE, 6, F, alone_s=4, kernels=2),
        Phase(Lane.ALLTOALL, 2, F, after=(0,)),
        Phase(Lane.ALLTOALL, 1, F),
    ) == pytest.approx([1, 5 + 2 / 3, 5, 5 + 2 / 3 + 1])


def test_one_that_comes_in_the_middle_of_a_kernel_waits_for_the_rest_of_it() -> None:
    # Kernels of 2 s alone, 3 s beside an all-to-all. The first ends at 2 s, two thirds of the second are done by 4 s,
    # the rest at 4 2/3 s, the third at 6 2/3 s; of the fourth a third is done by 7 2/3 s, and the rest takes 4/3 s.
    assert ends_of(
        Phase(Lane.COPY, 1, F),
        Phase(Lane.COPY, 4.5, F),
        Phase(Lane.COMPUTE, 12, F, alone_s=8, kernels=4),
        Phase(Lane.ALLTOALL, 2, F, after=(0,)),
        Phase(Lane.ALLTOALL, 1, F, after=(1,)),
    ) == pytest.approx([1, 5.5, 9, 4, 7 + 2 / 3])


def test_an_all_to_all_that_is_there_first_does_not_wait_for_kernels() -> None:
    assert ends_of(
        Phase(Lane.ALLTOALL, 2, F), Phase(Lane.COMPUTE, 1, F), Phase(Lane.COMPUTE, 3, F, alone_s=2, kernels=1)
    ) == pytest.approx([2, 1, 2 + 4 / 3])


def test_shared_links_and_shared_sms_together() -> None:
    # The transfer of 0F0 and the all-to-all of 0F1 share NVLink, so the all-to-all lasts 2 s in place of 1. Meanwhile
    # 0F1's second compute phase does its work at the slow rate: 2 s of 3; the last third takes 2/3 s.
    forward = (
        Phase(Lane.COMPUTE, 1, F),
        Phase(Lane.ALLTOALL, 1, F, after=(0,), flows=(Flow("nvlink", 100),)),
        Phase(Lane.COMPUTE, 3, F, alone_s=2),
    )
    costs = Script(forward, transfer_s=None, transfer_bytes=200)
    schedule, topology = build("gpipe", 2, 2), Cluster(2, Link(100, 0.0), Link(50, 0.0)).topology(2)
    alone = discrete_event.play(lower(schedule, costs, topology))
    assert alone.task_end_s[:2] == pytest.approx([1 + 1 + 4 / 3, 2 * (2 + 4 / 3)])
    shared = discrete_event.play(lower(schedule, costs, topology, contention=True))
    # 0F0 is out at 10/3. From 13/3 on both share; the transfer has 100 left, the all-to-all 100: both end at 19/3.
    assert shared.end_s[4] == pytest.approx(19 / 3)
    assert shared.end_s[5] == pytest.approx(19 / 3 + 2 / 3)
