"""STP, with forwards braided into whatever else runs: its paper's table, and pairs of other kinds than F and B."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import Schedule, ScheduleError, build, format_order, parse_order, runtime_program, simulate
from dualpipe_sim.analysis.alltoall import overlapped_pair_s
from dualpipe_sim.analysis.metrics import idle_s as idle_s_of_ranks
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.phases import Phase, ends_s
from dualpipe_sim.export.chrome import events
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.check import check_order
from dualpipe_sim.order.ops import PAIRED, B, F, I, Kind, W
from dualpipe_sim.order.placement import v_shape
from dualpipe_sim.result import Result

RANKS = st.integers(1, 7)


Work = tuple[float, float, float]


def run(schedule: Schedule, *, all_reduce: float = 0.0, work: Work = (1, 1, 1), **more: object) -> Result:
    """Run an order of two stages a rank, given what one stage's F, I and W take and its all-reduces."""
    forward, inputs, weights = (2.0 * one for one in work)
    times: dict[str, Any] = {"forward": forward, "backward_input": inputs, "backward_weight": weights, **more}
    return simulate(schedule=schedule, all_reduce=2 * all_reduce, **times)


def played(result: Result) -> Timeline:
    assert result.timeline is not None
    return result.timeline


@given(RANKS, st.integers(0, 9))
def test_it_idles_as_published_and_holds_as_much_as_replayed(ranks: int, more: int) -> None:
    """(P-1)F of a stage at F = I = W; 3P+1 to 4P-1 pairs of stage and micro-batch until the end of their W."""
    batches = 3 * ranks - 1 + more
    results = [run(build("stp", ranks, batches), engine=engine) for engine in ("simpy", "auto")]
    for result in results:
        assert idle_s_of_ranks(played(result)) == pytest.approx(np.full(ranks, ranks - 1.0))
    in_flight = results[0].peak_in_flight_by_rank
    assert in_flight is not None
    if ranks > 1:
        assert in_flight == [3 * ranks + 1] * 2 + list(range(3 * ranks + 2, 4 * ranks))


@given(RANKS, st.integers(0, 5))
def test_its_steps_are_those_of_the_release(ranks: int, more: int) -> None:
    """How often each rank runs each kind of task, counted from the nine steps of MICLAB-BUPT/STP's schedule."""
    batches = 3 * ranks - 1 + more
    for rank, row in enumerate(format_order(build("stp", ranks, batches)).splitlines()):
        cells = row.split(",")
        below, steady = ranks - 1 - rank, 2 * (batches - 3 * ranks + 1) + 1
        pairs = {kind: sum(cell.endswith(f"OVERLAP_F_{kind}") for cell in cells) for kind in PAIRED}
        assert pairs[F] == (rank + 1) // 2
        assert pairs[W] == below
        assert pairs[B] == steady + rank
        assert pairs[I] == below + rank + 2 * ranks - 2 - rank
        lone = [cell for cell in cells if not cell.startswith("(")]
        assert sum("F" in cell for cell in lone) == 2 * below + 2 * (rank + 1) + (rank + 1) % 2
        assert sum("I" in cell for cell in lone) == 0
        assert sum("W" in cell for cell in lone) == 2 * below + 2 * rank


@given(RANKS, st.data())
def test_few_micro_batches_run_as_the_first_of_enough(ranks: int, data: st.DataObject) -> None:
    batches = data.draw(st.integers(1, 3 * ranks - 1))
    text = format_order(build("stp", ranks, batches))
    assert check_order(text, "v", batches) == []
    assert run(parse_order(text, v_shape(ranks))).makespan_s is not None


TABLE = [("interleaved-1f1b", {"stages_per_rank": 2}), ("zb-v", {}), ("stp", {})]


