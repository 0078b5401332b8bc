"""An experiment: what is to be simulated, with every unit parsed and every name known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from dualpipe_sim.costs.phases import TimedCosts
from dualpipe_sim.hardware.cluster import Cluster
from dualpipe_sim.order.schedule import Schedule

Contention: TypeAlias = Literal["none", "fair"]
Engine: TypeAlias = Literal["auto", "simpy", "longest-path"]
Moves: TypeAlias = Literal["async", "rendezvous"]
Reduction: TypeAlias = Literal["overlapped", "after", "none"]


@dataclass(frozen=True)
class Choice:
    """A schedule at its sizes.

    Attributes:
        name: a registered schedule, or the file that the order came from.
        ranks: pipeline ranks.
        micro_batches: micro-batches of a step, all pipes together.
        options: the schedule's own options.
        order: the schedule itself where it came from a file, else None.

    """

    name: str
    ranks: int
    micro_batches: int
    options: Mapping[str, object] = field(default_factory=dict)
    order: Schedule | None = None

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name


@dataclass(frozen=True)
class StepEnd:
    """What a step does beside its pipeline, where a model is known.

    Attributes:
        reduction: when gradients are reduced: ``overlapped``: each layer's when its last one is there; ``after``: all
            after a rank's last op; ``none``: not at all.
        optimizer: whether the optimizer's step counts.

    """

    reduction: Reduction = "overlapped"
    optimizer: bool = True


@dataclass(frozen=True)
class Noise:
    """How durations vary.

    Attributes:
        jitter: standard deviation of each duration over its mean; every phase and transfer draws its own factor,
            log-normal with mean 1.
        seed: what the draws follow from.
        runs: how many times the step is drawn.
        slow_ranks: factor on the compute of ranks that are always slower (or faster), by rank.

    """

    jitter: float = 0.0
    seed: int = 0
    runs: int = 100
    slow_ranks: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Free:
    """What a plan may choose; a field without values stays as the experiment has it.

    Attributes:
        schedules: schedules by name and options.
        ranks: pipeline ranks; the GPUs of a rank follow.
        expert: GPUs that the routed experts are spread over.
        layouts: which stage holds which layers.
        micro_batch_size: sequences of a micro-batch on one GPU; the number of micro-batches follows.
        recompute: whether norms, up-projections and the activation function are recomputed.
        precision: of GEMMs, dispatch, cached activations and weights.
        communication_sms: SMs of the all-to-all.

    """

    schedules: tuple[tuple[str, Mapping[str, object]], ...] = ()
    ranks: tuple[int, ...] = ()
    expert: tuple[int, ...] = ()
    layouts: tuple[str | tuple[int, ...], ...] = ()
    micro_batch_size: tuple[int, ...] = ()
    recompute: tuple[tuple[bool, bool, bool], ...] = ()
    precision: tuple[Literal["bf16", "fp8"], ...] = ()
    communication_sms: tuple[int, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One configuration, ready to run.

    Attributes:
        choice: the schedule to run.
        compare: the schedules to compare.
        costs: how long ops take.
        cluster: where the ranks sit.
        engine: what plays the task graph.
        contention: whether flows that overlap share links, max-min fair.
        source: the file it came from, for messages.
        step_end: gradient reduction and optimizer step.
        noise: how durations vary, or None.
        free: what a plan may choose.
        transfers: whether a transfer waits for its producer only (``async``), or for both ranks' turns too.

    """

    choice: Choice
    compare: tuple[Choice, ...]
    costs: TimedCosts
    cluster: Cluster
    engine: Engine = "auto"
    source: str = "config"
    contention: Contention = "none"
    step_end: StepEnd = StepEnd()
    noise: Noise | None = None
    free: Free = Free()
    transfers: Moves = "async"

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The schedules to compare, or the only one."""
        return self.compare or (self.choice,)
