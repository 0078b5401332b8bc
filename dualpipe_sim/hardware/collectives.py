"""What the kernels of collectives achieve on a cluster's links, whoever calls them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dualpipe_sim.base.records import need_positive
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError

AllToAllStep: TypeAlias = Literal["dispatch F", "combine F", "combine I", "dispatch I"]
"""The four all-to-alls of an MoE layer; the ``I`` ones carry gradients, the combine's like a dispatch."""

ALLTOALL_STEPS: tuple[AllToAllStep, ...] = ("dispatch F", "combine F", "combine I", "dispatch I")

RING_EFFICIENCY = 0.85
RING_LAUNCH_S = 20e-6
"""What NCCL's all-gather, reduce-scatter and all-reduce achieve of a link, and what one takes beside its bytes: from
one stream to another and back, where its size was timed.

Fitted to public tables of NCCL 2.29 on H100 and H200 nodes (https://github.com/ai-dynamo/aiconfigurator): groups of
2, 4 and 8 GPUs from 4 MB on, median error 2 %, from 23 % too short to 48 % too long.
"""

NVLINK_TOLL, NIC_TOLL = 0.4, 0.12
"""Share of the time of a collective that it and GEMMs beside it lose to each other, inside a node and between nodes.

Inside, as measured on two H100: of 268 MB, gathered, reduced or sent beside GEMMs, 0.35 to 0.5; DistributedDataParallel
beside a backward about as much, while small ones gain nothing by standing there at all. Between nodes its kernels hold
16 of 132 SMs (assumed).
"""


@dataclass(frozen=True)
class PerStep:
    """A number for each of the four all-to-alls of a layer.

    Attributes:
        dispatch_forward: tokens to their experts.
        combine_forward: results back.
        combine_gradient: gradients to the experts.
        dispatch_gradient: gradients back.

    """

    dispatch_forward: float
    combine_forward: float
    combine_gradient: float
    dispatch_gradient: float

    def __post_init__(self) -> None:
        need_positive(self, "cluster.alltoall", zero=tuple(vars(self)))

    def of(self, step: AllToAllStep) -> float:
        """Return the number of one step."""
        return (self.dispatch_forward, self.combine_forward, self.combine_gradient, self.dispatch_gradient)[
            ALLTOALL_STEPS.index(step)
        ]


@dataclass(frozen=True)
class Overlapped:
    """How much slower an all-to-all runs while compute kernels share the GPU.

    Attributes:
        slowdown: time of the data kernels over the formula's for an idle GPU.
        wait_s: further time for peers and casts, for ``tokens`` tokens of ``hidden`` width.
        tokens: tokens a GPU of that measurement.
        hidden: width of that measurement.

    """

    slowdown: PerStep
    wait_s: PerStep
    tokens: int
    hidden: int

    def __post_init__(self) -> None:
        need_positive(self, "cluster.alltoall.overlapped")


@dataclass(frozen=True)
class AllToAllKernel:
    """What the all-to-all kernels achieve on a cluster's links.

    >>> kernel = AllToAllKernel(0.85, 0.88, launch_s=35e-6, sms_per_channel=2, saturating_sms=20, chunk_s=1e-6)
    >>> kernel.channels(8), kernel.link_share(8)
    (4, 0.4)

    Attributes:
        nvlink_efficiency: share of NVLink's bandwidth.
        infiniband_efficiency: share of the NIC's bandwidth.
        launch_s: from the launch to the first byte.
        sms_per_channel: SMs of one channel; channels carry equal shares of the tokens side by side.
        saturating_sms: SMs that keep both tiers busy; fewer carry proportionally less.
        chunk_s: work of a channel for each chunk beside moving its bytes.
        overlapped: slowdown under overlap, or None for none.

    """

    nvlink_efficiency: float
    infiniband_efficiency: float
    launch_s: float
    sms_per_channel: int
    saturating_sms: int
    chunk_s: float
    overlapped: Overlapped | None = None

    __repr__ = brief

    def __post_init__(self) -> None:
        need_positive(self, "cluster.alltoall", zero=("launch_s", "chunk_s"))
        for key in ("nvlink_efficiency", "infiniband_efficiency"):
            if getattr(self, key) > 1:
                raise UserError(f"cluster.alltoall.{key}: must be at most 1, not {getattr(self, key)}")

    def channels(self, sms: int) -> int:
        """Return how many channels fit on ``sms`` SMs.

        Raises:
            UserError: not even one fits.

        """
        if sms < self.sms_per_channel:
            raise UserError(f"{sms} SMs for communication: one channel of the all-to-all takes {self.sms_per_channel}")
        return sms // self.sms_per_channel

    def link_share(self, sms: int) -> float:
        """Return the share of the achieved bandwidth that ``sms`` SMs can drive."""
        return min(1.0, self.channels(sms) * self.sms_per_channel / self.saturating_sms)
