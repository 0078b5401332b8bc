"""Collectives of a tensor-parallel group: which of them stand around a block of a layer, and how long they take.

A block (attention, or an FFN) reads its input through maps cut by columns and writes its output through maps cut by
rows, whose results are partial sums (Megatron-LM, https://arxiv.org/abs/1909.08053, section 3). So in F its output is
summed over the group, and in I the gradient of its input. Under sequence parallelism
(https://arxiv.org/abs/2205.05198, section 4.2.2) each GPU has its share of the sequence outside of blocks: the input is
gathered before, the sums are scattered after. W needs the input once more, gathered again. The embedding's rows and the
head's columns are cut too, and have the one half of it each.

With ``overlap`` a block's collectives go a piece at a time beside the GEMMs next to them (Transformer Engine's, with
``--tp-comm-overlap`` in Megatron-LM; PyTorch's asynchronous tensor parallelism): the maps that read the input, and the
one that writes the output. While a GPU's own piece of n is multiplied nothing has come yet, or nothing is left to send,
so that (n - 1) / n of such a GEMM hides. What W gathers again, and what I scatters, goes beside the other of the two
GEMMs, which are as long; that compute is no slower meanwhile is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.collective import Collective
from dualpipe_sim.costs.phases import ALL_REDUCE, GATHER, SCATTER
from dualpipe_sim.costs.rates import linear_s
from dualpipe_sim.costs.workload import Work, Workload
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.cluster import Cluster
from dualpipe_sim.hardware.groups import Group
from dualpipe_sim.model.linear import Linear

CutBlock: TypeAlias = Literal["layer", "embedding", "head"]
Around: TypeAlias = tuple[str | None, str | None]
"""The collective before a block's work and the one after it, None for none."""

_SEQUENCE_PARALLEL: dict[CutBlock, dict[Work, Around]] = {
    "layer": {"F": (GATHER, SCATTER), "I": (GATHER, SCATTER), "W": (GATHER, None)},
    "embedding": {"F": (None, SCATTER), "I": (None, None), "W": (GATHER, None)},
    "head": {"F": (GATHER, None), "I": (None, SCATTER), "W": (GATHER, None)},
}
PASSES = {GATHER: 1, SCATTER: 1, ALL_REDUCE: 2}
"""How often a ring passes the tensor on: an all-reduce is a reduce-scatter and an all-gather."""


@dataclass(frozen=True)
class TensorGroup:
    """A tensor-parallel group on neighbouring GPUs.

    >>> group = TensorGroup(8, Cluster(gpus_per_node=8))
    >>> group.around("layer", "F"), TensorGroup(8, Cluster(), sequence=False).around("layer", "F")
    (('gather', 'scatter'), (None, 'all-reduce'))

    Attributes:
        gpus: GPUs of the group.
        cluster: the links between them.
        sequence: whether they share out the sequence outside of blocks.
        overlap: whether collectives around a layer's blocks go beside GEMMs, a piece at a time.
        in_turn: whether a block's I and W both end before the gradient is summed, and nothing goes beside either.
        keeps_gathered: whether what was gathered for F is still there for W.

    Raises:
        UserError: the group neither divides a node nor fills whole ones.

    """

    gpus: int
    cluster: Cluster
    sequence: bool = True
    overlap: bool = False
    in_turn: bool = False
    keeps_gathered: bool = False

    __repr__ = brief

    def __post_init__(self) -> None:
        node = self.cluster.gpus_per_node
        if node % self.gpus and self.gpus % node:
            raise UserError(
                f"parallel.tensor: {self.gpus} GPUs neither divide a node of {node} nor fill whole ones; take a "
                f"divisor or a multiple of {node} (cluster.gpus_per_node)"
            )

    @property
    def group(self) -> Group:
        """The group's GPUs."""
        return Group(self.cluster, self.gpus)

    def around(self, block: CutBlock, work: Work) -> Around:
        """Return the collectives before and after a block's work."""
        before, after = _SEQUENCE_PARALLEL[block][work]
        if self.sequence:
            return (None if work == "W" and self.keeps_gathered else before), after
        return None, None if after is None else ALL_REDUCE

    def beside(self, linears: Sequence[Linear], work: Work, load: Workload) -> tuple[float, float]:
        """Return what of the collectives before and after a block hides beside its GEMMs, in seconds.

        Args:
            linears: the block's maps.
            work: what is done.
            load: one micro-batch on one GPU.

        """
        if not self.overlap:
            return 0.0, 0.0
        reading_s, writing_s = (
            sum(linear_s(one, work, load) for one in linears if one.cut == cut) * (self.gpus - 1) / self.gpus
            for cut in ("columns", "rows")
        )
        return (writing_s, reading_s) if work == "I" else (reading_s, writing_s)


def ring(group: Group, name: str, size_bytes: float) -> Collective:
    """Return an all-gather, reduce-scatter or all-reduce of a whole tensor of so many bytes."""
    return Collective.of(name, group, group.ring(PASSES[name] * size_bytes))
