"""Kimi delta attention (KDA): a gated delta net whose decay is of each key dimension (https://arxiv.org/abs/2510.26692)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dualpipe_sim.base.records import need_positive
from dualpipe_sim.model.attention.recurrence import convolution, kept, recurrence, state_bytes
from dualpipe_sim.model.attention.registry import Attention, Core, register
from dualpipe_sim.model.linear import Linear, share
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe


@register("kimi-delta")
@dataclass(frozen=True)
class KimiDelta(Attention):
    """Kimi delta attention, with decay and output gate from a latent as wide as a head.

    Attributes:
        heads: heads, each with its query, key, value and state.
        head: dimensions of each of these.
        conv: tokens that the convolutions of queries, keys and values read.

    """

    heads: int
    head: int
    conv: int = 4

    def __post_init__(self) -> None:
        need_positive(self, "model.attention")

    @property
    def _outputs(self) -> int:
        return self.heads * self.head

    def over(self, gpus: int) -> KimiDelta:
        """Return the share of one GPU of a tensor-parallel group; the latents are whole on each."""
        return replace(self, heads=share("model.attention.heads", self.heads, gpus))

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Return the maps of queries, keys and values, of decay, strength and gate, and of the output."""
        reads, outputs = "attention norm's output", self._outputs
        return (
            Linear("queries, keys, values", "attention", hidden, 3 * outputs, reads, cut="columns"),
            Linear("decay and gate latents", "attention", hidden, 2 * self.head, reads),
            Linear("decay", "attention", self.head, outputs, "decay latent", cut="columns"),
            Linear("gate of the output", "attention", self.head, outputs, "gate latent", cut="columns"),
            Linear("strength", "attention", hidden, self.heads, reads, cut="columns"),
            Linear("attention output", "attention", outputs, hidden, "attention's output", cut="rows"),
        )

    @property
    def norm_parameters(self) -> int:
        """The gains of the output's norm, the same for each head."""
        return self.head

    @property
    def other_parameters(self) -> int:
        """The convolutions, the decay's bias for each key dimension and its scale for each head."""
        return 3 * self._outputs * self.conv + self._outputs + self.heads

    def core(self, sequence_length: int, *, causal: bool = True) -> Core:  # noqa: ARG002 - a token's work is the same
        """Return the FLOPs of the convolutions and of three products with each head's state."""
        return convolution(3 * self._outputs, self.conv) + recurrence(self.heads, self.head, self.head, 3)

    def activations(self, recipe: Recipe, batch: MicroBatch, *, dropout: bool) -> dict[str, float]:  # noqa: ARG002
        """Return what the forward keeps."""
        return kept(
            recipe,
            batch.tokens,
            convolved=3 * self._outputs,
            decays=self._outputs + self.heads,
            outputs=self._outputs,
            states=state_bytes(self.heads, self.head, self.head),
        )
