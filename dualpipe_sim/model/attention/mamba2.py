"""Mamba-2: a state-space layer (https://arxiv.org/abs/2405.21060)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dualpipe_sim.base.records import need_positive
from dualpipe_sim.model.attention.recurrence import convolution, kept, recurrence, state_bytes
from dualpipe_sim.model.attention.registry import Attention, Core, register
from dualpipe_sim.model.linear import Linear, share
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe


@register("mamba2")
@dataclass(frozen=True)
class Mamba2(Attention):
    """A Mamba-2 layer as in Nemotron-H (https://arxiv.org/abs/2504.03624), its output normed and gated.

    >>> Mamba2(heads=64, head=64, state=128, groups=8).norm_parameters
    4096

    Attributes:
        heads: heads, each with a state of ``head`` x ``state``.
        head: dimensions of a head.
        state: dimensions of the state, as of a key.
        groups: groups of heads, each of which shares what reads and writes its states.
        conv: tokens that the convolution reads.
        conv_bias: whether it adds a vector.
        bias: whether the maps add vectors.

    """

    heads: int
    head: int
    state: int
    groups: int = 1
    conv: int = 4
    conv_bias: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        need_positive(self, "model.attention")

    @property
    def _outputs(self) -> int:
        return self.heads * self.head

    @property
    def _convolved(self) -> int:
        return self._outputs + 2 * self.groups * self.state

    def over(self, gpus: int) -> Mamba2:
        """Return the share of one GPU of a tensor-parallel group; fewer groups than GPUs are there in copies."""
        heads = share("model.attention.heads", self.heads, gpus)
        groups = 1 if gpus % self.groups == 0 else share("model.attention.groups", self.groups, gpus)
        return replace(self, heads=heads, groups=groups)

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Return the map of inputs, gates and what the states need, and that of the output."""
        inputs = self._convolved + self._outputs + self.heads
        reads = "attention norm's output"
        return (
            Linear("inputs, gate and states", "attention", hidden, inputs, reads, cut="columns", bias=self.bias),
            Linear(
                "attention output", "attention", self._outputs, hidden, "attention's output", cut="rows", bias=self.bias
            ),
        )

    @property
    def norm_parameters(self) -> int:
        """The gains of the output's norm."""
        return self._outputs

    @property
    def other_parameters(self) -> int:
        """The convolution, and for each head decay, time step's bias and what skips the state."""
        return self._convolved * (self.conv + self.conv_bias) + 3 * self.heads

    def core(self, sequence_length: int, *, causal: bool = True) -> Core:  # noqa: ARG002 - a token's work is the same
        """Return the FLOPs of the convolution and of two products with each head's state."""
        return convolution(self._convolved, self.conv) + recurrence(self.heads, self.head, self.state, 2)

    def activations(self, recipe: Recipe, batch: MicroBatch, *, dropout: bool) -> dict[str, float]:  # noqa: ARG002
        """Return what the forward keeps."""
        return kept(
            recipe,
            batch.tokens,
            convolved=self._convolved,
            decays=self.heads,
            outputs=self._outputs,
            states=state_bytes(self.heads, self.head, self.state),
        )
