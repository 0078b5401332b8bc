"""What a job leaves on the GPUs of a placement: state for the whole step, and what each unit keeps a micro-batch.

A unit is what memory comes and goes with: a layer (those of multi-token prediction follow the model's), the
embedding, the head. Bytes are whole numbers, rounded up, so that what comes and goes sums to nothing exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import NamedTuple, TypeAlias

import numpy as np

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.model.activations import (
    backward_workspace,
    head_activations,
    high_precision_weight_gradient_inputs,
    layer_activations,
    mtp_activations,
    weight_gradient_inputs,
)
from dualpipe_sim.model.architecture import Layer, Parameters
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.layout import StageLayers, mtp_head_names
from dualpipe_sim.model.recipe import Recipe, Recompute
from dualpipe_sim.model.state import local_parameters, state_bytes
from dualpipe_sim.order.placement import Placement

RankParameters: TypeAlias = dict[tuple[object, ...], Parameters]
"""Parameters on a rank, each once, by what tells them from others: a stage's depth in its pipe and a unit."""

_EMBEDDING = ("embedding",)


class UnitBytes(NamedTuple):
    """Bytes that a unit keeps for one micro-batch.

    Attributes:
        activations: from the start of its F to the end of its I or B.
        weight_gradient_inputs: from the end of its I to the end of its W, where the backward is split.
        while_forward: only while its F runs.
        while_backward: only while its I or B runs: what the layer's second forward leaves, where it is recomputed, and
            gradients of activations, where the software stack has them counted.
        earlier: what of that comes with the backward of a later layer, the last of those that run again together;
            there less than nothing, as it comes for the others too.

    """

    activations: int = 0
    weight_gradient_inputs: int = 0
    while_forward: int = 0
    while_backward: int = 0
    earlier: int = 0


class State(NamedTuple):
    """Bytes on a rank's GPU for the whole step, each of shape ``(ranks,)``.

    Attributes:
        weights: resident weights.
        gradients: gradients, whole.
        optimizer: the GPU's share of master weights and moments.
        buffers: the all-to-all's buffers, weights that are gathered for an op, and what the software works in.

    """

    weights: IntArray
    gradients: IntArray
    optimizer: IntArray
    buffers: IntArray


def bytes_by_unit(job: Job, stage_layers: Sequence[StageLayers] = ()) -> dict[int | str, UnitBytes]:
    """Return what each unit keeps for one micro-batch, by a layer's number or the name of its phase.

    Args:
        job: what is trained.
        stage_layers: what each stage holds, where that matters: for a number of layers of each stage, say.

    """
    model, batch = job.shard, job.micro_batch
    kinds, numbers = model.layer_kinds(), model.kind_numbers()
    recipes = _recipes(job.recipe, stage_layers)
    of_kind: dict[tuple[int, int], UnitBytes] = {}  # by number and, since they are few objects, the recipe's identity

    def of_layer(layer: int) -> UnitBytes:
        place, recipe = min(layer, model.layers - 1), recipes.get(layer, job.recipe)
        key = numbers[place], id(recipe)
        if key not in of_kind:
            of_kind[key] = _layer(job, kinds[place], recipe)
        return of_kind[key]

    units: dict[int | str, UnitBytes] = {layer: of_layer(layer) for layer in range(model.layers)}
    units |= _together(job, stage_layers, units)
    projection = high_precision_weight_gradient_inputs(model.mtp_linears(), batch)
    units |= {
        layer: _plus(of_layer(layer), mtp_activations(model, batch), projection)
        for layer in range(model.layers, model.layers + model.mtp_depth)
    }
    stack = job.recipe.stack
    whole, over = (
        job.model if stack.whole_logits else model,
        max((one.vocabulary_over for one in stage_layers), default=0),
    )
    if over:
        model, whole = model.with_vocabulary_over(over), whole.with_vocabulary_over(over)
    deferred = high_precision_weight_gradient_inputs(model.head_linears(), batch)
    logits = batch.tokens * whole.vocabulary  # of one pass: several follow each other
    head = _plus(UnitBytes(), head_activations(model, stack, batch, whole.vocabulary), deferred)._replace(
        while_forward=ceil(logits * stack.logits.while_forward),
        while_backward=ceil(logits * stack.logits.while_backward),
    )
    return units | {
        # The embedding keeps no more than token numbers; its deferred W needs the gradient of its output.
        "embedding": UnitBytes(weight_gradient_inputs=ceil(job.boundary_bytes)),
        "head": head,
        **dict.fromkeys(mtp_head_names(model.mtp_depth), head),
    }


