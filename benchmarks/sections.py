"""What is measured: each function returns one section of the report as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter, process_time
from typing import TypeVar

import numpy as np

from benchmarks import bare
from benchmarks.measure import best_s, command, peak_mb, simpy_work
from benchmarks.table import table
from dualpipe_sim import regimes, robust, sweep
from dualpipe_sim.analysis import metrics
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import discrete_event, longest_path
from dualpipe_sim.engine.after_move import Evaluated, Move
from dualpipe_sim.engine.any_order import AnyOrder
from dualpipe_sim.engine.many_orders import makespans_of_orders
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.plan import plan
from dualpipe_sim.runtimes.registry import RUNTIMES, RuntimeInUse
from dualpipe_sim.schedules.annealing.anneal import anneal, begun
from dualpipe_sim.schedules.annealing.problem import Problem
from dualpipe_sim.schedules.registry import build, schedules
from dualpipe_sim.search.ask import problem_of

NAMES = ("dualpipe", "1f1b", "zb-h1")
FEW = range(5, 5)  # rounds of what takes long
SIZES = ((8, 20), (16, 120), (32, 512), (64, 1024))
ENGINES = {"longest-path": longest_path.play, "simpy": discrete_event.play}

# DeepSeek-V3's stage of four layers, in seconds (configs/deepseek_v3_stage_level.yaml)
COSTS = UniformCosts(0.0587, 0.0779, 0.0253, 0.1243, transfer_s=0.0012)
INSTANT = UniformCosts(0.0587, 0.0779, 0.0253, 0.1243, transfer_s=0.0)


def all_metrics(timeline: Timeline) -> None:
    """Work out every number of a run's result."""
    metrics.bubble_ratio_by_rank(timeline)
    metrics.bubble_ratio(timeline)
    metrics.span_bubble_ratio(timeline)
    metrics.compute_idle_ratio(timeline)
    metrics.idle_s_by_cause(timeline)
    metrics.peak_in_flight_by_rank(timeline)
    metrics.peak_activations_by_rank(timeline)


def name_to_metrics(
    name: str,
    ranks: int,
    micro_batches: int,
    play: Callable[[TaskGraph], Timeline],
    runtime: RuntimeInUse | None = None,
    options: Mapping[str, object] | None = None,
    *,
    again: bool = False,
) -> None:
    """Do all that a run does between its name and its numbers; the first time, or as other runs of the same order."""
    schedule = build(name, ranks, micro_batches, **(options or {}))
    all_metrics(play(lower(schedule if again else _unknown(schedule), COSTS, runtime=runtime)))


_NUMBERS = count()


def _unknown(schedule: Schedule) -> Schedule:
    """Return an order that nothing is kept of, since it has another name."""
    return replace(schedule, name=f"{schedule.name} {next(_NUMBERS)}")


def stages() -> str:
    """Milliseconds of each stage of a run, and tasks a second of both engines."""
    rows = [_stages_of(name, *size) for size in SIZES for name in NAMES]
    lowered_and_played = ["lower", "again", "longest path", "again"]
    head = ["schedule", "tasks", "transfers", "generate", *lowered_and_played, "SimPy", "metrics"]
    return table([*head, "longest path, tasks/s", "SimPy, tasks/s", "ratio"], rows)


def _stages_of(name: str, ranks: int, micro_batches: int) -> list[object]:
    schedule = build(name, ranks, micro_batches)
    graph = lower(schedule, COSTS)
    timeline = longest_path.play(graph)
    longest_path.play(graph)
    generate_s, lower_s, lower_again_s, longest_path_s, again_s, simpy_s, metrics_s = best_s(
        partial(build, name, ranks, micro_batches),
        lambda: lower(_unknown(schedule), COSTS),
        lambda: lower(_anew(schedule), COSTS),
        lambda: longest_path.play(replace(graph, wiring=replace(graph.wiring))),
        lambda: longest_path.play(_anew(graph)),
        lambda: discrete_event.play(_anew(graph)),
        lambda: all_metrics(_anew(timeline)),
    )
    tasks = len(schedule.first_op)
    return [
        f"{name} {ranks} × {micro_batches}",
        tasks,
        len(graph.transfers),
        *(1e3 * one for one in (generate_s, lower_s, lower_again_s, longest_path_s, again_s, simpy_s, metrics_s)),
        *(round(tasks / seconds) for seconds in (longest_path_s, simpy_s)),
        simpy_s / longest_path_s,
    ]


