"""What a search found: an order, the stages that it is for, and how far from the best there can be it is at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from dualpipe_sim.base.show import Table, Tabular, line
from dualpipe_sim.base.units import format_percent, format_seconds, number_of
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import R
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import format_order
from dualpipe_sim.result import Result
from dualpipe_sim.schedules.annealing.problem import Problem
from dualpipe_sim.search.named import peaks

_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Found(Tabular):
    """The best order that a search found.

    >>> from dualpipe_sim.search import search
    >>> found = search({"pipeline": {"ranks": 2, "micro_batches": 2}, "costs": {"forward": 1.0, "backward": 2.0},
    ...                 "search": {"rounds": 1, "moves": 100, "stages_per_rank": 1}}, workers=1)
    >>> found.makespan_s, found.bound_s, found.partition
    (7.0, 7.0, (1, 1))

    Attributes:
        problem: what was asked.
        result: the order's run.
        partition: how many layers each stage holds.
        named: makespans of the registered schedules that fit, in seconds, the shortest first.
        bound_s: seconds that no order is below, whatever the partition and the placement.
        bound: what bounds it, in words.
        origin: where the order comes from, in words.
        proved: whether no order of the same stages on the same ranks is shorter.
        rounds: how many rounds the search had.
        seconds: how long it took.
        seed: of what it drew.
        interrupted: whether it was told to end before its time.
        remark: what could not be done, in words.

    """

    problem: Problem
    result: Result
    partition: tuple[int, ...]
    named: dict[str, float]
    bound_s: float
    bound: str
    origin: str
    proved: bool
    rounds: int
    seconds: float
    seed: int
    interrupted: bool = False
    remark: str = ""

    @property
    def schedule(self) -> Schedule:
        """The order."""
        return cast("Timeline", self.result.timeline).graph.schedule

    @property
    def makespan_s(self) -> float:
        """Seconds of a step."""
        return cast("float", self.result.makespan_s)

    @property
    def gap(self) -> float:
        """How much shorter another order could be at most, as a part of the makespan."""
        return 1 - self.bound_s / self.makespan_s if self.makespan_s else 0.0

    @property
    def stages_by_rank(self) -> tuple[tuple[int, ...], ...]:
        """The stages of each rank."""
        placement = self.schedule.placement
        return tuple(tuple(placement.stages_of_rank(rank)) for rank in range(placement.ranks))

    @property
    def recomputed(self) -> tuple[int, ...]:
        """The stages whose forwards run again."""
        schedule = self.schedule
        return tuple(sorted(set(schedule.stage[schedule.of_kinds(R)].tolist())))

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data; ``order`` is torch's text."""
        return {
            "makespan_s": self.makespan_s,
            "bound_s": self.bound_s,
            "bound": self.bound,
            "gap": self.gap,
            "work_s": self.problem.mean_work_s,
            "partition": list(self.partition),
            "stages_by_rank": list(map(list, self.stages_by_rank)),
            "recomputed_stages": list(self.recomputed),
            "peak_activations_by_rank": peaks(self.schedule, self.partition, self.problem),
            "bubble_ratio": self.result.bubble_ratio,
            "origin": self.origin,
            "proved_for_its_stages": self.proved,
            "named": self.named,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "seed": self.seed,
            "interrupted": self.interrupted,
            "remark": self.remark,
            "order": format_order(self.schedule),
        }

    def to_table(self) -> Table:
        """Return the ranks, what each holds and how busy it is, with how good the order is below."""
        busy = [1 - ratio for ratio in cast("list[float]", self.result.bubble_ratio_by_rank)]
        held = peaks(self.schedule, self.partition, self.problem)
        rows = [
            [
                f"{rank}",
                " ".join(map(str, stages)),
                str(sum(self.partition[stage] for stage in stages)),
                format_percent(busy[rank]),
                f"{held[rank]:.4g}",
            ]
            for rank, stages in enumerate(self.stages_by_rank)
        ]
        best = next(iter(self.named.items()), None)
        notes = [
            f"{format_seconds(self.makespan_s)}, {self.origin}; no order is below {format_seconds(self.bound_s)} "
            f"({self.bound}): {format_percent(self.gap)} at most is left"
        ]
        if best is not None:
            notes.append(f"best registered schedule: {best[0]}, {format_seconds(best[1])}")
        if self.proved and self.gap > _ROUNDING:
            notes.append("of the same stages on the same ranks no order is shorter: proved, up to rounding")
        notes.append(f"layers of each stage: {' '.join(map(str, self.partition))}")
        if self.recomputed:
            notes.append(f"forwards run again in stages {' '.join(map(str, self.recomputed))}")
        how = "interrupted after" if self.interrupted else "in"
        notes.append(f"seed {self.seed}, {number_of(self.rounds, 'round')} {how} {self.seconds:.0f} s")
        size = f"{self.problem.ranks} ranks × {self.problem.micro_batches} micro-batches"
        headings = ("rank", "stages", "layers", "busy", "act.")
        notes += [self.remark] if self.remark else []
        return Table(headings, rows, ("stages",), f"searched, {size}", notes)

    def __repr__(self) -> str:
        return line(self, format_seconds(self.makespan_s), f"{format_percent(self.gap)} gap", self.origin)
