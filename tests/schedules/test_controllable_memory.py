"""V-Half and V-Min, and the orders they grow from. Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import build, format_order
from dualpipe_sim.analysis import metrics
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import longest_path
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import F, I, W
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules import v_half, v_min
from dualpipe_sim.schedules.zero_bubble.building_block import SlotsOf

# The papers' memory, in activations of a whole rank: half and a third of 1F1B's.
PEAK = {"v-half": lambda ranks: (ranks + 2) // 2, "v-min": lambda ranks: (ranks + 4) // 3}


def played(schedule: Schedule) -> Timeline:
    return longest_path.play(lower(schedule, UniformCosts(1.0, 1.0, 1.0), None))


@pytest.mark.parametrize(
    ("name", "ranks", "idle"),
    [
        *(("v-half", ranks, idle) for ranks, idle in ((4, 2.5), (6, 5.5), (8, 8.5), (10, 11.5))),
        *(("v-min", ranks, 2 * ranks - 2.5) for ranks in (4, 5, 6, 7, 8, 9, 10, 16)),
    ],
)
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_idle_time_and_memory_are_the_published_ones(name: str, ranks: int, idle: float, rounds: int) -> None:
    timeline = played(build(name, ranks, rounds * ranks))
    assert metrics.idle_s(timeline) == pytest.approx([idle] * ranks)
    assert metrics.peak_activations_by_rank(timeline).max() == PEAK[name](ranks)


@pytest.mark.parametrize("name", ["v-half", "v-min"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 11, 12, 15, 21, 32])
def test_memory_is_the_published_one_at_any_number_of_ranks(name: str, ranks: int) -> None:
    timeline = played(build(name, ranks, 3 * ranks))
    assert metrics.peak_activations_by_rank(timeline).max() == PEAK[name](ranks)


@given(name=st.sampled_from(["v-half", "v-min"]), ranks=st.integers(1, 14), micro_batches=st.integers(1, 40))
def test_every_size_runs_each_op_once_and_never_holds_more(name: str, ranks: int, micro_batches: int) -> None:
    schedule = build(name, ranks, micro_batches)
    ops = Counter(zip(schedule.kind.tolist(), schedule.stage.tolist(), schedule.micro_batch.tolist(), strict=True))
    wanted = {(k, s, m) for k in (F, I, W) for s in range(2 * ranks) for m in range(micro_batches)}
    assert ops == dict.fromkeys(wanted, 1)
    timeline = played(schedule)  # refuses an order in which ranks wait for each other
    assert metrics.peak_activations_by_rank(timeline).max() <= PEAK[name](ranks)


@given(slots_of=st.sampled_from([v_half.slots, v_min.slots]), ranks=st.integers(1, 64), rank=st.integers(0, 63))
def test_the_ops_of_a_block_never_meet_when_it_is_repeated(slots_of: SlotsOf, ranks: int, rank: int) -> None:
    slots = slots_of(ranks, rank % ranks)
    assert len({slot % 6 for slot in slots}) == 4
    assert list(slots) == sorted(slots)


@pytest.mark.parametrize("slots_of", [v_half.slots, v_min.slots])
@pytest.mark.parametrize("ranks", range(2, 13))
def test_a_block_passes_tensors_on_after_they_are_made(slots_of: SlotsOf, ranks: int) -> None:
    slots = np.array([slots_of(ranks, rank) for rank in range(ranks)])
    down, up, back, last = slots.T
    stream = np.concatenate([down, up[::-1], back, last[::-1]])
    assert (np.diff(stream) >= 1).all()


def test_two_ranks_by_hand() -> None:
    # Slots of V-Min on two ranks: 0F 0, 3F 3, 3I 4, 0I 7 on rank 0, and 1F 1, 2F 2, 2I 5, 1I 6 on rank 1; with one
    # micro-batch each W follows its I.
    assert (
        format_order(build("v-min", ranks=2, micro_batches=1)) == "0F0,3F0,3I0,3W0,0I0,0W0\n1F0,2F0,2I0,1I0,2W0,1W0\n"
    )


def test_v_half_holds_more_and_idles_less_than_v_min() -> None:
    half, least = played(build("v-half", 12, 36)), played(build("v-min", 12, 36))
    assert half.makespan_s < least.makespan_s
    assert metrics.peak_activations_by_rank(half).max() > metrics.peak_activations_by_rank(least).max()
