"""Lightning attention: linear attention with a fixed decay for each head (https://arxiv.org/abs/2401.04658)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dualpipe_sim.base.records import need_positive
from dualpipe_sim.model.attention.recurrence import kept, recurrence, state_bytes
from dualpipe_sim.model.attention.registry import Attention, Core, register
from dualpipe_sim.model.linear import Linear, share
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe


@register("lightning")
@dataclass(frozen=True)
class Lightning(Attention):
    """Lightning attention as in MiniMax-Text-01 (https://arxiv.org/abs/2501.08313), its output normed and gated.

    Attributes:
        heads: heads, each with its query, key, value and state.
        head: dimensions of each of these.

    """

    heads: int
    head: int

    def __post_init__(self) -> None:
        need_positive(self, "model.attention")

    @property
    def _outputs(self) -> int:
        return self.heads * self.head

    def over(self, gpus: int) -> Lightning:
        """Return the share of one GPU of a tensor-parallel group."""
        return replace(self, heads=share("model.attention.heads", self.heads, gpus))

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Return the maps of queries, keys, values and the output's gate, and of the output."""
        reads, outputs = "attention norm's output", self._outputs
        return (
            Linear("queries, keys, values, gate", "attention", hidden, 4 * outputs, reads, cut="columns"),
            Linear("attention output", "attention", outputs, hidden, "attention's output", cut="rows"),
        )

    @property
    def norm_parameters(self) -> int:
        """The gains of the output's norm, over all heads."""
        return self._outputs

    other_parameters = 0

    def core(self, sequence_length: int, *, causal: bool = True) -> Core:  # noqa: ARG002 - a token's work is the same
        """Return the FLOPs of two products with each head's state."""
        return recurrence(self.heads, self.head, self.head, 2)

    def activations(self, recipe: Recipe, batch: MicroBatch, *, dropout: bool) -> dict[str, float]:  # noqa: ARG002
        """Return what the forward keeps; in place of a convolution's, inputs and outputs of the activation."""
        states = state_bytes(self.heads, self.head, self.head)
        return kept(recipe, batch.tokens, convolved=3 * self._outputs, decays=0, outputs=self._outputs, states=states)
