"""A micro-batch as one GPU has it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch as one GPU has it.

    >>> MicroBatch(tokens=4096, sequence_length=4096, shares=4).own_tokens
    1024

    Attributes:
        tokens: its tokens; those of the GPU's share of each sequence where context parallelism shares them out.
        sequence_length: tokens of a sequence.
        shares: GPUs that share out the sequence where tensor parallelism cuts nothing else (sequence parallelism).
        received_tokens: tokens that the GPU receives for its experts (its own x expected distinct GPUs for even
            routing); None where experts are not spread. Each is there once, however many experts here it goes to.
        routing_skew: tokens that the experts on this GPU receive over the mean.
        expert_shares: GPUs that each have a share of the width of the same experts, and all tokens of their group.

    """

    tokens: int
    sequence_length: int
    shares: int = 1
    received_tokens: float | None = None
    routing_skew: float = 1.0
    expert_shares: int = 1

    @property
    def own_tokens(self) -> int:
        """Tokens of the GPU's share of the sequence."""
        return self.tokens // self.shares

    @property
    def arriving(self) -> float:
        """Tokens that reach the GPU's experts."""
        reaching = self.own_tokens if self.received_tokens is None else self.received_tokens
        return reaching * self.routing_skew * self.expert_shares

    def passing(self, active: int) -> float:
        """Return how often tokens pass one of the GPU's experts, where each passes so many."""
        return self.own_tokens * active * self.routing_skew * self.expert_shares