def _together(
    job: Job, stage_layers: Sequence[StageLayers], units: Mapping[int | str, UnitBytes]
) -> dict[int | str, UnitBytes]:
    """Return what layers keep that run again together: all of them is there from the backward of the last one on."""
    again, found = job.recipe.recompute, dict[int | str, UnitBytes]()
    if again.together == 1:
        return found
    for stage in stage_layers:
        whole = [layer for place, layer in enumerate(stage.layers) if again.whole(place)]
        for begin in range(0, len(whole), again.together):
            first, *others = whole[begin : begin + again.together]
            group = {first: units[first]}
            for layer in others:  # whose inputs come again, too
                kept = units[layer].activations
                group[layer] = units[layer]._replace(activations=0, while_backward=units[layer].while_backward + kept)
            sizes = {layer: one.while_backward - _workspace(job, layer) for layer, one in group.items()}
            last = whole[begin : begin + again.together][-1]
            found |= {
                layer: one._replace(earlier=sizes[layer] - sum(sizes.values()) * (layer == last))
                for layer, one in group.items()
            }
    return found


def _workspace(job: Job, layer: int) -> int:
    """Return the bytes of gradients that are there while one layer's backward runs."""
    return ceil(backward_workspace(job.shard, job.shard.layer_kinds()[layer], job.recipe, job.micro_batch))


def _recipes(recipe: Recipe, stage_layers: Sequence[StageLayers]) -> dict[int, Recipe]:
    """Return the recipes of layers that differ with their place in a stage."""
    again = recipe.recompute
    if not again.layers:
        return {}
    whole, others = (replace(recipe, recompute=one) for one in (Recompute(full=True), again.of_others))
    return {
        layer: whole if again.whole(place) else others
        for stage in stage_layers
        for place, layer in enumerate(stage.layers)
    }


def offloaded(job: Job, stage_layers: Sequence[StageLayers]) -> frozenset[int]:
    """Return the layers whose activations lie in the host's memory between F and the backward."""
    return frozenset(layer for stage in stage_layers for layer in stage.layers[: job.recipe.offload.layers])


def state_by_rank(job: Job, stage_layers: Sequence[StageLayers], placement: Placement, buffer_bytes: int = 0) -> State:
    """Return the state on each rank's GPU.

    What several stages of a rank hold of the same parameters is there once. Optimizer states are sharded over everyone
    that holds the same parameters, so that a second copy of a stage halves them.

    Args:
        job: what is trained.
        stage_layers: what each stage holds.
        placement: where the stages are.
        buffer_bytes: the all-to-all's buffers on a GPU with experts.

    """
    ranks = [rank_parameters(job, stage_layers, placement, rank) for rank in range(placement.ranks)]
    holders = Counter(key for parameters in ranks for key in parameters)
    rows = [
        _state(
            job,
            parameters,
            holders,
            _alltoall_bytes(parameters, buffer_bytes) + _placeholder_bytes(job, stage_layers, placement, rank),
        )
        for rank, parameters in enumerate(ranks)
    ]
    return State(*np.array(rows, dtype=np.int64).T)


def _alltoall_bytes(on_rank: RankParameters, buffer_bytes: int) -> int:
    return buffer_bytes if any(parameters.expert for parameters in on_rank.values()) else 0


def _placeholder_bytes(job: Job, stage_layers: Sequence[StageLayers], placement: Placement, rank: int) -> int:
    """Return the bytes of tensors that stand for weights' gradients where these are summed elsewhere: one a shape."""
    if not job.recipe.stack.placeholder_gradients:
        return 0
    model = job.shard
    kinds = model.layer_kinds()
    here = {kinds[layer] for stage in placement.stages_of_rank(rank) for layer in stage_layers[stage].layers}
    shapes = {(linear.inputs, linear.outputs) for kind in here for linear in model.linears(kind)}
    return ceil(sum(inputs * outputs for inputs, outputs in shapes) * BF16_BYTES)


