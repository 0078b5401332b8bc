"""What a host that issues kernel after kernel makes of ops, and what messages beside them do: torch's, on an H100."""

from __future__ import annotations

from typing import Any

import pytest

from dualpipe_sim import build, simulate
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerStageCosts
from dualpipe_sim.costs.load import SPLIT, USUAL
from dualpipe_sim.model.stacks import STACKS
from dualpipe_sim.order.ops import B, F, I, Kind, W

ISSUE = STACKS["torch-eager"].issue


def config(hidden: int, schedule: object = "zb-h1", **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "model": {
            "name": "a transformer", "layers": 8, "hidden": hidden, "vocabulary": 1024, "ffn": 4 * hidden,
            "activation": "swiglu",
            "attention": {"heads": hidden // 128, "kv_heads": hidden // 128, "qk_head": 128, "v_head": 128},
        },
        "gpu": "h100",
        "stack": "torch-eager",
        "parallel": {"pipeline": 2, "data": 1},
        "training": {"sequence_length": 4096, "global_batch": 8, "precision": "bf16", "recompute": "none"},
        "schedule": schedule,
        **changes,
    }  # fmt: skip


def costs_of(hidden: int, **changes: Any) -> LayerStageCosts:  # noqa: ANN401
    experiment = load_experiment(config(hidden, **changes))
    found = experiment.costs.on(build("zb-h1", ranks=2, micro_batches=8).placement)
    assert isinstance(found, LayerStageCosts)
    return found


def seconds(costs: LayerStageCosts, kind: Kind) -> float:
    """Return an op of the first stage on a GPU that was busy all the time."""
    return (1 + USUAL.beta) * sum(phase.duration_s for phase in costs.phases(((kind, 0),)))


def test_the_host_is_the_limit_of_short_ops() -> None:
    """Four layers a stage, each of which a host takes its time for, and once for the op."""
    costs = costs_of(256)
    of_layer = {F: ISSUE.forward_s, B: ISSUE.backward_s, I: ISSUE.input_s, W: ISSUE.weight_s}
    assert {kind: seconds(costs, kind) for kind in of_layer} == pytest.approx(
        {kind: 4 * layer_s + ISSUE.op_s for kind, layer_s in of_layer.items()}
    )


def test_the_host_is_the_limit_of_short_ops_with_collectives_inside_too() -> None:
    """A group's collectives are on another lane, and no part of what may be longer for the host's sake."""
    costs = costs_of(256, parallel={"pipeline": 2, "data": 1, "tensor": 2})
    phases = costs.phases(((I, 0),))
    assert {phase.lane for phase in phases} == {Lane.COMPUTE, Lane.ALLTOALL}
    lasts_s = sum(phase.duration_s * (1 + USUAL.beta if phase.lane == Lane.COMPUTE else 1) for phase in phases)
    assert lasts_s == pytest.approx(4 * ISSUE.input_s + ISSUE.op_s)


def test_a_backward_in_two_takes_longer_than_whole() -> None:
    costs = costs_of(8192)
    assert seconds(costs, I) + seconds(costs, W) == pytest.approx(SPLIT * seconds(costs, B))


def test_software_of_no_host_has_neither() -> None:
    costs = costs_of(256, stack="ideal")
    assert seconds(costs, I) + seconds(costs, W) == pytest.approx(seconds(costs, B))
    assert seconds(costs, F) < ISSUE.forward_s


def test_compute_takes_longer_beside_a_message_of_a_runtime() -> None:
    """In torch's runtime a message waits beside ops for its other side; in no runtime it is there when it is needed."""
    v_shaped = config(4096, "zb-v")
    ideal, torch = (simulate(v_shaped | {"pipeline": {"runtime": one}}).makespan_s for one in ("ideal", "torch"))
    assert ideal is not None
    assert torch is not None
    assert 1.02 < torch / ideal < 1 + USUAL.gamma
