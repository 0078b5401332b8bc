"""What a model leaves on the GPUs of a placement: state for the whole step, and what each unit keeps a micro-batch.

A unit is what memory comes and goes with: a layer (those of multi-token prediction follow the model's), the
embedding, the head. Bytes are whole numbers, rounded up, so that what comes and goes sums to nothing exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import ceil
from typing import NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.arrays import IntArray
from dualpipe_sim.costs.layers import LayerCosts, LayerStageCosts
from dualpipe_sim.costs.memory import (
    alltoall_buffer_bytes,
    boundary_bytes,
    head_activations,
    high_precision_weight_gradient_inputs,
    hosted,
    layer_activations,
    logits_bytes,
    mtp_activations,
    static_bytes,
    weight_gradient_inputs,
)
from dualpipe_sim.model.architecture import LayerKind, Parameters
from dualpipe_sim.order.placement import Placement

Held: TypeAlias = dict[tuple[object, ...], Parameters]
"""Parameters on a rank, each once, by what tells them from others: a stage's depth in its pipe and a unit."""

_EMBEDDING = ("embedding",)


class Kept(NamedTuple):
    """Bytes that a unit keeps for one micro-batch.

    Attributes:
        activations: from the start of its F to the end of its I or B.
        weight_gradient_inputs: from the end of its I to the end of its W, where the backward is split.
        while_forward: only while its F runs.

    """

    activations: int = 0
    weight_gradient_inputs: int = 0
    while_forward: int = 0


class State(NamedTuple):
    """Bytes on a rank's GPU for the whole step, each of shape ``(ranks,)``.

    Attributes:
        weights: resident weights.
        gradients: gradients, whole.
        optimizer: the GPU's share of master weights and moments.
        buffers: the all-to-all's buffers.

    """

    weights: IntArray
    gradients: IntArray
    optimizer: IntArray
    buffers: IntArray


def kept_by_unit(costs: LayerCosts) -> Mapping[int | str, Kept]:
    """Return what each unit keeps for one micro-batch, by a layer's number or the name of its phase."""
    model, tokens = costs.model, costs.tokens
    kinds = model.layer_kinds()
    of_kind = {kind: _layer(costs, kind) for kind in set(kinds)}
    units: dict[int | str, Kept] = {layer: of_kind[kind] for layer, kind in enumerate(kinds)}
    module = _plus(of_kind[kinds[-1]], mtp_activations(model, tokens), _deferred(costs, "mtp"))
    units |= {model.layers + number: module for number in range(model.mtp_depth)}
    head = _plus(Kept(), head_activations(model, tokens), _deferred(costs, "head"))
    logits = ceil(logits_bytes(model, tokens))  # of one pass through the head, even where several follow each other
    return units | {
        # The embedding keeps no more than token numbers; its deferred W needs the gradient of its output.
        "embedding": Kept(weight_gradient_inputs=ceil(boundary_bytes(model, tokens))),
        "head": head._replace(while_forward=logits),
        "mtp head": Kept(*(size * model.mtp_depth for size in head))._replace(while_forward=logits),
    }


def state_by_rank(costs: LayerCosts, placement: Placement) -> State:
    """Return the state on each rank's GPU.

    What several stages of a rank hold of the same parameters is there once. Optimizer states are sharded over everyone
    that holds the same parameters, so that a second copy of a stage halves them.
    """
    stage_costs = costs.on(placement)
    ranks = [held_parameters(stage_costs, placement, rank) for rank in range(placement.ranks)]
    holders = Counter(key for held in ranks for key in held)
    return State(*np.array([_state(costs, held, holders) for held in ranks], dtype=np.int64).T)


def held_parameters(costs: LayerStageCosts, placement: Placement, rank: int) -> Held:
    """Return the parameters on a rank.

    Multi-token prediction looks tokens up in the model's embedding and a tied head is the embedding's matrix: where the
    first stage is on the same rank they share it, elsewhere they need a copy.
    """
    held: Held = {}
    model = costs.costs.model
    for stage in placement.stages_of_rank(rank):
        here = costs.held[stage]
        depth = int(placement.depth_of_stage[stage])
        for unit, parameters in costs.parameters(stage).items():
            held[_EMBEDDING if unit == "embedding" else (depth, unit)] = parameters
        if here.mtp or (here.head and model.tied_embedding):
            held[_EMBEDDING] = model.embedding_parameters()
    return held


def _state(costs: LayerCosts, held: Held, holders: Mapping[tuple[object, ...], int]) -> list[int]:
    states = [
        static_bytes(
            hosted(parameters, costs.expert_parallel),
            costs.recipe,
            data_parallel=costs.data_parallel,
            expert_parallel=costs.expert_parallel,
            copies=holders[key],
        )
        for key, parameters in held.items()
    ]
    sums = (sum(getattr(state, part) for state in states) for part in ("weights", "gradients", "optimizer"))
    has_experts = any(parameters.expert for parameters in held.values())
    return [*map(ceil, sums), _buffer_bytes(costs) if has_experts else 0]


def _buffer_bytes(costs: LayerCosts) -> int:
    alltoall = costs.alltoall
    if alltoall is None:
        return 0
    channels = alltoall.kernel.channels(costs.overlap.communication_sms)
    return ceil(alltoall_buffer_bytes(alltoall.group, costs.model.hidden, channels))


def _layer(costs: LayerCosts, kind: LayerKind) -> Kept:
    spread = costs.alltoall
    received = None if spread is None else costs.tokens * spread.group.distinct_gpus
    skew = 1.0 if spread is None else costs.routing_skew
    activations = layer_activations(
        costs.model,
        kind,
        costs.recipe,
        tokens=costs.tokens,
        sequence_length=costs.sequence_length,
        received_tokens=received,
        routing_skew=skew,
    )
    deferred = weight_gradient_inputs(
        costs.model, kind, costs.recipe, tokens=costs.tokens, received_tokens=received, routing_skew=skew
    )
    return _plus(Kept(), activations, deferred)


def _deferred(costs: LayerCosts, part: str) -> dict[str, float]:
    linears = costs.model.mtp_linears() if part == "mtp" else costs.model.head_linears()
    return high_precision_weight_gradient_inputs(linears, costs.tokens)


def _plus(kept: Kept, activations: Mapping[str, float], deferred: Mapping[str, float]) -> Kept:
    return kept._replace(
        activations=kept.activations + ceil(sum(activations.values())),
        weight_gradient_inputs=kept.weight_gradient_inputs + ceil(sum(deferred.values())),
    )
