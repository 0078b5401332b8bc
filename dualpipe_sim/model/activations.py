"""Bytes that a micro-batch leaves on a GPU: the activations that a layer caches, item by item."""

from __future__ import annotations

from collections.abc import Sequence

from dualpipe_sim.base.precision import BF16_BYTES, FP32_BYTES
from dualpipe_sim.model.architecture import GATED, Experts, Layer, Model
from dualpipe_sim.model.linear import Linear
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe
from dualpipe_sim.model.stacks import Stack

LAYER_INPUT = "layer input"
"""The item that is left of a layer whose forward runs again."""

ROUTED_INDEX_BYTES = 12
"""Of each of a token's experts: its weight in FP32 and its index in 64 bits (PyTorch's top-k)."""


def layer_activations(model: Model, layer: Layer, recipe: Recipe, batch: MicroBatch) -> dict[str, float]:
    """Return what a layer's forward keeps until the backward, in bytes by item.

    Norm inputs stay in BF16, latents, queries, keys and values too; what GEMMs read goes in the recipe's
    precision; attention's output in 12 bits in FP8 training. An item that the recipe recomputes is not in it; where it
    recomputes whole layers, only the layer's input is.

    Args:
        model: the model, or one GPU's share of it in a tensor-parallel group.
        layer: the layer.
        recipe: precision and recompute.
        batch: the micro-batch.

    """
    own, again = batch.own_tokens, recipe.recompute
    if again.full:
        return {LAYER_INPUT: own * model.hidden * BF16_BYTES}
    items = {"norm inputs": layer.blocks * own * model.hidden * BF16_BYTES}
    if not recipe.recompute.norms:
        read = batch.tokens if recipe.stack.keeps_gathered else own
        items["norm outputs"] = layer.blocks * read * model.hidden * recipe.activation_bytes
    if model.post_norms:
        items["inputs of norms behind blocks"] = layer.blocks * own * model.hidden * BF16_BYTES
    items |= layer.attention.activations(recipe, batch, dropout=model.dropout)
    items |= _stack_items(model, layer, recipe, batch)
    if layer.ffn not in again.blocks:  # of which, from the norm's output on, all runs again
        items |= _feed_forward_items(model, layer, recipe, batch)
    if model.dropout:
        items["dropout masks"] = float(layer.blocks * own * model.hidden)
    return {name: size for name, size in items.items() if size}


def _stack_items(model: Model, layer: Layer, recipe: Recipe, batch: MicroBatch) -> dict[str, float]:
    """What the software keeps around attention and norms beyond what it must."""
    stack, items = recipe.stack, dict[str, float]()
    if stack.separate_gain:
        items["norm outputs without gain"] = layer.blocks * batch.own_tokens * model.hidden * BF16_BYTES
    if stack.copied_output:
        items["attention's output, copied"] = batch.tokens * layer.attention.exchanged.outputs * BF16_BYTES
    if stack.joint_projection and model.positions == "rotary":
        items["beside values"] = batch.tokens * layer.attention.rotated(recipe) * BF16_BYTES
    return items


def _feed_forward_items(model: Model, layer: Layer, recipe: Recipe, batch: MicroBatch) -> dict[str, float]:
    if layer.ffn == "dense":
        return _ffn_items(model, recipe, "dense", batch.tokens, model.ffn)
    if model.experts is None or layer.ffn == "none":
        return {}
    items = _routed_items(model, model.experts, recipe, batch)
    if not recipe.recompute.shared:
        items |= _ffn_items(model, recipe, "shared", batch.tokens, model.experts.shared_width)
    if model.experts.shared_gate:
        items["shared output and its gate"] = batch.own_tokens * (model.hidden + 1) * BF16_BYTES
    return items


def weight_gradient_inputs(model: Model, layer: Layer, recipe: Recipe, batch: MicroBatch) -> dict[str, float]:
    """Return what a deferred W of a layer needs after I, in bytes by item: inputs and output gradients of linear maps.

    Each input counts once, whatever number of maps read it. Recomputed inputs are there by then, in the
    precision that the GEMM reads them in. For the dense GPTs of the Zero Bubble paper
    (https://arxiv.org/abs/2401.10241) this is the paper's 32 s b h.
    """
    items: dict[str, float] = {}
    for linear in model.linears(layer):
        rows_in, rows_out = _rows(linear, batch)
        items[linear.reads] = rows_in * linear.inputs * _input_bytes(linear, recipe)
        items[f"gradient of {linear.name}"] = rows_out * linear.outputs * _gradient_bytes(linear, recipe)
    return items


def high_precision_weight_gradient_inputs(linears: Sequence[Linear], batch: MicroBatch) -> dict[str, float]:
    """Return what a deferred W of the head or of a prediction module's projection needs, in bytes by item, in BF16."""
    items: dict[str, float] = {}
    for linear in linears:
        rows_in, rows_out = _rows(linear, batch)
        items[linear.reads] = rows_in * linear.inputs * BF16_BYTES
        items[f"gradient of {linear.name}"] = rows_out * linear.outputs * BF16_BYTES
    return items


