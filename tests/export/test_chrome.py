"""Chrome traces, read the way Perfetto reads them: times by hand, nothing overlaps, every arrow ends in a slice."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dualpipe_sim import ScheduleError, Timeline, UserError, build, simulate
from dualpipe_sim.analysis.metrics import peak_in_flight_by_rank
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.play import play
from dualpipe_sim.export import chrome, write_chrome
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.result import Result
from dualpipe_sim.schedules.registry import schedules

if TYPE_CHECKING:
    from tests.conftest import CommandLine

Event = dict[str, Any]

BY_HAND = {
    "pipeline": {"ranks": 2, "micro_batches": 2},
    "schedule": "1f1b",
    "costs": {"kind": "uniform", "forward": 1, "backward_input": 1, "backward_weight": 1, "transfer": 0.5},
}


def perfetto_ns(microseconds: float) -> int:
    """Perfetto's reading of a time: times 1000 and cut off (trace processor's json_utils.cc, CoerceToTs)."""
    return int(microseconds * 1000.0)


def slices(events: list[Event]) -> dict[int, list[tuple[int, int, str]]]:
    """(start, end, name) of each thread's slices in nanoseconds, by start."""
    threads = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            start = perfetto_ns(event["ts"])
            threads[event["tid"]].append((start, start + perfetto_ns(event["dur"]), event["name"]))
    return {thread: sorted(found) for thread, found in threads.items()}


def threads_by_name(events: list[Event]) -> dict[tuple[int, str], int]:
    """Thread ids by rank and lane."""
    named = [event for event in events if event["ph"] == "M" and event["name"] == "thread_name"]
    return {(event["pid"] - 1, event["args"]["name"]): event["tid"] for event in named}


def by_hand() -> list[Event]:
    return list(chrome.events(simulate(BY_HAND).played))


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    second = st.floats(1e-7, 3.0)
    costs = UniformCosts(
        forward=draw(second),
        backward_input=draw(second),
        backward_weight=draw(second),
        transfer_s=draw(st.just(0.0) | st.floats(1e-7, 9.0)),
    )
    try:
        order = build(draw(st.sampled_from(sorted(schedules()))), draw(st.integers(1, 5)), draw(st.integers(1, 9)))
    except ScheduleError:
        assume(False)
        raise
    return play(lower(order, costs))