Remembering = TypeVar("Remembering", Schedule, TaskGraph, Timeline)


def _anew(value: Remembering) -> Remembering:
    """Return a value without what it remembers of its own properties, so that they are worked out again."""
    return replace(value)


def whole_runs() -> str:
    """Milliseconds and memory from a schedule's name to its metrics."""
    rows = []
    for size in SIZES:
        works = [partial(name_to_metrics, "dualpipe", *size, play) for play in ENGINES.values()]
        first_s, simpy_s, again_s = best_s(*works, partial(works[0], again=True))
        memory_mb = [round(_peak_mb(*size, engine)) for engine in ENGINES]
        name = f"dualpipe {size[0]} × {size[1]}"
        rows.append([name, 1e3 * first_s, 1e3 * again_s, memory_mb[0], 1e3 * simpy_s, memory_mb[1]])
    return table(["schedule", "longest path, ms", "again, ms", "MB", "SimPy, ms", "MB"], rows)


def _peak_mb(ranks: int, micro_batches: int, engine: str) -> float:
    module = {"longest-path": "longest_path", "simpy": "discrete_event"}[engine]
    return peak_mb(
        f"from dualpipe_sim.engine.{module} import play\n"
        "from benchmarks.sections import name_to_metrics\n"
        f"name_to_metrics('dualpipe', {ranks}, {micro_batches}, play)"
    )


def against_bare_simpy() -> str:
    """The SimPy engine against a program that only yields as many timeouts and events."""
    settings = [(name, *setting) for name in NAMES for setting in (("", COSTS), (", instant transfers", INSTANT))]
    rows = [
        [f"{name} 64 × 1024{words}", *_against_bare_simpy(lower(build(name, 64, 1024), costs))]
        for name, words, costs in settings
    ]
    return table(["schedule", "timeouts", "events", "bare, ms", "engine, ms", "ratio"], rows)


def _against_bare_simpy(graph: TaskGraph) -> list[object]:
    timeouts, events = simpy_work(lambda: discrete_event.play(graph))
    floor_s, play_s = best_s(lambda: bare.run(timeouts, events), lambda: discrete_event.play(_anew(graph)))
    return [timeouts, events, 1e3 * floor_s, 1e3 * play_s, play_s / floor_s]


def name_to_metrics_against_bare_simpy() -> str:
    """The whole run on SimPy against 131 000 bare timeouts and events."""
    floor_s, run_s = best_s(
        partial(bare.run, 65_500, 65_500), partial(name_to_metrics, "dualpipe", 64, 1024, discrete_event.play)
    )
    head = ["", "131 000 bare timeouts and events, ms", "name to metrics, ms", "ratio"]
    return table(head, [["dualpipe 64 × 1024", 1e3 * floor_s, 1e3 * run_s, run_s / floor_s]])


def programs() -> str:
    """What a runtime's program costs a run: it is made once for an order, and kept for runs with other costs."""
    rows = [
        _program_of(name, runtime, *size, **options)
        for runtime, name, options in (
            ("torch", "1f1b", {}),
            ("torch", "interleaved-1f1b", {"stages_per_rank": 2}),
            ("torch", "zb-v", {}),
            ("megatron", "interleaved-1f1b", {"stages_per_rank": 2}),
            ("deepseek", "dualpipe", {}),
        )
        for size in ((8, 32), (16, 128), (32, 512))
    ]
    return table(["schedule", "runtime", "program, ms", "ideal, ms", "with the program, ms", "ratio"], rows)


def _program_of(name: str, runtime: str, ranks: int, micro_batches: int, **options: object) -> list[object]:
    ideal = partial(name_to_metrics, name, ranks, micro_batches, longest_path.play, options=options, again=True)
    with_program = partial(ideal, RUNTIMES.get(runtime).with_options({}))
    begin = process_time()
    with_program()
    first_s = process_time() - begin
    with_program()  # the second time, turns are noted down
    ideal_s, program_s = best_s(ideal, with_program)
    made_s = first_s - program_s
    return [
        f"{name} {ranks} × {micro_batches}",
        runtime,
        *(1e3 * one for one in (made_s, ideal_s, program_s)),
        program_s / ideal_s,
    ]


