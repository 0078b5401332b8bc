"""Orders with their communication: as torch lowers them, agreed between ranks, read back with every slip refused."""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dualpipe_sim import DeadlockError, Schedule, ScheduleError, build, format_order, parse_order, simulate
from dualpipe_sim.order.check import check_lines, read_order
from dualpipe_sim.order.ops import R
from dualpipe_sim.runtimes.torch import format_program, format_sharded
from dualpipe_sim.schedules.registry import schedules

if TYPE_CHECKING:
    from tests.conftest import CommandLine

NAMES = sorted(schedules())

# What torch 2.13.0's own lowering (_add_reduce_grad, then _add_send_recv) makes of 1F1B and DualPipeV.
BY_TORCH = {
    ("1f1b", 2, 2): """\
0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1,0REDUCE_GRAD
1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1,1REDUCE_GRAD
""",
    ("dualpipev", 2, 4): """\
0F0,0SEND_F0,0F1,0SEND_F1,3RECV_F0,0F2,0SEND_F2,3F0,3RECV_F1,3I0,3SEND_B0,3W0,3F1,3RECV_F2,0RECV_B0,\
(0F3;3B1)OVERLAP_F_B,0SEND_F3,3SEND_B1,(3F2;0B0)OVERLAP_F_B,3RECV_F3,0RECV_B1,3B2,3SEND_B2,(3F3;0B1)OVERLAP_F_B,\
0RECV_B2,3B3,3SEND_B3,3REDUCE_GRAD,0RECV_B3,0I2,0W2,0I3,0W3,0REDUCE_GRAD
1RECV_F0,1F0,1RECV_F1,2F0,2SEND_F0,1RECV_F2,1F1,2F1,2SEND_F1,2RECV_B0,1F2,2B0,(2F2;1B0)OVERLAP_F_B,2SEND_F2,\
1SEND_B0,1RECV_F3,2RECV_B1,(1F3;2B1)OVERLAP_F_B,(2F3;1B1)OVERLAP_F_B,2SEND_F3,1SEND_B1,2RECV_B2,2B2,1B2,1SEND_B2,\
2RECV_B3,2I3,1I3,1SEND_B3,2W3,2REDUCE_GRAD,1W3,1REDUCE_GRAD
""",
}


@st.composite
def orders(draw: st.DrawFn) -> Schedule:
    try:
        order = build(draw(st.sampled_from(NAMES)), draw(st.integers(1, 6)), draw(st.integers(1, 12)))
        # (no program has a text of slices, S and T, or copies)
        assume(not order.beyond_torch)
        return order
    except ScheduleError:
        assume(False)
        raise


def cells(text: str) -> list[list[str]]:
    return [row.split(",") for row in text.splitlines()]


@pytest.mark.parametrize("case", BY_TORCH)
def test_lowering_is_torchs(case: tuple[str, int, int]) -> None:
    name, ranks, micro_batches = case
    assert format_program(build(name, ranks, micro_batches)) == BY_TORCH[case]


@given(orders())
def test_it_reads_back_as_the_same_order_whatever_the_schedule(schedule: Schedule) -> None:
    text = format_program(schedule)
    again = parse_order(text, schedule.placement)
    assert format_order(again) == format_order(schedule)
    assert again == schedule
    assert format_program(again) == text
    assert check_lines(again) == []


@given(orders())
def test_two_ranks_agree_on_everything_that_passes_between_them(schedule: Schedule) -> None:
    # Both ways in one sequence: with NCCL both ranks' sends and receives queue on one stream, so it is not enough
    # that each direction is in order.
    rank_of = schedule.placement.rank_of_stage.tolist()
    between: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for rank, row in enumerate(cells(format_program(schedule))):
        for stage, verb, direction, micro_batch in re.findall(r"(\d+)(SEND|RECV)_([FB])(\d+)", ",".join(row)):
            step = 1 if (verb == "SEND") == (direction == "F") else -1
            sender = int(stage) if verb == "SEND" else int(stage) + step
            between[rank, rank_of[int(stage) + step]].append(f"{sender}{direction}{micro_batch}")
    for (one, other), seen in between.items():
        assert one != other
        assert seen == between[other, one]


@given(orders())
def test_gradients_of_a_stage_are_reduced_once_and_after_all_its_backwards(schedule: Schedule) -> None:
    for rank, row in enumerate(cells(format_program(schedule))):
        for stage in schedule.placement.stages_of_rank(rank):
            assert row.count(f"{stage}REDUCE_GRAD") == 1
            after = row[row.index(f"{stage}REDUCE_GRAD") :]
            assert not re.search(rf"\b{stage}[BW]\d", ",".join(after))


