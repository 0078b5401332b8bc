"""How a model and its data are cut over GPUs beside the pipeline: tensor, context, expert and data parallelism.

The GPUs of a pipeline rank are neighbours. Among them those of a tensor-parallel group lie next to each other, then
come context- and then data-parallel ones; routed experts are cut and spread over the same GPUs in groups of their own
(Megatron-Core's order of ranks, https://github.com/NVIDIA/Megatron-LM, ``parallel_state``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import Literal, TypeAlias

from dualpipe_sim.base.records import need_positive
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError

ContextExchange: TypeAlias = Literal["ring", "gather", "all-to-all"]
"""How GPUs that share a sequence out see each other's keys and values: passed on in a ring beside attention
(https://arxiv.org/abs/2310.01889), all gathered before it (https://arxiv.org/abs/2407.21783, section 3.3.2), or sent so
that each has all of the sequence and a share of the heads (https://arxiv.org/abs/2309.14509)."""

Dispatcher: TypeAlias = Literal["deepep", "nccl"]
"""How tokens go to experts on other GPUs: once to each GPU, by DeepEP's kernels (https://github.com/deepseek-ai/DeepEP)
or those like them, or a copy for each expert by NCCL's all-to-all."""

Zero: TypeAlias = Literal[0, 1, 2, 3]
"""What is shared out over all that hold the same parameter (ZeRO, https://arxiv.org/abs/1910.02054): nothing, the
optimizer's states, gradients too, weights too."""


@dataclass(frozen=True)
class Parallelism:
    """GPUs of a pipeline rank, and what each has.

    >>> cut = Parallelism(tensor=4, context=2, expert=8, data=4)
    >>> cut.gpus, cut.holders, cut.expert_holders
    (32, 8, 4)

    Attributes:
        tensor: GPUs that share out heads, widths of FFNs and the vocabulary.
        sequence: whether those share out the sequence where nothing else is cut, around norms and residuals.
        tensor_overlap: whether what those send around a block goes a piece at a time beside the GEMMs next to it, or
            none of it beside compute; None for what the software does (:class:`~dualpipe_sim.model.stacks.Stack`).
        context: GPUs that share each sequence out, all of a layer but attention to the others' keys.
        context_exchange: how they see those.
        context_balanced: whether each has a share of the start and of the end of a sequence, so that causal attention
            is as much for all.
        expert: GPUs that the routed experts are spread over.
        expert_tensor: GPUs that share out the width of each routed expert.
        data: parts of a pipeline rank that each run their own micro-batches.
        zero: what is shared out over all that hold the same parameter.
        fsdp: GPUs that share out weights, gradients and states (FSDP, https://arxiv.org/abs/2304.11277), of which there
            may be several groups; 0 for none, or with ZeRO-3 for all that hold the same parameter.
        gathers: whether shared weights are gathered for each op, layer by layer, or once a step, or a stage at a time
            ahead of the ops that need it (:mod:`dualpipe_sim.order.gathers`).
        dispatcher: how tokens go to experts on other GPUs; None for as the software usually does.

    Raises:
        UserError: sizes that do not fit each other.

    """

    tensor: int = 1
    sequence: bool = True
    context: int = 1
    context_exchange: ContextExchange = "ring"
    context_balanced: bool = True
    expert: int = 1
    expert_tensor: int = 1
    data: int = 1
    zero: Zero = 1
    fsdp: int = 0
    gathers: Literal["each", "once", "stages"] = "each"
    tensor_overlap: bool | None = None
    dispatcher: Dispatcher | None = None

    __repr__ = brief

    def __post_init__(self) -> None:
        need_positive(self, "parallel", zero=("zero", "fsdp"))
        spread = self.expert * self.expert_tensor
        if self.gpus % spread:
            groups = f"{self.expert} (parallel.expert)"
            groups += f" x {self.expert_tensor} (parallel.expert_tensor)" if self.expert_tensor > 1 else ""
            raise UserError(f"parallel.data: {self._product()} GPUs a rank are not whole groups of {groups}")
        if self.fsdp > 1 and (self.holders % self.fsdp and self.gpus % self.fsdp):
            raise UserError(
                f"parallel.fsdp: {self.fsdp} GPUs are no share of the {self.holders} that hold the same parameters "
                f"({self._product()}); take a divisor"
            )

        if self.gathers == "stages" and not self.shards_weights:
            raise UserError("parallel.gathers: stages are gathered where weights are shared out; add fsdp, or zero: 3")

    @property
    def gpus(self) -> int:
        """GPUs of a pipeline rank."""
        return self.tensor * self.context * self.data

    @property
    def holders(self) -> int:
        """GPUs of a pipeline rank that have the same parameters, routed experts left out."""
        return self.context * self.data

    @property
    def expert_holders(self) -> int:
        """GPUs of a pipeline rank that have the same routed experts, or the same share of them."""
        return self.gpus // (self.expert * self.expert_tensor)

    @property
    def shards_weights(self) -> bool:
        """Whether no GPU has its weights whole for the whole step."""
        return self.fsdp > 1 or self.zero == 3

    def over(self, holders: int) -> int:
        """Return how many of those that hold the same parameters make one copy of their states."""
        return min(self.fsdp, holders) if self.fsdp > 1 else holders

    def _product(self) -> str:
        factors = [(self.data, ""), (self.tensor, "parallel.tensor"), (self.context, "parallel.context")]
        return " x ".join(f"{size} ({key})" if key else f"{size}" for size, key in factors if size > 1 or not key)


def least_data(tensor: int, context: int, expert: int, expert_tensor: int) -> int:
    """Return the fewest data-parallel parts in which groups of experts have room.

    >>> least_data(tensor=2, context=1, expert=8, expert_tensor=1)
    4
    """
    group = tensor * context
    return lcm(group, expert * expert_tensor) // group
