"""An experiment: what is to be simulated, with every unit parsed and every name known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

from dualpipe_sim.base.precision import Precision
from dualpipe_sim.base.show import brief, line
from dualpipe_sim.base.units import label_of, sizes
from dualpipe_sim.costs.asked import gathers_stages, on_cluster
from dualpipe_sim.costs.phases import Costs
from dualpipe_sim.engine.noise import Noise
from dualpipe_sim.engine.play import Engine
from dualpipe_sim.engine.scenarios import Scenarios
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.hardware.cluster import Cluster, Topology
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.layout import LayoutChoice
from dualpipe_sim.model.recipe import Recompute
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.registry import RuntimeInUse

Contention: TypeAlias = Literal["none", "fair"]
Moves: TypeAlias = Literal["async", "rendezvous"]


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

    __repr__ = brief

    def __str__(self) -> str:
        return label_of(self.name, self.options)


@dataclass(frozen=True)
class Measured:
    """What somebody measured of an experiment's own schedule.

    Attributes:
        source: who, and where that stands.
        numbers: what, by the keys of a run.
        why: what explains the difference to what is simulated, in words.

    """

    source: str
    numbers: Mapping[str, float]
    why: str = ""

    __repr__ = brief


@dataclass(frozen=True)
class Free:
    """What a plan may choose; a field without values stays as the experiment has it.

    Attributes:
        schedules: schedules by name and options.
        ranks: pipeline ranks; the GPUs of a rank follow.
        tensor: GPUs that share out each layer's tensors.
        context: GPUs that share each sequence out.
        expert: GPUs that the routed experts are spread over.
        layouts: which stage holds which layers.
        micro_batch_size: sequences of a micro-batch on one GPU; the number of micro-batches follows.
        recompute: what is recomputed.
        precision: of GEMMs, dispatch, cached activations and weights.
        communication_sms: SMs of the all-to-all.

    """

    schedules: tuple[tuple[str, Mapping[str, object]], ...] = ()
    ranks: tuple[int, ...] = ()
    tensor: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    expert: tuple[int, ...] = ()
    layouts: tuple[LayoutChoice, ...] = ()
    micro_batch_size: tuple[int, ...] = ()
    recompute: tuple[Recompute, ...] = ()
    precision: tuple[Precision, ...] = ()
    communication_sms: tuple[int, ...] = ()

    __repr__ = brief


@dataclass(frozen=True)
class Sought:
    """What a search for the best partition, placement and order looks for, and for how long.

    Attributes:
        stages_per_rank: most stages of a rank, at the mean.
        activations: most activations on a rank, in those of one micro-batch through 1/ranks of the layers; or None.
        split: whether the backward for the weights is an op of its own.
        recompute: whether stages may run their forwards again, so that they keep their inputs alone until then.
        seconds: how long it may take.
        rounds: how many rounds it has instead, so that it finds the same again; or None.
        moves: how many changes a walk tries; None for as many as take some seconds.
        seed: of all that is drawn.

    """

    stages_per_rank: int = 4
    activations: float | None = None
    split: bool = True
    recompute: bool = False
    seconds: float = 60.0
    rounds: int | None = None
    moves: int | None = None
    seed: int = 0

    __repr__ = brief


@dataclass(frozen=True)
class Experiment:
    """One configuration, ready to run.

    Attributes:
        choice: the schedule to run.
        cost_model: how long ops take, wherever ranks sit.
        cluster: where the ranks sit; costs that depend on links are told it here and nowhere else.
        compare: the schedules to compare.
        engine: what plays the task graph.
        contention: whether flows that overlap share links, max-min fair.
        source: the file it came from, for messages.
        noise: how durations vary, or None.
        scenarios: what may happen in a step.
        free: what a plan may choose.
        sought: what a search looks for.
        transfers: whether a transfer waits for its producer only (``async``), or for both ranks' turns too.
        runtime: the runtime whose program issues messages, or None for the ideal one.
        settle_layout: whether the layout ``balanced`` is settled for each schedule that runs.
        measured: what was measured of ``choice``, or None.
        gpus_per_rank: GPUs of a rank, which are neighbours, where no job says it.
        max_memory_bytes: of this machine's memory that a run may take; None for what is free.

    Raises:
        UserError: a cost model that lies on a cluster of its own, or does not fit this one.

    """

    choice: Choice
    cost_model: Costs
    cluster: Cluster = field(default_factory=Cluster)
    compare: tuple[Choice, ...] = ()
    engine: Engine = "auto"
    source: str = "config"
    contention: Contention = "none"
    noise: Noise | None = None
    scenarios: Scenarios = field(default_factory=Scenarios)
    free: Free = Free()
    sought: Sought = Sought()
    transfers: Moves = "async"
    runtime: RuntimeInUse | None = None
    settle_layout: bool = True
    measured: Measured | None = None
    gpus_per_rank: int = 1
    max_memory_bytes: float | None = None

    def __repr__(self) -> str:
        size = sizes(self.choice.ranks, self.choice.micro_batches)
        compared = f"{len(self.compare)} to compare" if self.compare else ""
        return line(self, self.source, str(self.choice), size, type(self.cost_model).__name__, compared)

    def __post_init__(self) -> None:
        if getattr(self.cost_model, "cluster", None) is not None:
            raise UserError("costs: lie on a cluster of their own; an experiment has one cluster, for costs and routes")
        if self.runtime is not None and self.transfers == "rendezvous":
            raise UserError(
                f"pipeline.transfers: a runtime ({self.runtime.name}) says how tensors move; leave rendezvous out"
            )
        if self.runtime is not None and not self.runtime.spec.chains and gathers_stages(self.cost_model):
            raise UserError(
                f"pipeline.runtime: {self.runtime.name} does not gather weights stage by stage, as torch and ideal do"
            )
        _ = self.costs  # a cost model that does not fit the cluster is refused here

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let what is wrong inside begin with the file that the experiment came from."""
        try:
            yield
        except ScheduleError as error:
            raise type(error)(f"{self.source}: schedule: {error}") from error
        except UserError as error:
            raise type(error)(f"{self.source}: {error}") from error

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The schedules to compare, or the only one."""
        return self.compare or (self.choice,)

    @cached_property
    def costs(self) -> Costs:
        """The cost model on the cluster."""
        return on_cluster(self.cost_model, self.cluster)

    @property
    def job(self) -> Job | None:
        """What is trained and how it is cut, where the cost model knows it."""
        return getattr(self.cost_model, "job", None)

    def topology(self, ranks: int) -> Topology:
        """Return the part of the cluster that a pipeline's ranks use."""
        return self.cluster.topology(ranks, self.gpus_per_rank if self.job is None else self.job.parallel.gpus)
