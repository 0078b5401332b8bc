"""Traces for Holistic Trace Analysis: its structure as HTA's reader needs it, and HTA itself where it is installed."""

from __future__ import annotations

import importlib
import json
import logging
import re
from bisect import bisect_right
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from dualpipe_sim import Timeline, UserError, simulate
from dualpipe_sim.analysis import metrics
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.calibration import calibrate, write_costs
from dualpipe_sim.export import write_hta
from dualpipe_sim.result import Result

if TYPE_CHECKING:
    from tests.conftest import CommandLine

Event = dict[str, Any]

STAGE_LEVEL = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "schedule": "dualpipe",
    "costs": {
        "kind": "uniform",
        "forward": "10 ms",
        "backward_input": "11 ms",
        "backward_weight": "9 ms",
        "transfer": "25 ms",
    },
}


@pytest.fixture(params=["stage level", "layer level"])
def timeline(request: pytest.FixtureRequest, short_v3: Result) -> Timeline:
    if request.param == "stage level":
        return simulate(STAGE_LEVEL).played
    return short_v3.played


def read(folder: Path, rank: int) -> list[Event]:
    events: list[Event] = json.loads((folder / f"rank{rank}.json").read_text())["traceEvents"]
    return events


def test_a_rank_is_found_as_hta_finds_it(timeline: Timeline, tmp_path: Path) -> None:
    # hta.common.trace_file looks for this text, line by line
    write_hta(timeline, tmp_path / "traces")
    files = sorted((tmp_path / "traces").iterdir())
    assert len(files) == timeline.ranks
    for file in files:
        lines = file.read_text().splitlines()
        found = next(match for line in lines if (match := re.search(r'"rank":\s+(\d+)', line)))
        assert file.name == f"rank{found[1]}.json"


def test_every_kernel_has_one_launch_before_it_and_streams_run_one_at_a_time(
    timeline: Timeline, tmp_path: Path
) -> None:
    write_hta(timeline, tmp_path)
    for rank in (0, timeline.ranks - 1):
        events = read(tmp_path, rank)
        assert all(type(event[key]) is int for event in events for key in ("ts", "dur"))
        launches = {event["args"]["correlation"]: event for event in events if event["cat"] == "cuda_runtime"}
        kernels = [event for event in events if event["cat"] in ("kernel", "gpu_memset")]
        assert len(launches) == len(kernels)
        streams = defaultdict(list)
        for kernel in kernels:
            launch = launches[kernel["args"]["correlation"]]
            assert launch["ts"] + launch["dur"] <= kernel["ts"]
            streams[kernel["args"]["stream"]].append((kernel["ts"], kernel["ts"] + kernel["dur"]))
        for stream in streams.values():
            assert all(end <= start for (_, end), (start, _) in pairwise(sorted(stream)))


def test_a_range_named_as_torch_names_it_holds_the_launches_of_its_task(tmp_path: Path) -> None:
    timeline = simulate(STAGE_LEVEL).played
    write_hta(timeline, tmp_path)
    events = read(tmp_path, 1)
    ranges = [event for event in events if event["name"].startswith("PP:")]
    assert [event["name"] for event in ranges] == [f"PP:{task}" for task in timeline.graph.schedule.order[1]]
    starts = [event["ts"] for event in ranges]
    assert starts == sorted(set(starts))
    launches = {event["args"]["correlation"]: event["ts"] for event in events if event["cat"] == "cuda_runtime"}
    seconds_of_range = defaultdict(list)
    for event in events:
        if event["cat"] == "kernel" and event["args"]["stream"] == 7:
            seconds_of_range[bisect_right(starts, launches[event["args"]["correlation"]]) - 1].append(event["dur"])
    seconds = (timeline.task_end_s - timeline.task_start_s)[timeline.rank == 1]
    assert [seconds_of_range[index] for index in range(len(ranges))] == [[round(1e6 * one)] for one in seconds]


