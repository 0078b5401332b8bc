"""Costs out of real runs: traces worked out by hand, timelines there and back, and torch's own profiler."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import ScheduleError, Timeline, UserError, compare, simulate
from dualpipe_sim.calibration import Calibration, calibrate, read_recording, write_costs
from dualpipe_sim.costs.measured import MeasuredCosts, OpTime
from dualpipe_sim.export import write_hta
from dualpipe_sim.order.ops import B, F, I, W
from dualpipe_sim.order.placement import linear, loop, opposed, v_shape

CommandLine: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"
Event: TypeAlias = "dict[str, Any]"

BASE_NS = 1_790_857_026_000_000_000
MAIN, AUTOGRAD = 1, 2


# --- traces by hand ----------------------------------------------------------------------------------------------


def event(name: str, start: float, end: float, category: str = "user_annotation", **more: object) -> Event:
    """An event from one microsecond to another."""
    return {"ph": "X", "cat": category, "name": name, "pid": 9, "tid": MAIN, "ts": start, "dur": end - start, **more}


def milliseconds(name: str, start: float, end: float) -> Event:
    return event(name, 1000 * start, 1000 * end)


def launch(correlation: int, at: float, thread: int = MAIN) -> Event:
    arguments = {"correlation": correlation}
    return event("cudaLaunchKernel", at, at + 1, "cuda_runtime", tid=thread, args=arguments)


def kernel(correlation: int, start: float, end: float, name: str = "gemm", stream: int = 7) -> Event:
    return event(name, start, end, "kernel", pid=0, tid=stream, args={"correlation": correlation, "stream": stream})


def trace(rank: int, *events: Event, **header: object) -> dict[str, object]:
    return {"distributedInfo": {"rank": rank}, "baseTimeNanoseconds": BASE_NS, "traceEvents": list(events), **header}


def measured(folder: Path, *traces: object, **options: Any) -> Calibration:  # noqa: ANN401
    files = [folder / f"trace{position}.json" for position in range(len(traces))]
    for file, one in zip(files, traces, strict=True):
        file.write_text(json.dumps(one))
    return calibrate(files, **options)


def cpu_step(begin: float, forward: float, backward: float) -> tuple[list[Event], list[Event]]:
    """Two ranks, one micro-batch, in milliseconds: each transfer takes 2, the host 0.5 between 1F0 and 1B0.

    As torch and gloo write it: a receive is posted in its own range, and lasts until the op that waits for it has it.
    """
    there = begin + forward + 2
    turn = there + forward + 0.5
    back = turn + backward + 2
    first = [
        milliseconds("PP:0F0", begin, begin + forward),
        milliseconds("PP:0SEND_F0", begin + forward, begin + forward + 0.1),
        milliseconds("gloo:send", begin + forward + 0.05, back + backward + 5),
        milliseconds("PP:0RECV_B0", begin + forward + 0.1, begin + forward + 0.2),
        milliseconds("gloo:recv", begin + forward + 0.15, back),
        milliseconds("PP:0B0", begin + forward + 0.3, back + backward),
        milliseconds("PP:0REDUCE_GRAD", back + backward, back + backward + 0.1),
    ]
    second = [
        milliseconds("PP:1RECV_F0", begin, begin + 0.1),
        milliseconds("gloo:recv", begin + 0.05, there),
        milliseconds("PP:1F0", begin + 0.1, there + forward),
        milliseconds("PP:1B0", turn, turn + backward),
        milliseconds("PP:1SEND_B0", turn + backward, turn + backward + 0.1),
    ]
    return first, second


def test_on_a_cpu_an_op_is_its_range_without_the_wait(tmp_path: Path) -> None:
    first, second = cpu_step(3, forward=10, backward=20)
    costs = measured(tmp_path, trace(0, *first), trace(1, *second))
    medians = {f"{stage}{kind}": one.time.median_s for stage, ops in costs.ops.items() for kind, one in ops.items()}
    assert medians == pytest.approx({"0F": 0.010, "0B": 0.020, "1F": 0.010, "1B": 0.020})
    assert costs.transfer is not None
    assert costs.transfer == pytest.approx((0.002, 0.002, 0.002, 2))
    assert costs.ops[1]["B"].launch_s == pytest.approx(0.0005)
    assert costs.ops[1]["F"].launch_s == pytest.approx(0.0)
    assert costs.left_out == {"ranges of REDUCE_GRAD, which is no op": 1}


def test_times_of_ranks_compare_by_their_base(tmp_path: Path) -> None:
    """The second rank's zero is one second before the first one's."""
    first, second = cpu_step(3, forward=10, backward=20)
    moved = [{**one, "ts": one["ts"] + 1e6} for one in second]
    costs = measured(tmp_path, trace(0, *first), trace(1, *moved, baseTimeNanoseconds=BASE_NS - 10**9))
    assert costs.transfer is not None
    assert costs.transfer.median_s == pytest.approx(0.002)


def test_the_first_step_is_left_out_and_medians_are_over_the_others(tmp_path: Path) -> None:
    steps = [cpu_step(5000 * step, forward, 20) for step, forward in enumerate((500, 10, 12, 30))]
    traces = [trace(rank, *(one for step in steps for one in step[rank])) for rank in (0, 1)]
    costs = measured(tmp_path, *traces)
    assert costs.ops[0]["F"].time.median_s == pytest.approx(0.012)
    assert costs.ops[0]["F"].time.samples == 3
    assert (costs.steps, costs.left_out["ops in the first step"]) == (3, 4)
    assert measured(tmp_path, *traces, warm_up=3).ops[0]["F"].time.median_s == pytest.approx(0.030)
    assert measured(tmp_path, *traces, warm_up=9).ops[0]["F"].time.samples == 1


def test_p5_and_p95_hold_nine_tenths_between_them(tmp_path: Path) -> None:
    events = [milliseconds("PP:0F0", 1000 * step, 1000 * step + step) for step in range(101)]
    time_s = measured(tmp_path, trace(0, *events), warm_up=0).ops[0]["F"].time
    assert time_s == pytest.approx((0.050, 0.005, 0.095, 101))


def test_ranges_cut_off_by_the_end_of_the_profile_are_left_out(tmp_path: Path) -> None:
    whole = milliseconds("PP:0F0", 0, 10)
    cut = event("PP:0F1", 10_000, 11_000, args={"finished": False})
    costs = measured(tmp_path, trace(0, whole, cut))
    assert costs.ops[0]["F"].time.samples == 1
    assert costs.left_out == {"ranges cut off by the end of the profile": 1}


def test_where_the_profiler_numbers_steps_only_ops_inside_them_count(tmp_path: Path) -> None:
    steps = [milliseconds(f"ProfilerStep#{number}", 100 * number, 100 * number + 90) for number in (5, 6)]
    ops = [milliseconds("PP:0F0", at, at + length) for at, length in ((495, 1), (510, 70), (610, 20))]
    costs = measured(tmp_path, trace(0, *steps, *ops))
    assert costs.ops[0]["F"].time == pytest.approx((0.020, 0.020, 0.020, 1))
    assert costs.left_out["actions outside of every ProfilerStep"] == 1


def test_an_overlapped_pair_counts_as_one(tmp_path: Path) -> None:
    pair = milliseconds("PP:(0F1;3B0)OVERLAP_F_B", 10, 40)
    halves = [milliseconds("PP:0F1", 10, 20), milliseconds("PP:3B0", 21, 40)]
    costs = measured(tmp_path, trace(0, milliseconds("PP:0F0", 0, 9), pair, *halves), pipes=1)
    assert list(costs.pairs) == [(0, 3)]
    assert costs.pairs[0, 3].time.median_s == pytest.approx(0.030)
    assert costs.ops[0]["F"].time.samples == 1
    assert costs.left_out == {"ranges of ops inside another op's range, which counts as one": 2}


def test_a_wait_that_no_receive_ends_is_no_work(tmp_path: Path) -> None:
    """0F1 ends while 1F1's range is already open, and nothing tells its wait from its work; 1F0 waited for nothing."""
    first = trace(0, milliseconds("PP:0F0", 0, 10), milliseconds("PP:0F1", 10, 40))
    second = trace(1, milliseconds("PP:1F0", 12, 22), milliseconds("PP:1F1", 23, 52))
    costs = measured(tmp_path, first, second)
    assert costs.ops[1]["F"].time == pytest.approx((0.010, 0.010, 0.010, 1))
    assert costs.left_out == {"ops that may have waited inside their range, with no receive to say until when": 1}