def head_activations(model: Model, stack: Stack, batch: MicroBatch, logits: int) -> dict[str, float]:
    """Return what the head keeps: the final norm's input, its output, and what the software keeps of the logits.

    Where the loss is computed with the forward, that is their gradient in BF16 (assumed of DeepSeek's).

    Args:
        model: the model, or one GPU's share of it.
        stack: the software.
        batch: the micro-batch.
        logits: logits of a token on the GPU.

    """
    return {
        "final norm's input": batch.own_tokens * model.hidden * BF16_BYTES,
        "final norm's output": batch.own_tokens * model.hidden * BF16_BYTES,
        "logits": batch.tokens * logits * stack.logits.kept,
    }


def mtp_activations(model: Model, batch: MicroBatch) -> dict[str, float]:
    """Return what a multi-token prediction module keeps beside its layer and head: its two normed, joined inputs."""
    return {
        "joined norm inputs": 2 * batch.own_tokens * model.hidden * BF16_BYTES,
        "joined input": 2 * batch.own_tokens * model.hidden * BF16_BYTES,
    }


def _routed_items(model: Model, experts: Experts, recipe: Recipe, batch: MicroBatch) -> dict[str, float]:
    weights_of_others = (batch.expert_shares - 1) * batch.own_tokens * experts.active * FP32_BYTES
    return {
        "dispatched tokens": _dispatched(experts, recipe, batch) * model.hidden * recipe.activation_bytes,
        **_ffn_items(model, recipe, "routed", batch.passing(experts.active), experts.ffn),
        "returned rows": batch.passing(experts.active) * model.hidden * BF16_BYTES * recipe.stack.weighs_returned,
        "router": batch.own_tokens * (experts.routed * FP32_BYTES + experts.active * ROUTED_INDEX_BYTES)
        + weights_of_others,
    }


def _dispatched(experts: Experts, recipe: Recipe, batch: MicroBatch) -> float:
    """Return the rows that the experts' first maps read, if they are others than the norm's output."""
    if recipe.stack.copy_for_each_expert:
        return batch.passing(experts.active)
    return 0.0 if batch.received_tokens is None and batch.expert_shares == 1 else batch.arriving


def backward_workspace(model: Model, layer: Layer, recipe: Recipe, batch: MicroBatch) -> float:
    """Return the bytes of gradients that are there at once while a layer's backward runs, in BF16.

    Of the block that has most: the gradients of its output, of what its last map reads, and of what its first one
    makes; of experts' tokens those of what arrived, too.
    """
    if not recipe.stack.backward_workspace:
        return 0.0
    exchanged = layer.attention.exchanged
    around = batch.own_tokens * model.hidden + batch.tokens * (sum(exchanged) + exchanged.outputs)
    attention = around + layer.attention.inner_gradients(batch)
    gates = 2 if GATED[model.activation] else 1
    ffn = 0.0
    if layer.moe and model.experts is not None:
        ffn = batch.passing(model.experts.active) * (2 * model.hidden + (1 + gates) * model.experts.ffn)
    elif layer.ffn == "dense":
        ffn = batch.tokens * (model.hidden + (1 + gates) * model.ffn)
    return max(attention, ffn) * BF16_BYTES


def _ffn_items(model: Model, recipe: Recipe, name: str, rows: float, width: int) -> dict[str, float]:
    inputs = 2 * width if GATED[model.activation] else width
    items = {f"{name} {model.activation} inputs": rows * inputs * recipe.activation_bytes}
    again = recipe.recompute
    if recipe.stack.separate_gate and GATED[model.activation]:
        items[f"{name} activated gate"] = rows * width * BF16_BYTES
    if not (again.activation or (again.routed_activation and name == "routed")):
        items[f"{name} {model.activation} outputs"] = rows * width * recipe.activation_bytes
    return items


def _rows(linear: Linear, batch: MicroBatch) -> tuple[float, float]:
    """Return how many rows of a linear map's input and output gradient lie on a GPU until W.

    What a map cut by columns reads is kept as the GPU's share and gathered again for W; the gradient of one cut by rows
    was gathered for I and stays (as Zero Bubble's runtime has it, https://github.com/sail-sg/zero-bubble). Of routed
    experts, a token or gradient that arrives for several experts of the GPU is there once.
    """
    if linear.part == "routed":
        through = batch.passing(linear.active)
        return (batch.arriving, through) if linear.reads == "dispatched tokens" else (through, batch.arriving)
    own = batch.own_tokens
    return (batch.tokens if linear.cut == "rows" else own), (own if linear.cut is None else batch.tokens)


def _input_bytes(linear: Linear, recipe: Recipe) -> float:
    return recipe.attention_output_bytes if linear.reads == "attention's output" else recipe.activation_bytes


def _gradient_bytes(linear: Linear, recipe: Recipe) -> float:
    return FP32_BYTES if linear.part == "gate" else recipe.activation_bytes
