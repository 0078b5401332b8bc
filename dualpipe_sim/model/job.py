"""A job: what is trained and how it is cut over GPUs. It knows sizes, and no seconds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError
from dualpipe_sim.model.architecture import Model, Parameters
from dualpipe_sim.model.layout import BALANCED, EVEN, LayoutChoice, StageLayers, explicit
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe
from dualpipe_sim.model.routing import ExpertGroup, expected_distinct, expert_group

Reduction: TypeAlias = Literal["overlapped", "after", "none"]

Unit: TypeAlias = int | Literal["embedding", "head"]
"""A layer by number (those of multi-token prediction follow the model's), the embedding, or the head."""


@dataclass(frozen=True)
class StepEnd:
    """What a step does beside its pipeline.

    Attributes:
        reduction: when gradients are reduced: ``overlapped``: each layer's when its last one is there; ``after``: all
            after a rank's last op; ``none``: not at all.
        optimizer: whether the optimizer's step counts.

    """

    reduction: Reduction = "overlapped"
    optimizer: bool = True


@dataclass(frozen=True)
class Job:
    """What is trained and how it is cut.

    >>> from dualpipe_sim.config import load_experiment
    >>> job = load_experiment("deepseek_v3").job
    >>> job.model.name, job.tokens, job.expert_parallel, job.data_parallel
    ('deepseek-v3', 4096, 64, 128)

    Attributes:
        model: the model.
        recipe: precision and recompute.
        sequence_length: tokens of a sequence.
        micro_batch_size: sequences of a micro-batch on one GPU.
        expert_parallel: GPUs that the routed experts are spread over; their groups lie in a pipeline rank's GPUs.
        data_parallel: parts of a pipeline rank that each run their own micro-batches.
        tensor_parallel: GPUs of each such part, which run the same micro-batches and share out heads, widths of
            FFNs and the vocabulary.
        sequence_parallel: whether they share out the sequence where those are not cut, around norms and residuals.
        layout: which stage holds which layers.
        routing_skew: tokens that the busiest expert rank receives over the mean; it sets the pace.
        causal: whether attention skips the masked half.
        step_end: gradient reduction and the optimizer's step.

    Raises:
        UserError: settings that do not fit each other.

    """

    model: Model
    recipe: Recipe
    sequence_length: int
    micro_batch_size: int = 1
    expert_parallel: int = 1
    data_parallel: int = 1
    tensor_parallel: int = 1
    sequence_parallel: bool = True
    layout: LayoutChoice = EVEN
    routing_skew: float = 1.0
    causal: bool = True
    step_end: StepEnd = StepEnd()

    __repr__ = brief

    def __post_init__(self) -> None:
        if self.gpus_per_rank % self.expert_parallel:
            times = f" x {self.tensor_parallel} (parallel.tensor)" if self.tensor_parallel > 1 else ""
            raise UserError(
                f"parallel.data: {self.data_parallel}{times} GPUs a rank are not whole groups of "
                f"{self.expert_parallel} (parallel.expert)"
            )
        self._check_tensor_parallel()
        if self.expert_parallel > 1 and self.model.experts is None:
            raise UserError(f"parallel.expert: model {self.model.name} has no experts to spread over GPUs; take 1")
        if self.routing_skew < 1:
            raise UserError(f"training.routing_skew: the busiest is at least the mean, 1, not {self.routing_skew}")
        if self.layout not in (EVEN, BALANCED):
            explicit(self.layout, self.model.layers, self.model.mtp_depth)

    @property
    def gpus_per_rank(self) -> int:
        """GPUs of a pipeline rank."""
        return self.data_parallel * self.tensor_parallel

    @property
    def expert_copies(self) -> int:
        """GPUs of a pipeline rank that hold the same routed experts."""
        return self.gpus_per_rank // self.expert_parallel

    @cached_property
    def shard(self) -> Model:
        """What one GPU holds of the model, but for the spreading of layers and experts: its share of what is cut."""
        return self.model.over(self.tensor_parallel)

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.sequence_length * self.micro_batch_size

    @property
    def own_tokens(self) -> int:
        """Tokens of a micro-batch that a GPU has where nothing else is cut: its share under sequence parallelism."""
        return self.tokens // self.tensor_parallel if self.sequence_parallel else self.tokens

    @property
    def micro_batch(self) -> MicroBatch:
        """A micro-batch as one GPU has it."""
        received = self.received_tokens
        return MicroBatch(
            self.tokens,
            self.sequence_length,
            self.tensor_parallel if self.sequence_parallel else 1,
            received,
            1.0 if received is None else self.routing_skew,
        )

    @property
    def boundary_bytes(self) -> float:
        """Bytes of a stage boundary's activation or gradient on one GPU, in BF16."""
        return self.own_tokens * self.model.hidden * BF16_BYTES

    @property
    def received_tokens(self) -> float | None:
        """Tokens that a GPU receives for its experts under even routing; None where experts are not spread.

        A token that goes to several experts of a GPU arrives there once.
        """
        experts = self.model.experts
        if experts is None or self.expert_parallel == 1:
            return None
        return self.own_tokens * expected_distinct(experts, self.expert_parallel)

    def expert_group(self, gpus_per_node: int) -> ExpertGroup | None:
        """Return how the expert-parallel group lies on nodes; None where experts are not spread.

        Raises:
            UserError: the group does not fill whole nodes, or the experts do not divide over it.

        """
        if self.model.experts is None or self.expert_parallel == 1:
            return None
        return expert_group(self.model.experts, self.expert_parallel, gpus_per_node)

    def parameters(self, layers: StageLayers) -> dict[Unit, Parameters]:
        """Return the parameters of a stage by unit, each of which gets its gradient at once.

        They are those of one GPU of a tensor-parallel group, and of all experts.
        """
        model = self.shard
        kinds = model.layer_kinds()
        units: dict[Unit, Parameters] = {layer: model.layer_parameters(kinds[layer]) for layer in layers.layers}
        units |= {model.layers + module: model.mtp_parameters() for module in range(layers.mtp)}
        if layers.embedding:
            units["embedding"] = model.embedding_parameters()
        if layers.has_head:
            units["head"] = model.head_parameters()
        return units

    def _check_tensor_parallel(self) -> None:
        gpus = self.tensor_parallel
        _ = self.shard  # which says what cannot be shared out
        if self.sequence_parallel and self.sequence_length % gpus:
            raise UserError(
                f"training.sequence_length: {gpus} GPUs (parallel.tensor) cannot share {self.sequence_length} tokens "
                f"out evenly; take a multiple of {gpus}, or parallel.sequence: false"
            )
        if gpus > 1 and not self.sequence_parallel and self.model.experts is not None:
            raise UserError(
                "parallel.sequence: false would send every token to its experts from each GPU that shares its "
                "tensors; leave it at true for a model with experts"
            )
