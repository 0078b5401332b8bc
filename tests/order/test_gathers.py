"""Weights gathered stage by stage beside compute (FSDP under torch's pipelining), against a player of their own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dualpipe_sim import build, format_order, parse_order, simulate
from dualpipe_sim.analysis.critical_path import critical_path
from dualpipe_sim.analysis.memory import COMPONENTS, memory_of
from dualpipe_sim.analysis.metrics import idle_s as idle_s_of_ranks
from dualpipe_sim.analysis.metrics import idle_s_by_cause
from dualpipe_sim.calibration import calibrate
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.export import write_chakra, write_chrome, write_hta
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.hardware.collectives import RING_EFFICIENCY
from dualpipe_sim.order.gathers import with_gathers
from dualpipe_sim.order.ops import UNSHARD, B, F, I, W
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.result import Result
from dualpipe_sim.schedules.registry import schedules

NAMES = sorted(
    name for name in schedules() if build(name, 4, 8).of_kinds(F, B, I, W).all() and build(name, 4, 8).slices == 1
)
TIMES = st.sampled_from([0.0, 0.5, 1.0, 3.0, 7.5])


def played(result: Result) -> Timeline:
    assert result.timeline is not None
    return result.timeline


def run(schedule: Schedule | str, unshard: float, reduce_grad: float = 0.0, **more: object) -> Result:
    times: dict[str, Any] = {"forward": 1.0, "backward_input": 1.0, "backward_weight": 1.0, **more}
    return simulate(schedule=schedule, unshard=unshard, reduce_grad=reduce_grad, **times)


def makespan_s(schedule: Schedule | str, unshard: float, reduce_grad: float = 0.0, **more: object) -> float:
    found = run(schedule, unshard, reduce_grad, **more).makespan_s
    assert found is not None
    return found


def ends_by_hand(schedule: Schedule, unshard: float, reduce_grad: float) -> float:
    """Play an order one op at a time, every stage an equal share; transfers take no time."""
    share = schedule.ranks / len(schedule.placement.pipes[0])
    lasts = {"F": share, "B": 2 * share, "I": share, "W": share}
    pipe = schedule.placement.pipe_of_stage.tolist()
    cells = [row.split(",") for row in format_order(with_gathers(schedule)).splitlines()]
    ended: dict[str, float] = {}
    compute, data, gathered = [0.0] * len(cells), [0.0] * len(cells), {}

    def needs(op: str) -> list[str]:
        kind = next(letter for letter in op if letter.isalpha())
        stage, batch = map(int, op.split(kind))
        if kind == "W":
            return [f"{stage}I{batch}"]
        before = [] if kind == "F" else [f"{stage}F{batch}"]
        other = stage + (-1 if kind == "F" else 1)
        inside = 0 <= other < len(pipe) and pipe[other] == pipe[stage]
        return before + [f"{other}{'F' if kind == 'F' else 'G'}{batch}"] * inside

    while any(cells):
        for rank, row in enumerate(cells):
            while row:
                cell = row[0]
                if cell.endswith("RESHARD"):
                    pass
                elif cell.endswith(("UNSHARD", "REDUCE_GRAD")):
                    data[rank] = max(data[rank], compute[rank]) + share * (unshard if "UN" in cell else reduce_grad)
                    if "UN" in cell:
                        gathered[int(cell.removesuffix("UNSHARD"))] = data[rank]
                else:
                    ops = cell.partition("OVERLAP")[0].strip("()").split(";")
                    waits = [one for op in ops for one in needs(op)]
                    if any(one not in ended for one in waits):
                        break
                    stages = [int(op.split(next(letter for letter in op if letter.isalpha()))[0]) for op in ops]
                    start = max([compute[rank], *(gathered[one] for one in stages), *(ended[one] for one in waits)])
                    kinds = [next(letter for letter in op if letter.isalpha()) for op in ops]
                    compute[rank] = start + sum(lasts[kind] for kind in kinds)
                    for op, kind in zip(ops, kinds, strict=True):
                        ended[op] = compute[rank]
                        if kind in "BI":
                            ended[op.replace(kind, "G")] = compute[rank]
                row.pop(0)
    return max(*compute, *data)


@given(st.sampled_from(NAMES), st.integers(1, 5), st.integers(1, 10), TIMES, TIMES)
def test_steps_end_as_played_by_hand_on_both_engines(
    name: str, ranks: int, batches: int, unshard: float, reduce_grad: float
) -> None:
    try:
        schedule = build(name, ranks, batches)
    except ScheduleError:
        assume(False)
        raise
    results = [run(schedule, unshard, reduce_grad, engine=engine) for engine in ("simpy", "auto")]
    expected = ends_by_hand(schedule, unshard, reduce_grad)
    for result in results:
        assert result.makespan_s == pytest.approx(expected)
        timeline = played(result)
        causes = sum(idle_s_by_cause(timeline).values(), np.zeros(ranks))
        assert causes == pytest.approx(idle_s_of_ranks(timeline))
        assert min(float(seconds.min()) for seconds in idle_s_by_cause(timeline).values()) >= -1e-9
        path = critical_path(timeline).nodes
        assert timeline.graph.duration_s[path].sum() == pytest.approx(result.makespan_s)
    assert np.allclose(played(results[0]).end_s, played(results[1]).end_s)


@given(st.sampled_from(NAMES), st.integers(1, 5), st.integers(1, 10))
def test_gathers_that_take_no_time_change_nothing(name: str, ranks: int, batches: int) -> None:
    try:
        schedule = build(name, ranks, batches)
    except ScheduleError:
        assume(False)
        raise
    ops = [
        sorted(row for row in played(result).rows() if row[1] != "data" and not row[2].endswith("SHARD"))
        for result in (run(schedule, 0.0), simulate(schedule=schedule, forward=1, backward=2))
    ]
    assert ops[0] == ops[1]


def test_the_first_gathers_and_the_last_reductions_are_exposed() -> None:
    """1F1B on two ranks: both gather for 5 s; rank 1 has its weights when the first activation comes, at 6 s."""
    causes = {cause: seconds.tolist() for cause, seconds in idle_s_by_cause(played(run("1f1b", 5.0, 3.0, ranks=2,
              micro_batches=2))).items() if seconds.any()}  # fmt: skip
    assert causes == {
        "warm_up": [0.0, 6.0],
        "exposed_gather": [5.0, 0.0],
        "waiting": [3.0, 0.0],
        "exposed_reduction": [3.0, 3.0],
        "drain": [0.0, 2.0],
    }


def test_reducing_one_stage_goes_on_beside_the_next_ones_backward() -> None:
    """One rank of three stages, which takes 12 s: two of the three reductions of 1 s are beside compute."""
    order = build("looped-bfs", 1, 4, stages_per_rank=3)
    alone, reduced = (makespan_s(order, 0.0, seconds) for seconds in (0.0, 3.0))
    assert [alone, reduced] == pytest.approx([12.0, 13.0])


@pytest.mark.parametrize(
    ("name", "stages", "gathers"),
    [
        *((name, v, [v] * 4) for name in ("interleaved-1f1b", "looped-bfs", "interleaved-zb") for v in (1, 2, 3)),
        ("interleaved-1f1b", 4, [11, 11, 9, 9]),
        ("interleaved-zb", 4, [9, 9, 9, 9]),
        ("looped-bfs", 4, [5, 5, 5, 5]),
    ],
)
def test_a_run_gathers_as_often_as_torch_does(name: str, stages: int, gathers: list[int]) -> None:
    """torch 2.13's ``_add_unshard_reshard``, three stages ahead, at 4 ranks and 8 micro-batches."""
    if stages == 1:
        name = {"interleaved-1f1b": "1f1b", "looped-bfs": "gpipe", "interleaved-zb": "zb-h1"}[name]
    options = {"stages_per_rank": stages} if stages > 1 else {}
    timeline = played(run(build(name, 4, 8, **options), 0.25))
    schedule = timeline.graph.schedule
    counted = Counter(schedule.rank[schedule.of_kinds(UNSHARD)].tolist())
    assert [counted[rank] for rank in range(4)] == gathers


