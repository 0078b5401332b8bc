"""A timeline: when every phase and transfer of a task graph ran. Only this object holds times.

Times are columns beside the graph's: ``start_s[node]`` and ``end_s[node]``, phases first and then transfers. A task's
phases are neighbours, so the start and end of tasks are one ``reduceat`` over the phases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import line
from dualpipe_sim.base.units import format_seconds, number_of
from dualpipe_sim.costs.phases import with_job
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.model.slices import exchange_bytes
from dualpipe_sim.order.ops import BESIDE


@dataclass(frozen=True, eq=False)
class Timeline:
    """Starts and ends of a graph's nodes, and of the tasks that phases make up.

    >>> from dualpipe_sim import simulate
    >>> timeline = simulate("figure5").played
    >>> timeline.ranks, timeline.makespan_s, timeline.engine
    (8, 66.0, 'longest-path')
    >>> next(timeline.rows())
    (0, 'compute', '0F0', 0.0, 1.0)

    Attributes:
        graph: what was played; causes, critical path and memory need its predecessors.
        start_s: start of each node, shape ``(nodes,)``.
        end_s: end of each node, shape ``(nodes,)``.
        engine: which engine played it.

    """

    graph: TaskGraph
    start_s: FloatArray
    end_s: FloatArray
    engine: str

    def __repr__(self) -> str:
        schedule = self.graph.schedule
        tasks = number_of(len(schedule.first_op), "task")
        makespan = format_seconds(self.makespan_s, unitless=self.unitless)
        return line(self, schedule.name, schedule.size, tasks, makespan, self.engine)

    @property
    def unitless(self) -> bool:
        """Whether times are units of no clock, and no seconds."""
        return bool(getattr(self.graph.costs, "unitless", False))

    @property
    def caveats(self) -> tuple[str, ...]:
        """What its costs and its order say must be said beside its numbers, in sentences."""
        timeless = self.graph.schedule.cells_without_time
        said = ", ".join(f"{count} {what}" for what, count in timeless.items())
        of_order = (f"cells of {self.graph.schedule.name} that take no time here: {said}",) if timeless else ()
        return *getattr(self.graph.costs, "caveats", ()), *of_order, *self._not_exchanged()

    def _not_exchanged(self) -> Iterator[str]:
        """Yield how much ranks would exchange so that slices attend to as much, where the order takes that for done."""
        schedule, costs = self.graph.schedule, with_job(self.graph.costs)
        if not schedule.exchanges or costs is None or not costs.job.causal:
            return
        job = costs.job
        tokens = job.micro_batch.tokens // schedule.slices
        kinds = {layer.attention.exchanged for layer in job.shard.layer_kinds()}
        moved = [max(exchange_bytes(kind, tokens, schedule.ranks), default=0.0) for kind in kinds]
        if max(moved, default=0.0):
            yield (
                f"{schedule.name}'s ranks exchange attention, {max(moved) / 1e6:,.1f} MB a layer and slice at most, "
                "which takes no time here"
            )

    @property
    def ranks(self) -> int:
        """Number of pipeline ranks."""
        return self.graph.schedule.ranks

    @cached_property
    def makespan_s(self) -> float:
        """Seconds until the last op ends."""
        return float(self.end_s[: self.graph.first_transfer].max())

    @property
    def rank(self) -> IntArray:
        """Rank of each task, shape ``(tasks,)``, ascending."""
        return self.graph.schedule.rank_of_task

    @cached_property
    def task_start_s(self) -> FloatArray:
        """Start of each task's first phase, shape ``(tasks,)``; of one beside compute the end of the task before it.

        Copies to the host and back, and what is done about weights, take none of their rank's time; when they run is
        what their phases say. Before a rank's first task they stand at its start.
        """
        start_s = self.first_phase_start_s
        return np.where(self._is_beside, self.task_end_s, start_s) if self._is_beside.any() else start_s

    @cached_property
    def task_end_s(self) -> FloatArray:
        """End of each task's last phase, shape ``(tasks,)``; beside compute as :attr:`task_start_s`."""
        end_s, beside = self.last_phase_end_s, self._is_beside
        if not beside.any():
            return end_s
        place = np.arange(len(beside))
        before = np.maximum.accumulate(np.where(beside, -1, place))
        behind = np.minimum.accumulate(np.where(beside, len(place), place)[::-1])[::-1]
        leads = before < self.first_task_of_rank[self.rank]
        return np.where(
            leads, self.first_phase_start_s[np.minimum(behind, len(place) - 1)], end_s[np.maximum(before, 0)]
        )

    @cached_property
    def first_phase_start_s(self) -> FloatArray:
        """Start of each task's first phase, of those beside compute too, shape ``(tasks,)``."""
        return np.minimum.reduceat(self.start_s[: self.graph.first_transfer], self.graph.first_phase_of_task)

    @cached_property
    def last_phase_end_s(self) -> FloatArray:
        """End of each task's last phase, of those beside compute too, shape ``(tasks,)``."""
        return np.maximum.reduceat(self.end_s[: self.graph.first_transfer], self.graph.first_phase_of_task)

    @cached_property
    def _is_beside(self) -> BoolArray:
        schedule = self.graph.schedule
        return schedule.of_kinds(*BESIDE)[schedule.first_op]

    @property
    def first_task_of_rank(self) -> IntArray:
        """First task of each rank and, last, the number of tasks, shape ``(ranks + 1,)``."""
        return self.graph.schedule.first_task_of_rank

    def rows(self) -> Iterator[tuple[int, str, str, float, float]]:
        """Yield (rank, lane, task, start, end) of everything that ran, rank by rank and lane by lane.

        A transfer shows twice: on its sender's ``send`` lane and on its receiver's ``recv`` lane.
        """
        graph, schedule = self.graph, self.graph.schedule
        starts, ends = self.start_s.tolist(), self.end_s.tolist()
        # In the order of what they are sorted by: rank, lane, start.
        shown: list[tuple[int, Lane, float, str, float]] = []
        for node, (rank, lane) in enumerate(zip(graph.rank.tolist(), graph.lane.tolist(), strict=True)):
            shown.append((rank, Lane(lane), starts[node], graph.label(node), ends[node]))
        for transfer in range(len(graph.transfers)):
            node = graph.first_transfer + transfer
            sender, receiver = graph.transfers.producer[transfer], graph.transfers.consumer[transfer]
            for side, row, label in (
                (Lane.SEND, sender, graph.send_label(transfer)),
                (Lane.RECV, receiver, graph.receive_label(transfer)),
            ):
                shown.append((int(schedule.rank[row]), side, starts[node], label, ends[node]))
        for rank, on, start, label, end in sorted(shown, key=lambda row: row[:3]):
            yield rank, str(on), label, start, end