@pytest.mark.parametrize("ranks", [2, 3, 4, 6])
@pytest.mark.parametrize(("name", "options"), TABLE)
def test_all_reduces_are_exposed_as_the_papers_table_has_it(name: str, options: dict[str, object], ranks: int) -> None:
    """2M T of interleaved 1F1B, 4M T of ZB-V, (2P+1) T of STP; that counts a lone forward that odd ranks lack."""
    batches, each = 3 * ranks, 0.25
    exposed = run(build(name, ranks, batches, **options), all_reduce=each).exposed_tensor_parallel_s_by_rank
    assert exposed is not None
    published = {"interleaved-1f1b": 2 * batches, "zb-v": 4 * batches, "stp": 2 * ranks + 1}[name]
    lacking = [name == "stp" and rank % 2 == 1 for rank in range(ranks)]
    assert exposed == pytest.approx([(published - lack) * each for lack in lacking])


@pytest.mark.parametrize("ranks", [2, 3, 4, 5, 6])
def test_pipeline_bubbles_are_the_tables_where_it_holds(ranks: int) -> None:
    """Interleaved (P-1)(F+T+I+W), ZB-V (P-1)(F+2T+I-2W) where that is more than F+T, STP (P-1)(F+T+I-W)."""
    each, apart = 0.25, ranks - 1
    interleaved = run(build("interleaved-1f1b", ranks, 3 * ranks, stages_per_rank=2), all_reduce=each)
    assert idle_s_of_ranks(played(interleaved)) == pytest.approx(np.full(ranks, apart * (3 + each)))
    zb_v = run(build("zb-v", ranks, 3 * ranks), all_reduce=each, work=(1, 1, 0.5))
    assert idle_s_of_ranks(played(zb_v)) == pytest.approx(np.full(ranks, apart * (2 + 2 * each - 1)))
    stp = run(build("stp", ranks, 3 * ranks), all_reduce=each)
    assert stp.makespan_s is not None
    published = 6 * 3 * ranks + apart * (1 + each) + (2 * ranks + 1) * each
    assert published - each - 1e-9 <= stp.makespan_s <= published + 1e-9


@given(st.sampled_from([(F,), (B,), (I,), (W,), *((F, kind) for kind in PAIRED)]), st.floats(0, 5), st.floats(0, 5))
def test_all_reduces_stand_where_nothing_hides_them(kinds: tuple[Kind, ...], weights: float, each: float) -> None:
    costs = load_experiment(
        {"costs": {"forward": 2.0, "backward_input": 3.0, "backward_weight": weights, "all_reduce": each},
         "pipeline": {"ranks": 1, "micro_batches": 2}, "schedule": "1f1b"}
    ).costs  # fmt: skip
    phases = costs.on(build("1f1b", 1, 2).placement).phases(tuple((kind, 0) for kind in kinds))
    alone = {F: 2.0, B: 3.0 + weights, I: 3.0, W: weights}
    compute, summed = sum(alone[kind] for kind in kinds), sum(each for kind in kinds if kind != W)
    lasts = max(ends_s(phases, [phase.duration_s for phase in phases]))
    hidden = max(compute, summed) if len(kinds) > 1 else compute + max(0.0, summed - (weights if kinds == (B,) else 0))
    assert lasts == pytest.approx(hidden)
    assert phases[-1].lane == Lane.COMPUTE or len(kinds) == 1  # outputs are ready when the last phase ends


MIXED = (
    "0F0,1F0,(0F1;0F2)OVERLAP_F_F,(1F1;1I0)OVERLAP_F_I,(1F2;1W0)OVERLAP_F_W,(0F3;0B0)OVERLAP_F_B,"
    "1I1,0B1,1W1,1B2,0B2,1F3,1B3,0B3\n"
)


