"""The referee against times by hand; ``tests/fuzz`` has it play against the engines by chance.

What the engines once said otherwise, or one said and the other did not, is here as small as it can be.
"""

from __future__ import annotations

import pytest

from tests.referee import compare
from tests.referee.fluid import Flow, ends_of
from tests.referee.judge import Slot, StopsForEverError, Verdict, judge
from tests.referee.problem import Links, Part, Problem, Tensor, Uniform, read_problem


def spans(problem: Problem) -> dict[str, tuple[float, float]]:
    """Begin and end of each task and transfer as the referee says, once both engines say the same."""
    assert compare.disagreements(problem) == []
    return named(problem, judge(problem))


def named(problem: Problem, verdict: Verdict) -> dict[str, tuple[float, float]]:
    found = {
        f"{'F' if to.forward else 'B'}{to.micro_batch} to {to.stage}": span for to, span in verdict.transfers.items()
    }
    for rank, row in enumerate(problem.order):
        for place, cell in enumerate(row.split(",")):
            own = [span for name, span in verdict.parts.items() if name.slot == Slot(rank, place)]
            found[cell] = min(begin for begin, _ in own), max(end for _, end in own)
    return found


ONE_PIPE = [[0, 1]]


def test_1f1b_on_two_ranks() -> None:
    problem = Problem(
        ONE_PIPE, ["0F0,0F1,0B0,0B1", "1F0,1B0,1F1,1B1"], costs=Uniform(1.0, 1.5, 0.5), transfer={"s": 0.5}
    )
    assert spans(problem) == {
        "0F0": (0, 1), "0F1": (1, 2), "F0 to 1": (1, 1.5), "F1 to 1": (2, 2.5), "1F0": (1.5, 2.5), "1B0": (2.5, 4.5),
        "B0 to 0": (4.5, 5), "1F1": (4.5, 5.5), "1B1": (5.5, 7.5), "B1 to 0": (7.5, 8), "0B0": (5, 7), "0B1": (8, 10),
    }  # fmt: skip


def test_torchs_1f1b_waits_for_every_message() -> None:
    """Rank 0 issues {send F1; receive B0} at 2, rank 1 its side when B0 is done at 4.5: F1 is there at 5."""
    program = [
        "0F0,{0SEND_F0},0F1,WAIT(0SEND_F0),{0SEND_F1;0RECV_B0},WAIT(0SEND_F1;0RECV_B0),0B0,{0RECV_B1},WAIT(0RECV_B1),0B1",
        "{1RECV_F0},WAIT(1RECV_F0),1F0,1B0,{1SEND_B0;1RECV_F1},WAIT(1SEND_B0;1RECV_F1),1F1,1B1,{1SEND_B1}",
    ]
    order = ["0F0,0F1,0B0,0B1", "1F0,1B0,1F1,1B1"]
    problem = Problem(ONE_PIPE, order, program=program, costs=Uniform(), transfer={"s": 0.5})
    times = spans(problem)
    assert times == times | {"F1 to 1": (4.5, 5), "B0 to 0": (4.5, 5), "1F1": (5, 6), "0B1": (8.5, 10.5)}


def test_each_of_two_that_wait_for_the_other_stops() -> None:
    problem = Problem(ONE_PIPE, ["0F0,0B0,0F1,0B1", "1F0,1F1,1B0,1B1"], costs=Uniform())
    with pytest.raises(StopsForEverError):
        judge(problem)
    assert compare.disagreements(problem) == []


def test_a_wrong_tensor_is_seen_by_all() -> None:
    order, program = (
        ["0F0,0F1,0B0,0B1", "1F0,1F1,1B0,1B1"],
        [
            "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1",
            "1RECV_F1,1RECV_F0,1F0,1F1,1B0,1SEND_B0,1B1,1SEND_B1",
        ],
    )
    assert compare.disagreements(Problem(ONE_PIPE, order, program=program, costs=Uniform())) == []


