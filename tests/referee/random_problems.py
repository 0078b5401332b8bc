"""Problems by chance: orders of the registry and others, with all that can decide when things run."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import inf
from random import Random
from typing import Any, Literal, get_args, get_origin

from dualpipe_sim.config.load import load_experiment
from dualpipe_sim.costs.asked import costs_of_kinds, phases_of
from dualpipe_sim.costs.phases import Costs
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.hardware.cluster import Cluster
from dualpipe_sim.order.ops import Kind
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import format_order, format_rows
from dualpipe_sim.runtimes.registry import runtimes
from dualpipe_sim.runtimes.torch import format_program
from dualpipe_sim.schedules.registry import schedules, spec
from tests.referee.packaged import schedule_of
from tests.referee.problem import Links, Op, Part, Problem, Uniform, shape_of, tasks_of
from tests.referee.random_orders import draw, with_weights

_ROUND = (0.0, 0.5, 1.0, 1.0, 2.0)


def problem_of(chance: Random) -> Problem:
    """Draw a problem."""
    problem = _of_chance(chance) if chance.random() < 0.5 else _registered(chance)
    if problem.program is None and chance.random() < 0.15:
        problem = _gathered(chance, problem)
    elif problem.program is None and chance.random() < 0.1:
        problem = replace(problem, order=_swapped(chance, problem.order))
    whole = problem.share == 1 and sum(map(len, problem.pipes)) < 9
    by_layer = _layered(chance, problem) if whole and chance.random() < 0.1 else None
    problem = by_layer or _with_times(chance, _with_transfers(chance, problem))
    if chance.random() < 0.3:
        problem = replace(problem, weights=_weights(chance, problem))
    slices = 1 + max(op.slice for _, task in _tasks(problem) for op in task)
    if slices > 1 and chance.random() < 0.5:
        problem = replace(problem, slices=[_seconds(chance) for _ in range(slices)])
    if chance.random() < 0.15:
        problem = replace(
            problem,
            load=(chance.uniform(0, 0.5), chance.uniform(0.1, 10), chance.choice((0.0, chance.uniform(0, 0.4)))),
        )
    return problem


# Orders.


def _of_chance(chance: Random) -> Problem:
    messages = chance.random() < 0.5
    drawn = draw(chance, messages=messages)
    return Problem(
        drawn.pipes,
        drawn.order,
        drawn.barriers,
        drawn.late_again,
        program=drawn.program if messages else None,
        lines=chance.choice(("one", "pair", "direction")),
    )


def _registered(chance: Random) -> Problem:
    while True:
        name = chance.choice(sorted(schedules()))
        issuing = chance.choice((None, "rendezvous", *runtimes()))
        if issuing is not None and issuing in runtimes() and chance.random() < 0.7:
            name = chance.choice(runtimes()[issuing].schedules)
        try:
            order, program, lines = _issued(chance, name, issuing)
        except ScheduleError:
            continue
        return _described(order, program, lines)


def _described(order: Schedule, program: str | None, lines: str) -> Problem:
    return Problem(
        [list(pipe) for pipe in order.placement.pipes],
        format_order(order).splitlines(),
        order.barriers,
        order.late_again,
        order.micro_batch_share,
        None if program is None else program.splitlines(),
        lines,
    )


def _issued(chance: Random, name: str, issuing: str | None) -> tuple[Schedule, str | None, str]:
    """Return an order of the registry, and the program that a runtime makes of it."""
    options = {
        key: value for key, one in spec(name).options.items() if (value := _option(chance, one.annotation)) is not None
    }
    sizes = chance.randint(1, 5), chance.randint(1, 8)
    if issuing is None or issuing == "rendezvous":
        order = spec(name).build(*sizes, options)
        return order, format_program(order) if issuing else None, "one"
    runtime = runtimes()[issuing]
    use = runtime.with_options(
        {
            key: chance.choice(("2.13", "2.11") if key == "version" else (True, False))
            for key in runtime.options
            if chance.random() < 0.4
        }
    )
    order = spec(name).build(*sizes, {**use.usual(name, sizes[0]), **options})
    return order, format_rows(use.rows(order)), use.runtime.lines(sizes[0])


def _option(chance: Random, annotation: Any) -> object:  # noqa: ANN401 - whatever options are annotated with
    if chance.random() < 0.5:
        return None
    if get_origin(annotation) is Literal:
        return chance.choice(get_args(annotation))
    if annotation in (int, int | None):
        return chance.randint(1, 4)
    return chance.random() < 0.5 if annotation is bool else None


def _gathered(chance: Random, problem: Problem) -> Problem:
    """Put what is done about weights into an order, as torch does or by chance."""
    ranks = [rank for pipe in problem.pipes for rank in pipe]
    rows = [
        with_weights(chance, row, [stage for stage, on in enumerate(ranks) if on == rank])
        for rank, row in enumerate(problem.order)
    ]
    return replace(problem, order=rows)


def _swapped(chance: Random, rows: list[str]) -> list[str]:
    """Swap two tasks of a rank, after which some orders stop for ever."""
    rank = chance.randrange(len(rows))
    cells = rows[rank].split(",")
    one, other = chance.randrange(len(cells)), chance.randrange(len(cells))
    cells[one], cells[other] = cells[other], cells[one]
    return [*rows[:rank], ",".join(cells), *rows[rank + 1 :]]


def _tasks(problem: Problem) -> list[tuple[int, tuple[Op, ...]]]:
    return [(rank, task) for rank, row in enumerate(problem.order) for task in tasks_of(row)]


# Times.


def _seconds(chance: Random) -> float:
    return chance.choice(_ROUND) if chance.random() < 0.5 else chance.uniform(0, 3)


def _weights(chance: Random, problem: Problem) -> list[float]:
    first, many = 0, 0
    for pipe in problem.pipes:
        stages = range(first, first + len(pipe))
        many += 1 + max(op.micro_batch for _, task in _tasks(problem) for op in task if op.stage in stages)
        first += len(pipe)
    return [_seconds(chance) for _ in range(round(many * problem.share))]


def _with_transfers(chance: Random, problem: Problem) -> Problem:
    boundaries = len(problem.pipes[0]) - 1
    amounts = [_seconds(chance) for _ in range(boundaries)]
    amount: Any = amounts if boundaries and chance.random() < 0.3 else _seconds(chance)
    if chance.random() < 0.5:
        return replace(problem, transfer={"s": amount})
    node = chance.choice((1, 2, 4))
    pods = chance.choice((0, 0, node, 2 * node))
    links = Links(
        node,
        (chance.uniform(0.2, 5), chance.choice((0.0, chance.random()))),
        (chance.uniform(0.2, 5), chance.choice((0.0, chance.random()))),
        pods,
        chance.choice((1.0, chance.uniform(1, 4))) if pods else 1.0,
        tuple(chance.sample(range(2 * problem.ranks + 2), problem.ranks)),
    )
    return replace(problem, transfer={"bytes": amount}, links=links, contention=chance.random() < 0.6)


def _with_times(chance: Random, problem: Problem) -> Problem:
    if problem.share != 1 or chance.random() < 0.4:
        return replace(problem, costs=_uniform(chance, problem))
    shapes = {shape_of(task): task for _, task in _tasks(problem)}
    paired = {op.letter for task in shapes.values() if len(task) == 2 for op in task}
    alone = [Op(letter, stage, 0) for letter in sorted(paired) for stage in range(sum(map(len, problem.pipes)))]
    shapes |= {shape_of((op,)): (op,) for op in alone}
    on_demand = chance.random() < 0.15
    parts = {shape: _parts(chance, problem, task, on_demand=on_demand) for shape, task in shapes.items()}
    host = {shape: (_seconds(chance) / 3, _seconds(chance) / 3) for shape in shapes} if chance.random() < 0.2 else {}
    return replace(problem, parts=parts, host=host)


def _layered(chance: Random, problem: Problem) -> Problem | None:
    """Take the phases that a model's layers have on a GPU; None where they know no such ops."""
    sharing, delayed = chance.choice(("reserved", "on-demand")), chance.choice((True, False, None))
    costs, cluster = _of_layers(len(problem.pipes[0]) * chance.choice((1, 2)), sharing, delayed)
    order = schedule_of(problem)
    shapes = {shape_of(task): tuple((int(Kind[op.letter]), op.stage) for op in task) for _, task in _tasks(problem)}
    try:
        of_stages = costs_of_kinds(costs.on(order.placement), order.kind, order.vocabulary)
        found = phases_of(of_stages, list(shapes.values()))
    except UserError:
        return None
    parts = {
        shape: [
            Part(str(one.lane), one.duration_s, one.half, tuple(one.after), one.late, tuple(one.flows), one.alone_s)
            for one in phases
        ]
        for shape, phases in zip(shapes, found, strict=True)
    }
    nvlink, infiniband = ((link.bytes_per_s, link.latency_s) for link in (cluster.nvlink, cluster.infiniband))
    links = Links(8, nvlink, infiniband, gpu_of_rank=tuple(chance.sample(range(24), problem.ranks)))
    transfer = {"bytes": chance.choice((0.0, chance.uniform(1e6, 1e9)))}
    return replace(problem, parts=parts, links=links, transfer=transfer, contention=chance.random() < 0.5)


