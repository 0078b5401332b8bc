"""A job: what is trained and how it is cut over GPUs. It knows sizes, and no seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError
from dualpipe_sim.model.architecture import Model, Parameters
from dualpipe_sim.model.layout import BALANCED, EVEN, LayoutChoice, StageLayers, explicit
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.parallelism import Parallelism
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
        gathering: when weights that others updated are gathered: ``overlapped``: each layer's before its first F;
            ``after``: all before a rank's first op.

    """

    reduction: Reduction = "overlapped"
    optimizer: bool = True
    gathering: Literal["overlapped", "after"] = "overlapped"


@dataclass(frozen=True)
class Job:
    """What is trained and how it is cut.

    >>> from dualpipe_sim.config import load_experiment
    >>> job = load_experiment("deepseek_v3").job
    >>> job.model.name, job.tokens, job.parallel.expert, job.parallel.data
    ('deepseek-v3', 4096, 64, 128)

    Attributes:
        model: the model.
        recipe: precision and recompute.
        sequence_length: tokens of a sequence.
        micro_batch_size: sequences of a micro-batch on one GPU.
        parallel: how a pipeline rank's GPUs share model and data out.
        layout: which stage holds which layers.
        routing_skew: tokens that the busiest expert rank receives over the mean; it sets the pace.
        causal: whether attention skips the masked half.
        step_end: gradient reduction and the optimizer's step.
        micro_batches: of a step; None for many.

    Raises:
        UserError: settings that do not fit each other.

    """

    model: Model
    recipe: Recipe
    sequence_length: int
    micro_batch_size: int = 1
    parallel: Parallelism = field(default_factory=Parallelism)
    layout: LayoutChoice = EVEN
    routing_skew: float = 1.0
    causal: bool = True
    step_end: StepEnd = StepEnd()
    micro_batches: int | None = None

    __repr__ = brief

    def __post_init__(self) -> None:
        self._check_shares()
        if self.routing_skew < 1:
            raise UserError(f"training.routing_skew: the busiest is at least the mean, 1, not {self.routing_skew}")
        if self.layout not in (EVEN, BALANCED):
            explicit(self.layout, self.model.layers, self.model.mtp_depth)

    @cached_property
    def shard(self) -> Model:
        """What one GPU holds of the model, but for the spreading of layers and experts: its share of what is cut."""
        return self.model.over(self.parallel.tensor, experts_over=self.parallel.expert_tensor)

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.sequence_length * self.micro_batch_size

    @property
    def own_tokens(self) -> int:
        """Tokens of a micro-batch that a GPU has where nothing else is cut."""
        cut = self.parallel
        return self.tokens // cut.context // (cut.tensor if cut.sequence else 1)

    @property
    def micro_batch(self) -> MicroBatch:
        """A micro-batch as one GPU has it."""
        cut = self.parallel
        tokens, shares = self.tokens // cut.context, cut.tensor if cut.sequence else 1
        experts = self.model.experts
        received = None
        if experts is not None and cut.expert > 1:
            received = tokens // shares * expected_distinct(experts, cut.expert)
        return MicroBatch(
            tokens,
            self.sequence_length,
            shares,
            received,
            1.0 if received is None else self.routing_skew,
            cut.expert_tensor,
        )

    @property
    def boundary_bytes(self) -> float:
        """Bytes of a stage boundary's activation or gradient on one GPU, in BF16."""
        return self.own_tokens * self.model.hidden * BF16_BYTES

    def expert_group(self, gpus_per_node: int) -> ExpertGroup | None:
        """Return how the expert-parallel group lies on nodes; None where experts are not spread.

        Raises:
            UserError: the group does not fill whole nodes, or the experts do not divide over it.

        """
        if self.model.experts is None or self.parallel.expert == 1:
            return None
        return expert_group(self.model.experts, self.parallel.expert, gpus_per_node // self.parallel.expert_tensor)

    def parameters(self, layers: StageLayers) -> dict[Unit, Parameters]:
        """Return the parameters of a stage by unit, each of which gets its gradient at once.

        They are those of one GPU of a tensor-parallel group, and of all experts that are spread.
        """
        model = self.shard
        kinds = model.layer_kinds()
        units: dict[Unit, Parameters] = {layer: model.layer_parameters(kinds[layer]) for layer in layers.layers}
        units |= {model.layers + module: model.mtp_parameters() for module in range(layers.mtp)}
        if layers.vocabulary_over:
            model = model.with_vocabulary_over(layers.vocabulary_over)
            units["embedding"] = Parameters(embedding=model.vocabulary * model.hidden)
        if layers.embedding:
            units["embedding"] = model.embedding_parameters()
        if layers.has_head:
            units["head"] = model.head_parameters()
        return units

    def _check_shares(self) -> None:
        cut = self.parallel
        _ = self.shard  # which says what cannot be shared out
        spread = {"expert": cut.expert, "expert_tensor": cut.expert_tensor}
        key = next((key for key, gpus in spread.items() if gpus > 1), None)
        if key and self.model.experts is None:
            raise UserError(f"parallel.{key}: model {self.model.name} has no experts to spread over GPUs; take 1")
        if cut.sequence and self.sequence_length % cut.tensor:
            raise UserError(
                f"training.sequence_length: {cut.tensor} GPUs (parallel.tensor) cannot share {self.sequence_length} "
                f"tokens out evenly; take a multiple of {cut.tensor}, or parallel.sequence: false"
            )
        if cut.context > 1:
            self._check_context()
        if cut.tensor > 1 and not cut.sequence and self.model.experts is not None:
            raise UserError(
                "parallel.sequence: false would send every token to its experts from each GPU that shares its "
                "tensors; leave it at true for a model with experts"
            )

    def _check_context(self) -> None:
        cut = self.parallel
        pieces = cut.context * (cut.tensor if cut.sequence else 1)
        pieces *= 2 if cut.context_balanced and cut.context_exchange != "all-to-all" else 1
        if self.sequence_length % pieces:
            raise UserError(
                f"training.sequence_length: {cut.context} GPUs (parallel.context) cannot share {self.sequence_length} "
                f"tokens out evenly; take a multiple of {pieces}"
            )
        if cut.context_exchange == "all-to-all":
            for layer in set(self.shard.layer_kinds()):
                layer.attention.over(cut.context)  # which says what cannot be shared out