def scenarios() -> str:
    """1 000 scenarios of one graph with jitter on every duration, played together."""
    graph = lower(build("dualpipe", 16, 120), COSTS)
    random = np.random.default_rng(0)

    def jitter(scenarios: int) -> np.ndarray:
        return graph.duration_s * random.lognormal(0.0, 0.1, (scenarios, graph.nodes))

    def bubbles() -> None:
        for timeline in longest_path.play_many(graph, jitter(1000)):
            metrics.bubble_ratio(timeline)

    def makespans() -> None:
        longest_path.makespans_s(graph, jitter(1000))

    def one_by_one() -> None:
        for durations_s in jitter(1000):
            longest_path.play(replace(graph, duration_s=durations_s))

    words = ["makespans", "timelines and bubble ratios", "the same, one play after the other"]
    seconds = best_s(makespans, bubbles, one_by_one, rounds=FEW)
    return table(["1 000 scenarios of dualpipe 16 × 120", "s"], zip(words, seconds, strict=True))


def many_orders() -> str:
    """Microseconds an order of others of the same tasks: side by side, after a swap, and lowered and played alone."""
    rows = [_orders_of(name, 8, 32) for name in ("gpipe", *NAMES)]
    head = ["schedule", "tasks", "lower", "longest path", "after a swap", "ratio", "side by side", "ratio", "orders/s"]
    return table(head, rows)


def walks() -> str:
    """Moves a second of a search's walks: on the layers of Nemotron-Nano, and on alike ones of 8 ranks."""
    layers = load_experiment("search_nemotron_nano")
    alike = Problem(8, 32, ((1.0, 1.0, 1.0),) * 32, most_stages=32)
    of_nano = problem_of(layers)
    problems = {
        "Nemotron-Nano, 4 × 8": of_nano,
        "Nemotron-Nano, 4 × 8, at most 4 activations": replace(of_nano, most_activations=4.0),
        "alike layers, 8 × 32": alike,
    }
    rows = []
    for name, problem in problems.items():
        start, moves = begun(problem, 4 * problem.ranks, deep_first=True), 5000
        (seconds,) = best_s(partial(anneal, problem, start, moves, 0.02, (1, 2)))
        rows.append([name, moves / seconds])
    return table(["problem", "moves/s"], rows)


