"""Costs out of Kineto's traces: worked out by hand, named by oneself, damaged, and as torch's profiler writes them."""

from __future__ import annotations

import gzip
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import Comparison, UserError, simulate
from dualpipe_sim.calibration import Calibration, calibrate, read_recording, write_costs

if TYPE_CHECKING:
    from tests.conftest import CommandLine

Event: TypeAlias = "dict[str, Any]"

BASE_NS = 1_790_857_026_000_000_000
MAIN, AUTOGRAD = 1, 2


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


def test_on_a_gpu_an_op_is_its_kernels_merged(tmp_path: Path) -> None:
    costs = measured(tmp_path, trace(0, *gpu_rank0()), trace(1, *gpu_rank1()))
    assert costs.ops[0]["F"].time == pytest.approx((120e-6, 102e-6, 138e-6, 2))  # of 140 and 100
    assert costs.ops[1]["F"].time.median_s == pytest.approx(100e-6)
    assert not costs.left_out


@pytest.mark.parametrize(
    ("kernels", "worked_us", "left_out"),
    [
        # its own all-to-alls are its time, the last one too, as NCCL makes them or by name
        ([(200, 260, "ncclDevKernel_SendRecv"), (260, 300, "combine"), (300, 350, "ncclDevKernel_SendRecv")], 250, 0),
        ([(200, 250, "ncclDevKernel_AllToAll")], 150, 0),
        # what it waits for inside is its time
        ([(200, 240, "ncclDevKernel_AllReduce"), (240, 300, "gemm")], 200, 0),
        # gradients that are reduced behind it hold nobody up
        ([(190, 400, "ncclDevKernel_ReduceScatter"), (210, 260, "gemm")], 160, 1),
    ],
)
def test_an_ops_own_communication_is_its_time(
    tmp_path: Path, kernels: list[tuple[float, float, str]], worked_us: float, left_out: int
) -> None:
    work = [(100, 200, "gemm"), *kernels]
    events = [event("PP:0F0", 0, 50)]
    for number, (begin, end, name) in enumerate(work, 1):
        events += [launch(number, number), kernel(number, begin, end, name)]
    costs = measured(tmp_path, trace(0, *events))
    assert costs.ops[0]["F"].time.median_s == pytest.approx(worked_us * 1e-6)
    assert sum(costs.left_out.values()) == left_out


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
    """An op lasts as long as it sleeps, and no longer than a clock around its range sees, however busy the machine."""
    torch = pytest.importorskip("torch")
    profiler = torch.profiler
    seen_s: dict[str, list[float]] = {"F": [], "B": []}
    with profiler.profile(
        activities=[profiler.ProfilerActivity.CPU], schedule=profiler.schedule(wait=0, warmup=1, active=3, repeat=1)
    ) as profile:
        for _ in range(4):
            for action, sleeps_s in (("0F0", 0.01), ("0F1", 0.01), ("0B0", 0.02), ("0B1", 0.02)):
                begin_s = time.perf_counter()
                with profiler.record_function(f"PP:{action}"):
                    time.sleep(sleeps_s)
                seen_s[action[1]].append(time.perf_counter() - begin_s)
            profile.step()
    profile.export_chrome_trace(str(tmp_path / name))
    costs = calibrate([tmp_path / name])
    assert (costs.steps, costs.warm_up) == (2, 1)
    for kind, sleeps_s in (("F", 0.01), ("B", 0.02)):
        measured_s = costs.ops[0][kind].time
        assert measured_s.samples == 4
        assert 0.999 * sleeps_s <= measured_s.median_s <= 1.001 * statistics.median(seen_s[kind][-4:])


def test_a_trace_of_pairs_alone_is_simulated_and_what_is_taken_for_the_rest_is_said(tmp_path: Path) -> None:
    # As DeepSeek published one forward and backward that overlap (deepseek-ai/profile-data, train.json: range "1F1B").
    path = tmp_path / "train.json"
    events = [event("1F1B", 0, 90), launch(1, 10), kernel(1, 100, 100 + 90e3)]
    path.write_text(json.dumps({"traceEvents": events, "distributedInfo": {"rank": 0}}))
    calibration = calibrate([path], maps=["1F1B=(0F0;1B0)OVERLAP_F_B"])
    assert (calibration.ops, list(calibration.pairs)) == ({}, [(0, 1)])
    file = tmp_path / "costs.yaml"
    write_costs(calibration, file)
    costs = {"kind": "measured", "file": str(file)}
    run = simulate(schedule="dualpipe", ranks=2, micro_batches=4, costs=costs)
    # the stages of a pipe of two, whose pairs are the measured one, and F, I and W a third of it each
    thirds = simulate(schedule="dualpipe", ranks=2, micro_batches=4, forward=0.03, backward=0.06)
    assert run.makespan_s == pytest.approx(thirds.makespan_s)
    said = f"{file} has pairs only of stages 0, 1: F, I and W by themselves are taken as a third of a pair each"
    assert run.played.caveats == (said,)
    assert said in Comparison((run,)).to_table().notes