def gpu_rank0() -> list[Event]:
    """0F0 launches from 0 on; its kernels run 100-160, 150-200 and 210-250 us: 140 at work, 10 of gap.

    0F1's kernels run 255-355 us: 100 at work, and it could have started at 250. NCCL's kernel of 0SEND_F0 waits for the
    receiver: 250-330 us. 0F0 has a kernel of NCCL of its own, on another stream, beside the others.
    """
    return [
        event("PP:0F0", 0, 50),
        event("PP:0F0", 100, 250, "gpu_user_annotation", pid=0, tid=7),
        launch(1, 10), kernel(1, 100, 160),
        launch(2, 20, AUTOGRAD), kernel(2, 150, 200, stream=8),
        launch(3, 30), kernel(3, 210, 250),
        launch(4, 40), kernel(4, 120, 190, "ncclDevKernel_AllReduce", stream=9),
        event("PP:0SEND_F0", 50, 60),
        launch(5, 55), kernel(5, 250, 330, "ncclDevKernel_SendRecv", stream=20),
        event("PP:0F1", 60, 80),
        launch(6, 70), kernel(6, 255, 355),
    ]  # fmt: skip


def gpu_rank1() -> list[Event]:
    """The receive takes 300-330 us, the transfer; 1F0 works 333-433 us."""
    return [
        event("PP:1RECV_F0", 0, 10),
        launch(1, 5), kernel(1, 300, 330, "ncclDevKernel_SendRecv", stream=20),
        event("PP:1F0", 10, 30),
        launch(2, 20), kernel(2, 333, 433),
    ]  # fmt: skip


