"""Programs of runtimes, played: by hand, on both engines, and what never ends or receives the wrong tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dualpipe_sim import ConfigError, DeadlockError, ScheduleError, build, compare, simulate
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import discrete_event
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.registry import RuntimeInUse, runtimes
from tests.plays import longest_path_each_way

if TYPE_CHECKING:
    from tests.conftest import CommandLine

CONFIG: dict[str, Any] = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "schedule": {"name": "interleaved-1f1b", "stages_per_rank": 2},
    "costs": {"forward": "10 ms", "backward": "20 ms", "transfer": "1 ms"},
}


def use(name: str, **options: object) -> RuntimeInUse:
    return runtimes()[name].with_options(options)


def makespan_s(schedule: Schedule, costs: UniformCosts, runtime: RuntimeInUse | None) -> float:
    graph = lower(schedule, costs, runtime=runtime)
    fast, slow = longest_path_each_way(graph), discrete_event.play(graph)
    assert fast.makespan_s == pytest.approx(slow.makespan_s, rel=1e-12)
    return fast.makespan_s


def test_torchs_own_1f1b_by_hand() -> None:
    """F = 1, B = 2, a transfer 0.5.

    Rank 0 issues {send F1; receive B0} at 2, but rank 1 its side only when B0 is done, at 4.5: F1 runs from 5 on, not
    from 4.5, the gradient of B1 leaves at 8, and rank 0 ends at 8.5 + 2. Ideally F1 is there at 2.5.
    """
    costs = UniformCosts(1.0, 1.0, 1.0, transfer_s=0.5)
    assert makespan_s(build("1f1b", 2, 2), costs, use("torch")) == 10.5
    assert makespan_s(build("1f1b", 2, 2), costs, None) == 10.0


def test_deepseeks_sends_leave_with_the_next_receives_by_hand() -> None:
    """DualPipeV on one rank has no messages; on two every commit of rank 0 waits for rank 1 to commit its side."""
    costs = UniformCosts(1.0, 1.0, 1.0, transfer_s=0.5)
    assert makespan_s(build("dualpipev", 1, 4), costs, use("deepseek")) == makespan_s(
        build("dualpipev", 1, 4), costs, None
    )
    assert makespan_s(build("dualpipev", 2, 4), costs, use("deepseek")) > makespan_s(
        build("dualpipev", 2, 4), costs, None
    )


def test_one_line_for_all_of_a_ranks_messages_holds_up_interleaved_schedules() -> None:
    took_s = [
        simulate(CONFIG, **{"pipeline.runtime": runtime}).makespan_s
        for runtime in ("ideal", "torch", {"name": "torch", "version": "2.11"},
                        {"name": "torch", "eager_initialization": True}, "megatron")
    ]  # fmt: skip
    ideal, pairs, line, eager, megatron = took_s
    assert line == eager
    assert ideal is not None
    assert pairs is not None
    assert line is not None
    assert megatron is not None
    assert ideal <= pairs < megatron < 1.25 * ideal < line


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_program_ends_alike_on_both_engines_and_none_is_faster_than_ideal(data: st.DataObject) -> None:
    runtime = data.draw(st.sampled_from(sorted(runtimes())))
    spec = runtimes()[runtime]
    schedule = data.draw(st.sampled_from([*spec.schedules, "zb-h1", "hanayo"] if spec.chains else spec.schedules))
    options: dict[str, object] = {}
    if runtime == "torch":
        options = {"version": data.draw(st.sampled_from(["2.11", "2.13"])), "loaded": data.draw(st.booleans())}
    costs = UniformCosts(1.0, 1.1, 0.9, transfer_s=data.draw(st.sampled_from([0.0, 0.2, 2.0])))
    try:
        order = build(schedule, data.draw(st.integers(1, 5)), data.draw(st.integers(1, 12)))
        issued_s = makespan_s(order, costs, use(runtime, **options))
    except DeadlockError:
        raise
    except ScheduleError:
        assume(False)
        raise
    assert issued_s >= makespan_s(order, costs, None) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("1f1b", r"1f1b: the program deadlocks: \dSEND_[FB]\d from rank \d to rank \d, which waits for \dSEND_"),
        ("zb-v", r"zb-v: rank 1 receives the wrong tensor: its 6RECV_B0 meets 0SEND_F6 of rank 0, since messages are"),
    ],
)
def test_deferred_receives_stop_for_ever_or_take_the_wrong_tensor(schedule: str, message: str) -> None:
    """https://github.com/pytorch/pytorch/pull/178815."""
    runtime = use("torch", loaded=True, defer_pp_recv=True)
    with pytest.raises((DeadlockError, ScheduleError), match=message):
        makespan_s(build(schedule, 4, 8), UniformCosts(1.0, 1.0, 1.0, transfer_s=0.1), runtime)


