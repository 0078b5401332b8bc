"""FLOPs a token: of each part of a layer as executed, and of the model as MFU counts them. A multiply-add is 2."""

from __future__ import annotations

from typing import NamedTuple

from dualpipe_sim.model.architecture import Attention, LayerKind, Linear, Model
from dualpipe_sim.model.recipe import Recipe


class Flops(NamedTuple):
    """FLOPs of one token.

    Attributes:
        forward: of F.
        input_gradient: of I.
        weight_gradient: of W.

    """

    forward: float
    input_gradient: float
    weight_gradient: float


def linear_flops(linear: Linear, recipe: Recipe | None = None) -> Flops:
    """Return the FLOPs a token of a linear map; where the recipe redoes it in the backward pass, I has it twice."""
    once = 2.0 * linear.active_parameters
    redone = recipe is not None and recipe.recompute.up_projections and linear.from_latent
    return Flops(once, once * (2 if redone else 1), once)


def attention_flops(attention: Attention, sequence_length: int, *, causal: bool = True) -> float:
    """Return the forward FLOPs a token of the two products in attention's core, half of them where causal."""
    everything = 2.0 * sequence_length * attention.heads * (attention.qk_dims + attention.v_head)
    return everything / 2 if causal else everything


def attention_backward_factor(attention: Attention) -> float:
    """Return the FLOPs that attention's backward executes, as a multiple of its forward's.

    With q, k and v of d_qk and d_v dimensions the forward does products of d_qk and d_v. The backward needs the
    gradients of q, k (d_qk each), of v and of the weights (d_v each); FlashAttention
    (https://arxiv.org/abs/2205.14135) also redoes q k. So 2.6 for MLA's 192 and 128, 2 with stored scores.
    """
    qk, v = attention.qk_dims, attention.v_head
    redone = 0 if attention.stored_scores else qk
    return (2 * qk + 2 * v + redone) / (qk + v)


def layer_flops(
    model: Model, kind: LayerKind, recipe: Recipe, sequence_length: int, *, causal: bool = True
) -> dict[str, Flops]:
    """Return the FLOPs a token that a layer executes.

    Returns:
        By part: ``projections`` and ``core`` of attention, then ``dense``, or ``gate``, ``routed``, ``shared``.

    """
    core = attention_flops(model.attention, sequence_length, causal=causal)
    parts = {"projections": Flops(0, 0, 0), "core": Flops(core, core * attention_backward_factor(model.attention), 0)}
    for linear in model.linears(kind):
        part = "projections" if linear.part == "attention" else linear.part
        so_far, more = parts.get(part, Flops(0, 0, 0)), linear_flops(linear, recipe)
        parts[part] = Flops(*(a + b for a, b in zip(so_far, more, strict=True)))
    return parts


def model_flops_per_token(model: Model, sequence_length: int, *, causal: bool = True) -> float:
    """Return the FLOPs a token of a training step as MFU counts them.

    The backward counts twice the forward and nothing is redone; the head counts, embedding and multi-token
    prediction do not. Papers differ in whether attention counts as causal, so both exist.
    """
    core = model.layers * attention_flops(model.attention, sequence_length, causal=causal)
    return 3.0 * (2.0 * model.active_parameters() + core)