def test_on_a_gpu_an_op_is_its_kernels_merged_without_those_of_nccl(tmp_path: Path) -> None:
    costs = measured(tmp_path, trace(0, *gpu_rank0()), trace(1, *gpu_rank1()))
    assert costs.ops[0]["F"].time == pytest.approx((120e-6, 102e-6, 138e-6, 2))  # of 140 and 100
    assert costs.ops[1]["F"].time.median_s == pytest.approx(100e-6)
    assert costs.left_out == {"ops whose own NCCL kernels do not count as their time": 1}


def test_on_a_gpu_launches_add_their_gaps(tmp_path: Path) -> None:
    """Of 0F0 nothing says when it could start; 0F1 starts 5 us late, 1F0 3 us after its input."""
    costs = measured(tmp_path, trace(0, *gpu_rank0()), trace(1, *gpu_rank1()))
    assert costs.ops[0]["F"].launch_s == pytest.approx(5e-6)
    assert costs.ops[1]["F"].launch_s == pytest.approx(3e-6)


def test_a_transfer_is_the_shorter_of_both_sides_kernels(tmp_path: Path) -> None:
    costs = measured(tmp_path, trace(0, *gpu_rank0()), trace(1, *gpu_rank1()))
    assert costs.transfer is not None
    assert costs.transfer == pytest.approx((30e-6, 30e-6, 30e-6, 1))
    alone = measured(tmp_path, trace(0, *gpu_rank0()))
    assert alone.transfer is not None
    assert alone.transfer.median_s == pytest.approx(80e-6)
    assert "of no tensor are both sides" in alone.transfer_rule


def test_launches_without_their_kernels_leave_an_op_out(tmp_path: Path) -> None:
    """The profile ended before the second kernel of 0F1 was done."""
    events = [*gpu_rank0(), launch(7, 75)]
    costs = measured(tmp_path, trace(0, *events))
    assert costs.ops[0]["F"].time == pytest.approx((140e-6, 140e-6, 140e-6, 1))
    assert costs.left_out["ops with launches whose kernels are not in the trace"] == 1


def test_what_launches_nothing_takes_no_time(tmp_path: Path) -> None:
    """Torch's I of a first stage does nothing; its W runs the whole backward."""
    costs = measured(tmp_path, trace(0, *gpu_rank0(), event("PP:0I0", 90, 91)))
    assert costs.ops[0]["I"].time.median_s == 0.0


