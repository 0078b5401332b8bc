"""Searches: orders that anyone can check, beside registered schedules, proofs and published results."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from io import StringIO
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import simulate
from dualpipe_sim.bounds.optimum import best_balance_s
from dualpipe_sim.errors import UserError
from dualpipe_sim.order import check_schedule
from dualpipe_sim.order.text import format_order, parse_order
from dualpipe_sim.schedules.annealing.anneal import anneal, begun, spread_out
from dualpipe_sim.schedules.annealing.in_turn import play
from dualpipe_sim.schedules.annealing.problem import Problem
from dualpipe_sim.search import Found, run, search
from dualpipe_sim.search.bound import lower_bound
from dualpipe_sim.search.named import peaks

ROUNDING = 1 + 1e-9


@pytest.fixture(autouse=True)
def _little_time_for_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_A_ROUND_S", 0.5)


def replayed(text: str, layer_s: list[tuple[float, float, float]], partition: list[int]) -> tuple[float, list[float]]:
    """Return the makespan of an order and the most that each rank holds, by a player of its own: text in, times out."""
    cuts = [sum(partition[:stage]) for stage in range(len(partition) + 1)]
    seconds = [[sum(layer[does] for layer in layer_s[begin:end]) for does in range(3)] for begin, end in pairwise(cuts)]
    lines = [[_cell(cell) for cell in row] for row in csv.reader(StringIO(text))]
    last, whole = len(partition) - 1, any(kind == "B" for line in lines for _, kind, _ in line)
    done: dict[tuple[int, str, int], float] = {}
    free, place = [0.0] * len(lines), [0] * len(lines)
    held, most = [0.0] * len(lines), [0.0] * len(lines)
    left = sum(map(len, lines))
    while left:
        before = left
        for rank, line in enumerate(lines):
            while place[rank] < len(line):
                stage, kind, i = line[place[rank]]
                back = "B" if whole else "I"
                needs = {
                    "F": [(stage - 1, "F", i)] if stage else [],
                    back: [(stage + 1, back, i)] if stage < last else [(stage, "F", i)],
                    "W": [(stage, "I", i)],
                }[kind]
                if any(op not in done for op in needs):
                    break
                forward, into, weight = seconds[stage]
                lasts = {"F": forward, "I": into, "W": weight, "B": into + weight}[kind]
                free[rank] = max([free[rank], *(done[op] for op in needs)]) + lasts
                done[stage, kind, i] = free[rank]
                size = partition[stage] * len(lines) / len(layer_s)
                held[rank] += {"F": size, "I": 0.0, "W": -size, "B": -size}[kind]
                most[rank] = max(most[rank], held[rank])
                place[rank] += 1
                left -= 1
        assert left < before, "it stands still"
    return max(free), most


def _cell(cell: str) -> tuple[int, str, int]:
    kind = next(letter for letter in cell if letter.isalpha())
    stage, _, micro_batch = cell.partition(kind)
    return int(stage), kind, int(micro_batch)


def configured(
    layer_s: list[tuple[float, float, float]], ranks: int, micro_batches: int, **asked: object
) -> dict[str, object]:
    keys = ("forward", "backward_input", "backward_weight")
    return {
        "pipeline": {"ranks": ranks, "micro_batches": micro_batches},
        "costs": {"kind": "profile", "layers": [dict(zip(keys, seconds, strict=True)) for seconds in layer_s]},
        "search": {"rounds": 1, "moves": 200, "stages_per_rank": 2, **asked},
    }


def draws(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - draws cases, keeps no secret


def uneven(random: Random, layers: int) -> list[tuple[float, float, float]]:
    return [(random.randint(1, 9) / 2, random.randint(1, 9) / 2, random.randint(0, 8) / 2) for _ in range(layers)]


def replay(found: Found, layer_s: list[tuple[float, float, float]]) -> tuple[float, list[float]]:
    return replayed(format_order(found.schedule), layer_s, list(found.partition))


@pytest.mark.thorough
@given(
    seed=st.integers(0, 10**6),
    ranks=st.integers(1, 4),
    micro_batches=st.integers(1, 6),
    stages=st.integers(1, 3),
    limit=st.sampled_from([None, 1.0, 1.5, 2.0, 4.0]),
    split=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_orders_in_turn_are_whole_and_keep_the_limit(
    seed: int, ranks: int, micro_batches: int, stages: int, limit: float | None, split: bool
) -> None:
    random = draws(seed)
    layer_s = uneven(random, ranks * stages + random.randint(0, 3))
    problem = Problem(
        ranks, micro_batches, tuple(layer_s), most_stages=ranks * stages, most_activations=limit, split=split
    )
    start = random.choice([begun, spread_out])(problem, ranks * stages, zigzag=random.random() < 0.5)
    answer = anneal(problem, start, 30, 0.5, (seed + 1, 12345))
    order = play(problem, answer)
    if order is None:
        assert limit is not None
        return
    schedule = problem.schedule(answer, order.lines)
    check_schedule(schedule)
    makespan_s, most = replayed(format_order(schedule), layer_s, list(answer.partition))
    assert order.makespan_s == pytest.approx(makespan_s, rel=1e-12)
    assert peaks(schedule, answer.partition, problem) == pytest.approx(most)
    assert limit is None or max(most) <= limit * ROUNDING
    assert lower_bound(problem)[0] <= makespan_s * ROUNDING
    assert play(problem, answer, order.cost_s * ROUNDING) is not None
    assert play(problem, answer, order.cost_s / ROUNDING - 1e-6) is None


PROBLEMS = [pytest.param(seed, marks=[pytest.mark.thorough] if seed >= 5 else []) for seed in range(50)]


@pytest.mark.parametrize("seed", PROBLEMS)
def test_it_is_never_worse_than_registered_schedules(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_A_ROUND_S", 0.05)  # of the solver
    random = draws(seed)
    ranks, micro_batches = random.choice([(2, 4), (3, 5), (4, 6)])
    layer_s = uneven(random, ranks * 2 + random.randint(0, 6))
    limit = random.choice([None, ranks + 0.5, ranks / 2 + 1.0])
    split = random.random() < 0.7
    asked = {"activations": limit, "split": split} if limit else {"split": split}
    found = search(configured(layer_s, ranks, micro_batches, **asked), workers=1)
    makespan_s, most = replay(found, layer_s)
    assert found.makespan_s == pytest.approx(makespan_s, rel=1e-12)
    assert limit is None or max(most) <= limit * ROUNDING
    assert found.bound_s <= makespan_s * ROUNDING
    assert 0 <= found.gap < 1
    assert all(makespan_s <= seconds * ROUNDING for seconds in found.named.values())


@pytest.mark.parametrize("seed", range(10))
def test_small_problems_are_proved_optimal(seed: int) -> None:
    # Layers as many as ranks, so that only placement and order are free: any placement is the same but for names.
    random = draws(seed)
    ranks = random.choice([2, 3])
    layer_s = [(random.randint(1, 4) * 1.0, random.randint(1, 4) * 1.0, random.randint(1, 4) * 1.0)] * ranks
    found = search(configured(layer_s, ranks, random.choice([3, 4]), stages_per_rank=1), workers=1)
    assert found.proved


def test_the_same_seed_and_rounds_find_the_same() -> None:
    config = configured(uneven(draws(5), 9), 3, 5, rounds=2, seed=7)
    one, other = (search(config, workers=workers) for workers in (1, 2))
    assert format_order(one.schedule) == format_order(other.schedule)
    assert one.partition == other.partition
    assert one.makespan_s == other.makespan_s


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    layer_s = uneven(draws(3), 8)
    at_once = search(configured(layer_s, 2, 4, rounds=2), workers=1)
    search(configured(layer_s, 2, 4, rounds=1), workers=1, output=state)
    resumed = search(configured(layer_s, 2, 4, rounds=2), workers=1, output=state, resume=True)
    assert resumed.rounds == 2
    assert format_order(resumed.schedule) == format_order(at_once.schedule)
    with pytest.raises(UserError, match="is of another search"):
        search(configured(layer_s, 2, 5, rounds=2), workers=1, output=state, resume=True)
    state.write_text("{}")
    with pytest.raises(UserError, match="is no file of a search"):
        search(configured(layer_s, 2, 4, rounds=2), workers=1, output=state, resume=True)


def test_what_is_found_runs_like_any_order(tmp_path: Path) -> None:
    layer_s = uneven(draws(11), 10)
    found = search(configured(layer_s, 3, 4), workers=1)
    file = tmp_path / "best.csv"
    file.write_text(format_order(found.schedule))
    again = {**configured(layer_s, 3, 4), "schedule": {"file": str(file)}}
    again["pipeline"] = {"ranks": 3, "micro_batches": 4, "layout": list(found.partition)}
    assert simulate(again).makespan_s == pytest.approx(found.makespan_s, rel=1e-12)
    assert parse_order(file.read_text()) == found.schedule
    assert json.loads(json.dumps(found.to_dict()))["partition"] == list(found.partition)


@pytest.mark.thorough
def test_other_costs_are_searched_too() -> None:
    uniform = {"pipeline": {"ranks": 2, "micro_batches": 4}, "costs": {"forward": 1.0, "backward": 2.0}}
    found = search({**uniform, "search": {"rounds": 1, "moves": 2000, "stages_per_rank": 2}}, workers=1)
    assert found.makespan_s <= 14.0  # ZB-V's, without a bubble: work alone is 12
    fewer = ["training.global_batch=512", "search={rounds: 1, moves: 50, stages_per_rank: 2}"]
    by_layer = search("deepseek_v2_lite", settings=fewer, workers=1)
    assert by_layer.makespan_s <= min(by_layer.named.values()) * ROUNDING


def test_shares_of_whole_layers_bound() -> None:
    assert best_balance_s([5.0, 5.0, 4.0, 4.0], 2, [0.0, 0.0]) == pytest.approx(9.0, rel=1e-5)
    assert best_balance_s([6.0, 5.0, 5.0], 2, [0.0, 0.0]) == pytest.approx(10.0, rel=1e-5)
    assert best_balance_s([6.0, 5.0, 5.0], 2, [0.0, 1.0]) == pytest.approx(10.0, rel=1e-5)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"activations": 0.5}, "search.activations: must be 1 or more"),
        ({"stages_per_rank": 0}, "search.stages_per_rank"),
        ({"second": 3}, "did you mean 'seconds'"),
    ],
)
def test_what_cannot_be_searched_is_said(asked: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        search(configured(uneven(draws(1), 4), 2, 2, **asked), workers=1)


def test_too_few_layers_and_uneven_micro_batches_are_refused() -> None:
    with pytest.raises(UserError, match="2 layers cannot be shared out over 3 ranks"):
        search(configured(uneven(draws(1), 2), 3, 2), workers=1)
    uniform = {"pipeline": {"ranks": 2, "micro_batches": 2}, "search": {"rounds": 1}}
    with pytest.raises(UserError, match="micro_batch_weights"):
        search({**uniform, "costs": {"forward": 1.0, "backward": 1.0, "micro_batch_weights": [1, 2]}}, workers=1)
    with pytest.raises(UserError, match="no output to resume"):
        search(configured(uneven(draws(1), 4), 2, 2), workers=1, resume=True)


def test_walks_are_the_same_without_a_compiler() -> None:
    script = """
