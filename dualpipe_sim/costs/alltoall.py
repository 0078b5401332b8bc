"""The all-to-all of expert parallelism over two tiers: bytes on each, and seconds alone on an idle network.

A token crosses InfiniBand once for each other node that holds one of its experts, to the GPU of the same place
there, and goes on over NVLink to each GPU of that node that holds one (DeepSeek-V3 report,
https://arxiv.org/abs/2412.19437, section 3.2.2). The two tiers work at the same time on chunks of tokens, and the
slower one sets the pace.

With even routing a token's experts are on ``distinct_nodes`` nodes on average, its own node among them as often as any
other. Of N nodes, (N - 1) / N of those are other nodes, and the token crosses for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, sqrt

from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.cluster import Cluster, Tier
from dualpipe_sim.hardware.collectives import RING_LAUNCH_S, AllToAllKernel, AllToAllStep
from dualpipe_sim.hardware.groups import Group
from dualpipe_sim.model.recipe import Recipe
from dualpipe_sim.model.routing import ExpertGroup


@dataclass(frozen=True)
class Exchange:
    """One all-to-all of one micro-batch, from the view of one GPU, each way.

    Attributes:
        infiniband_bytes: bytes over the NIC.
        nvlink_bytes: bytes over NVLink.
        infiniband_bytes_per_s: achieved bandwidth of the NIC.
        nvlink_bytes_per_s: achieved bandwidth of NVLink.
        latency_s: launch, waiting, and what the chosen chunk size costs over the best one.
        chunk_tokens: tokens of a chunk that a channel sends over InfiniBand; 0 where none goes there.

    """

    infiniband_bytes: float
    nvlink_bytes: float
    infiniband_bytes_per_s: float
    nvlink_bytes_per_s: float
    latency_s: float
    chunk_tokens: int = 0

    @property
    def infiniband_s(self) -> float:
        """Seconds that the NIC's bytes take."""
        return self.infiniband_bytes / self.infiniband_bytes_per_s

    @property
    def nvlink_s(self) -> float:
        """Seconds that NVLink's bytes take."""
        return self.nvlink_bytes / self.nvlink_bytes_per_s

    @property
    def duration_s(self) -> float:
        """Seconds from launch to end on an idle network."""
        return self.latency_s + max(self.infiniband_s, self.nvlink_s)


def payload_bytes(step: AllToAllStep, recipe: Recipe) -> float:
    """Return the bytes of an element on the wire.

    In FP8 training the forward dispatch and the gradient of the combine go in FP8 with their scales, both
    reductions in BF16 (DeepSeek-V3 report, section 3.3.3).
    """
    return recipe.sent_bytes if step in ("dispatch F", "combine I") else BF16_BYTES


