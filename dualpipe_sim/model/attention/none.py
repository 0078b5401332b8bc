"""Layers without attention: of a hybrid model's layers, each of which is one block."""

from __future__ import annotations

from dataclasses import dataclass

from dualpipe_sim.model.attention.registry import Attention, Core, register
from dualpipe_sim.model.linear import Linear
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe


@register("none")
@dataclass(frozen=True)
class NoAttention(Attention):
    """No attention."""

    norm_parameters = other_parameters = 0

    def over(self, gpus: int) -> NoAttention:  # noqa: ARG002 - nothing to share
        """Return itself."""
        return self

    def linears(self, hidden: int) -> tuple[Linear, ...]:  # noqa: ARG002 - there are none
        """Return nothing."""
        return ()

    def core(self, sequence_length: int, *, causal: bool = True) -> Core:  # noqa: ARG002 - there is none
        """Return nothing."""
        return Core(0.0, 0.0)

    def activations(self, recipe: Recipe, batch: MicroBatch, *, dropout: bool) -> dict[str, float]:  # noqa: ARG002
        """Return nothing."""
        return {}
