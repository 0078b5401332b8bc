"""What a cost model says of a task: its phases, each on a lane of its rank."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple, Protocol, TypeAlias, cast

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.hardware.cluster import Cluster, Tier
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.layout import StageLayers
from dualpipe_sim.order.ops import TaskShape
from dualpipe_sim.order.placement import Placement

GATHER, SCATTER, ALL_REDUCE = "gather", "scatter", "all-reduce"
"""The names of a tensor-parallel group's collectives."""

CONTEXT, WEIGHTS, GRADIENTS = "context", "weights", "gradients"
"""What else groups send: keys and values of a sequence's other shares, weights gathered, gradients scattered."""

_COLLECTIVES = frozenset((GATHER, SCATTER, ALL_REDUCE, CONTEXT, WEIGHTS, GRADIENTS))
"""Names of collectives; other phases of the lane of all-to-alls are all-to-alls."""


class Flow(NamedTuple):
    """What a collective puts on the links of one tier, as much out of the rank's GPU as into it.

    >>> Flow("infiniband", 50e6).cap_bytes_per_s
    inf

    Attributes:
        tier: which links.
        size_bytes: bytes each way; where a kernel achieves only a share of the bandwidth, divided by that share.
        cap_bytes_per_s: most that it can take of a link: too few SMs, say, or compute beside it.

    """

    tier: Tier
    size_bytes: float
    cap_bytes_per_s: float = inf


class Phase(NamedTuple):
    """A part of an op that occupies one lane of its rank.

    >>> Phase(Lane.COMPUTE, 1e-3, kind=0, name="attn", layer=7).unit
    7

    Attributes:
        lane: ``Lane.COMPUTE``, ``Lane.ALLTOALL`` for all-to-alls and other collectives inside an op, ``Lane.COPY`` for
            copies to the host and back, or ``Lane.DATA`` for weights and gradients of whole stages.
        duration_s: seconds that it occupies the lane.
        kind: kind code of the work (a full backward's phases may be ``I`` and ``W``).
        name: what it does: ``op`` for a whole op, else ``attn``, ``dispatch``, ``mlp``, ``combine``, ….
        layer: layer of the model, or -1 where it belongs to none.
        half: 0 for the task's first op, 1 for the backward of a pair.
        after: earlier phases of the same task that it waits for, beside those before it on its lane.
        flows: what it puts on links that others share; ``duration_s`` is that of the slowest, alone on its links,
            after what else the phase takes, which comes first. They count where links are shared.
        alone_s: of a compute phase, its seconds while no all-to-all runs on its rank, if not ``duration_s``.
        kernels: of a compute phase, how many equally long kernels it is, if an all-to-all gets SMs only as one ends; 0
            where an all-to-all need not wait.
        late: whether its op's output has left before it.

    """

    lane: Lane
    duration_s: float
    kind: int
    name: str = "op"
    layer: int = -1
    half: int = 0
    after: tuple[int, ...] = ()
    flows: tuple[Flow, ...] = ()
    alone_s: float | None = None
    kernels: int = 0
    late: bool = False

    def __repr__(self) -> str:
        return brief(self)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its task."""
        return self.layer < 0 and self.name == "op"

    @property
    def is_alltoall(self) -> bool:
        """Whether it is an all-to-all, and not another collective of the same lane."""
        return self.lane == Lane.ALLTOALL and self.name not in _COLLECTIVES

    @property
    def unit(self) -> int | str:
        """What memory comes and goes with: a layer by number, or the phase's name where it belongs to none."""
        return self.layer if self.layer >= 0 else self.name


ByBoundary: TypeAlias = float | tuple[float, ...]
"""An amount for every boundary between two stages of a pipe, or one for each, from the first two stages on."""


class StageCosts(Protocol):
    """Costs of the stages of one placement.

    They may also have ``micro_batch_weights``, a number for each micro-batch of the step: how long its ops and its
    transfers take over what ``phases`` and the amounts here say; ``load``, a :class:`~dualpipe_sim.costs.load.Load`
    that makes ops longer on busy GPUs; ``activations_of_stage``, what each stage holds of a micro-batch in activations
    of 1/ranks of the model, where stages are not alike; ``host_s(task)``: how long the host takes to issue a task,
    and from then until it comes to the next one, in seconds; and ``weights_moved(kind, stage)``: the phase, on
    ``Lane.DATA``, of gathering a stage's weights (``UNSHARD``) or of reducing its gradients (``REDUCE_GRAD``).
    """

    @property
    def transfer_s(self) -> ByBoundary | None:
        """Seconds that a stage boundary's tensor is under way, or None where it is given as bytes."""
        ...

    @property
    def transfer_bytes(self) -> ByBoundary:
        """Bytes of a stage boundary's activation or gradient (0 where a time is given)."""
        ...

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        """Return the task's phases, one at least; on each lane they run in the order listed."""
        ...


class Costs(Protocol):
    """A cost model, independent of how the model is cut into stages.

    It may also have ``gathers_stages``: whether weights are shared out and gathered a stage at a time, so that orders
    are played with their gathers (:mod:`~dualpipe_sim.order.gathers`).
    """

    def on(self, placement: Placement) -> StageCosts:
        """Return the costs of each stage of a placement."""
        ...


class JobStageCosts(StageCosts, Protocol):
    """Costs of a job on GPUs: memory, MFU and what a step ends with follow from what they know beside times."""

    @property
    def job(self) -> Job:
        """What is trained and how it is cut."""
        ...

    @property
    def gpu(self) -> Gpu:
        """Every rank's GPU."""
        ...

    @property
    def cluster(self) -> Cluster:
        """The links between GPUs."""
        ...

    @property
    def stage_layers(self) -> Sequence[StageLayers]:
        """What each stage holds."""
        ...

    @property
    def buffer_bytes(self) -> int:
        """Bytes of communication buffers on a GPU with experts."""
        ...


def with_job(costs: StageCosts) -> JobStageCosts | None:
    """Return the costs as those of a job, or None where they know of none."""
    return cast("JobStageCosts", costs) if getattr(costs, "job", None) is not None else None


def ends_s(phases: Sequence[Phase], seconds: Sequence[float]) -> list[float]:
    """Return when each phase of a task ends that begins at 0: it starts when its lane and what it waits for let it.

    >>> one, beside = Phase(Lane.COMPUTE, 2.0, kind=0), Phase(Lane.ALLTOALL, 3.0, kind=0)
    >>> ends_s([one, beside, Phase(Lane.COMPUTE, 1.0, kind=0, after=(1,))], [2.0, 3.0, 1.0])
    [2.0, 3.0, 4.0]

    Args:
        phases: of one task, in the order listed by the costs.
        seconds: how long each lasts.

    """
    free_s = dict.fromkeys(Lane, 0.0)
    ends: list[float] = []
    for phase, lasts_s in zip(phases, seconds, strict=True):
        lane, start_s = phase.lane, free_s[phase.lane]
        for other in phase.after:
            if ends[other] > start_s:  # noqa: PLR1730 - a call of max() takes three times as long
                start_s = ends[other]
        free_s[lane] = end_s = start_s + lasts_s
        ends.append(end_s)
    return ends
