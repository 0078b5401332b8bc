"""Bytes that a micro-batch leaves on a GPU: the activations that a layer caches, item by item."""

from __future__ import annotations

from collections.abc import Sequence

from dualpipe_sim.base.precision import BF16_BYTES, FP32_BYTES
from dualpipe_sim.model.architecture import Experts, LayerKind, Linear, Model
from dualpipe_sim.model.recipe import Recipe

LAYER_INPUT = "layer input"
"""The item that is left of a layer whose forward runs again."""

ROUTED_INDEX_BYTES = 12
"""Of each of a token's experts: its weight in FP32 and its index in 64 bits (PyTorch's top-k)."""


def layer_activations(
    model: Model,
    kind: LayerKind,
    recipe: Recipe,
    *,
    tokens: int,
    sequence_length: int,
    received_tokens: float | None = None,
    routing_skew: float = 1.0,
) -> dict[str, float]:
    """Return what a layer's forward keeps until the backward, in bytes by item.

    Norm inputs stay in BF16, latents, queries, keys and values too; what GEMMs read goes in the recipe's
    precision; attention's output in 12 bits in FP8 training. An item that the recipe recomputes is not in it; where it
    recomputes whole layers, only the layer's input is.

    Args:
        model: the model.
        kind: the layer's kind.
        recipe: precision and recompute.
        tokens: tokens of the micro-batch on one GPU.
        sequence_length: tokens of a sequence; counts only where attention's scores are stored.
        received_tokens: tokens that the GPU receives for its experts (tokens x expected distinct GPUs for even
            routing); None for no expert parallelism. Each is kept once, however many experts here it goes to.
        routing_skew: tokens that the experts on this GPU receive over the mean.

    """
    if recipe.recompute.full:
        return {LAYER_INPUT: tokens * model.hidden * BF16_BYTES}
    items = {"norm inputs": 2 * tokens * model.hidden * BF16_BYTES}
    if not recipe.recompute.norms:
        items["norm outputs"] = 2 * tokens * model.hidden * recipe.activation_bytes
    items |= _attention_items(model, recipe, tokens, sequence_length)
    if kind == "moe" and model.experts is not None:
        received = tokens if received_tokens is None else received_tokens
        items |= _moe_items(model, model.experts, recipe, tokens, received, routing_skew)
    else:
        items |= _ffn_items(model, recipe, "dense", tokens, model.ffn)
    if model.dropout:
        items["dropout masks"] = 2.0 * tokens * model.hidden
    return {name: size for name, size in items.items() if size}


def weight_gradient_inputs(
    model: Model,
    kind: LayerKind,
    recipe: Recipe,
    *,
    tokens: int,
    received_tokens: float | None = None,
    routing_skew: float = 1.0,
) -> dict[str, float]:
    """Return what a deferred W of a layer needs after I, in bytes by item: inputs and output gradients of linear maps.

    Each input counts once, whatever number of maps read it. Recomputed inputs are there by then, in the
    precision that the GEMM reads them in. For the dense GPTs of the Zero Bubble paper
    (https://arxiv.org/abs/2401.10241) this is the paper's 32 s b h.
    """
    received = tokens if received_tokens is None else received_tokens
    items: dict[str, float] = {}
    for linear in model.linears(kind):
        rows_in, rows_out = _rows(linear, tokens, received, routing_skew)
        items[linear.reads] = rows_in * linear.inputs * _input_bytes(linear, recipe)
        items[f"gradient of {linear.name}"] = rows_out * linear.outputs * _gradient_bytes(linear, recipe)
    return items


def high_precision_weight_gradient_inputs(linears: Sequence[Linear], tokens: int) -> dict[str, float]:
    """Return what a deferred W of the head or of a prediction module's projection needs, in bytes by item, in BF16."""
    inputs = {linear.reads: tokens * linear.inputs * BF16_BYTES for linear in linears}
    return inputs | {f"gradient of {linear.name}": tokens * linear.outputs * BF16_BYTES for linear in linears}


