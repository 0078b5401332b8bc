"""What compute is asked of: one micro-batch on one GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dualpipe_sim.base.show import brief
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.recipe import Recipe

Work: TypeAlias = Literal["F", "I", "W"]
Block: TypeAlias = Literal["attn", "mlp"]
"""The compute phases of a layer; the gate is in ``attn``, since the dispatch waits for it."""

WORKS: tuple[Work, ...] = ("F", "I", "W")


@dataclass(frozen=True)
class Workload:
    """One micro-batch on one GPU: what compute depends on beside the model.

    Attributes:
        gpu: the GPU.
        recipe: precision, recompute and software.
        tokens: tokens of the micro-batch, or of the GPU's share of each sequence.
        sequence_length: tokens of a sequence, which attention sees.
        sequences: sequences of the micro-batch.
        sms: SMs that compute; None for all.
        causal: True where attention skips the masked half.
        routing_skew: tokens of the busiest expert rank over the mean, which slows routed experts.
        tensor_parallel: GPUs that share out what of the model can be cut; the model is one GPU's share of it.
        sequence_parallel: whether they share out the sequence elsewhere.
        expert_parallel: GPUs that the experts are spread over.
        expert_tensor: GPUs that share out each expert's width, and so pass the tokens of all of them.
        runs: GPUs that share each sequence out, a run each, so that the last one's queries see most; 1 where all have
            as much to do.
        added: share of micro-batches whose weight gradients are added to those of others.

    """

    gpu: Gpu
    recipe: Recipe
    tokens: int
    sequence_length: int
    sequences: float = 1.0
    sms: int | None = None
    causal: bool = True
    routing_skew: float = 1.0
    tensor_parallel: int = 1
    sequence_parallel: bool = True
    expert_parallel: int = 1
    expert_tensor: int = 1
    runs: int = 1
    added: float = 1.0

    __repr__ = brief

    @property
    def own_tokens(self) -> int:
        """Tokens that the GPU has where nothing else is cut."""
        return self.tokens // self.tensor_parallel if self.sequence_parallel else self.tokens

    def routed_rows(self, active: int) -> float:
        """Return the rows that the GPU's experts compute, where a token passes so many experts."""
        return self.own_tokens * active * self.routing_skew * self.expert_tensor

    @property
    def share_of_sms(self) -> float:
        """Share of the GPU's SMs that compute."""
        return self.gpu.share_of_sms(self.sms)