@dataclass(frozen=True)
class AllToAll:
    """The all-to-all of one expert-parallel group.

    Attributes:
        kernel: what the kernels achieve.
        cluster: bandwidths of the tiers.
        group: the expert-parallel group.
        copies: experts of a token, to each of which a copy of it goes, as NCCL's all-to-all of permuted tokens sends
            them; 0 where a token goes once to each GPU, as DeepEP's kernels send it.

    """

    kernel: AllToAllKernel
    cluster: Cluster
    group: ExpertGroup
    copies: int = 0

    __repr__ = brief

    def exchange(
        self,
        tokens: int,
        token_bytes: float,
        *,
        sms: int | None = None,
        chunk_tokens: int | None = None,
        skew: float = 1.0,
    ) -> Exchange:
        """Return one all-to-all on an idle GPU and network.

        Args:
            tokens: tokens of the micro-batch on one GPU.
            token_bytes: bytes of one token on the wire.
            sms: SMs for communication; None for as many as saturate the links.
            chunk_tokens: tokens of a chunk; None for the best size.
            skew: received tokens of the busiest GPU over the mean; it sets the pace.

        Raises:
            UserError: fewer SMs than a channel takes, or a chunk without tokens.

        """
        if self.copies:
            return self._by_nccl(tokens * self.copies * token_bytes * skew)
        kernel, group = self.kernel, self.group
        sms = kernel.saturating_sms if sms is None else sms
        share = kernel.link_share(sms)
        # Tokens over the NIC and tokens over NVLink, each counted once for every time that it is sent.
        crossing = tokens * group.distinct_nodes * (group.nodes - 1) / group.nodes * skew
        forwarded = tokens * group.distinct_gpus * (group.gpus_per_node - 1) / group.gpus_per_node * skew
        alone = Exchange(
            infiniband_bytes=crossing * token_bytes,
            nvlink_bytes=forwarded * token_bytes,
            infiniband_bytes_per_s=self._between_nodes_bytes_per_s() * kernel.infiniband_efficiency * share,
            nvlink_bytes_per_s=self.cluster.nvlink.bytes_per_s * kernel.nvlink_efficiency * share,
            latency_s=kernel.launch_s if group.gpus > 1 else 0.0,
        )
        if not (crossing and forwarded):
            return alone  # one tier alone has nothing to be pipelined with
        chunk, excess_s = _chunking(alone, kernel.chunk_s, crossing / kernel.channels(sms), chunk_tokens)
        return replace(alone, latency_s=alone.latency_s + excess_s, chunk_tokens=chunk)

    def _by_nccl(self, size_bytes: float) -> Exchange:
        """Return NCCL's all-to-all of so many bytes of each GPU, an equal share for each of the others and itself."""
        stride = self.cluster.gpus_per_node // self.group.gpus_per_node if self.group.nodes > 1 else 1
        group = Group(self.cluster, self.group.gpus, stride)
        if group.gpus == 1:
            return Exchange(0.0, 0.0, self.cluster.infiniband.bytes_per_s, self.cluster.nvlink.bytes_per_s, 0.0)
        by_tier = group.all_to_all(size_bytes)
        taken_s = group.taken_s(by_tier)
        rates: dict[Tier, float] = {
            "infiniband": self.cluster.infiniband.bytes_per_s, "nvlink": self.cluster.nvlink.bytes_per_s
        }  # fmt: skip
        rates |= {tier: by_tier[tier] / seconds for tier, seconds in taken_s.items() if seconds}
        sizes = (by_tier.get("infiniband", 0.0), by_tier.get("nvlink", 0.0))
        return Exchange(*sizes, rates["infiniband"], rates["nvlink"], RING_LAUNCH_S)

    def _between_nodes_bytes_per_s(self) -> float:
        """Return the bandwidth of a NIC, less if more leaves a pod than its links to others take."""
        cluster, nodes = self.cluster, self.group.nodes
        pod = cluster.gpus_per_pod // cluster.gpus_per_node or nodes
        others = max(0, nodes - pod) * cluster.oversubscription
        return cluster.infiniband.bytes_per_s * min(1.0, (nodes - 1) / others if others else 1.0)

    def overlapped(self, alone: Exchange, step: AllToAllStep, tokens: int, hidden: int) -> Exchange:
        """Return an exchange as it runs beside compute kernels: slower links, and waiting for peers and casts.

        The measurement's waiting scales with tokens x width, which is what casts go with, and replaces the launch;
        what a bad chunk size costs stays. Without a measurement, or for a single GPU, the exchange stays as it is.
        """
        beside = self.kernel.overlapped
        if beside is None or self.group.gpus == 1:
            return alone
        slowdown = beside.slowdown.of(step)
        wait_s = beside.wait_s.of(step) * tokens * hidden / (beside.tokens * beside.hidden)
        return replace(
            alone,
            infiniband_bytes_per_s=alone.infiniband_bytes_per_s / slowdown,
            nvlink_bytes_per_s=alone.nvlink_bytes_per_s / slowdown,
            latency_s=wait_s + alone.latency_s - self.kernel.launch_s,
        )


def pipelined_s(first_s: float, second_s: float, chunks: int, chunk_s: float) -> float:
    """Return the time of two tiers in a row that work on ``chunks`` equal chunks at the same time.

    The second tier starts a chunk when the first is done with it; each spends ``chunk_s`` a chunk on top. The first
    chunk passes both tiers, and each further one ends as much later as the slower tier takes. Tiers of 8 s and 4 s with
    two chunks and 1 s a chunk on top take 5 s and 3 s a chunk, so 5 + 3 + 5:

    >>> pipelined_s(8.0, 4.0, chunks=2, chunk_s=1.0)
    13.0
    """
    first, second = first_s / chunks + chunk_s, second_s / chunks + chunk_s
    return first + second + (chunks - 1) * max(first, second)


def best_chunks(first_s: float, second_s: float, chunk_s: float, most: int) -> int:
    """Return the number of chunks, 1 to ``most``, that makes two pipelined tiers fastest.

    Their time is max + min / n + (n + 1) x chunk_s, least at n = sqrt(min / chunk_s). The best whole number is one of
    the two beside that.

    >>> best_chunks(8.0, 4.0, chunk_s=1.0, most=10)
    2
    """
    if chunk_s == 0:
        return most
    about = int(sqrt(min(first_s, second_s) / chunk_s))
    around = (min(most, max(1, chunks)) for chunks in (about, about + 1))
    return min(around, key=lambda chunks: pipelined_s(first_s, second_s, chunks, chunk_s))


def _chunking(alone: Exchange, chunk_s: float, channel_tokens: float, chunk_tokens: int | None) -> tuple[int, float]:
    """Return the tokens of a chunk and the time that it costs over the best one.

    The efficiencies come from kernels whose chunks were tuned, so they hold what the best size costs.
    """
    first, second = alone.infiniband_s, alone.nvlink_s
    best = best_chunks(first, second, chunk_s, max(1, ceil(channel_tokens)))
    if chunk_tokens is None:
        return ceil(channel_tokens / best), 0.0
    if chunk_tokens < 1:
        raise UserError(f"overlap.chunk_tokens: a chunk needs at least 1 token, not {chunk_tokens}")
    chunks = max(1, ceil(channel_tokens / chunk_tokens))
    return chunk_tokens, pipelined_s(first, second, chunks, chunk_s) - pipelined_s(first, second, best, chunk_s)