def test_a_trace_whose_kernels_belong_to_no_launch_is_refused(tmp_path: Path) -> None:
    events = [one for one in gpu_rank0() if one["cat"] != "cuda_runtime"]
    with pytest.raises(UserError, match=r"trace0\.json: no kernel has the args\.correlation of a launch"):
        measured(tmp_path, trace(0, *events))


def test_gzipped_traces_are_the_same(tmp_path: Path) -> None:
    text = json.dumps(trace(0, *gpu_rank0()))
    (tmp_path / "plain.json").write_text(text)
    (tmp_path / "packed.pt.trace.json.gz").write_bytes(gzip.compress(text.encode()))
    plain, packed = (calibrate([tmp_path / name]) for name in ("plain.json", "packed.pt.trace.json.gz"))
    assert (plain.ops, plain.transfer) == (packed.ops, packed.transfer)


def test_names_of_ones_own_are_mapped(tmp_path: Path) -> None:
    """Torch's schedules of one stage a rank call their ranges Forward 0 and Backward 0, the rank being the stage."""
    first = [milliseconds("Forward 0", 0, 10), milliseconds("Backward 0", 40, 60), milliseconds("loss", 60, 61)]
    second = [milliseconds("Forward 0", 10, 20), milliseconds("Backward 0", 20, 40)]
    maps = (r"Forward (\d+)={rank}F\1", r"Backward (\d+)={rank}B\1")
    costs = measured(tmp_path, trace(0, *first), trace(1, *second), maps=maps)
    assert {stage: set(ops) for stage, ops in costs.ops.items()} == {0: {"F", "B"}, 1: {"F", "B"}}
    assert costs.ops[0]["B"].time.median_s == pytest.approx(0.020)


def test_ranks_come_from_the_file_name_where_the_trace_has_none(tmp_path: Path) -> None:
    file = tmp_path / "host7-rank_3.json"
    file.write_text(json.dumps([milliseconds("PP:3F0", 0, 10)]))
    assert read_recording([file]).rank_source == {3: str(file)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with the line rank,lane,task,start_s,end_s, got ''"),
        ("{", "is no JSON (line 1, column 2:"),
        ("{}", "has no list 'traceEvents'"),
        ("[]", "no op was found; ranges must be named 'PP:' + action, or be mapped by --map"),
        ("[3]", "event 0 is '3', not a mapping of keys"),
        ('{"traceEvents": [], "baseTimeNanoseconds": "x"}', "baseTimeNanoseconds must be a whole number, got 'x'"),
        ('[{"ph": "X", "cat": "kernel", "name": "k", "ts": "x"}]', "event 0 ('k'): ts must be microseconds, got 'x'"),
        ('[{"ph": "X", "cat": "user_annotation", "name": "PP:boo", "ts": 1}]', "1 PP: ranges that name no action"),
        ("rank,lane,task,start_s,end_s\n0,compute,0F0,0\n", "line 2: must have 5 cells"),
        ("rank,lane,task,start_s,end_s\n0,gpu,0F0,0,1\n", "lane must be compute, alltoall, send, recv, got 'gpu'"),
        ("rank,lane,task,start_s,end_s\n-1,compute,0F0,0,1\n", "line 2: rank must be a whole number, got '-1'"),
        ("rank,lane,task,start_s,end_s\n0,compute,0X0,0,1\n", "line 2: '0X0' is no task"),
        ("rank,lane,task,start_s,end_s\n0,compute,0F0,0,nan\n", "line 2: end_s must be a number of seconds, got 'nan'"),
        ("rank,lane,task,start_s,end_s\n0,compute,0F0,2,1\n", "line 2: 0F0 ends at 1.0 s, before it starts at 2.0 s"),
        ("rank,lane,task,start_s,end_s\n", "no op was found"),
        ('rank,lane,task,start_s,end_s\n0,"comp', "line 2: is no CSV"),
    ],
)  # fmt: skip
def test_junk_is_one_clear_line(command_line: CommandLine, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "junk.txt"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        calibrate([file])
    assert str(refused.value).startswith(f"{file}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[" + b"1," * 999)[:-20])
    (tmp_path / "bytes.json").write_bytes(b'{"traceEvents": "\xff"}')
    for name, said in (
        ("none.json", "No such file"),
        ("cut.json.gz", "cut off"),
        ("bytes.json", "not UTF-8"),
        ("", "directory"),
    ):
        with pytest.raises(UserError, match=said):
            calibrate([tmp_path / name])