def head_activations(model: Model, tokens: int) -> dict[str, float]:
    """Return what the head keeps: the final norm's input, its output, and the gradient of the logits, all in BF16.

    The loss is computed with the forward, so that the logits' gradient takes the place of :func:`logits_bytes`
    (assumed).
    """
    return {
        "final norm's input": tokens * model.hidden * BF16_BYTES,
        "final norm's output": tokens * model.hidden * BF16_BYTES,
        "gradient of logits": tokens * model.vocabulary * BF16_BYTES,
    }


def logits_bytes(model: Model, tokens: int) -> float:
    """Return the bytes of the logits while the loss is computed, in FP32 (assumed)."""
    return tokens * model.vocabulary * FP32_BYTES


def mtp_activations(model: Model, tokens: int) -> dict[str, float]:
    """Return what a multi-token prediction module keeps beside its layer and head: its two normed, joined inputs."""
    return {
        "joined norm inputs": 2 * tokens * model.hidden * BF16_BYTES,
        "joined input": 2 * tokens * model.hidden * BF16_BYTES,
    }


def _attention_items(model: Model, recipe: Recipe, tokens: int, sequence_length: int) -> dict[str, float]:
    a = model.attention
    latent = a.q_lora + a.kv_lora
    items = {"latents": tokens * (latent + a.rope_head) * BF16_BYTES if a.kv_lora else 0.0}
    if not recipe.recompute.norms:
        items["latent norm outputs"] = tokens * latent * recipe.activation_bytes
    redone = recipe.recompute.up_projections
    if not (redone and a.q_lora):
        items["queries"] = tokens * a.query_outputs * BF16_BYTES
    if not (redone and a.kv_lora):
        items["keys and values"] = tokens * a.key_value_outputs * BF16_BYTES
    items["attention's output"] = tokens * a.heads * a.v_head * recipe.attention_output_bytes
    if a.stored_scores:
        # Softmax's output; with dropout also its mask and the output after it.
        each = BF16_BYTES + (1 + BF16_BYTES if model.dropout else 0)
        items["scores"] = tokens * sequence_length * a.heads * each
    else:
        items["softmax statistics"] = tokens * a.heads * FP32_BYTES
    return items


def _moe_items(
    model: Model, experts: Experts, recipe: Recipe, tokens: int, received: float, skew: float
) -> dict[str, float]:
    return {
        "dispatched tokens": received * skew * model.hidden * recipe.activation_bytes,
        **_ffn_items(model, recipe, "routed", tokens * experts.active * skew, experts.ffn),
        **_ffn_items(model, recipe, "shared", tokens, experts.shared * experts.ffn),
        "router": tokens * (experts.routed * FP32_BYTES + experts.active * ROUTED_INDEX_BYTES),
    }


def _ffn_items(model: Model, recipe: Recipe, name: str, rows: float, width: int) -> dict[str, float]:
    inputs = 2 * width if model.activation == "swiglu" else width
    items = {f"{name} {model.activation} inputs": rows * inputs * recipe.activation_bytes}
    if not recipe.recompute.activation:
        items[f"{name} {model.activation} outputs"] = rows * width * recipe.activation_bytes
    return items


def _rows(linear: Linear, tokens: int, received: float, skew: float) -> tuple[float, float]:
    """Return how many rows of a linear map's input and output gradient lie on a GPU.

    A token or gradient that arrives for several experts of the GPU is there once.
    """
    if linear.part != "routed":
        return tokens, tokens
    arriving, through = received * skew, tokens * linear.active * skew
    return (arriving, through) if linear.reads == "dispatched tokens" else (through, arriving)


def _input_bytes(linear: Linear, recipe: Recipe) -> float:
    return recipe.attention_output_bytes if linear.reads == "attention's output" else recipe.activation_bytes


def _gradient_bytes(linear: Linear, recipe: Recipe) -> float:
    return FP32_BYTES if linear.part == "gate" else recipe.activation_bytes