import importlib.util as util, sys
find = util.find_spec
if sys.argv[1] == "plain":
    util.find_spec = lambda name, package=None: None if name == "numba" else find(name, package)
from dualpipe_sim.base.compiled import COMPILES
from dualpipe_sim.schedules.annealing.anneal import anneal, spread_out
from dualpipe_sim.schedules.annealing.problem import Problem
assert COMPILES == (sys.argv[1] != "plain" and find("numba") is not None)
layers = tuple((1.0 + layer % 3, 2.0, 1.0 + layer % 2) for layer in range(12))
problem = Problem(3, 5, layers, 0.1, 9, 2.5, recompute=True)
print(anneal(problem, spread_out(problem, 6), 300, 0.02, (3, 4)))
"""
    found = [
        subprocess.run([sys.executable, "-c", script, how], check=True, capture_output=True, text=True).stdout
        for how in ("plain", "compiled")
    ]
    assert found[0] == found[1]


def test_forwards_that_run_again_make_room() -> None:
    layer_s = [(1.0, 1.0, 1.0)] * 12
    kept, again = (
        search(configured(layer_s, 4, 6, activations=1.0, recompute=recompute, moves=4000), workers=1)
        for recompute in (False, True)
    )
    check_schedule(again.schedule)
    assert again.recomputed
    assert not kept.recomputed
    assert max(peaks(again.schedule, again.partition, again.problem)) <= 1.0 * ROUNDING
    assert again.makespan_s < kept.makespan_s
