"""Output layers shared out over ranks: what follows from the papers' orders, and what was measured of them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import Result, Schedule, ScheduleError, UserError, build, format_order, parse_order, simulate
from dualpipe_sim.analysis.metrics import idle_s_by_cause
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.measured import MeasuredCosts, OpTime
from dualpipe_sim.order.check import check_order, check_schedule
from dualpipe_sim.order.ops import B, F, S, T
from dualpipe_sim.order.placement import PlacementName, linear
from dualpipe_sim.schedules.theory import closed_form

MEASURED = Path(__file__).parents[2] / "examples" / "data" / "vocab_parallel_a100x8.csv"
ORDERS: list[tuple[str, dict[str, int]]] = [
    ("vocab-1f1b", {"barriers": 1}),
    ("vocab-1f1b", {"barriers": 2}),
    ("vocab-v-half", {"barriers": 1}),
    ("vocab-v-half", {"barriers": 2}),
    ("interlaced", {}),
]
seconds = st.floats(0, 4)


def run(name: str, ranks: int, micro_batches: int, times: dict[str, Any], **options: object) -> Result:
    return simulate(
        {
            "pipeline": {"ranks": ranks, "micro_batches": micro_batches},
            "schedule": {"name": name, **options},
            "costs": {"kind": "uniform", **times},
        }
    )


# A player of its own: ops of a rank one after the other, each behind what the papers say that it waits for.


Key = tuple[str, int, int]


def needed(op: Key, rank_of: list[int], barriers: int | None, ended: dict[Key, float]) -> list[Key]:
    """What an op (kind, stage, micro-batch) waits for, of a placement with the ranks of each stage."""
    kind, stage, batch = op
    last = len(rank_of) - 1
    everywhere = [rank_of.index(rank) for rank in range(max(rank_of) + 1)]
    if kind == "F":
        return [("F", stage - 1, batch)] if stage else []
    if kind in "STW":
        of = {"S": [("F", last)], "T": [("S", own) for own in everywhere], "W": [("I", stage)]}[kind]
        return [(*one, batch) for one in of]
    if stage < last:
        return [("F", stage, batch), ("I" if ("I", stage + 1, batch) in ended else "B", stage + 1, batch)]
    return [("F", stage, batch), *(("T" if barriers == 2 else "S", own, batch) for own in everywhere)]


def replayed(order: Schedule, times: dict[str, list[float]], barriers: int | None) -> float:
    """Play an order by the rule alone, and return its makespan.

    Args:
        order: of one pipe.
        times: seconds of S and T on each rank, of F, I and W for each 1/ranks of the depth.
        barriers: between S and the last stage's backward; None for one pass of all ranks at once.

    """
    rank_of: list[int] = order.placement.rank_of_stage.tolist()
    cut = len(rank_of) // order.ranks
    lines = [[(str(op.kind), op.stage, op.micro_batch) for task in row for op in task.ops] for row in order.order]
    end: dict[Key, float] = {}
    clock = [0.0] * order.ranks

    def lasts(kind: str, stage: int) -> float:
        if kind in "ST":
            rank = rank_of[stage]
            return times[kind][rank] + (times["T"][rank] if barriers is None else 0.0)
        return sum(times[one][stage // cut] for one in {"B": "IW"}.get(kind, kind)) / cut

    def runs(rank: int) -> bool:
        """Run a rank's next op if all that it waits for is there."""
        op = lines[rank][0] if lines[rank] else None
        if op is None or (barriers is None and op[0] == "S"):
            return False
        inputs = needed(op, rank_of, barriers, end)
        if any(one not in end for one in inputs):
            return False
        clock[rank] = end[op] = max(clock[rank], *(end[one] for one in inputs), 0.0) + lasts(*op[:2])
        lines[rank].pop(0)
        return True

    def all_at_once() -> bool:
        """Run a pass of all ranks where all have come to it."""
        heads = [line[0] if line else ("", 0, 0) for line in lines]
        inputs = needed(heads[0], rank_of, barriers, end) if {kind for kind, _, _ in heads} == {"S"} else [heads[0]]
        if any(one not in end for one in inputs):
            return False
        assert len({batch for _, _, batch in heads}) == 1
        together = max(*clock, end[inputs[0]]) + max(lasts("S", stage) for _, stage, _ in heads)
        clock[:] = [together] * order.ranks
        end.update(dict.fromkeys((line.pop(0) for line in lines), together))
        return True

    while any(lines):
        moved = [runs(rank) for rank in range(order.ranks)]
        assert any(moved) or (barriers is None and all_at_once()), "the order deadlocks"
    return max(clock)


