"""The same problem, played by the package's engines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.asked import of_smaller_micro_batches
from dualpipe_sim.costs.load import Load
from dualpipe_sim.costs.phases import ByBoundary, Flow, Phase
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.hardware.cluster import Cluster, Link, Topology
from dualpipe_sim.order.gathers import with_gathers
from dualpipe_sim.order.ops import F, Kind, TaskShape
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import parse_cell, parse_order
from dualpipe_sim.runtimes.cells import AttentionWeight, Batch, Cell, Lines, Sync, Wait, WaitBesideCompute
from tests.referee.judge import PartName, Verdict
from tests.referee.problem import Links, Part, Problem, Tensor


def graph_of(problem: Problem) -> TaskGraph:
    """Lower a problem."""
    order = schedule_of(problem)
    links, runtime = problem.links, problem.program
    graph = lower(
        order,
        of_smaller_micro_batches(_costs(problem), problem.share) if problem.costs else _Table(problem),
        None if links is None else _topology(links),
        contention=problem.contention,
        runtime=None if runtime is None else _Given(tuple(runtime), problem.lines),  # type: ignore[arg-type]
    )
    return graph if problem.load is None else replace(graph, load=Load(*problem.load))


def schedule_of(problem: Problem) -> Schedule:
    """Return the order of a problem."""
    placement = Placement(problem.ranks, tuple(map(tuple, problem.pipes)))
    text = "\n".join(problem.order)
    order = parse_order(text, placement)
    order = replace(order, barriers=problem.barriers, late_again=problem.late_again, micro_batch_share=problem.share)
    return with_gathers(order) if "UNSHARD" in text else order


def verdict_of(timeline: Timeline) -> Verdict:
    """Return what an engine says of when everything runs."""
    graph = timeline.graph
    spans = list(zip(timeline.start_s.tolist(), timeline.end_s.tolist(), strict=True))
    rank_of_task = graph.schedule.rank_of_task.tolist()
    first_of_rank = graph.schedule.first_task_of_rank.tolist()
    first_of_task = graph.first_phase_of_task.tolist()
    parts = {}
    for node, task in enumerate(graph.task.tolist()):
        rank = rank_of_task[task]
        parts[PartName(rank, task - first_of_rank[rank], node - first_of_task[task])] = spans[node]
    transfers = {}
    for number, row in enumerate(graph.transfers.consumer.tolist()):
        op = graph.schedule.op(row)
        transfers[Tensor(op.kind == F, op.stage, op.micro_batch, op.slice or 0)] = spans[graph.first_transfer + number]
    return Verdict(parts, transfers)


@dataclass(frozen=True)
class _Given:
    """A runtime whose program is given as text."""

    program: tuple[str, ...]
    given_lines: Lines

    @property
    def runtime(self) -> _Given:
        return self

    def lines(self, ranks: int) -> Lines:  # noqa: ARG002 - as runtimes have it
        return self.given_lines

    def rows(self, schedule: Schedule) -> list[list[Cell]]:  # noqa: ARG002 - as runtimes have it
        return [[_cell(cell) for cell in row.split(",") if cell] for row in self.program]


def _cell(text: str) -> Cell:
    if text == "SYNC":
        return Sync()
    if "DW" in text:
        return AttentionWeight(*map(int, text.split("DW")))
    for begins, ends, kind in (("{", "}", Batch), ("WAIT(", ")", Wait), ("WAIT_COMM(", ")", WaitBesideCompute)):
        if text.startswith(begins):
            messages: Any = tuple(parse_cell(one) for one in text[len(begins) : -len(ends)].split(";"))
            return kind(messages)
    cell = parse_cell(text)
    assert cell is not None
    return cell


def _topology(links: Links) -> Topology:
    cluster = Cluster(
        links.gpus_per_node,
        Link(*links.nvlink),
        Link(*links.infiniband),
        mapping=links.gpu_of_rank,
        gpus_per_pod=links.gpus_per_pod,
        oversubscription=links.oversubscription,
    )
    return cluster.topology(len(links.gpu_of_rank))


def _costs(problem: Problem) -> UniformCosts:
    assert problem.costs is not None
    given = {key: _listed(value) for key, value in vars(problem.costs).items()}
    return UniformCosts(
        **given,
        **_transfer(problem),
        micro_batch_weights=_listed(problem.weights),
        slices=_listed(problem.slices),
    )


def _listed(value: Any) -> Any:  # noqa: ANN401
    return tuple(value) if isinstance(value, list) else value


def _transfer(problem: Problem) -> dict[str, Any]:
    ((unit, amount),) = problem.transfer.items()
    return {"transfer_s": _listed(amount)} if unit == "s" else {"transfer_s": None, "transfer_bytes": _listed(amount)}


class _Table:
    """Costs that are a table of parts."""

    def __init__(self, problem: Problem) -> None:
        self._parts, self._host = problem.parts, problem.host
        transfer = _transfer(problem)
        self.transfer_s: ByBoundary | None = transfer["transfer_s"]
        self.transfer_bytes: ByBoundary = transfer.get("transfer_bytes", 0.0)
        self.micro_batch_weights: tuple[float, ...] | None = _listed(problem.weights)
        self.slices: tuple[float, ...] | None = _listed(problem.slices)

    def on(self, placement: Placement) -> _Table:  # noqa: ARG002 - a table has stages
        return self

    def phases(self, task: TaskShape) -> tuple[Phase, ...]:
        return tuple(_phase(part, task) for part in self._parts[_shape(task)])

    def weights_moved(self, kind: int, stage: int) -> Phase:
        return self.phases(((kind, stage),))[0]

    def host_s(self, task: TaskShape) -> tuple[float, float]:
        return self._host.get(_shape(task), (0.0, 0.0))


def _shape(task: TaskShape) -> str:
    return ";".join(f"{Kind(kind)}{stage}" for kind, stage in task)


def _phase(part: Part, task: TaskShape) -> Phase:
    return Phase(
        Lane[part.lane.upper()],
        part.seconds,
        task[part.half][0],
        "part",
        half=part.half,
        after=part.after,
        flows=tuple(Flow(*flow) for flow in part.flows),  # type: ignore[arg-type]
        alone_s=part.alone,
        late=part.late,
    )