def test_breadth_first_wins_where_gathers_are_long() -> None:
    """The point of breadth-first pipelines (https://arxiv.org/abs/2211.05953): 5 gathers a rank where others have 9."""
    orders = [build(name, 4, 8, stages_per_rank=4) for name in ("looped-bfs", "interleaved-1f1b")]
    short, long = ([makespan_s(order, seconds) for order in orders] for seconds in (0.0, 16.0))
    assert short[0] == short[1]
    assert long[0] < 0.85 * long[1]
    exposed = [idle_s_by_cause(played(run(order, 16.0)))["exposed_gather"].max() for order in orders]
    assert exposed[0] < exposed[1]


def test_no_more_than_three_stages_are_whole_at_once() -> None:
    for name in ("interleaved-1f1b", "looped-bfs", "interleaved-zb"):
        whole: dict[int, set[int]] = {rank: set() for rank in range(4)}
        for rank, row in enumerate(with_gathers(build(name, 4, 8, stages_per_rank=5)).order):
            for op in (task.ops[0] for task in row):
                if str(op).endswith("UNSHARD"):
                    whole[rank].add(op.stage)
                elif str(op).endswith("RESHARD"):
                    whole[rank].remove(op.stage)
                assert len(whole[rank]) <= 3
                assert op.stage in whole[rank] or str(op).split(str(op.stage), 1)[1][0] not in "FBIW"