def test_two_files_of_one_rank_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trace1\.json: rank 0 is also in .*trace0\.json; give the files of one run"):
        measured(tmp_path, trace(0, milliseconds("PP:0F0", 0, 1)), trace(0, milliseconds("PP:0F0", 0, 1)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Forward", "must be REGEX=ACTION"),
        ("(=0F1", "'(' is no regular expression"),
        (r"Forward (\d+)=0X\1", "the range 'Forward 0' becomes no action: '0X0' is no task"),
        (r"Forward (\d+)=0F\2", "invalid group reference"),
    ],
)
def test_a_wrong_map_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        measured(tmp_path, trace(0, milliseconds("Forward 0", 0, 1)), maps=[text])
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"--map {text}: ")


junk = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)


@given(data=st.data())
def test_a_damaged_trace_never_raises_anything_but_a_user_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged: dict[str, Any] = trace(0, *gpu_rank0())
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = data.draw(
            st.sampled_from(
                [damaged, *damaged["traceEvents"]] if isinstance(damaged["traceEvents"], list) else [damaged]
            )
        )
        if isinstance(place, dict) and place:
            place[data.draw(st.sampled_from(sorted(place)))] = data.draw(junk)
    try:
        measured(tmp_path_factory.mktemp("damaged"), damaged)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - there need be no error


# --- there and back ----------------------------------------------------------------------------------------------

DEPTHS = {
    "forward": ["10 ms", "11 ms", "12.5 ms", "9 ms"],
    "backward_input": ["10 ms", "13 ms", "12 ms", "8 ms"],
    "backward_weight": ["7 ms", "8 ms", "9 ms", "10 ms"],
}
UNEVEN: dict[str, object] = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "costs": {**DEPTHS, "overlapped": ["25 ms", "28 ms", "30 ms", "27 ms"], "transfer": "1.7 ms"},
}


def timeline_text(timeline: Timeline) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(("rank", "lane", "task", "start_s", "end_s"))
    writer.writerows(timeline.rows())
    return file.getvalue()


@pytest.mark.parametrize(
    "schedule",
    [
        "gpipe", "1f1b", "zb-h1", "zb-v", "dualpipe", "dualpipev", "chimera", "1f1b-overlap",
        {"name": "interleaved-1f1b", "stages_per_rank": 2}, {"name": "chimera", "pairs": 2},
    ],
    ids=str,
)  # fmt: skip
def test_a_simulated_run_measures_back_to_itself(tmp_path: Path, schedule: object) -> None:
    config = {**UNEVEN, "schedule": schedule}
    there = simulate(config).played
    (tmp_path / "timeline.csv").write_text(timeline_text(there))
    write_costs(calibrate([tmp_path / "timeline.csv"]), tmp_path / "costs.yaml")
    back = simulate({**config, "costs": {"kind": "measured", "file": str(tmp_path / "costs.yaml")}}).played
    assert back.makespan_s == pytest.approx(there.makespan_s, rel=1e-9)
    assert back.task_start_s == pytest.approx(there.task_start_s, rel=1e-9, abs=1e-12)
    assert back.end_s == pytest.approx(there.end_s, rel=1e-9, abs=1e-12)


def test_costs_of_one_run_predict_another(tmp_path: Path) -> None:
    """From zb-h1 with 8 micro-batches to dualpipe's two pipes with 12, and to half as many, deeper stages."""
    (tmp_path / "timeline.csv").write_text(timeline_text(simulate({**UNEVEN, "schedule": "zb-h1"}).played))
    write_costs(calibrate([tmp_path / "timeline.csv"]), tmp_path / "costs.yaml")
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


def test_layers_phases_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "timeline.csv").write_text(timeline_text(simulate("deepseek_v3", micro_batches=32).played))
    with pytest.raises(UserError, match=r"no op was found; left out were [0-9]+ phases of ops; only whole ops count"):
        calibrate([tmp_path / "timeline.csv"])


