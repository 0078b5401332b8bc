"""What kinds of attention with a state in place of keys and values share: FLOPs and memory of the recurrence.

Each head has a matrix of key x value dimensions that every token decays, adds to and reads. Kernels go through a
sequence in chunks (https://arxiv.org/abs/2312.06635); counted here is what the recurrence itself takes, a multiply-add
as 2, and not what chunks add to it.
"""

from __future__ import annotations

from dualpipe_sim.base.precision import BF16_BYTES, FP32_BYTES
from dualpipe_sim.model.attention.registry import Core
from dualpipe_sim.model.recipe import Recipe

CHUNK = 64
"""Tokens after which a state is kept for the backward (https://github.com/fla-org/flash-linear-attention)."""


def recurrence(heads: int, key: int, value: int, products: int) -> Core:
    """Return the FLOPs a token of so many products with each head's state; the backward counts twice (assumed).

    Linear attention adds an outer product and reads, which is 2; the delta rule also reads what it replaces, 3.
    """
    forward = 2.0 * products * heads * key * value
    return Core(forward, 2 * forward)


def convolution(channels: int, width: int) -> Core:
    """Return the FLOPs a token of a short causal convolution, each channel on its own."""
    return Core(2.0 * channels * width, 4.0 * channels * width)


def state_bytes(heads: int, key: int, value: int) -> float:
    """Return the bytes a token of states that are kept, in BF16."""
    return heads * key * value * BF16_BYTES / CHUNK


def kept(recipe: Recipe, tokens: int, *, convolved: int, decays: int, outputs: int, states: float) -> dict[str, float]:
    """Return what the forward keeps: inputs and outputs of convolutions, decays in FP32, states, outputs with gates.

    Args:
        recipe: what is computed again: the states, where attention's core is.
        tokens: tokens of the micro-batch.
        convolved: elements a token that convolutions read, and write.
        decays: elements a token that decay states or weigh what is added.
        outputs: elements a token of the output, kept before its norm, with its gate, and behind them.
        states: bytes a token of states.

    """
    return {
        "convolutions' inputs and outputs": 2 * tokens * convolved * BF16_BYTES,
        "decays": tokens * decays * FP32_BYTES,
        "states": 0.0 if recipe.recompute.core else tokens * states,
        "outputs and gates": 3 * tokens * outputs * BF16_BYTES,
    }