@lru_cache
def _of_layers(layers: int, sharing: str, delayed: bool | None) -> tuple[Costs, Cluster]:
    told = {"pipeline.layout": "even", "pipeline.ranks": 1, "model.layers": layers, "overlap.sharing": sharing}
    told |= {} if delayed is None else {"overlap.delay_wgrad": delayed}
    experiment = load_experiment("deepseek_v3_pair", told)
    assert experiment.cluster is not None
    return experiment.costs, experiment.cluster


def _uniform(chance: Random, problem: Problem) -> Uniform:
    ranks, depth = problem.ranks, len(problem.pipes[0])

    def cost() -> Any:  # noqa: ANN401 - one or a list
        entries = chance.choice((0, 0, ranks, depth))
        return [_seconds(chance) for _ in range(entries)] if entries else _seconds(chance)

    def of_rank() -> Any:  # noqa: ANN401
        return [_seconds(chance) for _ in range(ranks)] if chance.random() < 0.3 else _seconds(chance)

    def perhaps() -> Any:  # noqa: ANN401
        return cost() if chance.random() < 0.4 else None

    return Uniform(
        cost(), cost(), cost(), perhaps(), perhaps(), cost(), of_rank(), of_rank(),
        cost() if chance.random() < 0.3 else 0.0, perhaps(), perhaps(),
    )  # fmt: skip