def timeline_file(folder: Path, rows: str) -> Path:
    (folder / "timeline.csv").write_text("rank,lane,task,start_s,end_s\n" + rows)
    return folder / "timeline.csv"


def test_launches_are_shared_out_by_their_mean(tmp_path: Path) -> None:
    """0F1 follows at once, 0F2 after 3 ms; when 0F0 could start nobody knows."""
    file = timeline_file(tmp_path, "0,compute,0F0,0,0.01\n0,compute,0F1,0.01,0.02\n0,compute,0F2,0.023,0.033\n")
    assert calibrate([file]).ops[0]["F"].launch_s == pytest.approx(0.0015)


def test_receives_belong_to_the_step_that_they_come_in(tmp_path: Path) -> None:
    """Only the second step's receive is written down: there 1F0 starts 1 ms after its input, which took 2 ms."""
    first = "0,compute,0F0,0,0.01\n1,compute,1F0,0.011,0.021\n"
    second = "0,compute,0F0,1,1.01\n1,recv,1RECV_F0,1.01,1.012\n1,compute,1F0,1.013,1.023\n"
    costs = calibrate([timeline_file(tmp_path, first + second)], warm_up=0)
    assert costs.transfer is not None
    assert costs.transfer == pytest.approx((0.0015, 0.00105, 0.00195, 2))
    assert costs.ops[1]["F"].launch_s == pytest.approx(0.0005)


def test_tensors_from_the_future_say_that_clocks_disagree(tmp_path: Path) -> None:
    costs = calibrate([timeline_file(tmp_path, "0,compute,0F0,5,6\n1,compute,1F0,0,1\n")], pipes=1)
    assert costs.left_out == {"tensors that came before they were sent; the clocks of ranks disagree": 1}
    assert costs.transfer is None


@pytest.mark.parametrize(
    ("schedule", "pipes"),
    [("1f1b", 1), ("dualpipev", 1), ("dualpipe", 2), ({"name": "chimera", "pairs": 2}, 4)],
    ids=str,
)
def test_opposed_pipes_are_told_apart(tmp_path: Path, schedule: object, pipes: int) -> None:
    """DualPipe's stages lie on the same ranks as DualPipeV's."""
    played = simulate({**UNEVEN, "schedule": schedule}).played
    (tmp_path / "timeline.csv").write_text(timeline_text(played))
    assert calibrate([tmp_path / "timeline.csv"]).pipes == pipes


def test_pipes_of_unequal_length_are_refused(tmp_path: Path) -> None:
    file = timeline_file(tmp_path, "0,compute,0F0,0,1\n0,compute,1F0,1,2\n1,compute,2F0,0,1\n")
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


# --- costs on stages ---------------------------------------------------------------------------------------------


def four_stages(**changes: object) -> MeasuredCosts:
    """Stages whose F takes 1, 2, 3 and 4 seconds, B 10 times that, with launches of 0.1 s."""
    ops = {
        (kind, stage): OpTime(factor * (stage + 1.0), 0.1) for kind, factor in ((F, 1), (B, 10)) for stage in range(4)
    }
    values: dict[str, Any] = {"source": "costs.yaml", "stages": 4, "pipes": 1, "ops": ops, **changes}
    return MeasuredCosts(**values)


def test_measured_stages_take_their_time_and_their_launch() -> None:
    costs = four_stages().on(linear(4))
    assert [costs.phases(((F, stage),))[0].duration_s for stage in range(4)] == pytest.approx([1.1, 2.1, 3.1, 4.1])
    assert costs.stage_s[B].tolist() == pytest.approx([10.1, 20.1, 30.1, 40.1])
    assert four_stages(launch=False).on(linear(4)).stage_s[F].tolist() == [1, 2, 3, 4]


