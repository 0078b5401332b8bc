"""Sizes of parallelism: what fits each other, what follows from what, and which GPUs a group has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dualpipe_sim.config import load_experiment
from dualpipe_sim.config.schema import Parallel
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.errors import ConfigError, UserError
from dualpipe_sim.hardware.groups import Group
from dualpipe_sim.model.parallelism import Parallelism, least_data

LITE: dict[str, Any] = {
    "pipeline": {"ranks": 2, "micro_batches": 4},
    "schedule": "1f1b",
    "model": "deepseek-v2-lite",
    "gpu": "h100",
    "training": {"sequence_length": 4096},
}

SIZES = st.sampled_from([1, 2, 3, 4, 6, 8])


def cut_of(**parallel: object) -> Parallelism:
    """Return how a configuration's sizes cut a pipeline rank."""
    return costs_of(**parallel).job.parallel


def costs_of(**parallel: object) -> LayerCosts:
    costs = load_experiment({**LITE, "parallel": parallel}).costs
    assert isinstance(costs, LayerCosts)
    return costs


@given(SIZES, SIZES, SIZES, SIZES, SIZES)
def test_a_rank_is_the_product_and_whole_groups_of_experts(t: int, c: int, d: int, e: int, et: int) -> None:
    if t * c * d % (e * et):
        with pytest.raises(UserError, match=r"parallel\.data: .* GPUs a rank are not whole groups of"):
            Parallelism(tensor=t, context=c, data=d, expert=e, expert_tensor=et)
        return
    cut = Parallelism(tensor=t, context=c, data=d, expert=e, expert_tensor=et)
    assert cut.gpus == t * c * d
    assert cut.holders * t == cut.gpus  # each tensor-parallel share is held by all others
    assert cut.expert_holders * e * et == cut.gpus


@given(SIZES, SIZES, SIZES, SIZES)
def test_data_is_as_small_as_the_experts_allow(t: int, c: int, e: int, et: int) -> None:
    fits = [data for data in range(1, e * et + 1) if t * c * data % (e * et) == 0]
    assert least_data(t, c, e, et) == fits[0]
    assert Parallel.model_validate({"tensor": t, "context": c, "expert": e, "expert_tensor": et}).replicas(4) == fits[0]


@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.integers(1, 300))
def test_gpus_that_do_not_fit_are_refused_with_the_nearest_that_do(
    ranks: int, t: int, c: int, e: int, et: int, gpus: int
) -> None:
    sizes: dict[str, Any] = {"tensor": t, "context": c, "expert": e, "expert_tensor": et}

    def fits(number: int) -> bool:
        each, left = divmod(number, ranks * t * c)
        return left == 0 and each > 0 and t * c * each % (e * et) == 0

    section = Parallel.model_validate({**sizes, "gpus": gpus})
    if fits(gpus):
        data = section.replicas(ranks)
        assert ranks * Parallelism(data=data, **sizes).gpus == gpus
        return
    with pytest.raises(UserError, match=r"^parallel\.gpus: ") as refused:
        section.replicas(ranks)
    nearest = [int(number) for number in re.findall(r"\d+", str(refused.value).rpartition("nearest: ")[2])]
    below = [number for number in range(1, gpus) if fits(number)][-1:]
    above = next(number for number in range(gpus + 1, gpus + ranks * t * c * e * et + 1) if fits(number))
    assert nearest == [*below, above]


def test_data_follows_from_all_gpus() -> None:
    assert Parallel.model_validate({"gpus": 2048, "expert": 64}).replicas(16) == 128  # DeepSeek-V3, section 3.2
    cut = cut_of(gpus=64, tensor=4, context=2, expert=8)
    assert (cut.data, cut.gpus, cut.expert_holders) == (4, 32, 4)


def test_pipeline_ranks_may_stand_with_the_other_sizes() -> None:
    experiment = load_experiment({**LITE, "pipeline": {"micro_batches": 4}, "parallel": {"pipeline": 2, "gpus": 16}})
    assert isinstance(experiment.costs, LayerCosts)
    assert (experiment.choice.ranks, experiment.costs.job.parallel.data) == (2, 8)