def test_an_own_program_is_issued_as_it_is_written(tmp_path: Any) -> None:  # noqa: ANN401
    """Rank 1 receives F1 before it runs F0 or behind it: on one line the first holds up the gradient of F0."""
    early = "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n1RECV_F0,1F0,1RECV_F1,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n"
    late = "0F0,0SEND_F0,0F1,0RECV_B0,0B0,0SEND_F1,0RECV_B1,0B1\n1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1\n"
    took = []
    for name, text in (("early", early), ("late", late)):
        (tmp_path / f"{name}.csv").write_text(text)
        took.append(
            simulate(
                {**CONFIG, "schedule": {"file": str(tmp_path / f"{name}.csv"), "placement": "loop"},
                 "pipeline": {"runtime": {"name": "torch", "version": "2.11"}}}
            ).makespan_s
        )  # fmt: skip
    assert took[0] is not None
    assert took[1] is not None
    assert took[0] < took[1]


def test_megatrons_default_group_is_what_is_simulated() -> None:
    config = {**CONFIG, "pipeline": {"ranks": 4, "micro_batches": 10, "runtime": "megatron"}}
    with pytest.raises(ScheduleError, match="group 4 leaves a last group of 2, less than 4 ranks"):
        simulate(config)


def test_a_comparison_names_what_the_runtime_lacks() -> None:
    found = compare(CONFIG, schedule=["1f1b", "dualpipev"], **{"pipeline.runtime": "megatron"})
    assert [one.error is None for one in found] == [True, False]
    assert "runtime megatron has no schedule dualpipev (it has: 1f1b, interleaved-1f1b" in str(found[1].error)


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("torhc", r"pipeline\.runtime: must be 'ideal', 'deepseek', 'megatron' or 'torch', got 'torhc'; did you mean"),
        ({"nam": "torch"}, r"pipeline\.runtime: must be a runtime's name, or a mapping with 'name' and its options"),
        ({"name": "ideal", "loaded": True}, r"pipeline\.runtime: 'ideal' has no options, got 'loaded'"),
        ({"name": "torch", "loaded": 3}, r"pipeline\.runtime: runtime torch: loaded must be true or false, not 3"),
    ],
)
def test_a_runtime_that_there_is_not_is_refused_with_its_key(runtime: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(CONFIG, **{"pipeline.runtime": runtime})


def test_rendezvous_does_not_go_with_a_runtime() -> None:
    with pytest.raises(ConfigError, match=r"pipeline\.transfers: a runtime \(torch\) says how tensors move"):
        simulate(CONFIG, **{"pipeline.runtime": "torch", "pipeline.transfers": "rendezvous"})


def test_a_run_says_what_the_ideal_would_take(command_line: CommandLine, tmp_path: Any) -> None:  # noqa: ANN401
    (tmp_path / "mine.yaml").write_text(
        "pipeline: {ranks: 4, micro_batches: 8, runtime: megatron}\n"
        "schedule: {name: interleaved-1f1b, stages_per_rank: 2}\n"
        "costs: {forward: 10 ms, backward: 20 ms, transfer: 1 ms}\n"
    )
    said = " ".join(command_line("run", tmp_path / "mine.yaml").stdout.split())
    assert "messages as megatron issues them; with async transfers, which wait for no rank's turn: 299 ms" in said