def test_names_tell_communication_from_compute_and_leave_micro_batches_out(tmp_path: Path) -> None:
    # hta.utils.utils: communication is ^nccl.*Kernel, memory ^Memcpy, ^Memset or ^dma
    timeline = simulate(STAGE_LEVEL).played
    write_hta(timeline, tmp_path)
    names = {event["name"] for event in read(tmp_path, 0) if event["cat"] == "kernel"}
    assert {"7F+0B", "0F+7B"} <= names
    order = ",".join(str(task) for task in timeline.graph.schedule.order[0])
    alone = re.findall(r"(?:^|,)(\d+[FBIW])\d+", order)
    messages = ("0SEND_F", "0RECV_B", "7RECV_F", "7SEND_B")
    assert names == {"7F+0B", "0F+7B", *alone, *(f"ncclKernel {message}" for message in messages)}


def test_the_ends_of_the_model_have_names_of_their_own_as_layers_phases_have(short_v3: Result, tmp_path: Path) -> None:
    write_hta(short_v3.played, tmp_path)
    names = {event["name"] for event in read(tmp_path, 0) if event["cat"] == "kernel" and event["args"]["stream"] == 7}
    assert {"attn F", "embedding F", "head F", "head W"} <= names
    # DualPipe's rank 0 has the first stage of one pipe and the last of the other; no kernel is a whole op or pair
    assert not {"0F", "31F", "0F+31B"} & names
    assert all(re.fullmatch(r"[a-z ]+ [FIW]", name) for name in names), names


def test_traces_of_another_run_are_not_mixed_in(tmp_path: Path) -> None:
    write_hta(simulate(STAGE_LEVEL).played, tmp_path)
    fewer = simulate(STAGE_LEVEL, ranks=2, micro_batches=4).played
    with pytest.raises(UserError, match=r": holds rank2.json, which HTA would read with these traces; name another"):
        write_hta(fewer, tmp_path)
    write_hta(simulate(STAGE_LEVEL, micro_batches=10).played, tmp_path)


def test_a_file_where_the_folder_should_be_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: is a file; name a folder$"):
        write_hta(simulate(STAGE_LEVEL).played, tmp_path / "file")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hta_itself_finds_the_idle_and_busy_times_of_every_rank(timeline: Timeline, tmp_path: Path) -> None:
    pytest.importorskip("hta.trace_analysis", reason="HolisticTraceAnalysis is not installed")
    write_hta(timeline, tmp_path)
    logging.disable(logging.WARNING)
    try:
        analysis = importlib.import_module("hta.trace_analysis").TraceAnalysis(trace_dir=str(tmp_path))
    finally:
        logging.disable(logging.NOTSET)
    breakdown = analysis.get_temporal_breakdown(visualize=False).set_index("rank").sort_index()
    on_compute = timeline.graph.on(Lane.COMPUTE)
    phases = timeline.graph.first_transfer
    seconds = np.where(on_compute, (timeline.end_s - timeline.start_s)[:phases], 0.0)
    computing = np.bincount(timeline.graph.rank, weights=seconds, minlength=timeline.ranks)
    # whole microseconds, and the mark at the end takes one
    rounding_us = 2 + len(timeline.start_s) / timeline.ranks
    assert breakdown["compute_time(us)"].to_numpy() == pytest.approx(1e6 * computing, abs=rounding_us)
    assert breakdown["kernel_time(us)"].to_numpy() == pytest.approx(1e6 * timeline.makespan_s, abs=2)
    assert all(breakdown["idle_time(us)"].to_numpy() <= 1e6 * metrics.idle_s(timeline) + rounding_us)
    # gaps of the compute stream are waits for other ranks, neither for the host nor between kernels
    idle = analysis.get_idle_time_breakdown(ranks=[1], visualize=False)[0]
    waits = idle[idle["stream"] == 7].set_index("idle_category")["idle_time"]
    assert waits["other"] == waits.sum() > 0