def test_nothing_is_sent_where_two_opposed_pipes_meet() -> None:
    # stages 0 to 3 are pipe 0, stages 4 to 7 pipe 1: 3 ends the one, 4 begins the other
    text = format_program(build("dualpipe", 4, 8))
    assert "3SEND_F" not in text
    assert "4RECV_F" not in text
    assert "4SEND_B" not in text
    assert "2SEND_F" in text
    assert "5SEND_B" in text


def test_torch_adds_the_same_communication_to_every_order_of_one_pipe() -> None:
    pytest.importorskip("torch.distributed.pipelining", reason="torch is not installed; two recorded ones stand in")
    torch = importlib.import_module("torch.distributed.pipelining.schedules")
    compared = 0
    for name in NAMES:
        for ranks, micro_batches in ((1, 2), (2, 3), (2, 4), (3, 6), (3, 7), (4, 8), (4, 12), (5, 15)):
            try:
                schedule = build(name, ranks, micro_batches)
            except ScheduleError:
                continue
            # (torch has no letter for a forward that runs again, S and T, copies, nor for slices)
            if len(schedule.placement.pipes) > 1 or schedule.of_kinds(R).any() or schedule.beyond_torch:
                continue
            rows = cells(format_order(schedule))
            with_reductions = {
                rank: torch._add_reduce_grad([torch._Action.from_str(cell) for cell in row], micro_batches)
                for rank, row in enumerate(rows)
            }
            rank_of = schedule.placement.rank_of_stage.tolist()
            theirs = torch._add_send_recv(with_reductions, rank_of.__getitem__, schedule.placement.stages)
            assert cells(format_program(schedule)) == [list(map(str, theirs[rank])) for rank in range(ranks)]
            compared += 1
    assert compared > 50


ONE_F_ONE_B = BY_TORCH["1f1b", 2, 2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "1RECV_F0,1F0,1RECV_F1,1B0",
            "1RECV_F1,1RECV_F0,1F0,1B0",
            "rank 1, cell 0: 1RECV_F1 stands where 1RECV_F0 should: rank 0 sends 0SEND_F0 first, and receives are "
            "matched by order alone",
        ),
        (
            "0F0,0SEND_F0",
            "0F0",
            "rank 0: 0SEND_F0 is missing; what passes between ranks is sent and received once",
        ),
        ("1RECV_F0,1F0", "1F0,1RECV_F0", "rank 1, cell 1: 1RECV_F0 comes after 1F0"),
        ("0F0,0SEND_F0", "0SEND_F0,0F0", "rank 0, cell 0: 0SEND_F0 comes before 0F0"),
        ("1B1,1SEND_B1", "1B1,1SEND_B1,1SEND_B1", "rank 1, cell 8: 1SEND_B1 is there already (rank 1)"),
        (
            "1B1,1SEND_B1",
            "1B1,1SEND_B1,1SEND_F1",
            "rank 1, cell 8: 1SEND_F1 is for no tensor that passes between ranks",
        ),
        ("0RECV_B0,0B0", "0RECV_B0,0X0,0B0", "rank 0, cell 5: '0X0' is no task"),
    ],
)
def test_a_slip_is_refused_with_its_place(old: str, new: str, message: str) -> None:
    assert old in ONE_F_ONE_B
    (finding,) = read_order(ONE_F_ONE_B.replace(old, new)).findings
    assert str(finding).startswith(message)


def test_a_send_on_another_rank_is_refused() -> None:
    rows = ONE_F_ONE_B.replace("0SEND_F1,", "").splitlines()
    (finding,) = read_order(f"{rows[0]}\n0SEND_F1,{rows[1]}\n").findings
    assert str(finding) == "rank 1, cell 0: 0SEND_F1 is on the wrong rank; it belongs to rank 0"


def test_all_slips_are_named_and_a_simulation_refuses_the_first() -> None:
    text = ONE_F_ONE_B.replace("0SEND_F0,", "").replace("1SEND_B1,", "1SEND_B1,7UNSHARD,")
    assert [str(finding) for finding in read_order(text).findings] == [
        "rank 1, cell 8: 7UNSHARD is on a rank that does not hold its stage",
        "rank 0: 0SEND_F0 is missing; what passes between ranks is sent and received once",
    ]
    with pytest.raises(ScheduleError, match=r"rank 1, cell 8: 7UNSHARD is on a rank"):
        simulate(schedule=parse_order(text), forward=1, backward=2)