def rank_parameters(job: Job, stage_layers: Sequence[StageLayers], placement: Placement, rank: int) -> RankParameters:
    """Return the parameters on a rank.

    Multi-token prediction looks tokens up in the model's embedding and a tied head is the embedding's matrix: where the
    first stage is on the same rank they share it, elsewhere they need a copy. Where ranks share the vocabulary out,
    none needs one.
    """
    model, shared_out = job.shard, any(one.vocabulary_over for one in stage_layers)
    found: RankParameters = {}
    for stage in placement.stages_of_rank(rank):
        here = stage_layers[stage]
        depth = int(placement.depth_of_stage[stage])
        for unit, parameters in job.parameters(here).items():
            found[_EMBEDDING if unit == "embedding" and not shared_out else (depth, unit)] = parameters
        if not shared_out and (here.mtp or (here.has_head and model.tied_embedding)):
            found[_EMBEDDING] = model.embedding_parameters()
    return found


def _state(
    job: Job, on_rank: RankParameters, holders: Mapping[tuple[object, ...], int], buffer_bytes: int
) -> list[int]:
    states = [
        state_bytes(local_parameters(parameters, job.parallel.expert), job.recipe, job.parallel, copies=holders[key])
        for key, parameters in on_rank.items()
    ]
    sums = (sum(getattr(state, part) for state in states) for part in ("weights", "gradients", "optimizer"))
    buffers = buffer_bytes + _gathered_bytes(job, on_rank) + job.recipe.stack.workspace_bytes
    return [*map(ceil, sums), ceil(buffers)]


def comes_later(job: Job) -> bool:
    """Return whether gradients take memory only once they are made, and not for the whole step.

    Plain data parallelism reduces them in buckets that are there all the time.
    """
    buckets = job.parallel.zero == 0 and not job.parallel.shards_weights and job.parallel.holders > 1
    return job.recipe.stack.gradients_as_they_come and not buckets


def gradients_on_rank(
    job: Job, stage_layers: Sequence[StageLayers], placement: Placement, rank: int
) -> dict[tuple[object, ...], int]:
    """Return the bytes of gradients on a rank's GPU, by what :func:`rank_parameters` calls their parameters."""
    return {
        key: ceil(state_bytes(local_parameters(one, job.parallel.expert), job.recipe, job.parallel).gradients)
        for key, one in rank_parameters(job, stage_layers, placement, rank).items()
    }


def _gathered_bytes(job: Job, on_rank: RankParameters) -> float:
    """Return the bytes of weights that are gathered for an op and the one after it, and of gradients not yet scattered.

    Two units' weights at most are whole at a time, and one's gradients; the largest count.
    """
    if not job.parallel.shards_weights or job.parallel.gathers != "each":
        return 0.0
    sizes = sorted(local_parameters(one, job.parallel.expert).total for one in on_rank.values())
    return (sum(sizes[-2:]) + sizes[-1]) * BF16_BYTES if sizes else 0.0


def _layer(job: Job, layer: Layer, recipe: Recipe) -> UnitBytes:
    model, batch = job.shard, job.micro_batch
    kept = layer_activations(model, layer, recipe, batch)
    deferred = weight_gradient_inputs(model, layer, recipe, batch)
    unit = _plus(UnitBytes(), kept, deferred)
    again, workspace = recipe.recompute, backward_workspace(model, layer, recipe, batch)
    if not again.full and layer.ffn not in again.blocks and not again.shared and not again.core:
        return unit._replace(while_backward=ceil(workspace))
    # What runs again leaves it all, but for the small parts that run again on their own.
    parts = Recompute.of(()) if again.full else replace(again, mlp=False, moe=False, shared=False, core=False)
    whole = layer_activations(model, layer, replace(recipe, recompute=parts), batch)
    return unit._replace(while_backward=ceil(sum(whole.values()) - sum(kept.values()) + workspace))


def _plus(unit: UnitBytes, activations: Mapping[str, float], deferred: Mapping[str, float]) -> UnitBytes:
    return unit._replace(
        activations=unit.activations + ceil(sum(activations.values())),
        weight_gradient_inputs=unit.weight_gradient_inputs + ceil(sum(deferred.values())),
    )