def test_cells_of_other_pairs_read_and_write_as_torchs_do() -> None:
    order = parse_order(MIXED)
    assert format_order(order) == MIXED
    assert check_order(MIXED) == []
    timeline = played(run(order))
    pairs = overlapped_pair_s(timeline)
    assert pairs == {"0F;0F": 2.0, "1F;1I": 2.0, "1F;1W": 2.0, "0F;0B": 3.0}
    kinds = {one["args"]["kind"] for one in events(timeline) if one["name"].startswith("(")}
    assert kinds == {"OVERLAP_F_F", "OVERLAP_F_I", "OVERLAP_F_W", "OVERLAP_F_B"}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("(0F1;0B0)OVERLAP_F_W", r"'\(0F1;0B0\)OVERLAP_F_W' must overlap an F with a W, in this order"),
        ("(0I1;0F0)OVERLAP_F_I", r"must overlap an F with an I, in this order"),
        ("(0W1;0F0)OVERLAP_F_F", r"must overlap an F with another F, in this order"),
        ("(0F1;0R0)OVERLAP_F_R", r"is no task; write an op as 5F3"),
    ],
)
def test_a_pair_is_what_its_cell_says(cell: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        parse_order(f"0F0,{cell}")


def test_no_runtime_has_such_pairs() -> None:
    with pytest.raises(ScheduleError, match=r"runtime torch has no schedule stp .* or pairs but of F and B"):
        runtime_program("stp", 2, 6, runtime="torch")
    with pytest.raises(ScheduleError, match="runtime megatron has no schedule stp"):
        runtime_program("stp", 2, 6, runtime="megatron")
    rendezvous: dict[str, Any] = {"pipeline.transfers": "rendezvous"}
    with pytest.raises(
        ScheduleError, match="stp: a program of sends and receives has no text for pairs but of F and B"
    ):
        simulate(schedule="stp", ranks=2, micro_batches=6, forward=1, backward=2, **rendezvous)


def test_heavy_micro_batches_make_their_pairs_longer() -> None:
    """Of a pair each half takes as its own micro-batch does: 3 x F and 1 x W of 1 s each."""
    order = parse_order("0F0,0I0,(0F1;0W0)OVERLAP_F_W,0B1\n")
    weights: dict[str, Any] = {"costs.micro_batch_weights": [1.0, 3.0]}
    timeline = played(simulate(schedule=order, forward=1, backward_input=1, backward_weight=1, **weights))
    assert overlapped_pair_s(timeline) == {"0F;0W": 4.0}


LLAMA: dict[str, Any] = {
    "model": {"preset": "llama3-8b", "layers": 16},
    "gpu": "h100",
    "cluster": "h100-ib",
    "pipeline": {"ranks": 2, "micro_batches": 6},
    "schedule": "stp",
    "parallel": {"tensor": 4},
    "training": {"sequence_length": 4096},
}


@pytest.mark.parametrize("kind", PAIRED)
@pytest.mark.parametrize("model", ["llama3-8b", "qwen3-30b-a3b"])
def test_layers_of_both_halves_do_all_that_they_do_alone(kind: int, model: str) -> None:
    experts: dict[str, Any] = {} if model == "llama3-8b" else {"tensor": 4, "data": 8, "expert": 8}
    costs = load_experiment(
        {**LLAMA, "model": {"preset": model, "layers": 16}, "parallel": experts or {"tensor": 4}}
    ).costs
    assert isinstance(costs, LayerCosts)
    stages = costs.on(v_shape(2))
    alone = [phase for one in (F, kind) for phase in stages.phases(((one, 1),))]
    pair = stages.phases(((F, 1), (kind, 1)))

    def did(phases: list[Phase]) -> list[tuple[int, int, str, int]]:
        return sorted((int(one.lane), int(one.kind), one.name, one.layer) for one in phases)

    assert did(list(pair)) == did(alone)
    computed = [
        sum(one.duration_s for one in phases if one.lane == Lane.COMPUTE) for phases in (list(pair), list(alone))
    ]
    lasts = max(ends_s(pair, [one.duration_s for one in pair]))
    apart = sum(one.duration_s for one in alone)
    assert computed[1] - 1e-9 <= computed[0] <= lasts < apart


def test_by_layer_it_hides_most_of_what_tensor_parallelism_sends() -> None:
    found = {}
    for name, options in TABLE:
        result = simulate({**LLAMA, "schedule": {"name": name, **options}})
        assert result.exposed_tensor_parallel_s_by_rank is not None
        found[name] = max(result.exposed_tensor_parallel_s_by_rank)
        engines = simulate({**LLAMA, "schedule": {"name": name, **options}}, engine="simpy")
        assert engines.makespan_s == pytest.approx(result.makespan_s, rel=1e-9)
    assert found["stp"] < 0.7 * found["interleaved-1f1b"] < found["zb-v"]