def _parts(chance: Random, problem: Problem, task: tuple[Op, ...], *, on_demand: bool) -> list[Part]:
    letter = task[0].letter
    if letter in ("O", "L", "UNSHARD", "RESHARD", "REDUCE_GRAD"):
        lane = {"O": "copy", "L": "copy", "RESHARD": "compute"}.get(letter, "data")
        return [Part(lane, 0.0 if letter == "RESHARD" else _seconds(chance))]
    parts = [Part("compute", _seconds(chance))]
    for half in range(len(task)):
        for _ in range(chance.randint(0, 2)):
            after = tuple(place for place in range(len(parts)) if chance.random() < 0.3)
            lane = chance.choice(("compute", "alltoall"))
            part = Part(lane, _seconds(chance), half, after, late=chance.random() < 0.1)
            parts.append(_exchanging(chance, problem, part))
    if on_demand:
        parts = [
            part._replace(alone=part.seconds * chance.uniform(0.3, 1)) if part.lane == "compute" else part
            for part in parts
        ]
    return parts


def _exchanging(chance: Random, problem: Problem, part: Part) -> Part:
    if part.lane != "alltoall" or not problem.contention or chance.random() < 0.4:
        return part
    links = problem.links
    assert links is not None
    flows = []
    for tier in chance.sample(("nvlink", "infiniband"), chance.choice((1, 2))):
        cap = chance.choice((inf, chance.uniform(0.1, 5)))
        flows.append((tier, _seconds(chance), cap))
    slowest = max(size / min(cap, getattr(links, tier)[0]) for tier, size, cap in flows)
    return part._replace(seconds=slowest + part.seconds / 3, flows=tuple(flows))