def _orders_of(name: str, ranks: int, micro_batches: int) -> list[object]:
    """Measure orders that are a swap of two neighbours away from a schedule, those that deadlock left out."""
    tasks = AnyOrder.of(lower(build(name, ranks, micro_batches), COSTS))
    rank, own = tasks.schedule.rank_of_task, np.arange(tasks.tasks)
    swaps = [Move(place, place + 1) for place in np.flatnonzero(rank[:-1] == rank[1:]).tolist()]
    played = Evaluated(tasks, own)
    swaps = [swap for swap in swaps if played.after(swap) < np.inf]
    orders = own[None].repeat(len(swaps), axis=0)
    for order, (place, to) in zip(orders, swaps, strict=True):
        order[[place, to]] = order[[to, place]]
    alone = [_unknown(tasks.ordered(order)) for order in orders[:: len(orders) // 20]]
    graphs = [lower(schedule, COSTS) for schedule in alone]
    many = np.resize(orders, (8 * len(orders), tasks.tasks))
    seconds = best_s(
        lambda: makespans_of_orders(tasks, many),
        lambda: [played.after(swap) for swap in swaps],
        lambda: [lower(_unknown(schedule), COSTS) for schedule in alone],
        lambda: [longest_path.play(replace(graph, wiring=replace(graph.wiring))) for graph in graphs],
    )
    counts = (len(many), len(swaps), len(alone), len(graphs))
    many_us, swap_us, lower_us, play_us = (1e6 * one / count for one, count in zip(seconds, counts, strict=True))
    alone_us = lower_us + play_us
    return [
        f"{name} {ranks} × {micro_batches}",
        tasks.tasks,
        lower_us,
        play_us,
        swap_us,
        alone_us / swap_us,
        many_us,
        alone_us / many_us,
        round(1e6 / many_us),
    ]


def sweep_points() -> str:
    """Points a second of a sweep over all schedules that do not search, from 4 to 32 ranks."""
    over = {
        "schedules": [name for name in schedules() if name not in ("v-half", "v-min", "zb-auto")],
        "ranks": [4, 8, 12, 16, 24, 32],
        "micro_batches": list(range(16, 256, 10)),
    }
    rows = []
    for workers in (1, 2):
        begin = perf_counter()
        points = len(list(sweep("deepseek_v3_stage_level", over, workers=workers)))
        seconds = perf_counter() - begin
        rows.append([workers, points, seconds, points / seconds])
    return table(["workers", "points", "s", "points/s"], rows)


def number_points() -> str:
    """Points a second of sweeps in which only numbers change, so that order and wiring stay."""
    points = 200
    axes: dict[str, tuple[str, dict[str, list[float]]]] = {
        "figure5, `costs.transfer`": ("figure5", {"costs.transfer": [1e-3 * one for one in range(points)]}),
        "deepseek_v3_stage_level, `costs.forward`": (
            "deepseek_v3_stage_level",
            {"costs.forward": [0.05 + 1e-5 * one for one in range(points)]},
        ),
        "deepseek_v3, `cluster.infiniband.bandwidth`": (
            "deepseek_v3",
            {"cluster.infiniband.bandwidth": [40e9 + 1e9 * one for one in range(points // 10)]},
        ),
    }
    seconds = best_s(*(partial(sweep, config, over) for config, over in axes.values()), rounds=FEW)
    rows = []
    for (words, (_, over)), taken_s in zip(axes.items(), seconds, strict=True):
        count = len(next(iter(over.values())))
        rows.append([words, count, taken_s, count / taken_s])
    return table(["configuration and what varies", "points", "s", "points/s"], rows)


def robust_choice() -> str:
    """Schedules in the same scenarios, with one process."""
    rows = []
    for name, runs in (("figure5", 1000), ("deepseek_v3_stage_level", 1000), ("deepseek_v3", 100)):
        begin = process_time()
        played = len(robust(name, scenarios={"runs": runs}))
        seconds = process_time() - begin
        rows.append([name, played, runs, seconds, 1e3 * seconds / (played * runs)])
    return table(["configuration", "schedules", "scenarios", "s", "ms a schedule and scenario"], rows)


def regime_maps() -> str:
    """Maps of 33 × 33 points, with one process."""
    bandwidth = "cluster.infiniband.bandwidth=20 GB/s..100 GB/s"
    maps = {
        "eight_ranks": ("costs.transfer=0..3", "costs.overlapped=2.5..4"),
        "deepseek_v3_stage_level": ("costs.transfer=0 ms..10 ms", "costs.overlapped=110 ms..162 ms"),
        "deepseek_v3": ("training.routing_skew=1..2", f"{bandwidth}:33:log"),
    }
    rows = []
    for name, (x, y) in maps.items():
        begin = process_time()
        found = regimes(name, x, y)
        seconds = process_time() - begin
        rows.append([name, found.best.size, len(found.schedules), seconds, found.best.size / seconds])
    return table(["configuration", "points", "schedules", "s", "points/s"], rows)


def plans() -> str:
    """Seconds of whole plans, and what they rule out without running it."""
    rows = []
    for config in ("plan_deepseek_v2_lite", "plan_deepseek_v3", "plan_deepseek_v3_all"):
        begin = process_time()
        found = plan(config)
        seconds = process_time() - begin
        ruled_out = ", ".join(f"{count} {reason}" for reason, count in found.reasons.items())
        rows.append([config, len(found.candidates), found.runs, ruled_out, seconds])
    return table(["plan", "candidates", "run", "ruled out", "s"], rows)


def linearity() -> str:
    """Microseconds a task from name to metrics, at eight times the micro-batches."""
    rows = []
    sizes = (512, 4096)
    tasks = np.array([len(build("dualpipe", 64, micro_batches).first_op) for micro_batches in sizes])
    for engine, play in ENGINES.items():
        seconds = best_s(
            *(partial(name_to_metrics, "dualpipe", 64, micro_batches, play) for micro_batches in sizes), rounds=FEW
        )
        micros = (1e6 * np.array(seconds) / tasks).tolist()
        rows.append([engine, *micros, micros[1] / micros[0]])
    return table(["dualpipe, µs a task", "64 × 512", "64 × 4096", "ratio"], rows)


def cold_start() -> str:
    """Seconds of a command, the start of Python included."""
    program = str(Path(sys.executable).with_name("dualpipe-sim"))
    commands = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "python -c 'import numpy'": (sys.executable, "-c", "import numpy"),
        "python -c 'import dualpipe_sim'": (sys.executable, "-c", "import dualpipe_sim"),
        "dualpipe-sim --help": (program, "--help"),
        "dualpipe-sim run figure5": (program, "run", "figure5"),
        "dualpipe-sim run deepseek_v3": (program, "run", "deepseek_v3"),
    }
    seconds = best_s(*(command(*words) for words in commands.values()), rounds=FEW, clock=perf_counter)
    return table(["command", "s"], zip((f"`{words}`" for words in commands), seconds, strict=True))
