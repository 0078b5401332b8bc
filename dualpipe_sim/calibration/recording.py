"""What ran in a real training run, read from traces or a timeline: ops and the arrival of tensors, nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from dualpipe_sim.base.show import brief
from dualpipe_sim.calibration.actions import Action
from dualpipe_sim.calibration.memory_csv import Held
from dualpipe_sim.errors import UserError
from dualpipe_sim.order.ops import Tensor

if TYPE_CHECKING:
    from dualpipe_sim.calibration.unnamed import Unnamed

Step: TypeAlias = tuple[int, int]
"""The profiler's number of a step (0 where it gave none), and which of the times that an action ran in it."""


class Ran(NamedTuple):
    """An op or pair as it ran.

    Attributes:
        rank: the rank that it ran on.
        step: the training step.
        action: what ran.
        start_s: when its work began, inputs awaited; NaN where it launched no work.
        end_s: when its work ended.
        compute_s: how long it worked: less than from start to end where a GPU had gaps between kernels.
        may_wait: whether a wait for its inputs may be part of it, since nothing says when they came.
        host_s: when the host entered and left the call that issued it, on the clock of ``start_s``; None if not known.
        halves_s: of a pair whose halves ran one after the other, how long each took; else empty.

    """

    rank: int
    step: Step
    action: Action
    start_s: float
    end_s: float
    compute_s: float
    may_wait: bool = False
    host_s: tuple[float, float] | None = None
    halves_s: tuple[float, ...] = ()


@dataclass
class Recording:
    r"""What ran on some ranks.

    >>> from pathlib import Path
    >>> from dualpipe_sim.calibration import read_recording
    >>> _ = Path("run.csv").write_text("rank,lane,task,start_s,end_s\n0,compute,0F0,0,1\n0,compute,0B0,1,3\n")
    >>> recording = read_recording(["run.csv"])
    >>> len(recording.ops), recording.rank_source
    (2, {0: 'run.csv'})

    Attributes:
        sources: the files that it comes from.
        rank_source: the file of each rank.
        ops: ops and pairs, in any order.
        arrived_s: when a tensor was there, by (rank, step, tensor).
        kernels_s: how long NCCL's kernels took for a tensor, by (step, tensor) and side; each holds wait and transfer.
        moved_s: how long each message moved on a lane of its own, of timelines that say so.
        memory: what ops found, needed and left of memory, in the order in which they were issued.
        unnamed: what ran in traces that name no op, and what adds it once its ops are named.
        on_cpu: whether it was written down by a profiler that saw no GPU.
        left_out: how many of what were left out.
        origin_ns: nanoseconds since 1970 that times of traces count from, set by the first one.

    """

    sources: list[str] = field(default_factory=list)
    rank_source: dict[int, str] = field(default_factory=dict)
    ops: list[Ran] = field(default_factory=list)
    arrived_s: dict[tuple[int, Step, Tensor], float] = field(default_factory=dict)
    kernels_s: dict[tuple[Step, Tensor], dict[str, list[float]]] = field(default_factory=dict)
    moved_s: list[float] = field(default_factory=list)
    memory: list[Held] = field(default_factory=list)
    unnamed: list[tuple[Unnamed, Callable[..., None]]] = field(default_factory=list)
    on_cpu: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    origin_ns: int | None = None

    __repr__ = brief

    def add_rank(self, rank: int, source: str) -> None:
        """Note where a rank comes from.

        Raises:
            UserError: the rank came from another file already.

        """
        other = self.rank_source.setdefault(rank, source)
        if other != source:
            raise UserError(f"{source}: rank {rank} is also in {other}; give the files of one run")

    def check_any(self) -> None:
        """Refuse a recording without any op.

        Raises:
            UserError: there is none; what was left out may say why.

        """
        if not self.ops:
            way_out = "ranges must be named 'PP:' + action, or be mapped by --map"
            why = f"left out were {counted(self.left_out)}" if self.left_out else way_out
            raise UserError(f"{', '.join(self.sources)}: no op was found; {why}")


def counted(left_out: Counter[str]) -> str:
    """Return what was left out in words."""
    return ", ".join(f"{count} {what}" for what, count in left_out.items())


class Occurrences:
    """Counts how often the same thing was seen, so that the second time is another step."""

    def __init__(self) -> None:
        self._seen: Counter[Hashable] = Counter()

    def next(self, thing: Hashable) -> int:
        """Return how often a thing was seen before, and count it."""
        self._seen[thing] += 1
        return self._seen[thing] - 1
