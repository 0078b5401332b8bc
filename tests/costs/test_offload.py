"""What lies in the host's memory: copies beside layers, their bytes, what memory they free and what time they take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualpipe_sim import build, simulate
from dualpipe_sim.analysis.memory import COMPONENTS, Memory
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.op_phases import op_phases, pair_phases
from dualpipe_sim.costs.phases import Phase, ends_s
from dualpipe_sim.errors import ConfigError, UnfitCostsError, UserError
from dualpipe_sim.model.footprint import bytes_by_unit
from dualpipe_sim.model.layout import StageLayers
from dualpipe_sim.order.ops import COPIES, B, F, I, Kind, W
from dualpipe_sim.result import Result
from dualpipe_sim.schedules.registry import schedules
from tests.plays import asked_by

T = 4096
LLAMA: dict[str, Any] = {
    "pipeline": {"ranks": 4, "micro_batches": 8, "layout": "tttt|tttt|tttt|tttt"},
    "schedule": "1f1b",
    "model": {"preset": "llama3-8b", "layers": 16},
    "gpu": "h100",
    "training": {"sequence_length": T, "recompute": "none"},
}
FOUR = StageLayers((4, 5, 6, 7))
HOST = 55e9
"""Bytes a second to the host's memory of an H100, each way."""

KEPT = T * (2 * (4 * 4096 + (32 + 16) * 128 + 32 * 128 + 3 * 14336) + 32 * 4)
"""Bytes of a layer: two norms' inputs and outputs, queries, keys, values, output, SwiGLU's in and out, statistics."""
STATE = ("weights", "gradients", "optimizer states")
ACTIVATIONS = COMPONENTS.index("activations")

PAIRED = [name for name in sorted(schedules()) if (build(name, 4, 8).partner >= 0).any()]
COPIED = [name for name in sorted(schedules()) if build(name, 4, 8).of_kinds(*COPIES).any()]
ALONE = [name for name in sorted(schedules()) if name not in {*PAIRED, *COPIED}]


def costs_of(layers: int = 2, /, **overrides: object) -> LayerCosts:
    costs = load_experiment(LLAMA, {"training.offload.layers": layers, **overrides}).costs
    assert isinstance(costs, LayerCosts)
    return costs


def run(**overrides: object) -> Result:
    return simulate(LLAMA, **overrides)


def memory(result: Result) -> Memory:
    assert result.memory is not None
    return result.memory


def moments(phases: tuple[Phase, ...]) -> tuple[list[float], list[float]]:
    ends = ends_s(phases, [phase.duration_s for phase in phases])
    return [end - phase.duration_s for phase, end in zip(phases, ends, strict=True)], ends


def named(phases: tuple[Phase, ...]) -> list[str]:
    return [f"{phase.name} {Kind(phase.kind)} {phase.layer}" for phase in phases]


def copies(phases: tuple[Phase, ...]) -> dict[int, int]:
    """Return the place of each layer's copy."""
    return {phase.layer: place for place, phase in enumerate(phases) if phase.lane == Lane.COPY}


# Copies.


def test_copies_of_f_run_behind_their_layers() -> None:
    phases = op_phases(costs_of().parts, FOUR, F)
    starts, ends = moments(phases)
    where = copies(phases)
    assert list(where) == [4, 5]  # the first two of the stage
    free_s = 0.0
    for layer, place in where.items():
        assert phases[place].name == "to host"
        computed_s = max(ends[at] for at, one in enumerate(phases) if one.layer == layer and at != place)
        assert starts[place] == pytest.approx(max(computed_s, free_s))  # one after the other
        free_s = ends[place]


@pytest.mark.parametrize("kind", [I, B])
def test_what_lies_there_is_back_before_the_backward_and_comes_beside_the_layer_before(kind: int) -> None:
    phases = op_phases(costs_of(3).parts, FOUR, kind)
    starts, ends = moments(phases)
    where = copies(phases)
    assert list(where) == [6, 5, 4]
    for layer, place in where.items():
        assert phases[place].name == "from host"
        begins_s = min(starts[at] for at, one in enumerate(phases) if one.layer == layer and at != place)
        assert begins_s >= ends[place] * (1 - 1e-12)
        before = min(starts[at] for at, one in enumerate(phases) if one.layer == layer + 1 and one.lane != Lane.COPY)
        assert starts[place] >= before


def test_the_first_layer_of_a_backward_waits_for_its_own_copy() -> None:
    phases = op_phases(costs_of(4).parts, FOUR, B)
    assert named(phases)[0] == "from host I 7"
    starts, ends = moments(phases)
    assert starts[0] == 0.0
    assert starts[named(phases).index("mlp I 7")] == pytest.approx(ends[0])