def test_times_are_those_of_a_calculation_by_hand() -> None:
    # 1F1B, F = 1 s, B = 2 s, half a second under way, so rank 1 starts at 1.5 s and rank 0 gets gradients at 5 and 8 s.
    events = by_hand()
    found, threads = slices(events), threads_by_name(events)
    s = 10**9
    assert found[threads[0, "compute"]] == [
        (0, 1 * s, "0F0"),
        (1 * s, 2 * s, "0F1"),
        (5 * s, 7 * s, "0B0"),
        (8 * s, 10 * s, "0B1"),
    ]
    assert found[threads[1, "recv"]] == [(1 * s, 1 * s + s // 2, "1RECV_F0"), (2 * s, 2 * s + s // 2, "1RECV_F1")]
    assert found[threads[1, "send"]][0] == (4 * s + s // 2, 5 * s, "1SEND_B0")
    first = next(event for event in events if event["ph"] == "X")
    assert first["args"] == {"action": "0F0", "stage": 0, "micro_batch": 0, "kind": "F"}


def test_a_rank_is_a_process_and_a_lane_a_thread_in_their_order() -> None:
    events = [event for event in by_hand() if event["ph"] == "M"]
    processes = [event for event in events if event["name"] == "process_name"]
    assert [(event["pid"], event["args"]["name"]) for event in processes] == [(1, "rank 0"), (2, "rank 1")]
    order = {event["tid"]: event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"}
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert [names[thread] for thread in sorted(order, key=order.__getitem__)] == ["compute", "send", "recv"] * 2
    assert len(names) == 6  # ids are unique over all processes


def test_an_arrow_leads_from_the_op_over_its_transfer_to_the_op_that_needs_it() -> None:
    events = by_hand()
    threads = {thread: f"{rank} {lane}" for (rank, lane), thread in threads_by_name(events).items()}
    way = [event for event in events if event["ph"] in "stf" and event["name"] == "0SEND_F0"]
    assert [(event["ph"], threads[event["tid"]], event["ts"]) for event in way] == [
        ("s", "0 compute", 999_999.999),
        ("t", "0 send", 1_000_000.0),
        ("t", "1 recv", 1_000_000.0),
        ("f", "1 compute", 1_500_000.0),
    ]


@given(timelines())
def test_nothing_overlaps_and_every_arrow_starts_and_ends_in_a_slice(timeline: Timeline) -> None:
    events = list(chrome.events(timeline))
    found = slices(events)
    for thread in found.values():
        for (_, end, _), (start, _, _) in pairwise(thread):
            assert end <= start
    flows = defaultdict(list)
    for event in events:
        if event["ph"] in ("s", "t", "f"):
            at = perfetto_ns(event["ts"])
            thread = found[event["tid"]]
            start, end, _ = thread[bisect_right(thread, (at, 10**30, "")) - 1]
            assert start <= at < end
            flows[event["id"], event["name"], event["cat"]].append(event["ph"])
    assert len(flows) == len(timeline.graph.transfers)
    assert {("s", "f"), ("s", "t", "t", "f")} >= {tuple(phases) for phases in flows.values()}


@given(timelines())
def test_counters_rise_to_the_peak_and_fall_to_nothing(timeline: Timeline) -> None:
    counts: defaultdict[int, list[int]] = defaultdict(list)
    for event in chrome.events(timeline):
        if event["ph"] == "C":
            assert event["name"] == "in flight"
            counts[event["pid"] - 1].append(event["args"]["pairs"])
    peaks = peak_in_flight_by_rank(timeline).tolist()
    assert [max(counts[rank]) for rank in range(timeline.ranks)] == peaks
    assert all(of_rank[-1] == 0 for of_rank in counts.values())


def test_memory_counters_peak_where_the_ranks_memory_does(short_v3: Result) -> None:
    result = short_v3
    assert result.memory is not None
    peaks: defaultdict[int, float] = defaultdict(float)
    for event in chrome.events(result.played, result.memory):
        if event["ph"] == "C" and event["name"] == "memory (bytes)":
            assert list(event["args"]) == ["state", "communication buffers", "weight-gradient inputs", "activations"]
            peaks[event["pid"] - 1] = max(peaks[event["pid"] - 1], sum(event["args"].values()))
    assert [peaks[rank] for rank in range(16)] == result.peak_memory_bytes_by_rank


@given(st.integers(0, 10**14))
def test_microseconds_read_back_as_the_same_nanoseconds_rounded_or_cut_off(ns: int) -> None:
    assert int(chrome.us(ns) * 1000.0) == ns
    assert round(chrome.us(ns) * 1000.0) == ns


def test_transfers_under_way_at_once_get_rows_of_their_own() -> None:
    costs = UniformCosts(forward=1.0, backward_input=1.0, backward_weight=1.0, transfer_s=2.5)
    events = list(chrome.events(play(lower(build("gpipe", 2, 6), costs))))
    lanes = [lane for rank, lane in threads_by_name(events) if rank == 0]
    assert lanes == ["compute", "send", "send 2", "send 3", "recv", "recv 2"]


def test_phases_stand_inside_their_op_and_keep_to_their_lane(short_v3: Result) -> None:
    events = list(chrome.events(short_v3.played))
    threads = threads_by_name(events)
    assert {lane for _, lane in threads} == {"op", "compute", "alltoall", "send", "recv"}
    found = slices(events)
    for rank in (0, 7):
        ops = found[threads[rank, "op"]]
        for start, end, _ in found[threads[rank, "compute"]] + found[threads[rank, "alltoall"]]:
            begin, until, _ = ops[bisect_right(ops, (start, 10**30, "")) - 1]
            assert begin <= start <= end <= until or start == end
    names = Counter(name for _, _, name in found[threads[3, "alltoall"]])
    assert set(names) == {"dispatch F", "combine F", "dispatch I", "combine I"}


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timeline = simulate(BY_HAND).played
    path = tmp_path / "trace.json"
    write_chrome(timeline, path)
    before = path.read_bytes()
    assert len(json.loads(before)["traceEvents"]) == len(by_hand())
    assert json.loads(before)["displayTimeUnit"] == "ms"

    def events_with_a_slip(*_: object) -> Any:  # noqa: ANN401
        yield {"ph": "X"}
        raise KeyError

    monkeypatch.setattr(chrome, "events", events_with_a_slip)
    with pytest.raises(KeyError):
        write_chrome(timeline, path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["trace.json"]


def test_a_place_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none/trace.json: cannot be written: No such file or directory$"):
        write_chrome(simulate(BY_HAND).played, tmp_path / "none" / "trace.json")


def test_the_command_line_writes_it(command_line: CommandLine, tmp_path: Path) -> None:
    done = command_line("trace", "figure5", "--set", "pipeline.micro_batches=16", "-o", tmp_path / "trace.json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) > 100
