"""FLOPs a token: of each part of a layer as executed, and of the model as MFU counts them. A multiply-add is 2."""

from __future__ import annotations

from typing import NamedTuple

from dualpipe_sim.model.architecture import Layer, Model
from dualpipe_sim.model.attention.registry import Core
from dualpipe_sim.model.linear import Linear
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
    again = None if recipe is None else recipe.recompute
    redone = again is not None and (
        (again.up_projections and linear.from_latent) or (again.shared and linear.part == "shared" and not again.moe)
    )
    share = 1.0 if redone else _ALTERNATE.get(linear.name, 0.0) if again is not None and again.alternate else 0.0
    return Flops(once, once * (1 + share), once)


_ALTERNATE = {"queries, keys, values": 1 / 12, "attention output": 1.0, "dense up": 0.5, "shared up": 0.5}
"""Shares of maps that are every second one where queries, keys and values are maps of their own, and so are gate and
up: keys (about a twelfth of the three, with four to eight queries each), output, up."""


def core_flops(layer: Layer, recipe: Recipe, sequence_length: int, *, causal: bool = True) -> Core:
    """Return the FLOPs a token of attention's core; where the recipe redoes it in the backward pass, I has it again."""
    core = layer.attention.core(sequence_length, causal=causal)
    return core._replace(backward=core.backward + core.forward) if recipe.recompute.core else core


def layer_flops(
    model: Model, layer: Layer, recipe: Recipe, sequence_length: int, *, causal: bool = True
) -> dict[str, Flops]:
    """Return the FLOPs a token that a layer executes.

    Returns:
        By part: ``projections`` and ``core`` of attention, then ``dense``, or ``gate``, ``routed``, ``shared``.

    """
    core = core_flops(layer, recipe, sequence_length, causal=causal)
    parts = {"projections": Flops(0, 0, 0), "core": Flops(core.forward, core.backward, 0)}
    for linear in model.linears(layer):
        part = "projections" if linear.part == "attention" else linear.part
        so_far, more = parts.get(part, Flops(0, 0, 0)), linear_flops(linear, recipe)
        parts[part] = Flops(*(a + b for a, b in zip(so_far, more, strict=True)))
    return parts


def model_flops_per_token(model: Model, sequence_length: int, *, causal: bool = True) -> float:
    """Return the FLOPs a token of a training step as MFU counts them.

    The backward counts twice the forward and nothing is redone; the head counts, embedding and multi-token
    prediction do not. Papers differ in whether attention counts as causal, so both exist.
    """
    core = sum(layer.attention.core(sequence_length, causal=causal).forward for layer in model.layer_kinds())
    return 3.0 * (2.0 * model.active_parameters() + core)