def test_a_file_says_itself_where_weights_are_gathered() -> None:
    """Gathered ahead of all ops torch's way, or late: the second stage's weights only once they are needed."""
    late = parse_order("0UNSHARD,0F0,1UNSHARD,1F0,1B0,1REDUCE_GRAD,0B0,0REDUCE_GRAD")
    assert format_order(with_gathers(late)) == "0UNSHARD,0F0,1UNSHARD,1F0,1B0,1REDUCE_GRAD,0B0,0REDUCE_GRAD\n"
    halves = {"forward": 2.0, "backward_input": 2.0, "backward_weight": 2.0}
    assert makespan_s(late, 4.0, **halves) == 2 + 1 + 2 + 1 + 4
    assert makespan_s(parse_order("0F0,1F0,1B0,0B0"), 4.0, **halves) == 2 + 2 + 1 + 4
    with pytest.raises(ScheduleError, match="1F0 on rank 0 stands before its stage's 1UNSHARD"):
        run(parse_order("0UNSHARD,0F0,1F0,1UNSHARD,1B0,0B0"), 1.0)


@pytest.mark.parametrize(
    ("name", "options"), [("1f1b", {}), ("gpipe", {}), ("interleaved-1f1b", {"stages_per_rank": 4}), ("zb-v", {})]
)
@pytest.mark.parametrize("runtime", ["torch", {"name": "torch", "version": "2.11"}])
def test_torchs_program_is_played_beside_them(name: str, options: dict[str, object], runtime: object) -> None:
    """Messages stand on streams of their own: gathers of no time leave the program's times as they are."""
    setting: dict[str, Any] = {"pipeline.runtime": runtime, "transfer": 0.25}
    order = build(name, 4, 8, **options)
    plain, none, some = (
        simulate(schedule=order, forward=1, backward=2, **setting, **times)
        for times in list[dict[str, Any]]([{}, {"unshard": 0.0}, {"unshard": 2.0}])
    )
    assert none.makespan_s == plain.makespan_s
    assert some.makespan_s is not None
    assert plain.makespan_s is not None
    assert some.makespan_s > plain.makespan_s


def test_other_runtimes_gather_no_stages() -> None:
    with pytest.raises(UserError, match=r"pipeline\.runtime: megatron does not gather weights stage by stage"):
        run("1f1b", 1.0, ranks=2, micro_batches=4, pipeline={"ranks": 2, "micro_batches": 4, "runtime": "megatron"})


def test_weights_are_gathered_no_slower_for_heavy_micro_batches_or_slices() -> None:
    weighed: dict[str, Any] = {"costs.micro_batch_weights": [3.0, 1.0]}
    for result in (run(build("1f1b", 1, 2), 2.0, **weighed), run(build("seq1f1b", 1, 2, slices=2), 2.0)):
        gathers = [(start, end) for _, _, what, start, end in played(result).rows() if what == "0UNSHARD"]
        assert gathers == [(0.0, 2.0)]


LLAMA: dict[str, Any] = {
    "pipeline": {"ranks": 2, "micro_batches": 4},
    "schedule": "1f1b",
    "model": {"preset": "llama3-8b", "layers": 4},
    "gpu": "h100",
    "cluster": {"preset": "h100-ib", "collectives": ""},
    "parallel": {"data": 8, "fsdp": 8, "gathers": "stages"},
    "training": {"sequence_length": 4096},
}
LAYER = 4096 * (4096 + 2 * 1024) + 4096**2 + 3 * 4096 * 14336 + 2 * 4096
"""Parameters of a layer of Llama 3 8B (https://arxiv.org/abs/2407.21783, table 3)."""
MATRIX = 128256 * 4096
"""Parameters of its embedding, and of its head."""
NVLINK = 360e9 * RING_EFFICIENCY