NEAREST = r"parallel\.gpus: 12 is no multiple of 16, which 2 \(pipeline\) x 8 \(tensor\) .* take; nearest: 16$"
BETWEEN = r"parallel\.gpus: 40 is no multiple of 16, .* nearest: 32 or 48"
TWICE = r"parallel\.gpus: 2 \(pipeline\) x 4 \(data\) make 8 GPUs, not 16"
BOTH = r"parallel\.data: 3 x 2 \(parallel\.tensor\) GPUs a rank are not whole groups of 2 .* x 2 \(parallel\.expert_"
LONE = r"parallel\.data: 3 GPUs a rank are not whole groups of 2 \(parallel\.expert\)$"
SHARE = r"parallel\.fsdp: 3 GPUs are no share of the 8 that hold the same parameters \(8\); take a divisor"
HOLDERS = (
    r"parallel\.fsdp: 3 .* 8 that hold the same parameters \(4 x 2 \(parallel\.tensor\) x 2 \(parallel\.context\)\)"
)


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"gpus": 12, "tensor": 8}, NEAREST),
        ({"gpus": 40, "tensor": 8}, BETWEEN),
        ({"gpus": 16, "data": 4}, TWICE),
        ({"tensor": 2, "data": 3, "expert": 2, "expert_tensor": 2}, BOTH),
        ({"data": 3, "expert": 2}, LONE),
        ({"data": 8, "fsdp": 3}, SHARE),
        ({"tensor": 2, "context": 2, "data": 4, "fsdp": 3}, HOLDERS),
        ({"data": 0}, r"parallel\.data"),
        ({"context": 3}, r"training\.sequence_length: 3 GPUs \(parallel\.context\) .* take a multiple of 6"),
        ({"context": 3, "context_balanced": False}, r"training\.sequence_length: .* take a multiple of 3"),
        ({"expert": 5, "data": 5}, r"64 routed experts cannot be spread evenly over 5"),
        ({"expert_tensor": 3}, r"parallel\.expert_tensor: 3 GPUs cannot share model\.experts\.ffn out evenly, 1408"),
    ],
)
def test_what_does_not_fit_is_refused(parallel: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        costs_of(**parallel)


@given(SIZES, SIZES, SIZES, st.sampled_from([2, 3, 4, 6, 8, 12, 16]))
def test_a_group_that_shares_weights_out_divides_those_that_hold_them(t: int, c: int, d: int, fsdp: int) -> None:
    # (One that divides all GPUs of a rank, and not those that hold the same parameters, is not drawn.)
    assume(t * c * d % fsdp or c * d % fsdp == 0)
    if c * d % fsdp:
        with pytest.raises(UserError, match=r"parallel\.fsdp"):
            Parallelism(tensor=t, context=c, data=d, fsdp=fsdp)
        return
    cut = Parallelism(tensor=t, context=c, data=d, fsdp=fsdp)
    assert cut.shards_weights
    assert cut.over(cut.holders) == fsdp


def test_who_shares_what_out() -> None:
    plain, three = Parallelism(data=8), Parallelism(data=8, zero=3)
    assert (plain.shards_weights, three.shards_weights, Parallelism(data=8, fsdp=1).shards_weights) == (0, 1, 0)
    assert (plain.over(8), three.over(8)) == (8, 8)
    assert Parallelism(data=8, expert=4, fsdp=8).over(2) == 2  # of the experts there are two copies


def test_experts_may_be_cut_over_gpus_that_are_no_tensor_group() -> None:
    cut = Parallelism(tensor=1, data=16, expert=4, expert_tensor=2)
    assert (cut.holders, cut.expert_holders) == (16, 2)
    folded = Parallelism(tensor=4, context=2, data=2, expert=8)  # Megatron-Core's folding: experts over all GPUs
    assert (folded.gpus, folded.expert_holders) == (16, 2)


def strides(of: Mapping[Any, int], axis: int) -> set[int]:
    """Return the distances of neighbours along an axis of a grid of ranks."""
    found = set()
    for place, rank in of.items():
        after = (*place[:axis], place[axis] + 1, *place[axis + 1 :])
        if after in of:
            found.add(of[after] - rank)
    return found


def test_ranks_are_in_megatrons_order() -> None:
    """``tp-cp-ep-dp-pp`` of Megatron-Core's ``parallel_state``: the first of them varies fastest."""
    t, c, d = 2, 2, 4
    dense = {(dp, cp, tp): number for number, (dp, cp, tp) in enumerate(product(range(d), range(c), range(t)))}
    experts = {place: number for number, place in enumerate(product(range(2), range(4), range(2)))}
    costs = costs_of(tensor=t, context=c, data=d, expert=4, expert_tensor=2, zero=3, gathers="each")
    groups = costs.groups
    assert groups.tensor is not None
    assert groups.context is not None
    assert groups.weights is not None
    assert strides(dense, 2) == {groups.tensor.group.stride}
    assert strides(dense, 1) == {groups.context.group.stride}
    held, held_experts = groups.weights._shards
    # Those that hold the same parameters are a tensor-parallel group apart, whether by context or by data.
    assert (held.gpus, held.stride) == (c * d, t)
    assert groups.experts == Group(costs.links, 2)
    assert strides(experts, 2) == {1}
    assert (held_experts.gpus, held_experts.stride) == (2, strides(experts, 0).pop())
    assert costs.alltoall is not None
    assert (costs.alltoall.group.gpus, costs.alltoall.group.gpus_per_node) == (4, 4)
