"""What ``overlap`` says goes on beside compute is what its longer keys say, and the two may not disagree."""

from __future__ import annotations

from typing import Any

import pytest

from dualpipe_sim import Result, UserError, compare, simulate
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.experiment import Experiment

JOB: dict[str, Any] = {
    "model": "llama3-8b",
    "gpu": "h100",
    "stack": "megatron",
    "parallel": {"tensor": 4, "pipeline": 4, "data": 8},
    "training": {"sequence_length": 4096, "global_batch": 64, "precision": "bf16", "recompute": "none"},
    "schedule": "1f1b",
}
MOE: dict[str, Any] = JOB | {
    "model": "mixtral-8x7b",
    "parallel": {"pipeline": 4, "expert": 8, "data": 8},
}


def with_keys(base: dict[str, Any] = JOB, /, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a configuration with keys of its sections changed: ``training__gradient_reduction`` is one of them."""
    config = {**base}
    for name, value in changes.items():
        section, _, key = name.partition("__")
        config[section] = {**config.get(section, {}), key: value} if key else value
    return config


def run(**changes: Any) -> Result:  # noqa: ANN401
    return simulate(with_keys(**changes))


def experiment(base: dict[str, Any] = JOB, /, **changes: Any) -> Experiment:  # noqa: ANN401
    return load_experiment(with_keys(base, **changes))


def costs(**changes: Any) -> LayerCosts:  # noqa: ANN401
    found = experiment(**changes).costs
    assert isinstance(found, LayerCosts)
    return found


def test_without_flags_nothing_changes() -> None:
    assert run(overlap={}).step_time_s == run().step_time_s


@pytest.mark.parametrize(("flag", "said"), [(True, "overlapped"), (False, "after")])
def test_grad_reduce_is_gradient_reduction(flag: bool, said: str) -> None:
    by_flag = run(overlap__grad_reduce=flag, overlap__param_gather=flag)
    assert by_flag.step_time_s == run(training__gradient_reduction=said).step_time_s


def test_what_is_not_overlapped_takes_longer() -> None:
    all_late = run(overlap__grad_reduce=False, overlap__param_gather=False).step_time_s
    late_gather = run(overlap__grad_reduce=True, overlap__param_gather=False).step_time_s
    none_late = run(overlap__grad_reduce=True, overlap__param_gather=True).step_time_s
    assert all_late is not None
    assert late_gather is not None
    assert none_late is not None
    assert all_late > late_gather > none_late


def test_tp_comm_is_tensor_overlap() -> None:
    step_s = run(overlap__tp_comm=True).step_time_s
    assert step_s == run(parallel__tensor_overlap=True).step_time_s
    assert step_s is not None
    assert step_s < (run(overlap__tp_comm=False).step_time_s or 0.0)


def test_ep_comm_takes_the_overlapped_form_of_a_schedule() -> None:
    assert experiment(MOE, overlap__ep_comm=True).choice.name == "1f1b-overlap"
    assert experiment(MOE, overlap__ep_comm=False).choice.name == "1f1b"
    with_pairs, without = (simulate(with_keys(MOE, overlap__ep_comm=on)) for on in (True, False))
    assert with_pairs.alltoall_hidden_ratio is not None
    assert with_pairs.alltoall_hidden_ratio > 0.2
    assert without.alltoall_hidden_ratio == 0


def test_what_is_compared_keeps_schedules_that_have_no_such_form() -> None:
    found = compare(with_keys(MOE, overlap__ep_comm=True, compare=["1f1b", "gpipe"]))
    assert sorted(result.schedule for result in found) == ["1f1b-overlap", "gpipe"]


def test_p2p_makes_compute_wait_for_messages() -> None:
    interleaved = {"schedule": {"name": "interleaved-1f1b", "stages_per_rank": 2}, "pipeline__runtime": "megatron"}
    beside, waiting = (run(**interleaved, overlap__p2p=on).makespan_s for on in (True, False))
    assert beside is not None
    assert waiting is not None
    assert beside < waiting


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overlap__grad_reduce": True, "training__gradient_reduction": "after"}, "overlap.grad_reduce: true is"),
        ({"overlap__tp_comm": True, "parallel__tensor_overlap": False}, "overlap.tp_comm: parallel.tensor_overlap"),
        ({"overlap__ep_comm": True, "schedule": "gpipe"}, "gpipe has no pairs for all-to-alls; take one of"),
        ({"overlap__ep_comm": False, "schedule": "dualpipe"}, "leave out ep_comm: false"),
        ({"overlap__p2p": False}, "say whose messages compute waits for"),
        ({"overlap__p2p": False, "pipeline__runtime": "torch"}, "runtime torch has no choice of that; megatron has"),
        ({"overlap__gradients": True}, "overlap.gradients: unknown key"),
        ({"overlap__p2p": "yes please"}, "overlap.p2p"),
    ],
)
def test_what_contradicts_itself_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as raised:
        run(**changes)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