@pytest.mark.filterwarnings("ignore")
def test_hta_finds_no_overlap_where_there_is_none_and_all_where_all_is_hidden(tmp_path: Path) -> None:
    pytest.importorskip("hta.trace_analysis", reason="HolisticTraceAnalysis is not installed")
    analyse = importlib.import_module("hta.trace_analysis").TraceAnalysis
    # one micro-batch on two ranks: every transfer is waited for
    write_hta(simulate(STAGE_LEVEL, schedule="1f1b", ranks=2, micro_batches=1).played, tmp_path / "none")
    overlap = analyse(trace_dir=str(tmp_path / "none")).get_comm_comp_overlap(visualize=False)
    assert overlap["comp_comm_overlap_pctg"].tolist() == [0.0, 0.0]
    # many, and rank 0 forwards first: its sends of 1 ms hide behind its next forwards of 10 ms, receives do not
    hidden = {**STAGE_LEVEL, "schedule": "gpipe", "pipeline": {"ranks": 2, "micro_batches": 4}}
    costs = {**STAGE_LEVEL["costs"], "transfer": "1 ms"}  # type: ignore[dict-item]
    write_hta(simulate({**hidden, "costs": costs}).played, tmp_path / "some")
    overlap = analyse(trace_dir=str(tmp_path / "some")).get_comm_comp_overlap(visualize=False)
    # sends: 3 of 4 beside a forward; gradients: 3 of 4 come in while rank 0 does the backward of the one before
    assert overlap["comp_comm_overlap_pctg"].tolist()[0] == pytest.approx(75.0, abs=0.1)


def test_calibration_finds_in_the_traces_the_costs_that_went_in(command_line: CommandLine, tmp_path: Path) -> None:
    write_hta(simulate(STAGE_LEVEL).played, tmp_path / "traces")
    done = command_line("calibrate", *sorted((tmp_path / "traces").iterdir()), "-o", tmp_path / "costs.yaml")
    assert done.returncode == 0, done.stderr
    measured = yaml.safe_load((tmp_path / "costs.yaml").read_text())
    assert measured["transfer"]["time"] == "25 ms"
    for stage in measured["stages"].values():
        assert {kind: cost["time"] for kind, cost in stage.items() if kind in "FIW"} == {
            kind: time for kind, time in (("F", "10 ms"), ("I", "11 ms"), ("W", "9 ms")) if kind in stage
        }


MOE: dict[str, object] = {
    # After pytorch/torchtitan#2209 and #1682: every F and B of an MoE model holds all-to-alls of its own.
    "pipeline": {"ranks": 4, "micro_batches": 8, "layout": "tttt|tttt|tttt|tttt"},
    "costs": {"kind": "layers"},
    "model": {"preset": "deepseek-v3", "layers": 16, "dense_layers": 0, "mtp_depth": 0},
    "gpu": "h800",
    "cluster": "h800-ib",
    "parallel": {"expert": 64},
    "training": {"sequence_length": 4096, "precision": "fp8", "gradient_reduction": "none", "optimizer": False},
}


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1", "dualpipe", "1f1b-overlap"])
def test_ops_with_all_to_alls_of_their_own_come_back_as_long_as_they_were(schedule: str, tmp_path: Path) -> None:
    run = simulate(MOE, schedule=schedule)
    write_hta(run.played, tmp_path / "traces")
    write_costs(calibrate(sorted((tmp_path / "traces").iterdir())), tmp_path / "costs.yaml")
    costs = {"kind": "measured", "file": str(tmp_path / "costs.yaml")}
    again = simulate(schedule=schedule, ranks=4, micro_batches=8, costs=costs)
    # A measured pair is one phase: what its forward makes leaves when all of it ends, a little late.
    late = 5e-3 if schedule == "1f1b-overlap" else 0.0
    assert run.makespan_s is not None
    assert again.makespan_s == pytest.approx(run.makespan_s * (1 + late / 2), rel=1e-4 + late / 2)