def test_other_cuts_take_their_share_and_one_launch() -> None:
    """Two stages hold two measured ones each, eight half of one each, three 4/3 each; the model takes 10 s in all."""
    assert four_stages().on(linear(2)).stage_s[F].tolist() == pytest.approx([3.1, 7.1])
    assert four_stages().on(loop(4, 2)).stage_s[F].tolist() == pytest.approx([0.6, 0.6, 1.1, 1.1, 1.6, 1.6, 2.1, 2.1])
    thirds = [1 + 2 / 3 + 0.1, 2 * 2 / 3 + 3 * 2 / 3 + 0.1, 3 / 3 + 4 + 0.1]
    assert four_stages().on(linear(3)).stage_s[F].tolist() == pytest.approx(thirds)


def test_a_second_pipe_takes_its_own_times_or_those_of_the_first() -> None:
    assert four_stages().on(opposed(4)).stage_s[F].tolist() == pytest.approx([1.1, 2.1, 3.1, 4.1] * 2)
    own = {(F, stage): OpTime(float(stage)) for stage in range(8)}
    two = four_stages(pipes=2, ops=own)
    assert two.on(opposed(4)).stage_s[F].tolist() == list(range(8))
    assert two.on(linear(4)).stage_s[F].tolist() == [0, 1, 2, 3]
    assert two.on(opposed(2)).stage_s[F].tolist() == [1, 5, 9, 13]


def test_a_backward_is_its_halves_and_halves_are_no_backward() -> None:
    split = {
        (kind, stage): OpTime(seconds, 0.1) for kind, seconds in ((F, 1.0), (I, 2.0), (W, 3.0)) for stage in range(4)
    }
    assert four_stages(ops=split).on(linear(4)).stage_s[B].tolist() == pytest.approx([5.1] * 4)
    with pytest.raises(ScheduleError, match=r"costs\.yaml has no time for I of stage 0, only for F, B; calibrate with"):
        four_stages().on(linear(4)).phases(((I, 0),))
    with pytest.raises(
        ScheduleError, match=r"costs\.yaml has no time for stage 2; calibrate with the traces of all ranks"
    ):
        MeasuredCosts("costs.yaml", 4, 1, {(F, 3): OpTime(1.0)}).on(linear(4)).phases(((F, 2),))


def test_pairs_that_were_not_measured_gain_what_the_others_do() -> None:
    """0F;3B takes 33 s where F and B take 41 s, 3F;0B 10.1 s where they take 14 s: together 43.1/55."""
    pairs = {(0, 3): OpTime(33.0, 0.5), (3, 0): OpTime(10.1)}
    costs = four_stages(pairs=pairs)
    on_v = costs.on(linear(4))
    assert on_v.phases(((F, 0), (B, 3)))[0].duration_s == 33.5
    assert on_v.phases(((F, 1), (B, 1)))[0].duration_s == pytest.approx(22 * 43.1 / 55 + 0.1)
    halves = costs.on(v_shape(4))
    assert halves.phases(((F, 0), (B, 7)))[0].duration_s == pytest.approx(20.5 * 43.1 / 55 + 0.1)
    assert four_stages().on(linear(4)).phases(((F, 0), (B, 3)))[0].duration_s == pytest.approx(41.1)


COSTS = """
pipes: 1
transfer: 2 ms
stages:
  0: {F: 10 ms, B: {time: 20 ms, launch: 1 ms}}
  1: {F: 10 ms, B: 20 ms}
"""


def config_with(folder: Path, text: str, **costs: object) -> dict[str, object]:
    (folder / "costs.yaml").write_text(text)
    section = {"kind": "measured", "file": str(folder / "costs.yaml"), **costs}
    return {"pipeline": {"ranks": 2, "micro_batches": 1}, "schedule": "1f1b", "costs": section}


def test_a_configuration_runs_measured_costs(tmp_path: Path) -> None:
    """F, transfer, F, B, transfer, launch, B."""
    assert simulate(config_with(tmp_path, COSTS)).makespan_s == pytest.approx(0.065)
    assert simulate(config_with(tmp_path, COSTS, launch=False)).makespan_s == pytest.approx(0.064)
    assert simulate(config_with(tmp_path, COSTS, transfer="5 ms")).makespan_s == pytest.approx(0.071)
    # 300 MB at 100 GB/s take 3 ms.
    by_size = config_with(tmp_path, COSTS, transfer="300 MB", launch=False)
    cluster = {"nvlink": {"bandwidth": "100 GB/s"}}
    assert simulate({**by_size, "cluster": cluster}).makespan_s == pytest.approx(0.066)