@given(st.sampled_from(ORDERS), st.integers(1, 6), st.integers(1, 12), st.data())
def test_both_engines_play_each_order_as_the_rule_says(
    order: tuple[str, dict[str, int]], ranks: int, batches: int, data: st.DataObject
) -> None:
    name, options = order
    by_rank = st.lists(seconds, min_size=ranks, max_size=ranks)
    times = {kind: data.draw(by_rank) for kind in "FIWST"}
    keys = {"F": "forward", "I": "backward_input", "W": "backward_weight", "S": "vocab_s", "T": "vocab_t"}
    costs = {keys[kind]: one for kind, one in times.items()}
    schedule = build(name, ranks, batches, **options)
    for engine in ("longest-path", "simpy"):
        played = simulate({"schedule": schedule, "costs": {"kind": "uniform", **costs}, "engine": engine})
        assert played.makespan_s == pytest.approx(replayed(schedule, times, options.get("barriers")))


# What is exact: derived by replay of the papers' orders.


@given(st.integers(1, 12), st.integers(0, 30), st.sampled_from([1, 2]), st.tuples(seconds, seconds, seconds, seconds))
def test_vocab_1f1b_has_1f1bs_bubble_and_an_activation_more_for_each_barrier(
    ranks: int, more: int, barriers: int, times: tuple[float, float, float, float]
) -> None:
    """M(F+B+S+T) + (P-1)(F+B) from M = P on; with two barriers where B is a whole multiple of F."""
    forward, s, t, ratio = 0.25 + times[0], times[1], times[2], 1 + times[3]
    backward = forward * (round(ratio) if barriers == 2 else ratio)
    costs = {"forward": forward, "backward": backward, "vocab_s": s, "vocab_t": t}
    batches = ranks + more
    result = run("vocab-1f1b", ranks, batches, costs, barriers=barriers)
    whole = forward + backward
    assert result.makespan_s == pytest.approx(batches * (whole + s + t) + (ranks - 1) * whole)
    assert result.theory is not None
    assert result.theory["exact"]
    if more >= 2:
        peaks = [ranks + barriers - rank for rank in range(ranks)]
        assert result.peak_activations_by_rank == pytest.approx(peaks)


@pytest.mark.parametrize("ranks", range(4, 9))
@pytest.mark.parametrize("barriers", [1, 2])
def test_v_half_holds_an_activation_more_for_each_barrier(ranks: int, barriers: int) -> None:
    costs = {"forward": 1, "backward": 2, "vocab_s": 0.3, "vocab_t": 0.2}
    peaks = run("vocab-v-half", ranks, 4 * ranks, costs, barriers=barriers).peak_activations_by_rank
    assert peaks is not None
    assert max(peaks) == (ranks + 2) // 2 + barriers