def test_what_torch_dumps_for_sharded_parameters_is_read_too() -> None:
    dumped = ONE_F_ONE_B.replace("0F0,", "0UNSHARD,0F0,").replace("0REDUCE_GRAD", "0RESHARD,0REDUCE_GRAD,0UNSHARD")
    read = parse_order(dumped)
    assert read == build("1f1b", 2, 2)
    assert format_program(read) == dumped


def test_cells_of_an_own_program_that_take_no_time_are_said_to(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(ONE_F_ONE_B.replace("0F0,", "0UNSHARD,0F0,"), encoding="utf-8")
    config = tmp_path / "own.yaml"
    config.write_text("schedule: own.csv\ncosts: {forward: 1, backward: 2}\n", encoding="utf-8")
    assert "cells of own.csv that take no time here: 1 UNSHARD, 2 REDUCE_GRAD\n" in command_line("run", config).stdout
    assert "take no time here" not in command_line("run", "figure5").stdout


def test_an_order_alone_gets_its_communication_from_the_runtime() -> None:
    assert parse_order(ONE_F_ONE_B).program is not None
    for text in (format_order(build("1f1b", 2, 2)), "0UNSHARD,0F0,0F1,0B0,0B1,0REDUCE_GRAD\n1F0,1B0,1F1,1B1\n"):
        order = parse_order(text)
        assert order.program is None
        assert format_program(order) == ONE_F_ONE_B
    with pytest.raises(ScheduleError, match="row 0, cell 0: '0SEND' is no task"):
        parse_order("0SEND,0F0\n")


# Of torch 2.13: _dump_csv of ScheduleInterleaved1F1B's compute order for 2 ranks, 2 stages a rank and 2 micro-batches,
# where a rank that waits has an empty cell.
DUMPED = "0F0,0F1,2F0,2F1,,2B0,,2B1,,0B0,,0B1\n,1F0,1F1,3F0,3B0,3F1,3B1,1B0,,1B1\n"


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: re.sub(r"[^,\n]+", r'"\g<0>"', text),
        lambda text: text.replace(",", ", ") + "\n\n",
    ],
    ids=["as it is", "CRLF", "byte order mark", "quotes", "blanks"],
)
def test_torchs_own_dump_is_read_as_any_program_writes_it(
    write: Callable[[str], str], command_line: CommandLine, tmp_path: Path
) -> None:
    schedule = build("interleaved-1f1b", 2, 2)
    assert parse_order(write(DUMPED)) == schedule
    path = tmp_path / "dump.csv"
    path.write_bytes(write(DUMPED).encode())
    assert command_line("check", path, "--placement", "loop").stdout == f"{path}: nothing is wrong\n"