def test_a_schedule_whose_ops_were_not_measured_is_refused_alone(tmp_path: Path) -> None:
    runs = compare({**config_with(tmp_path, COSTS), "compare": ["zb-h1", "1f1b"]}, micro_batches=2)
    assert [run.schedule for run in runs if run.error is None] == ["1f1b"]
    assert "has no time for I of stage 0" in str(runs[1].error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {}", "pipes: 0 stages do not make up 1 equally long pipes"),
        ("stages: 3", "stages: must be a mapping of keys, got 3"),
        ("stages: {a: {F: 1}}", "stages.a: must be a whole number, 0 or more, got 'a'"),
        ("stages: {0: {G: 1}}", "stages[0].G: unknown key (known: F, B, I, W)"),
        ("stages: {0: {F: fast}}", "stages[0].F.time: must be a time like 5 us or 18.5 ms, got 'fast'"),
        ("stages: {0: {F: {tim: 1}}}", "stages[0].F.tim: unknown key; did you mean 'time'?"),
        ("stages: {0: {F: 1}}\npairs: {7: 1}", "pairs"),
        ("stages: {0: {F: 1}}\npairs: {0F7B: 1}", "'0F7B' must be the stages of a forward and a backward, like 0F;7B"),
        ("stages: {0: {F: 1}}\npipes: 2", "pipes: 1 stages do not make up 2 equally long pipes"),
        ("pipes: 1", "stages: is missing"),
        ("just words", "must be a mapping of keys"),
    ],
)  # fmt: skip
def test_a_wrong_costs_file_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        simulate(config_with(tmp_path, text))
    assert f"{tmp_path / 'costs.yaml'}: " in str(refused.value)
    assert said in str(refused.value)


# --- the command, and torch itself -------------------------------------------------------------------------------


def test_the_command_writes_a_commented_file_that_runs(command_line: CommandLine, tmp_path: Path) -> None:
    steps = [cpu_step(1000 * step, 10 + step, 20) for step in range(3)]
    for rank in (0, 1):
        events = [one for step in steps for one in step[rank]]
        (tmp_path / f"rank{rank}.json").write_text(json.dumps(trace(rank, *events)))
    done = command_line("calibrate", tmp_path / "rank0.json", tmp_path / "rank1.json", "-o", tmp_path / "costs.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "left out: 4 ops in the first step" in done.stdout
    text = (tmp_path / "costs.yaml").read_text()
    assert "# From rank0.json, rank1.json\n" in text
    assert "#   4 ops in the first step\n" in text
    assert "    F: {time: 11.5 ms, launch: 0 s, p5: 11.05 ms, p95: 11.95 ms, samples: 2}\n" in text
    (tmp_path / "mine.yaml").write_text(
        "{pipeline: {ranks: 2, micro_batches: 1}, schedule: 1f1b, costs: {kind: measured, file: costs.yaml}}"
    )
    run = json.loads(command_line("run", tmp_path / "mine.yaml", "--json").stdout)
    assert run["makespan_s"] == pytest.approx(2 * 0.0115 + 2 * 0.020 + 2 * 0.002 + 0.0005)


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_torchs_profiler_is_read_as_it_writes(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    profiler = torch.profiler
    with profiler.profile(
        activities=[profiler.ProfilerActivity.CPU], schedule=profiler.schedule(wait=0, warmup=1, active=3, repeat=1)
    ) as profile:
        for _ in range(4):
            for action, seconds in (("0F0", 0.01), ("0F1", 0.01), ("0B0", 0.02), ("0B1", 0.02)):
                with profiler.record_function(f"PP:{action}"):
                    time.sleep(seconds)
            profile.step()
    profile.export_chrome_trace(str(tmp_path / name))
    costs = calibrate([tmp_path / name])
    assert (costs.steps, costs.warm_up) == (2, 1)
    assert 0.010 <= costs.ops[0]["F"].time.median_s < 0.015
    assert 0.020 <= costs.ops[0]["B"].time.median_s < 0.025
    assert costs.ops[0]["B"].time.samples == 4