def test_a_w_copies_nothing() -> None:
    assert op_phases(costs_of().parts, FOUR, W) == op_phases(costs_of(0).parts, FOUR, W)


def test_a_copy_takes_the_bytes_that_are_kept_over_the_bandwidth() -> None:
    costs = costs_of()
    assert bytes_by_unit(costs.job)[4].activations == KEPT
    for kind in (F, B):
        phases = op_phases(costs.parts, FOUR, kind)
        for place in copies(phases).values():
            assert phases[place].duration_s == pytest.approx(KEPT / HOST)
    half = costs_of(2, **{"gpu.host": 27.5e9}).parts.copy(4, "to host", whole=False)
    assert half.alone_s == pytest.approx(2 * KEPT / HOST)


def test_a_layer_that_is_recomputed_has_its_input_copied() -> None:
    costs = costs_of(4, **{"training.recompute": {"full": True, "layers": 1, "norms": False, "activation": False}})
    phases = op_phases(costs.parts, FOUR, F)
    seconds = [phases[place].duration_s for place in copies(phases).values()]
    assert seconds == pytest.approx([T * 4096 * 2 / HOST, *[KEPT / HOST] * 3])


def test_each_gpu_of_a_tensor_group_copies_its_share() -> None:
    costs = costs_of(parallel={"tensor": 4})
    assert costs.parts.copy(4, "to host", whole=False).alone_s == pytest.approx(KEPT / 4 / HOST)


def test_compute_is_the_same() -> None:
    def computed(costs: LayerCosts, kind: int) -> list[Phase]:
        phases = op_phases(costs.parts, FOUR, kind)
        return [phase._replace(after=()) for phase in phases if phase.lane == Lane.COMPUTE]

    for kind in (F, I, W, B):
        assert computed(costs_of(4), kind) == computed(costs_of(0), kind)


# Memory.


def most(found: Memory, rank: int) -> int:
    return int(found.over_time(rank)[1][:, ACTIVATIONS].max())


def test_memory_falls_by_what_lies_elsewhere() -> None:
    """1F1B's first rank keeps four micro-batches of four layers.

    With all of them away it has those of a forward whose copies are on their way, never all that it had.
    """
    plain = memory(run())
    assert most(plain, 0) == 4 * 4 * KEPT
    boundless = {"gpu.host": 1e24}
    for layers in (1, 2, 3):
        found = memory(run(**{"training.offload.layers": layers, **boundless}))
        # Three micro-batches keep what stays; of the fourth, all or nearly all is there while it computes.
        stays = 3 * (4 - layers) * KEPT
        assert stays + (4 - layers) * KEPT <= most(found, 0) <= stays + 4 * KEPT
    away = memory(run(**{"training.offload.layers": 4, **boundless}))
    assert KEPT <= most(away, 0) <= 2 * KEPT  # a layer at a time, and the next one's


def test_whatever_goes_comes_back_and_is_freed() -> None:
    for schedule in ("1f1b", "zb-h1", "gpipe"):
        found = memory(run(schedule=schedule, **{"training.offload.layers": 2}))
        for rank in range(4):
            live = found.over_time(rank)[1][:, 3:]
            assert np.all(live >= 0)
            assert not live[-1].any()


def test_memory_with_split_backwards_keeps_what_w_needs() -> None:
    plain, away = (memory(run(schedule="zb-h1", **{"training.offload.layers": layers})) for layers in (0, 4))
    deferred = COMPONENTS.index("weight-gradient inputs")
    for rank in range(4):
        one, other = (int(found.over_time(rank)[1][:, deferred].max()) for found in (plain, away))
        assert one == other > 0


# Time.


def test_a_slow_way_makes_a_step_longer_and_a_fast_one_does_not() -> None:
    plain, slow, fast, boundless = (
        run(**{"training.offload.layers": layers, "gpu.host": host}).makespan_s
        for layers, host in ((0, 55e9), (4, 5e9), (1, 500e9), (4, 1e24))
    )
    assert plain is not None
    assert slow is not None
    assert slow > 2 * plain
    assert boundless == pytest.approx(plain, rel=1e-9)
    assert fast == pytest.approx(plain, rel=0.02)


def test_a_stage_of_copies_alone_sets_the_pace_by_hand() -> None:
    """So slow a way that all else is nothing beside it: F ends with 4 layers' copies, B with four more.

    m + p - 1 forwards and backwards in a row.
    """
    result = run(**{"training.offload.layers": 4, "gpu.host": 1e7})
    assert result.makespan_s == pytest.approx((8 + 3) * 2 * 4 * KEPT / 1e7, rel=1e-3)


