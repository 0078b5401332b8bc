"""PipeOffload: table 1 of Wan et al., ICML 2025, https://arxiv.org/abs/2503.01328, and copies to the host in orders."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import Result, ScheduleError, Timeline, UserError, build, parse_order, simulate
from dualpipe_sim.analysis.metrics import busy_s
from dualpipe_sim.analysis.metrics import idle_s as idle_s_of_ranks
from dualpipe_sim.analysis.occupancy import activations_over_time
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.export.spans import tasks
from dualpipe_sim.order.check import check_order
from dualpipe_sim.order.ops import B, F, L, O, W
from dualpipe_sim.order.schedule import Schedule

RANKS, STAGES = st.integers(1, 8), st.integers(2, 4)
COPIED = st.sampled_from(["po-h", "po-f"])


def run(name: str | Schedule, ranks: int, batches: int, v: int = 2, k: float = 0.0, **others: Any) -> Result:  # noqa: ANN401
    """Run stages of F = I = W = 1 whose copy out and back take k (F + I + W)."""
    options: Any = others.pop("options", {})
    schedule = name if isinstance(name, Schedule) else build(name, ranks, batches, stages_per_rank=v, **options)
    return simulate(schedule=schedule, forward=v, backward_input=v, backward_weight=v, offload=1.5 * k * v, **others)


def timeline(result: Result) -> Timeline:
    assert result.timeline is not None
    return result.timeline


def idle_s(result: Result) -> float:
    return float(idle_s_of_ranks(timeline(result)).max())


def stages_held(result: Result, v: int) -> float:
    """Most activations of a stage on a rank."""
    assert result.peak_activations_by_rank is not None
    return v * max(result.peak_activations_by_rank)


@given(RANKS, STAGES, st.integers(1, 4), st.data())
def test_gis_holds_and_idles_what_table_1_says(d: int, v: int, groups: int, data: st.DataObject) -> None:
    """Peak g(v-1)+d stages, bubble (d-1)(F+I) + (d-g)(v-1)(F+I-W): dv and (d-1)(F+I) in groups of d."""
    g = data.draw(st.integers(ceil(d / 2), d))
    result = run("gis", d, groups * g, v, options={"group": g})
    assert idle_s(result) == pytest.approx(2 * (d - 1) + (d - g) * (v - 1))
    assert stages_held(result, v) == pytest.approx(min(g * (v - 1) + d, groups * g * v))


@given(RANKS, STAGES, st.integers(1, 4), COPIED, st.floats(0, 1))
def test_copies_cost_nothing_while_out_and_back_take_no_longer_than_a_turn(
    d: int, v: int, groups: int, name: str, k: float
) -> None:
    d += 1
    batches = groups * ceil(d / 2)
    with_copies, without = run(name, d, batches, v, k), run("gis-h", d, batches, v)
    assert with_copies.makespan_s == pytest.approx(without.makespan_s)
    slow = run(name, d, batches, v, 3.0).makespan_s
    assert slow is not None
    assert with_copies.makespan_s is not None
    assert slow >= with_copies.makespan_s - 1e-9


@given(RANKS, STAGES, st.integers(1, 4), st.floats(0, 1))
def test_po_f_holds_four_stages_whatever_the_sizes(d: int, v: int, groups: int, k: float) -> None:
    assert stages_held(run("po-f", d, groups * ceil(d / 2), v, k), v) <= 4 + 1e-9


@pytest.mark.parametrize(("d", "v"), [(8, 2), (8, 4), (8, 6), (16, 4), (16, 8)])
@pytest.mark.parametrize("k", [0.5, 1.0])
def test_po_h_holds_about_what_table_1_says(d: int, v: int, k: float) -> None:
    """About (v+2)/(8v) of a micro-batch in the whole model, which are (v+2)d/8 stages; in flight are three more."""
    held = stages_held(run("po-h", d, 4 * d, v, k, options={"group": 1}), v)
    assert (v + 2) * d / 8 <= held + 1e-9
    assert held <= (v + 2) * d / 8 + 3 + 1e-9
    in_halves = stages_held(run("po-h", d, 4 * d, v, k), v)
    assert in_halves <= v / 2 * d / 2 + 2 + 1e-9
    assert in_halves < 0.6 * stages_held(run("gis-h", d, 4 * d, v), v)


def test_half_is_offloaded_for_nothing_even_if_copies_take_two_turns() -> None:
    far, near = (run("po-h", 8, 32, 4, 2.0, options={"apart": apart}) for apart in (2, 1))
    assert far.makespan_s == pytest.approx(run("gis-h", 8, 32, 4).makespan_s)
    assert near.makespan_s is not None
    assert far.makespan_s is not None
    assert near.makespan_s > 1.2 * far.makespan_s


@pytest.mark.parametrize(("hidden", "sequence", "ratio"), [(4096, 4096, 1.705), (8192, 4096, 0.918)])
def test_whether_it_pays_is_the_papers_ratio(hidden: int, sequence: int, ratio: float) -> None:
    """k = 10/(3(6h+s)) compute/PCIe: 20 bsh bytes a layer each way, 12 bsh(6h+s) FLOPs; A100 at 220 TFLOPS, 15 GB/s."""
    copied_s = 2 * 20 * sequence * hidden / 15e9
    computed_s = 12 * sequence * hidden * (6 * hidden + sequence) / 220e12
    assert copied_s / computed_s == pytest.approx(ratio, abs=0.001)
    once: dict[str, Any] = {
        "forward": computed_s / 3,
        "backward_input": computed_s / 3,
        "backward_weight": computed_s / 3,
    }
    without, with_copies = (
        simulate(schedule=name, ranks=8, micro_batches=32, offload=copied_s / 2, **once) for name in ("gis-h", "po-f")
    )
    assert with_copies.makespan_s is not None
    assert without.makespan_s is not None
    assert (with_copies.makespan_s > 1.001 * without.makespan_s) == (ratio > 1)


@settings(max_examples=20)
@given(COPIED, st.integers(2, 4), st.integers(2, 3), st.sampled_from([0.25, 1.0, 3.0]), st.integers(1, 2))
def test_memory_is_what_forwards_and_copies_leave_at_each_moment(
    name: str, d: int, v: int, k: float, groups: int
) -> None:
    played = timeline(run(name, d, groups * d, v, k))
    spans = list(tasks(played))
    for rank, one in enumerate(activations_over_time(played)):
        own = [span for span in spans if span.rank == rank]
        last = np.append(np.diff(one.at_s) > 1e-6, True)
        for at_s, total in zip(one.at_s[last].tolist(), one.total[last].tolist(), strict=True):
            behind_ns = round(at_s * 1e9) + 100
            there = sum(span.ops[0].kind in (F, L) and span.start_ns <= behind_ns for span in own)
            gone = sum(span.ops[0].kind in (B, W, O) and span.end_ns <= behind_ns for span in own)
            assert v * total == pytest.approx(there - gone, abs=1e-6)


@given(COPIED, st.integers(1, 5), STAGES, st.integers(1, 12), st.floats(0, 3))
def test_engines_agree_and_copies_take_none_of_a_ranks_time(name: str, d: int, v: int, batches: int, k: float) -> None:
    fast, slow = (run(name, d, batches, v, k, engine=engine) for engine in ("longest-path", "simpy"))
    assert slow.makespan_s == pytest.approx(fast.makespan_s)
    assert slow.peak_activations_by_rank == pytest.approx(fast.peak_activations_by_rank)
    assert busy_s(timeline(fast)) == pytest.approx([3 * v * batches] * d)
    assert fast.idle_s_by_cause is not None
    assert np.sum([*fast.idle_s_by_cause.values()], axis=0) == pytest.approx(idle_s_of_ranks(timeline(fast)))


def test_an_order_says_itself_what_is_copied_and_when() -> None:
    # 0O0 leaves as 0F0 ends; 0L0 stands behind 0F1 and waits for 0O1 too, as one stream does both; 0B0 waits for it.
    order = parse_order("0F0,0O0,0F1,0O1,0L0,0B0,0L1,0B1\n")
    played = timeline(simulate(schedule=order, forward=1, backward=2, offload=0.5))
    spans = {span.name: (span.start_ns / 1e9, span.end_ns / 1e9) for span in tasks(played)}
    assert spans == {
        "0F0": (0, 1), "0O0": (1, 1.5), "0F1": (1, 2), "0O1": (2, 2.5), "0L0": (2.5, 3), "0B0": (3, 5),
        "0L1": (5, 5.5), "0B1": (5.5, 7.5),
    }  # fmt: skip
    assert [row[1] for row in played.rows()].count(str(Lane.COPY)) == 4


def test_a_forward_waits_for_all_copies_out_but_the_last() -> None:
    order = parse_order("0F0,0O0,0F1,0O1,0F2,0O2,0L0,0B0,0L1,0B1,0L2,0B2\n")
    spans = {
        span.name: span.start_ns / 1e9
        for span in tasks(timeline(simulate(schedule=order, forward=1, backward=2, offload=3)))
    }
    assert (spans["0F1"], spans["0F2"], spans["0O2"]) == (1, 4, 7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0F0,0O0,0B0", "rank 0, cell 1: 0O0 lacks 0L0; what goes to the host comes back"),
        ("0F0,0L0,0B0", "rank 0, cell 1: 0L0 lacks 0O0; what goes to the host comes back"),
        ("0F0,0L0,0O0,0B0", "rank 0, cell 1: 0L0 comes before 0O0 (cell 2), which it needs"),
        ("0F0,0O0,0B0,0L0", "rank 0, cell 2: 0B0 comes before 0L0 (cell 3), which it needs"),
    ],
)
def test_what_is_wrong_with_copies_is_said_of_the_copy(text: str, said: str) -> None:
    assert said in [str(finding) for finding in check_order(text)]


def test_an_order_with_half_a_copy_does_not_run() -> None:
    with pytest.raises(
        ScheduleError, match="0O0 on rank 0: what it copies never comes back; an O and an L go together"
    ):
        simulate(schedule=parse_order("0F0,0O0,0B0\n"), forward=1, backward=1)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gis", {"group": 5}, "gis: group must be from 1 to the 4 ranks, got 5"),
        ("gis-h", {"stages_per_rank": 0}, "gis-h: stages_per_rank must be 1 or more, got 0"),
        ("po-f", {"apart": 0}, "po-f: apart must be 1 or more, got 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ScheduleError, match=said):
        build(name, 4, 8, **options)


LAYERS: dict[str, Any] = {
    "model": "llama3-8b",
    "gpu": "h100",
    "parallel": {"tensor": 1, "pipeline": 4},
    "training": {"global_batch": 8, "sequence_length": 4096},
}


def test_bytes_and_the_way_to_the_host_make_seconds_of_copies_by_layer() -> None:
    half = simulate(LAYERS, schedule="gis-h")
    full = simulate(LAYERS, schedule="po-f")
    played = timeline(full)
    graph = played.graph
    copies = np.flatnonzero(graph.on(Lane.COPY))
    assert copies.size
    # (H100: 55 GB/s; a layer of 8B keeps 34 to 60 bytes a token and hidden dimension without recomputation)
    a_token = graph.duration_s[copies] * 55e9 / (4096 * 4096)
    assert ((a_token > 20) & (a_token < 80)).all()
    assert half.memory is not None
    assert full.memory is not None
    activations = [max(run.over_time(0)[1][:, -1]) for run in (half.memory, full.memory)]
    assert activations[1] < 0.7 * activations[0]
    assert (full.memory.size_bytes >= 0).all()
    slow = simulate(LAYERS, schedule="po-f", **{"gpu.host": 1e9})
    assert slow.makespan_s is not None
    assert full.makespan_s is not None
    assert slow.makespan_s > 2 * full.makespan_s


def test_calibrated_costs_know_no_copies(tmp_path: Path) -> None:
    path = tmp_path / "costs.yaml"
    path.write_text("pipes: 1\nstages:\n  0: {F: 1 ms, I: 1 ms, W: 1 ms}\ntransfer: 0\n")
    config = {"pipeline": {"ranks": 4, "micro_batches": 8}, "costs": {"kind": "measured", "file": str(path)}}
    with pytest.raises(UserError, match="copies to the host, which no trace is read for"):
        simulate(config, schedule="po-f")
