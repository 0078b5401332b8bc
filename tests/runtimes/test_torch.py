"""Orders with their communication: as torch lowers them, agreed between ranks, read back with every slip refused."""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dualpipe_sim import Schedule, ScheduleError, UserError, build, format_order, parse_order, simulate
from dualpipe_sim.order.placement import loop
from dualpipe_sim.runtimes.torch import format_program, has_messages, parse_program, without_messages
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
        return build(draw(st.sampled_from(NAMES)), draw(st.integers(1, 6)), draw(st.integers(1, 12)))
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
    assert without_messages(text) == format_order(schedule)
    assert parse_program(text, schedule.placement) == schedule


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
            if len(schedule.placement.pipes) > 1:
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
            "row 1, cell 0: 1RECV_F1 stands where 1RECV_F0 should: rank 0 sends 0SEND_F0 first, and receives are "
            "matched by order alone",
        ),
        (
            "0F0,0SEND_F0",
            "0F0",
            "row 0: 0SEND_F0 is missing; what passes between ranks is sent and received once",
        ),
        ("1RECV_F0,1F0", "1F0,1RECV_F0", "row 1, cell 1: 1RECV_F0 comes after 1F0"),
        ("0F0,0SEND_F0", "0SEND_F0,0F0", "row 0, cell 0: 0SEND_F0 comes before 0F0"),
        ("1B1,1SEND_B1", "1B1,1SEND_B1,1SEND_B1", "row 1, cell 8: 1SEND_B1 is there already (row 1)"),
        ("1B1,1SEND_B1", "1B1,1SEND_B1,1SEND_F1", "row 1, cell 8: 1SEND_F1 is for no tensor that passes between ranks"),
        ("0RECV_B0,0B0", "0RECV_B0,0X0,0B0", "row 0, cell 2: '0X0' is no task"),
    ],
)
def test_a_slip_is_refused_with_its_place(old: str, new: str, message: str) -> None:
    assert old in ONE_F_ONE_B
    with pytest.raises(ScheduleError, match=f"^{re.escape(message)}"):
        parse_program(ONE_F_ONE_B.replace(old, new))


def test_a_send_on_another_rank_is_refused() -> None:
    rows = ONE_F_ONE_B.replace("0SEND_F1,", "").splitlines()
    with pytest.raises(ScheduleError, match="row 1: 0SEND_F1 is on the wrong rank; it belongs into row 0"):
        parse_program(f"{rows[0]}\n0SEND_F1,{rows[1]}\n")


def test_what_torch_dumps_for_sharded_parameters_is_read_too() -> None:
    dumped = ONE_F_ONE_B.replace("0F0,", "0UNSHARD,0F0,").replace("0REDUCE_GRAD", "0RESHARD,0REDUCE_GRAD,0UNSHARD")
    assert parse_program(dumped) == build("1f1b", 2, 2)


def test_communication_is_told_from_tasks() -> None:
    assert has_messages(ONE_F_ONE_B)
    assert not has_messages(format_order(build("dualpipev", 2, 4)))
    assert not has_messages("0SEND,0F0\n")


def test_an_order_that_cannot_run_is_not_lowered() -> None:
    order = parse_order("0F0,0B0,0F1,0B1\n1F1,1F0,1B0,1B1\n", loop(2), "mine.csv")
    with pytest.raises(ScheduleError, match=r"^mine.csv: rank 0, cell 1: 0B0 waits in a circle: "):
        format_program(order)


def test_the_command_line_prints_either_form(command_line: CommandLine, tmp_path: Path) -> None:
    sizes = ("--ranks", "2", "--micro-batches", "2")
    done = command_line("schedule", "1f1b", *sizes, "--format", "compute_comms")
    assert done.stdout == ONE_F_ONE_B
    compute_only = command_line("schedule", "1f1b", *sizes, "--format", "compute_only").stdout
    assert compute_only == command_line("schedule", "1f1b", *sizes).stdout == "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"


def test_check_reads_communication_and_finds_swapped_receives(command_line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "order.csv"
    path.write_text(ONE_F_ONE_B)
    assert command_line("check", path).returncode == 0
    path.write_text(ONE_F_ONE_B.replace("1RECV_F0,1F0,1RECV_F1,1B0", "1RECV_F1,1RECV_F0,1F0,1B0"))
    done = command_line("check", path)
    assert done.returncode == 2
    assert "1RECV_F1 stands where 1RECV_F0 should" in done.stderr


def test_a_configuration_takes_either_form_and_refuses_swapped_receives(tmp_path: Path) -> None:
    schedule = build("dualpipe", 2, 4)
    costs = {"kind": "uniform", "forward": 1, "backward_input": 1, "backward_weight": 1}
    config = {"pipeline": {"ranks": 2, "micro_batches": 4}, "costs": costs}
    ours = simulate(config | {"schedule": "dualpipe"}).makespan_s
    path = tmp_path / "order.csv"
    from_file = config | {"schedule": {"file": str(path), "placement": "bidirectional"}}
    text = format_program(schedule)
    for form in (format_order(schedule), text):
        path.write_text(form)
        assert simulate(from_file).makespan_s == ours
    swapped = text.replace("3RECV_F0,3F0,0F1,0SEND_F1,3RECV_F1", "3RECV_F1,3F0,0F1,0SEND_F1,3RECV_F0")
    assert swapped != text
    path.write_text(swapped)
    with pytest.raises(UserError, match=r"schedule: .*order.csv: row 0, cell 6: 3RECV_F0 comes after 3F0$"):
        simulate(from_file)