@given(st.integers(2, 8), st.integers(1, 24), seconds, seconds)
def test_interlaced_has_1f1bs_bubble_and_half_as_many_activations_more(
    ranks: int, batches: int, s: float, t: float
) -> None:
    result = run("interlaced", ranks, batches, {"forward": 1, "backward": 2, "vocab_s": s, "vocab_t": t})
    assert result.makespan_s == pytest.approx(batches * (3 + s + t) + (ranks - 1) * 3)
    assert result.peak_activations_by_rank == pytest.approx(
        [min(3 * ranks // 2 - rank, batches) for rank in range(ranks)]
    )


def test_formulas_know_where_they_hold() -> None:
    def exact(batches: int, weight: float, barriers: int) -> bool:
        found = closed_form("vocab-1f1b", 8, batches, backward_weight=weight, options={"barriers": barriers})
        assert found is not None
        return found.exact

    assert exact(8, 1.5, 1)
    assert not exact(7, 1.5, 1)
    assert exact(8, 1, 2)
    assert not exact(8, 1.5, 2)


# What was measured: eight A100 of one host (https://arxiv.org/abs/2411.05288).


def measured_runs() -> list[dict[str, str]]:
    lines = MEASURED.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.mark.parametrize("row", measured_runs(), ids=lambda row: f"{row['method']}-{row['vocabulary']}")
def test_orders_played_with_measured_ops_take_what_the_iteration_took(row: dict[str, str]) -> None:
    """From 1.8 % less to 0.4 % more; input passes are part of F and B, S with T is measured as one."""
    of = {key: [float(one) * 1e-6 for one in row[key].split()] for key in row if key.endswith("_us")}
    forward = [a + b for a, b in zip(of["F_us"], of["input_forward_us"], strict=True)]
    backward = [a + b for a, b in zip(of["B_us"], of["input_backward_us"], strict=True)]
    half = [one / 2 for one in of["S_us"]]
    schedules: dict[str, dict[str, Any]] = {
        "1f1b": {"name": "1f1b"},
        "1f1b-redistributed": {"name": "1f1b"},
        "vocab-1": {"name": "vocab-1f1b", "barriers": 2},
        "vocab-2": {"name": "vocab-1f1b", "barriers": 1},
        "interlaced": {"name": "interlaced"},
    }
    costs = {"forward": forward, "backward": backward, "vocab_s": half, "vocab_t": half}
    result = run(ranks=8, micro_batches=128, times=costs, **schedules[row["method"]])
    assert result.makespan_s is not None
    assert -0.018 < result.makespan_s * 1e3 / float(row["iteration_ms"]) - 1 < 0.004


# Text, and what is wrong with an order


@given(st.sampled_from(ORDERS), st.integers(1, 5), st.integers(1, 9))
def test_orders_are_what_their_text_says(order: tuple[str, dict[str, int]], ranks: int, batches: int) -> None:
    name, options = order
    schedule = build(name, ranks, batches, **options)
    placement: PlacementName = "v" if name == "vocab-v-half" else "explicit"
    assert parse_order(format_order(schedule), placement) == schedule
    assert not check_schedule(schedule)
    assert not check_order(format_order(schedule), placement, barriers=options.get("barriers", 1))


TOO_LATE = "0F0,0S0,0B0,0T0\n1F0,1S0,1T0,1B0\n"
"""On rank 0 T comes behind the backward, for which two barriers have no time."""


@pytest.mark.parametrize(
    ("text", "barriers", "said"),
    [
        ("0F0,0S0,0T0,0B0\n1F0,1S0,1B0,1T0", 1, []),
        (TOO_LATE, 1, []),
        (
            TOO_LATE,
            2,
            [
                "rank 0, cell 2: 0B0 waits in a circle: for 1B0 (rank 1, cell 3), which waits for 0T0 "
                "(rank 0, cell 3), which comes after 0B0"
            ],
        ),
        ("0F0,0S0,0T0,0B0\n1F0,1S0,1B0", 1, ["rank 1: 1T0 never runs"]),
        ("0F0,0B0\n1F0,1S0,1B0", 1, ["rank 0: 0S0 never runs"]),
        (
            "0F0,0S0,0T0,0B0,0T0\n1F0,1S0,1B0,1T0",
            1,
            ["rank 0, cell 4: 0T0 is there already (rank 0, cell 2); every op runs once"],
        ),
        (
            "0F0,0T0,0S0,0B0\n1F0,1S0,1B0,1T0",
            1,
            ["rank 0, cell 1: 0T0 comes before 0S0 (cell 2), which it needs"],
        ),
        (
            "0F0,0F1,0S1,0S0,0B0,0B1\n1F0,1F1,1S0,1S1,1B0,1B1",
            1,
            ["rank 0, cell 2: 0S1 waits in a circle: for 1S0 (rank 1, cell 2), which waits for 0S1 (rank 0, cell 2)"],
        ),
        (
            "0F0,1F0,1S0,1B0,0B0",
            1,
            [
                "rank 0, cell 2: 1S0 is named by another stage; a rank's S and T are by its first, 0",
                "rank 0: 0S0 never runs",
            ],
        ),
    ],
)
def test_what_is_wrong_with_passes_is_said_of_the_op(text: str, barriers: int, said: list[str]) -> None:
    found = [str(one) for one in check_order(text, barriers=barriers)]
    assert found[: len(said)] == said
    assert bool(found) == bool(said)


def test_a_pass_by_another_stages_name_breaks_one_rule_and_the_one_that_lacks_another() -> None:
    assert [one.rule for one in check_order("0F0,1F0,1S0,1B0,0B0")] == ["range", "missing"]


@pytest.mark.parametrize(
    ("text", "barriers", "said"),
    [
        (TOO_LATE, 2, "rank 1 runs 1B0, which waits for 0T0; rank 0 runs 0T0 after 0B0, which waits for 1B0"),
        ("0F0,0B0,0S0\n1F0,1S0,1B0", 1, "rank 1 runs 1B0 after 1S0, which waits for 0B0; rank 0 runs 0B0"),
        ("0F0,0S0,0T0,0B0\n1F0,1S0,1B0", 1, "1T0 on rank 1 never runs; every rank does its share"),
        ("0F0,1F0,1S0,1B0,0B0", 1, "1S0 on rank 0 is named by another stage; .* by its first one, 0"),
        ("0F0,0S0,0S0,0B0", 1, "0S0 on rank 0 runs twice"),
    ],
)
def test_an_order_that_cannot_run_says_which_ops(text: str, barriers: int, said: str) -> None:
    for engine in ("longest-path", "simpy"):
        with pytest.raises(ScheduleError, match=said):
            simulate(schedule=replace(parse_order(text), barriers=barriers), engine=engine)


def test_passes_are_for_one_pipe() -> None:
    text = "0F0,0S0,3F0,0B0,3B0\n1F0,1S0,2F0,1B0,2B0"
    said = "S and T are passes of all ranks for the last stage of one pipe, and there are 2"
    assert said in [one.what for one in check_order(text, "bidirectional")]
    with pytest.raises(ScheduleError, match=said):
        simulate(schedule=parse_order(text, "bidirectional"))


def test_a_file_says_how_many_barriers_there_are(tmp_path: Path, command_line: Any) -> None:  # noqa: ANN401
    file = tmp_path / "order.csv"
    file.write_text(TOO_LATE, encoding="utf-8")
    config = {"schedule": {"file": str(file)}, "costs": {"forward": 1, "backward": 2, "vocab_s": 1, "vocab_t": 1}}
    assert simulate(config).makespan_s == 1 + 1 + 1 + 1 + 2 + 2 + 1
    with pytest.raises(UserError, match="0B0 waits in a circle"):
        simulate({**config, "schedule": {"file": str(file), "barriers": 2}})
    with pytest.raises(UserError, match="schedule: barriers must be 1 or 2, got 3"):
        simulate({**config, "schedule": {"file": str(file), "barriers": 3}})
    assert command_line("check", str(file)).returncode == 0
    assert command_line("check", str(file), "--barriers", "2").returncode == 2


# What else meets them


def test_a_wait_at_a_barrier_is_waiting_for_an_op() -> None:
    # Both ranks' S wait for 1F0, until 2.5 s; the pass is one of 1 s, and 1B0 leaves at 5.5, arrives at 6.
    times = {"forward": 1, "backward": 2, "vocab_s": 1, "transfer": 0.5}
    timeline = run("interlaced", 2, 1, times).timeline
    assert timeline is not None
    causes = {cause: idle.tolist() for cause, idle in idle_s_by_cause(timeline).items() if idle.any()}
    assert causes == {
        "warm_up": [0, 1.5],
        "drain": [0, 2.5],
        "exposed_transfer": [0.5, 0],
        "waiting": [1.5 + 2, 0],
    }


def test_stages_are_alike_only_where_they_hold_as_much_of_the_vocabulary() -> None:
    # Plans keep times of stages that are alike, over schedules that cut the vocabulary and others.
    costs = load_experiment("deepseek_v2_lite").costs
    assert isinstance(costs, LayerCosts)
    whole = costs.on(linear(8))
    shared_out = whole.with_vocabulary_cut("one barrier")
    assert whole.stage_layers[0] != shared_out.stage_layers[0]
    assert whole.alike[0] != shared_out.alike[0]


def test_costs_that_know_no_passes_are_refused() -> None:
    measured = MeasuredCosts("run.yaml", 2, 1, {(kind, stage): OpTime(1.0) for kind in (F, B) for stage in range(2)})
    for name in ("vocab-1f1b", "interlaced"):
        with pytest.raises(UserError, match=r"run\.yaml has no times of S and T, .* take costs of another kind"):
            simulate(schedule=name, ranks=2, micro_batches=4, costs=measured)
    with pytest.raises(UserError, match=r"costs\.vocab_s: a list needs one time for each of the 2 ranks, got 3"):
        simulate(schedule="interlaced", ranks=2, micro_batches=4, forward=1, backward=2, vocab_s=[1, 2, 3])


def test_a_list_has_a_time_for_each_rank_whatever_it_holds() -> None:
    times = {"forward": 1, "backward": 2, "vocab_s": [1, 0, 5], "vocab_t": [0, 2, 0]}
    timeline = run("vocab-v-half", 3, 2, times).timeline
    assert timeline is not None
    graph = timeline.graph
    rows = zip(graph.schedule.rank.tolist(), graph.schedule.kind.tolist(), graph.duration_s.tolist(), strict=False)
    took = {(rank, kind): lasts for rank, kind, lasts in rows}
    assert [took[rank, S] for rank in range(3)] == [1, 0, 5]
    assert [took[rank, T] for rank in range(3)] == [0, 2, 0]


# Costs by layer


LAYERED: dict[str, Any] = {
    "model": {"preset": "llama3-8b", "layers": 8},
    "gpu": "h800",
    "cluster": "h800-ib",
    "costs": {"kind": "layers"},
    "training": {"sequence_length": 4096, "precision": "bf16"},
    "pipeline": {"ranks": 4, "micro_batches": 12},
}


def layered(name: str, **options: object) -> Result:
    return simulate({**LAYERED, "schedule": {"name": name, **options}})


def test_the_output_layer_leaves_the_last_stage_for_all_ranks() -> None:
    def busy_s(name: str, kind: int, **options: object) -> list[float]:
        timeline = layered(name, **options).timeline
        assert timeline is not None
        task = timeline.graph.schedule.kind == kind
        lasts = (timeline.task_end_s - timeline.task_start_s)[task]
        return [float(lasts[timeline.rank[task] == rank].mean()) for rank in range(4)]

    _, inner, _, last = busy_s("1f1b", F)
    _, inner_backward, _, last_backward = busy_s("1f1b", B)
    head = last - inner + last_backward - inner_backward
    for name, options in (("vocab-1f1b", {"barriers": 1}), ("vocab-1f1b", {"barriers": 2})):
        assert busy_s(name, F, **options)[3] == pytest.approx(inner)
        passes = sum(busy_s(name, kind, **options)[2] for kind in (S, T))
        assert passes == pytest.approx(head / 4)
    # One barrier has I in S, two in T.
    assert busy_s("vocab-1f1b", S)[0] > 1.5 * busy_s("vocab-1f1b", S, barriers=2)[0]
    together = busy_s("interlaced", S)[0]
    assert together == pytest.approx(busy_s("vocab-1f1b", S)[0] + busy_s("vocab-1f1b", T)[0])


def test_each_rank_holds_its_share_of_both_matrices() -> None:
    whole, cut = (layered(name).memory for name in ("1f1b", "vocab-1f1b"))
    assert whole is not None
    assert cut is not None
    matrix_bytes = 2 * 128256 * 4096
    weights = [[int(one.over_time(rank)[1][0, 0]) for rank in range(4)] for one in (whole, cut)]
    gains = [after - before for before, after in zip(*weights, strict=True)]
    both_bytes, norm_bytes = 2 * matrix_bytes // 4, 2 * 4096  # of embedding and head; the norm is on each rank
    assert gains[0] == both_bytes + norm_bytes - matrix_bytes
    assert gains[1:3] == [both_bytes + norm_bytes] * 2
    assert gains[3] == both_bytes - matrix_bytes
    # All that comes goes again.
    for rank in range(4):
        _, size_bytes = cut.over_time(rank)
        assert size_bytes[-1].tolist() == size_bytes[0].tolist()


def test_balanced_layouts_balance_layers_alone_where_the_head_is_everywhere() -> None:
    settings = {**LAYERED, "pipeline": {**LAYERED["pipeline"], "layout": "balanced"}, "schedule": "vocab-1f1b"}
    assert simulate(settings).layers_by_stage == [2, 2, 2, 2]