def test_a_cell_keeps_its_place_beside_empty_ones(command_line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "dump.csv"
    path.write_text(DUMPED.replace("2B0", "2X0"))
    assert "rank 0, cell 5: '2X0' is no task" in command_line("check", path).stderr


def test_quotes_that_do_not_close_are_no_table() -> None:
    (finding,) = read_order('"0F0,0B0\n').findings
    assert str(finding) == "this is no table of comma-separated cells: unexpected end of data"


def test_the_letters_of_older_torch_become_todays() -> None:
    # Up to 2.5 B was the backward for the input and BW the whole (pytorch/pytorch PR 142009 brought I and B).
    order = build("zb-h1", 2, 4)
    old = format_order(order).replace("I", "b").replace("B", "BW").replace("b", "B")
    assert "BW" in old or "W" in old
    assert parse_order(old) == read_order(old).schedule == order
    whole = build("1f1b", 2, 4)
    assert parse_order(format_order(whole).replace("B", "BW")) == whole
    # where I is there, a B beside its W is a mistake
    (first, *_) = read_order("0F0,0I0,0W0,0F1,0B1,0W1\n").findings
    assert str(first) == "rank 0, cell 5: 0W1 is there beside 0B1 (rank 0, cell 4), the whole backward"


def test_what_torch_describes_of_its_1f1b_is_no_order_and_the_cells_are_named() -> None:
    # ScheduleMultiBase aside, Schedule1F1B._get_pipeline_order of torch 2.13, 2 ranks and 2 micro-batches: the last
    # rank begins at micro-batch 1 and ends at one that does not exist.
    findings = read_order("0F0,0F1,0B0,0B1\n1F1,1B0,1F2,1B1\n").findings
    assert str(findings[0]) == "rank 1, cell 2: 1F2 names no micro-batch; they go from 0 to 1"
    assert "rank 1: 1F0 never runs" in map(str, findings)


# Two ranks, two stages a rank, two micro-batches, and every receive right before the op that needs it: as torch's
# option defer_pp_recv has it (pytorch/pytorch#178815), without its rule against the circle that this makes.
DEFERRED = """\
0F0,0SEND_F0,0F1,0SEND_F1,2RECV_F0,2F0,2SEND_F0,2RECV_F1,2F1,2SEND_F1,2RECV_B0,2B0,2SEND_B0,2RECV_B1,2B1,2SEND_B1,\
0RECV_B0,0B0,0RECV_B1,0B1
1RECV_F0,1F0,1SEND_F0,1RECV_F1,1F1,1SEND_F1,3RECV_F0,3F0,3B0,3SEND_B0,3RECV_F1,3F1,3B1,3SEND_B1,1RECV_B0,1B0,\
1SEND_B0,1RECV_B1,1B1,1SEND_B1
"""
CIRCLE = (
    "rank 1, cell 2: 1SEND_F0 waits in a circle where each rank's messages go one after another: "
    "rank 1 has 1SEND_F0 before 1RECV_F1 and rank 0 has 0SEND_F1 before 2RECV_F0"
)


def test_ranks_that_wait_for_each_others_receives_are_named(command_line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "deferred.csv"
    path.write_text(DEFERRED)
    done = command_line("check", path)
    assert done.returncode == 2
    assert done.stderr == f"{path}: {CIRCLE}\n"
    setting: dict[str, Any] = {"schedule": str(path), "forward": 1, "backward": 2, "transfer": 0.1}
    assert simulate(**setting).makespan_s
    with pytest.raises(DeadlockError, match=re.escape(CIRCLE)):
        simulate(**setting, **{"pipeline.transfers": "rendezvous"})


def test_sends_and_receives_are_played_in_the_order_of_the_file() -> None:
    # Torch posts the receive of the second activation before 1B0, so that it also holds up the gradient; here rank 1
    # sends the gradient first: 1B0 from 2.5 to 4.5, its gradient until 5, the second activation until 5.5.
    torchs = ONE_F_ONE_B
    own = torchs.replace("1RECV_F1,1B0,1SEND_B0,1F1", "1B0,1SEND_B0,1RECV_F1,1F1").replace(
        "0SEND_F1,0RECV_B0,0B0", "0RECV_B0,0SEND_F1,0B0"
    )
    setting: dict[str, Any] = {"forward": 1, "backward": 2, "transfer": 0.5, "pipeline.transfers": "rendezvous"}
    starts = [
        {task: start for _, lane, task, start, _ in run.timeline.rows() if lane == "send"}
        for text in (torchs, own)
        if (run := simulate(schedule=parse_order(text), **setting)).timeline
    ]
    assert starts[0]["0SEND_F1"] == 2.5  # rank 1 is there when 1F0 is done
    assert starts[1] == {"0SEND_F0": 1.0, "1SEND_B0": 4.5, "0SEND_F1": 5.0, "1SEND_B1": 8.5}


@pytest.mark.parametrize(
    ("name", "stages_per_rank", "gathers"),
    [
        *((name, stages, [stages] * 4) for name in ("interleaved-1f1b", "looped-bfs") for stages in (2, 3)),
        ("interleaved-1f1b", 4, [11, 11, 9, 9]),
        ("interleaved-zb", 4, [9, 9, 9, 9]),
        ("looped-bfs", 4, [5, 5, 5, 5]),
    ],
)
def test_fsdp_gathers_as_often_as_torchs_rule_has_it(name: str, stages_per_rank: int, gathers: list[int]) -> None:
    """Replayed from torch 2.13.0's ``_add_unshard_reshard``: breadth first gathers least often."""
    text = format_sharded(build(name, 4, 8, stages_per_rank=stages_per_rank))
    assert [row.count("UNSHARD") for row in text.splitlines()] == gathers
    assert format_order(parse_order(text)) == format_order(build(name, 4, 8, stages_per_rank=stages_per_rank))


def test_slices_gradients_are_reduced_behind_the_last_of_them() -> None:
    (row,) = cells(format_sharded(build("seq1f1b", 1, 2, slices=2)))
    assert row == ["0UNSHARD", "0F0.0", "0F0.1", "0B0.1", "0F1.0", "0B0.0", "0F1.1", "0B1.1", "0B1.0", "0REDUCE_GRAD",
                   "0RESHARD"]  # fmt: skip