@pytest.mark.parametrize("schedule", ALONE)
def test_schedules_run_and_both_engines_agree(schedule: str) -> None:
    settings: dict[str, Any] = {"pipeline.layout": "even", "training.offload.layers": 1, "schedule": schedule}
    settings |= asked_by(schedule)
    fast, slow = (run(engine=engine, **settings) for engine in ("longest-path", "simpy"))
    plain = run(**settings | {"training.offload.layers": 0})
    assert slow.makespan_s == pytest.approx(fast.makespan_s, rel=1e-9)
    assert fast.peak_memory_bytes_by_rank == slow.peak_memory_bytes_by_rank
    assert plain.makespan_s is not None
    assert fast.makespan_s is not None
    assert fast.makespan_s > plain.makespan_s
    assert plain.peak_memory_bytes_by_rank is not None
    assert fast.peak_memory_bytes_by_rank is not None
    assert all(np.array(fast.peak_memory_bytes_by_rank) <= plain.peak_memory_bytes_by_rank)


# What is refused.


SAID = r"training\.offload\.layers: an overlapped pair has no place for copies to the host; take 0"


@pytest.mark.parametrize("schedule", COPIED)
def test_orders_that_say_what_is_copied_refuse_others(schedule: str) -> None:
    with pytest.raises(UserError, match=r"training\.offload\.layers: the order says what is copied .*; take 0"):
        run(schedule=schedule, **{"pipeline.layout": "even", "training.offload.layers": 1})


@pytest.mark.parametrize("schedule", PAIRED)
def test_overlapped_pairs_refuse_copies(schedule: str) -> None:
    with pytest.raises(UnfitCostsError, match=SAID):
        run(schedule=schedule, **{"pipeline.layout": "even", "training.offload.layers": 1})


def test_a_pair_alone_refuses_too() -> None:
    with pytest.raises(UnfitCostsError, match=SAID):
        pair_phases(costs_of(1).parts, FOUR, FOUR)


@pytest.mark.parametrize("offload", [{"layers": 1}, {"optimizer": 0.5}])
def test_a_gpu_whose_way_to_the_host_is_not_known_is_refused(offload: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"gpu\.host: is missing"):
        run(**{"gpu.host": 0.0, "training.offload": offload})
    assert run(**{"gpu.host": 0.0}).makespan_s is not None  # which nobody takes


@pytest.mark.parametrize(
    ("offload", "message"),
    [
        ({"optimizer": 1.5}, r"training\.offload\.optimizer: must be a share from 0 to 1, not 1\.5"),
        ({"optimizer": -0.5}, r"training\.offload\.optimizer"),
        ({"layers": -1}, r"training\.offload\.layers"),
        ({"layer": 1}, r"training\.offload\.layer"),
    ],
)
def test_what_does_not_go_is_refused(offload: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(**{"training.offload": offload})


# The optimizer's states.


LAYER = 4096 * (4096 + 2 * 1024) + 4096**2 + 3 * 4096 * 14336 + 2 * 4096
"""Parameters of a layer of Llama 3 8B (https://arxiv.org/abs/2407.21783, table 3)."""


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(
    ("optimizer", "states", "gradients"),
    [({}, 8, 4), ("megatron", 12, 4), ({"main_weights": "none", "gradients": "bf16"}, 4, 2)],
    ids=str,
)
def test_an_optimizer_that_lies_there_by_hand(share: float, optimizer: object, states: int, gradients: int) -> None:
    """Of four layers over eight GPUs: gradients go there, and at once new weights come back, 2 bytes each.

    What stays here is passed over at the memory's 3.01 TB/s.
    """
    result = run(**{"parallel.data": 8, "training.optimizer": optimizer, "training.offload.optimizer": share})
    plain = run(**{"parallel.data": 8, "training.optimizer": optimizer})
    own = 4 * LAYER / 8
    here = memory(result).over_time(0)[1][0, : len(STATE)]
    assert here[2] == pytest.approx((1 - share) * states * own, abs=8)
    assert here[:2].tolist() == memory(plain).over_time(0)[1][0, :2].tolist()
    whole_s = states * own / 3.01e12
    by_hand_s = (1 - share) * whole_s + share * max(gradients, 2) * own / HOST
    assert result.step_time_s is not None
    assert plain.step_time_s is not None
    assert result.step_time_s - plain.step_time_s == pytest.approx(by_hand_s - whole_s, rel=1e-6, abs=1e-9)
    assert result.makespan_s == plain.makespan_s


def test_a_step_without_the_optimizers_takes_no_time_for_it() -> None:
    settings = {"training.offload.optimizer": 1.0, "training.optimizer": False}
    assert run(**settings).step_time_s == run(**{"training.optimizer": False}).step_time_s
