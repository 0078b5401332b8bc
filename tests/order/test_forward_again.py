"""Recomputation as an op of its own: ``0R3`` runs the forward again, and waits for no gradient."""

from __future__ import annotations

from typing import Any

import pytest

from dualpipe_sim import build, simulate
from dualpipe_sim.analysis.held import held_by_rank
from dualpipe_sim.costs.measured import MeasuredCosts, OpTime, StageMemory
from dualpipe_sim.engine.play import play
from dualpipe_sim.errors import UnfitCostsError, UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.check import check_order
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import format_order, parse_order

TIMES: dict[str, Any] = {"forward": 1, "backward_input": 1, "backward_weight": 1, "transfer": 0.5}
LATE = "0F0,0F1,0R0,0B0,0R1,0B1\n1F0,1R0,1B0,1F1,1R1,1B1\n"
"""On rank 0, R0 runs while the gradient is on its way."""


def with_forwards_again(schedule: Schedule) -> str:
    """Put an R right before every backward."""
    rows = []
    for row in schedule.order:
        cells: list[str] = []
        for task in row:
            for op in task.ops:
                cells += [f"{op.stage}R{op.micro_batch}"] * (str(op.kind) in "BI")
            cells.append(str(task))
        rows.append(",".join(cells))
    return "\n".join(rows) + "\n"


def test_it_is_an_op_with_a_text_form() -> None:
    order = parse_order(LATE)
    assert format_order(order) == LATE
    assert not check_order(LATE)


def test_it_fills_time_in_which_its_rank_waits_for_a_gradient() -> None:
    # Rank 1: F0 1.5 to 2.5 s, R0 to 3.5, B0 to 5.5; the gradient is on rank 0 at 6 s. R0 of rank 0 has run by 3 s.
    plain = simulate(schedule="0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n", **TIMES)
    again = simulate(schedule=LATE, **TIMES)
    starts = {task: start for _, lane, task, start, _ in again.played.rows() if lane == "compute"}
    assert (starts["0R0"], starts["0B0"]) == (2.0, 6.0)
    assert (plain.makespan_s, again.makespan_s) == (10.0, 12.0)


@pytest.mark.parametrize("engine", ["simpy", "longest-path"])
@pytest.mark.parametrize("runtime", ["ideal", "torch"])
def test_every_engine_and_runtime_plays_it(engine: str, runtime: str) -> None:
    text = with_forwards_again(build("interleaved-1f1b", 2, 4, stages_per_rank=2))
    settings: dict[str, Any] = {"pipeline.runtime": runtime, "engine": engine}
    assert simulate(schedule=text, **TIMES, **settings).makespan_s


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0R0,0F0,0B0", "0R0 comes before 0F0"),
        ("0F0,0B0,0R0", "0B0 comes before 0R0"),
        ("0F0,0R0,0R0,0B0", "0R0 is there already"),
        ("0F0,0R0,0W0,0I0", "0W0 comes before 0I0"),
    ],
)
def test_where_it_may_stand(text: str, said: str) -> None:
    assert any(said in str(finding) for finding in check_order(text))
    with pytest.raises(UserError, match=said):
        simulate(schedule=text, **TIMES)


SMALL: dict[str, Any] = {
    "pipeline": {"ranks": 2, "micro_batches": 4},
    "costs": {"kind": "layers"},
    "model": {"preset": "gpt-1.5b"},
    "gpu": "a100",
    "cluster": "a100-ib",
    "training": {"sequence_length": 1024, "precision": "bf16", "optimizer": False, "gradient_reduction": "none"},
}


def of_model(schedule: object, recompute: str) -> Any:  # noqa: ANN401
    return simulate(SMALL | {"schedule": schedule}, **{"training.recompute": recompute})


def test_layers_take_in_r_and_backward_together_what_a_recomputing_backward_takes() -> None:
    inside = of_model("1f1b", "full")
    apart = of_model(with_forwards_again(build("1f1b", 2, 4)), "full")
    lengths = [
        {task: end - start for _, lane, task, start, end in spans(result) if lane == "compute"}
        for result in (inside, apart)
    ]
    for stage in (0, 1):
        together = lengths[1][f"{stage}R0"] + lengths[1][f"{stage}B0"]
        assert together == pytest.approx(lengths[0][f"{stage}B0"], rel=1e-9)
    assert apart.makespan_s <= inside.makespan_s * (1 + 1e-9)


def spans(result: Any) -> list[tuple[int, str, str, float, float]]:  # noqa: ANN401
    """Return whole tasks of a timeline, as rows."""
    timeline = result.played
    schedule = timeline.graph.schedule
    return [
        (int(timeline.rank[task]), "compute", str(schedule.task(task)), float(start), float(end))
        for task, (start, end) in enumerate(zip(timeline.task_start_s, timeline.task_end_s, strict=True))
    ]


def test_what_it_brings_is_there_from_its_start_to_the_backwards_end() -> None:
    text = with_forwards_again(build("1f1b", 2, 4))
    inside, apart = of_model("1f1b", "full"), of_model(text, "full")
    none = of_model("1f1b", "none")
    assert inside.memory is not None
    assert apart.memory is not None
    assert none.memory is not None
    assert inside.memory.peak_bytes_by_rank.tolist() <= apart.memory.peak_bytes_by_rank.tolist()
    assert (apart.memory.peak_bytes_by_rank < none.memory.peak_bytes_by_rank).all()
    for memory in (inside.memory, apart.memory):
        last = memory.over_time(0)[1][-1]
        assert last[-1] == 0, "all activations are gone in the end"


def test_layers_that_are_not_recomputed_have_no_forward_again() -> None:
    with pytest.raises(UnfitCostsError, match=r"training\.recompute: the order runs forwards again \(R\)"):
        of_model(with_forwards_again(build("1f1b", 2, 4)), "none")


def test_measured_memory_does_not_say_what_it_holds() -> None:
    ops: dict[tuple[int, int], OpTime] = {(kind, stage): OpTime(1.0) for kind in (F, B) for stage in (0, 1)}
    holds = {stage: StageMemory(activation=100) for stage in (0, 1)}
    costs = MeasuredCosts("a run", 2, 1, ops, {}, 0.0, memory=holds)
    plain = play(lower(build("1f1b", 2, 2), costs))
    again = play(lower(parse_order(LATE), costs))
    assert held_by_rank(plain).tolist() == [200, 100]  # type: ignore[union-attr]
    assert held_by_rank(again) is None
