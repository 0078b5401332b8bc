"""Hidden and exposed all-to-all, by hand."""

from typing import NamedTuple

from dualpipe_sim.analysis.alltoall import collective_times
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.engine import longest_path
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.ops import TaskShape
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.text import parse_order


class ExpertsElsewhere(NamedTuple):
    """Stage 0 computes for 1 s, stage 1 exchanges tokens for 2 s and computes nothing."""

    transfer_s: float | None = 0.0
    transfer_bytes: float = 0.0

    def on(self, placement: Placement) -> "ExpertsElsewhere":  # noqa: ARG002 - the same at every stage
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        ((kind, stage),) = task
        return (Phase(Lane.ALLTOALL, 2.0, kind, "dispatch") if stage else Phase(Lane.COMPUTE, 1.0, kind),)


def test_a_rank_that_computes_nothing_hides_nothing() -> None:
    order = parse_order("0F0,0B0\n1F0,1B0\n")
    seconds = collective_times(longest_path.play(lower(order, ExpertsElsewhere()))).alltoall
    assert seconds.total_s.tolist() == seconds.exposed_s.tolist() == [0.0, 4.0]
    assert seconds.hidden_ratio == 0.0
