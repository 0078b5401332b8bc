"""Costs out of timelines: a simulated run measures back to itself, and times worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim import UserError, simulate
from dualpipe_sim.calibration import calibrate, write_costs
from dualpipe_sim.export import write_hta
from dualpipe_sim.result import Result

if TYPE_CHECKING:
    from tests.calibration.conftest import RunFile

DEPTHS = {
    "forward": ["10 ms", "11 ms", "12.5 ms", "9 ms"],
    "backward_input": ["10 ms", "13 ms", "12 ms", "8 ms"],
    "backward_weight": ["7 ms", "8 ms", "9 ms", "10 ms"],
}

UNEVEN: dict[str, object] = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "costs": {**DEPTHS, "overlapped": ["25 ms", "28 ms", "30 ms", "27 ms"], "transfer": "1.7 ms"},
}


@pytest.mark.parametrize(
    "schedule",
    [
        "gpipe", "1f1b", "zb-h1", "zb-v", "dualpipe", "dualpipev", "chimera", "1f1b-overlap",
        {"name": "interleaved-1f1b", "stages_per_rank": 2}, {"name": "chimera", "pairs": 2},
    ],
    ids=str,
)  # fmt: skip
def test_a_simulated_run_measures_back_to_itself(run_file: RunFile, tmp_path: Path, schedule: object) -> None:
    config = {**UNEVEN, "schedule": schedule}
    there = simulate(config).played
    write_costs(calibrate([run_file(there.rows())]), tmp_path / "costs.yaml")
    back = simulate({**config, "costs": {"kind": "measured", "file": str(tmp_path / "costs.yaml")}}).played
    assert back.makespan_s == pytest.approx(there.makespan_s, rel=1e-9)
    assert back.task_start_s == pytest.approx(there.task_start_s, rel=1e-9, abs=1e-12)
    assert back.end_s == pytest.approx(there.end_s, rel=1e-9, abs=1e-12)


def test_costs_of_one_run_predict_another(run_file: RunFile, tmp_path: Path) -> None:
    """From zb-h1 with 8 micro-batches to dualpipe's two pipes with 12, and to half as many, deeper stages."""
    run = run_file(simulate({**UNEVEN, "schedule": "zb-h1"}).played.rows())
    write_costs(calibrate([run]), tmp_path / "costs.yaml")
    costs = {"kind": "measured", "file": str(tmp_path / "costs.yaml")}
    same = {**DEPTHS, "transfer": "1.7 ms"}
    joined = {key: [f"{sum(map(milli, times[i : i + 2]))} ms" for i in (0, 2)] for key, times in DEPTHS.items()}
    for ranks, schedule, known in (
        (4, "dualpipe", same),
        (4, "1f1b", same),
        (2, "1f1b", {**joined, "transfer": "1.7 ms"}),
    ):
        config = {"pipeline": {"ranks": ranks, "micro_batches": 12}, "schedule": schedule}
        predicted = simulate({**config, "costs": costs}).makespan_s
        assert predicted == pytest.approx(simulate({**config, "costs": known}).makespan_s, rel=1e-9)


def milli(time: str) -> float:
    return float(time.removesuffix(" ms"))


def test_layers_phases_are_left_out(run_file: RunFile, short_v3: Result) -> None:
    run = run_file(short_v3.played.rows())
    with pytest.raises(UserError, match=r"no op was found; left out were [0-9]+ phases of ops; only whole ops count"):
        calibrate([run])


def test_launches_are_shared_out_by_their_mean(run_file: RunFile) -> None:
    """0F1 follows at once, 0F2 after 3 ms; when 0F0 could start nobody knows."""
    file = run_file("0,compute,0F0,0,0.01\n0,compute,0F1,0.01,0.02\n0,compute,0F2,0.023,0.033\n")
    assert calibrate([file]).ops[0]["F"].launch_s == pytest.approx(0.0015)


def test_receives_belong_to_the_step_that_they_come_in(run_file: RunFile) -> None:
    """Only the second step's receive is written down: there 1F0 starts 1 ms after its input, which took 2 ms."""
    first = "0,compute,0F0,0,0.01\n1,compute,1F0,0.011,0.021\n"
    second = "0,compute,0F0,1,1.01\n1,recv,1RECV_F0,1.01,1.012\n1,compute,1F0,1.013,1.023\n"
    costs = calibrate([run_file(first + second)], warm_up=0)
    assert costs.transfer is not None
    assert costs.transfer == pytest.approx((0.0015, 0.00105, 0.00195, 2))
    assert costs.ops[1]["F"].launch_s == pytest.approx(0.0005)


def test_tensors_from_the_future_say_that_clocks_disagree(run_file: RunFile) -> None:
    costs = calibrate([run_file("0,compute,0F0,5,6\n1,compute,1F0,0,1\n")], pipes=1)
    assert costs.left_out == {"tensors that came before they were sent; the clocks of ranks disagree": 1}
    assert costs.transfer is None


@pytest.mark.parametrize(
    ("schedule", "pipes"),
    [("1f1b", 1), ("dualpipev", 1), ("dualpipe", 2), ({"name": "chimera", "pairs": 2}, 4)],
    ids=str,
)
def test_opposed_pipes_are_told_apart(run_file: RunFile, schedule: object, pipes: int) -> None:
    """DualPipe's stages lie on the same ranks as DualPipeV's."""
    run = run_file(simulate({**UNEVEN, "schedule": schedule}).played.rows())
    assert calibrate([run]).pipes == pipes


def test_pipes_of_unequal_length_are_refused(run_file: RunFile) -> None:
    file = run_file("0,compute,0F0,0,1\n0,compute,1F0,1,2\n1,compute,2F0,0,1\n")
    with pytest.raises(UserError, match=r"pipes seem to begin with stages \[0, 2\] of 3, .* --pipes"):
        calibrate([file])
    with pytest.raises(UserError, match="--pipes 2: 3 stages do not make up 2 equally long pipes"):
        calibrate([file], pipes=2)


def test_traces_that_were_simulated_measure_like_real_ones(tmp_path: Path) -> None:
    """Traces for HTA are those of a GPU, in whole microseconds: a launch and a kernel each."""
    played = simulate({**UNEVEN, "schedule": "1f1b"}).played
    write_hta(played, tmp_path / "traces")
    costs = calibrate(sorted((tmp_path / "traces").iterdir()))
    forwards_s = [costs.ops[stage]["F"].time.median_s for stage in range(4)]
    assert forwards_s == pytest.approx([milli(one) / 1000 for one in DEPTHS["forward"]], abs=1e-6)
    assert costs.transfer is not None
    assert costs.transfer.median_s == pytest.approx(0.0017, abs=2e-6)
    assert max(one.launch_s for ops in costs.ops.values() for one in ops.values()) < 2e-6