def test_an_engine_that_is_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(ONE_PIPE, ["0F0,0B0", "1F0,1B0"], costs=Uniform(), transfer={"s": 0.5})
    assert compare.disagreements(problem) == []
    nearly = Problem(ONE_PIPE, ["0F0,0B0", "1F0,1B0"], costs=Uniform(1 + 3e-9), transfer={"s": 0.5})
    monkeypatch.setattr(compare, "judge", lambda _: judge(nearly))
    assert any("0F0 of rank 0" in one for one in compare.disagreements(problem))


def test_a_problem_is_what_its_file_says() -> None:
    problem = Problem(
        ONE_PIPE,
        ["0F0,0B0", "1F0,1B0"],
        parts={"F0": [Part("compute", 1.0), Part("alltoall", 2.0, after=(0,), flows=(("nvlink", 3.0, 4.0),))]},
        links=Links(1, (1.0, 0.0), (1.0, 0.0), gpu_of_rank=(0, 1)),
        host={"F0": (1.0, 2.0)},
        load=(0.1, 1.0, 0.2),
    )
    assert read_problem(problem.to_json()).parts == problem.parts
    assert read_problem(problem.to_json()).links == problem.links
    assert read_problem(problem.to_json()).to_json() == problem.to_json()


# --- what was otherwise once -----------------------------------------------------------------------------------------


def test_messages_of_a_batch_that_go_the_same_way_run_together() -> None:
    """Both activations go from rank 0 to rank 1 in one batch; the longest path had them one after the other."""
    program = [
        "0F0,0F1,{0SEND_F0;0SEND_F1},0RECV_B0,0B0,0RECV_B1,0B1",
        "{1RECV_F0;1RECV_F1},1F0,1F1,1B0,1SEND_B0,1B1,1SEND_B1",
    ]
    order = ["0F0,0F1,0B0,0B1", "1F0,1F1,1B0,1B1"]
    times = spans(Problem(ONE_PIPE, order, program=program, costs=Uniform(), transfer={"s": 3.0}))
    assert times == times | {"F0 to 1": (2, 5), "F1 to 1": (2, 5)}


def test_a_second_forward_that_waits_for_the_gradient_gets_it_once() -> None:
    """Its 1 byte takes a second at 1 byte a second; it went once for R and once for B, both at half speed."""
    links = Links(1, (1.0, 0.0), (1.0, 0.0), gpu_of_rank=(0, 1))
    problem = Problem(
        ONE_PIPE, ["0F0,0R0,0B0", "1F0,1B0"], late_again=True, costs=Uniform(), transfer={"bytes": 1.0},
        links=links, contention=True,
    )  # fmt: skip
    times = spans(problem)
    assert times == times | {"1B0": (3, 5), "B0 to 0": (5, 6), "0R0": (6, 7), "0B0": (7, 9)}


def test_a_pass_of_all_ranks_waits_for_no_copy_to_the_host() -> None:
    """Rank 0 has come to S when 0F0 is done, at 1; its copy goes on until 11, and nobody waits for it."""
    order = ["0F0,0O0,0S0,0L0,0B0", "1F0,1S0,1B0"]
    times = spans(Problem(ONE_PIPE, order, costs=Uniform(vocab_s=1.0, offload=10.0)))
    assert times == times | {"0O0": (1, 11), "0S0": (2, 3), "1S0": (2, 3), "1B0": (3, 5)}


def test_a_pass_of_all_ranks_starts_when_all_of_the_task_before_it_is_done() -> None:
    """The backward half of rank 0's pair is done at 5, its forward half at 9."""
    one, pair = [Part("compute", 1.0)], [Part("alltoall", 4.0), Part("compute", 0.0, half=1)]
    shapes = {f"{letter}{stage}": one for letter in "FBS" for stage in (0, 1)}
    order = ["0F0,0F1,0S0,(0F2;0B0)OVERLAP_F_B,0S1,0B1,0S2,0B2", "1F0,1F1,1S0,1B0,1S1,1B1,1F2,1S2,1B2"]
    times = spans(Problem(ONE_PIPE, order, parts=shapes | {"F0;B0": pair}))
    assert times == times | {"(0F2;0B0)OVERLAP_F_B": (5, 9), "0S1": (9, 10), "1S1": (9, 10)}


