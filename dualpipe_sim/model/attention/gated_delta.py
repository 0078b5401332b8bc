"""Gated delta net: linear attention whose state decays and is corrected (https://arxiv.org/abs/2412.06464)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dualpipe_sim.base.records import need_positive
from dualpipe_sim.model.attention.recurrence import convolution, kept, recurrence, state_bytes
from dualpipe_sim.model.attention.registry import Attention, Core, register
from dualpipe_sim.model.linear import Linear, share
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe


@register("gated-delta")
@dataclass(frozen=True)
class GatedDelta(Attention):
    """A gated delta net as in Qwen3-Next (https://github.com/huggingface/transformers, ``qwen3_next``).

    >>> net = GatedDelta(key_heads=16, value_heads=32, key_head=128, value_head=128)
    >>> sum(linear.parameters for linear in net.linears(2048)) + net.norm_parameters + net.other_parameters
    33718464

    Attributes:
        key_heads: heads of queries and keys, which equal groups of value heads share.
        value_heads: heads of values, each with a state.
        key_head: dimensions of a query or key.
        value_head: dimensions of a value.
        conv: tokens that the convolution of queries, keys and values reads.

    """

    key_heads: int
    value_heads: int
    key_head: int
    value_head: int
    conv: int = 4

    def __post_init__(self) -> None:
        need_positive(self, "model.attention")

    @property
    def _convolved(self) -> int:
        return 2 * self.key_heads * self.key_head + self._outputs

    @property
    def _outputs(self) -> int:
        return self.value_heads * self.value_head

    def over(self, gpus: int) -> GatedDelta:
        """Return the share of one GPU of a tensor-parallel group."""
        return replace(
            self,
            key_heads=share("model.attention.key_heads", self.key_heads, gpus),
            value_heads=share("model.attention.value_heads", self.value_heads, gpus),
        )

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Return the maps of queries, keys, values and the output's gate, of decay and strength, and of the output."""
        reads, outputs = "attention norm's output", self._outputs
        return (
            Linear("queries, keys, values, gate", "attention", hidden, self._convolved + outputs, reads, cut="columns"),
            Linear("decay and strength", "attention", hidden, 2 * self.value_heads, reads, cut="columns"),
            Linear("attention output", "attention", outputs, hidden, "attention's output", cut="rows"),
        )

    @property
    def norm_parameters(self) -> int:
        """The gains of the output's norm, the same for each head."""
        return self.value_head

    @property
    def other_parameters(self) -> int:
        """The convolution, and for each value head the decay's scale and bias."""
        return self._convolved * self.conv + 2 * self.value_heads

    def core(self, sequence_length: int, *, causal: bool = True) -> Core:  # noqa: ARG002 - a token's work is the same
        """Return the FLOPs of the convolution and of three products with each head's state."""
        states = recurrence(self.value_heads, self.key_head, self.value_head, 3)
        return convolution(self._convolved, self.conv) + states

    def activations(self, recipe: Recipe, batch: MicroBatch, *, dropout: bool) -> dict[str, float]:  # noqa: ARG002
        """Return what the forward keeps."""
        states = state_bytes(self.value_heads, self.key_head, self.value_head)
        return kept(
            recipe,
            batch.tokens,
            convolved=self._convolved,
            decays=2 * self.value_heads,
            outputs=self._outputs,
            states=states,
        )
