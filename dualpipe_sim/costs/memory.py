"""Bytes on a GPU: cached activations of a layer item by item, static state, and communication buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualpipe_sim.costs.alltoall import ExpertGroup
from dualpipe_sim.model.architecture import Experts, LayerKind, Linear, Model, Parameters
from dualpipe_sim.model.recipe import Recipe
from dualpipe_sim.precision import BF16_BYTES, FP32_BYTES

ROUTED_INDEX_BYTES = 12
"""Of each of a token's experts: its weight in FP32 and its index in 64 bits (PyTorch's top-k)."""

GRADIENT_BYTES = 4.0
"""Gradients in FP32 (DeepSeek-V3 report, https://arxiv.org/abs/2412.19437, section 3.3.3)."""

MASTER_BYTES = 4.0
MOMENTS_BYTES = 4.0
"""AdamW's two moments in BF16 (same section)."""

BUFFERED_NVLINK_TOKENS = 288
BUFFERED_INFINIBAND_TOKENS = 128
"""Tokens that DeepEP V1's default for 64 GPUs buffers for each channel and peer
(https://github.com/deepseek-ai/DeepEP)."""


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
    precision; attention's output in 12 bits in FP8 training. An item that the recipe recomputes is not in it.

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
    items = {"norm inputs": 2 * tokens * model.hidden * BF16_BYTES}
    if not recipe.recompute_norms:
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


def boundary_bytes(model: Model, tokens: int) -> float:
    """Return the bytes of a stage boundary's activation or gradient, in BF16."""
    return tokens * model.hidden * BF16_BYTES


@dataclass(frozen=True)
class Hosted:
    """Parameters on one GPU.

    Attributes:
        non_expert: parameters that every GPU of the expert-parallel group holds.
        expert: parameters of the routed experts that lie here.
        high_precision: parameters, counted in ``non_expert``, whose weights stay in BF16 in FP8 training.

    """

    non_expert: float = 0.0
    expert: float = 0.0
    high_precision: float = 0.0

    def __add__(self, other: Hosted) -> Hosted:
        return Hosted(
            self.non_expert + other.non_expert, self.expert + other.expert, self.high_precision + other.high_precision
        )

    @property
    def total(self) -> float:
        """All parameters on the GPU."""
        return self.non_expert + self.expert


@dataclass(frozen=True)
class StaticBytes:
    """State that stays for the whole step.

    Attributes:
        weights: resident weights.
        gradients: gradients, whole.
        optimizer: this GPU's share of master weights and moments.

    """

    weights: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer


def hosted(parameters: Parameters, expert_parallel: int = 1) -> Hosted:
    """Return what one GPU holds of some layers' parameters; the routed experts are spread over the group."""
    return Hosted(parameters.non_expert, parameters.expert / expert_parallel, parameters.high_precision)


def hosted_layers(model: Model, kinds: Sequence[LayerKind], expert_parallel: int = 1) -> Hosted:
    """Return what one GPU holds of a run of layers."""
    return hosted(sum((model.layer_parameters(kind) for kind in kinds), start=Parameters()), expert_parallel)


def static_bytes(
    held: Hosted, recipe: Recipe, *, data_parallel: int, expert_parallel: int = 1, copies: int = 1
) -> StaticBytes:
    """Return weights, gradients and the sharded optimizer states of one GPU.

    Master weights and moments are sharded (ZeRO-1) over everyone that holds the same parameter: the
    ``data_parallel`` GPUs of a pipeline rank for non-expert ones, one in ``expert_parallel`` of them for
    experts, times ``copies`` of each stage (2 in a bidirectional schedule).
    """
    low = held.total - held.high_precision
    shards = data_parallel * copies
    return StaticBytes(
        weights=low * recipe.weight_bytes + held.high_precision * BF16_BYTES,
        gradients=held.total * GRADIENT_BYTES,
        optimizer=(MASTER_BYTES + MOMENTS_BYTES) * (held.non_expert / shards + held.expert * expert_parallel / shards),
    )


def reduced_gradient_bytes(held: Hosted, *, data_parallel: int, expert_parallel: int = 1, copies: int = 1) -> float:
    """Return the bytes of gradients that a GPU reduces with others: 4 a parameter, none where nobody else holds it."""
    shards = data_parallel * copies
    non_expert = held.non_expert if shards > 1 else 0.0
    return GRADIENT_BYTES * (non_expert + (held.expert if shards > expert_parallel else 0.0))


def alltoall_buffer_bytes(group: ExpertGroup, hidden: int, channels: int) -> float:
    """Return the bytes of the all-to-all's buffers, sized for BF16 tokens as DeepEP's are.

    For each channel: one for each GPU of the node, and, over several nodes, one each way for each node.
    """
    if group.gpus == 1:
        return 0.0
    tokens = group.gpus_per_node * BUFFERED_NVLINK_TOKENS
    if group.nodes > 1:
        tokens += 2 * group.nodes * BUFFERED_INFINIBAND_TOKENS
    return channels * tokens * hidden * BF16_BYTES


def _attention_items(model: Model, recipe: Recipe, tokens: int, sequence_length: int) -> dict[str, float]:
    a = model.attention
    latent = a.q_lora + a.kv_lora
    items = {"latents": tokens * (latent + a.rope_head) * BF16_BYTES if a.kv_lora else 0.0}
    if not recipe.recompute_norms:
        items["latent norm outputs"] = tokens * latent * recipe.activation_bytes
    redone = recipe.recompute_up_projections
    if not (redone and a.q_lora):
        items["queries"] = tokens * a.query_outputs * BF16_BYTES
    if not (redone and a.kv_lora):
        items["keys and values"] = tokens * a.heads * (a.qk_dims + a.v_head) * BF16_BYTES
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
    if not recipe.recompute_activation:
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
