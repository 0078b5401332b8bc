"""Bytes on a GPU for the whole step: weights, gradients, optimizer states, communication buffers."""

from __future__ import annotations

from dataclasses import dataclass

from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.model.architecture import Parameters
from dualpipe_sim.model.parallelism import Parallelism
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


def local_parameters(parameters: Parameters, expert: int = 1) -> LocalParameters:
    """Return what one GPU holds of some layers' parameters; the routed experts are spread over so many GPUs."""
    return LocalParameters(parameters.non_expert, parameters.expert / expert, parameters.high_precision)


def state_bytes(local: LocalParameters, recipe: Recipe, cut: Parallelism, *, copies: int = 1) -> StateBytes:
    """Return weights, gradients and the optimizer states of one GPU.

    What is shared out is over everyone that holds the same parameter, or the same share of it: those of a pipeline
    rank, times ``copies`` of each stage (2 in a bidirectional schedule). Parameters that tensor parallelism leaves
    whole are there on each of its GPUs, with their optimizer states. Weights that are gathered once a step are whole,
    and so are their gradients; where they are gathered for each op, what lies here is the optimizer's copy if it has
    one. Those that are gathered a stage at a time come and go, and their gradients add up whole.
    """
    low = local.total - local.high_precision
    optimizer = recipe.optimizer
    weights = low * recipe.weight_bytes + local.high_precision * BF16_BYTES
    gathered_each = cut.shards_weights and cut.gathers == "each"
    if cut.shards_weights and cut.gathers != "once":
        share = _sharded(local, cut, copies) / (local.total or 1)
        weights = 0.0 if optimizer.main_weights != "none" else weights * share
    whole_gradients = not gathered_each and (cut.zero < 2 or cut.shards_weights)
    shares_states = cut.zero > 0 or cut.shards_weights
    return StateBytes(
        weights=weights,
        gradients=optimizer.gradient_bytes * (local.total if whole_gradients else _sharded(local, cut, copies)),
        optimizer=optimizer.state_bytes
        * (1 - recipe.offload.optimizer)
        * (_sharded(local, cut, copies) if shares_states else local.total),
    )


def _sharded(local: LocalParameters, cut: Parallelism, copies: int) -> float:
    """Return how many parameters are on a GPU where each is shared out over those that hold it."""
    non_expert, expert = cut.over(cut.holders * copies), cut.over(cut.expert_holders * copies)
    return local.non_expert / non_expert + local.expert / expert


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
