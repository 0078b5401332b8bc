"""What a cost model need not say: how long an op takes follows from its phases."""

from __future__ import annotations

from dataclasses import dataclass

from dualpipe_sim import simulate
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.asked import op_seconds
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.order.ops import B, F, TaskShape
from dualpipe_sim.order.placement import Placement, linear


@dataclass(frozen=True)
class OnlyPhases:
    """F: 1 s of compute, its 2 s of all-to-all, beside which 1.5 s more are computed. All else: 3 s of compute."""

    transfer_s: float = 0.0
    transfer_bytes: float = 0.0

    def on(self, placement: Placement) -> OnlyPhases:  # noqa: ARG002 - all stages take the same
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        if task[0][0] != F:
            return (Phase(Lane.COMPUTE, 3.0, task[0][0]),)
        first, sent = Phase(Lane.COMPUTE, 1.0, F), Phase(Lane.ALLTOALL, 2.0, F, after=(0,))
        return first, sent, Phase(Lane.COMPUTE, 1.5, F)


def test_an_op_alone_takes_what_its_longest_chain_of_phases_takes() -> None:
    assert op_seconds(OnlyPhases(), F, 2).tolist() == [3.0, 3.0]
    assert op_seconds(OnlyPhases(), B, 2).tolist() == [3.0, 3.0]
    assert op_seconds(UniformCosts(1.0, 2.0, 3.0).on(linear(2)), B, 2).tolist() == [5.0, 5.0]


def test_a_schedule_that_adapts_to_times_needs_no_more_than_phases() -> None:
    run = simulate(schedule="zb-auto", ranks=1, micro_batches=4, costs=OnlyPhases())
    assert run.makespan_s is not None
    # a rank computes for 2.5 + 3 + 3 s a micro-batch, and waits for at most the last half second of each all-to-all
    assert 4 * 8.5 <= run.makespan_s <= 4 * 9.0