def test_a_pairs_all_reduces_and_compute_are_each_as_long_as_both_its_micro_batches_make_them() -> None:
    """F takes 1 and B 2 of a mean micro-batch: a pair of one that weighs 0 and one that weighs 2 takes 4, not 0."""
    order = ["0F1,(0F0;0B1)OVERLAP_F_B,0B0"]
    problem = Problem([[0]], order, costs=Uniform(all_reduce=0.5), weights=[0.0, 2.0])
    assert spans(problem)["(0F0;0B1)OVERLAP_F_B"] == (3, 7)


def test_what_a_program_waits_for_before_a_copy_holds_up_compute_and_not_the_copy() -> None:
    order = ["0F0,0O0,0F1,0L0,0B0,0B1", "1F0,1F1,1B0,1B1"]
    program = [
        "0F0,0SEND_F0,WAIT(0SEND_F0),0O0,0F1,0SEND_F1,0L0,0RECV_B0,0B0,0RECV_B1,0B1",
        "1RECV_F0,1F0,1RECV_F1,1F1,1B0,1SEND_B0,1B1,1SEND_B1",
    ]
    times = spans(Problem(ONE_PIPE, order, program=program, costs=Uniform(offload=10.0), transfer={"s": 5.0}))
    assert times == times | {"0O0": (1, 11), "F0 to 1": (1, 6), "0F1": (6, 7), "F1 to 1": (7, 12)}


def test_a_copy_that_stands_before_its_forward_waits_for_all_of_it() -> None:
    """F is two phases; the copy started behind the first."""
    parts = {"F0": [Part("compute", 1.0), Part("compute", 2.0)], "B0": [Part("compute", 1.0)]}
    parts |= {"O0": [Part("copy", 5.0)], "L0": [Part("copy", 1.0)]}
    assert spans(Problem([[0]], ["0O0,0F0,0L0,0B0"], parts=parts))["0O0"] == (3, 8)


def test_a_rank_that_shares_the_vocabulary_out_needs_no_gradient_for_it() -> None:
    """The compute stream waits for B0, and so does the message behind, though an S of its micro-batch ran before."""
    order = ["0F0,0F1,0S0,0S1,0B0,0B1", "1F0,1F1,1S0,1S1,1B0,1B1"]
    program = [
        "0F0,0SEND_F0,0F1,0SEND_F1,0S0,0S1,{0RECV_B0},WAIT(0RECV_B0),0RECV_B1,0B0,0B1",
        "1RECV_F0,1F0,1RECV_F1,1F1,1S0,1S1,1B0,{1SEND_B0},1B1,1SEND_B1",
    ]
    problem = Problem(ONE_PIPE, order, program=program, lines="pair", costs=Uniform(), transfer={"s": 4.0})
    times = spans(problem)
    assert times["B1 to 0"][0] == times["B0 to 0"][1] > times["1B1"][1]


def test_flows_of_the_referee_by_hand() -> None:
    """Two on one link of 10: 100 bytes from 0 on and 100 from 5 on end at 15 and 20; what is capped at 2 leaves 8."""
    assert ends_of([(0, Flow(100, (0,))), (5, Flow(100, (0,)))], {0: 10}) == [15, 20]
    assert ends_of([(0, Flow(40, (0,), cap=2)), (0, Flow(80, (0,)))], {0: 10}) == [20, 10]
    assert ends_of([(0, Flow(40, (0,))), (0, Flow(30, (1,))), (0, Flow(20, (0, 1)))], {0: 10, 1: 4}) == [5, 12.5, 10]


def test_a_tensor_is_named_by_who_needs_it() -> None:
    assert Tensor(True, 1, 0) in judge(Problem(ONE_PIPE, ["0F0,0B0", "1F0,1B0"], costs=Uniform())).transfers
