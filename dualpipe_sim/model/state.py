"""Bytes on a GPU for the whole step: weights, gradients, optimizer states, communication buffers."""

from __future__ import annotations

from dataclasses import dataclass

from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.model.architecture import Parameters
from dualpipe_sim.model.recipe import Recipe
from dualpipe_sim.model.routing import ExpertGroup

BUFFERED_NVLINK_TOKENS = 288
BUFFERED_INFINIBAND_TOKENS = 128
"""Tokens that DeepEP V1's default for 64 GPUs buffers for each channel and peer
(https://github.com/deepseek-ai/DeepEP)."""


@dataclass(frozen=True)
class LocalParameters:
    """Parameters on one GPU.

    Attributes:
        non_expert: parameters that every GPU of the expert-parallel group holds.
        expert: parameters of the routed experts that lie here.
        high_precision: parameters, counted in ``non_expert``, whose weights stay in BF16 in FP8 training.

    """

    non_expert: float = 0.0
    expert: float = 0.0
    high_precision: float = 0.0

    def __add__(self, other: LocalParameters) -> LocalParameters:
        return LocalParameters(
            self.non_expert + other.non_expert, self.expert + other.expert, self.high_precision + other.high_precision
        )

    @property
    def total(self) -> float:
        """All parameters on the GPU."""
        return self.non_expert + self.expert


@dataclass(frozen=True)
class StateBytes:
    """State that stays for the whole step.

    Attributes:
        weights: resident weights.
        gradients: gradients, whole.
        optimizer: this GPU's main weights and moments, or its share of them.

    """

    weights: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer


def local_parameters(parameters: Parameters, expert_parallel: int = 1) -> LocalParameters:
    """Return what one GPU holds of some layers' parameters; the routed experts are spread over the group."""
    return LocalParameters(parameters.non_expert, parameters.expert / expert_parallel, parameters.high_precision)


def state_bytes(
    local: LocalParameters, recipe: Recipe, *, data_parallel: int, expert_copies: int | None = None, copies: int = 1
) -> StateBytes:
    """Return weights, gradients and the optimizer states of one GPU.

    Where main weights and moments are sharded, it is over everyone that holds the same parameter: the
    ``data_parallel`` parts of a pipeline rank for non-expert ones, ``expert_copies`` GPUs of it (None for as many) for
    experts, times ``copies`` of each stage (2 in a bidirectional schedule). Parameters that tensor parallelism leaves
    whole are there on each of its GPUs, with their optimizer states.
    """
    low = local.total - local.high_precision
    optimizer = recipe.optimizer
    non_expert, expert = _holders(data_parallel, expert_copies, copies) if optimizer.sharded else (1, 1)
    return StateBytes(
        weights=low * recipe.weight_bytes + local.high_precision * BF16_BYTES,
        gradients=local.total * optimizer.gradient_bytes,
        optimizer=optimizer.state_bytes * (local.non_expert / non_expert + local.expert / expert),
    )


def reduced_gradient_bytes(
    local: LocalParameters, recipe: Recipe, *, data_parallel: int, expert_copies: int | None = None, copies: int = 1
) -> float:
    """Return the bytes of gradients that a GPU reduces with others, none of parameters that nobody else holds."""
    non_expert, expert = _holders(data_parallel, expert_copies, copies)
    return recipe.optimizer.gradient_bytes * (local.non_expert * (non_expert > 1) + local.expert * (expert > 1))


def _holders(data_parallel: int, expert_copies: int | None, copies: int) -> tuple[int, int]:
    """Return how many GPUs hold the same non-expert and the same expert parameter."""
    return data_parallel * copies, (data_parallel if expert_copies is None else expert_copies) * copies


def alltoall_buffer_bytes(group: ExpertGroup, hidden: int, channels: int) -> float:
    """Return the bytes of the all-to-all's buffers, sized for BF16 tokens as DeepEP's are.

    For each channel: one for each GPU of the node, and, over several nodes, one each way for each node.
    """
    if group.gpus == 1:
        return 0.0
    tokens = group.gpus_per_node * BUFFERED_NVLINK_TOKENS
    if group.nodes > 1:
        tokens += 2 * group.nodes * BUFFERED_INFINIBAND_TOKENS
    return channels * tokens * hidden * BF16_BYTES