def test_bytes_of_a_stage_over_the_links_make_its_seconds() -> None:
    """All-gather of BF16 weights over 8 GPUs of a node, 7/8 of them through each one's NVLink; launches beside."""
    costs = load_experiment(LLAMA).costs
    assert isinstance(costs, LayerCosts)
    stages = costs.on(build("1f1b", 2, 4).placement)
    ring_s = 2 * (2 * LAYER + MATRIX) * 7 / 8 / NVLINK
    assert stages.weights_moved(UNSHARD, 0).duration_s == pytest.approx(ring_s, rel=0.05)
    (flow,) = stages.weights_moved(UNSHARD, 0).flows
    assert flow.size_bytes * RING_EFFICIENCY == pytest.approx(2 * (2 * LAYER + MATRIX) * 7 / 8, rel=1e-6)


def test_gathered_stages_take_memory_from_their_gathering_on_and_the_step_has_no_other() -> None:
    stages, once = (
        simulate(LLAMA, parallel={"data": 8, "fsdp": 8, "gathers": gathers}) for gathers in ("stages", "once")
    )
    timeline = played(stages)
    memory, whole = memory_of(timeline), memory_of(played(once))
    weights = COMPONENTS.index("weights")
    for rank in range(2):
        at_s, held = memory.over_time(rank)
        gathered = 2 * (2 * LAYER + MATRIX + 4096 * rank)  # (the last norm is the head's)
        assert held[:, weights].max() - held[-1, weights] == pytest.approx(gathered, rel=1e-9)
        assert at_s[int(held[:, weights].argmax())] == 0.0
        assert whole.over_time(rank)[1][0, weights] == pytest.approx(gathered, rel=1e-9)
    assert stages.step_time_s is not None
    assert once.step_time_s is not None
    step = timeline.makespan_s + (once.step_time_s - played(once).makespan_s)
    assert stages.step_time_s < step + 1e-9  # nothing is gathered ahead of the pipeline, or reduced behind it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel": {"data": 8, "gathers": "stages"}}, "parallel.gathers: stages are gathered where weights are"),
        ({"parallel": {"data": 8, "fsdp": 8, "gathers": "stage"}}, "parallel.gathers: must be"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_experiment({**LLAMA, **changes})
    with pytest.raises(UserError, match=r"parallel.gathers: once does not fit these costs"):
        run("1f1b", 1.0, ranks=2, micro_batches=2, parallel={"gathers": "once"})


def test_traces_have_them_beside_compute_and_chakras_cannot(tmp_path: Path) -> None:
    timeline = played(run("1f1b", 5.0, 3.0, ranks=2, micro_batches=2))
    write_chrome(timeline, tmp_path / "trace.json")
    lanes = {
        one["name"] for one in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if one["ph"] == "X"
    }
    assert {"0UNSHARD", "1REDUCE_GRAD"} <= lanes
    write_hta(timeline, tmp_path / "hta")
    of_rank = json.loads((tmp_path / "hta" / "rank0.json").read_text())["traceEvents"]
    assert [one["dur"] for one in of_rank if one["name"] == "ncclKernel 0UNSHARD"] == [5_000_000]
    with pytest.raises(UserError, match="run beside them"):
        write_chakra(
            played(run("1f1b", 5.0, ranks=2, micro_batches=2, transfer="1 MB", cluster={"gpus_per_node": 2})),
            tmp_path / "chakra",
        )


def test_a_chart_draws_them_below_the_ops_that_they_run_beside() -> None:
    axes = run("1f1b", 5.0, 3.0, ranks=2, micro_batches=2).gantt()
    legend = axes.figure.legends[0] if axes.figure.legends else axes.get_legend()
    assert legend is not None
    assert {"weights gathered", "gradients reduced"} <= {text.get_text() for text in legend.get_texts()}


def test_a_timeline_with_them_still_says_what_ops_take(tmp_path: Path) -> None:
    rows = [["rank", "lane", "task", "start_s", "end_s"], *played(run("1f1b", 5.0, ranks=2, micro_batches=2)).rows()]
    (tmp_path / "timeline.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    costs = calibrate([tmp_path / "timeline.csv"])
    assert costs.ops[0]["F"].time.median_s == pytest.approx(1.0)
    assert costs.left_out["rows of UNSHARD, which is no op"] == 2
