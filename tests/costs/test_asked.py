"""Cost models of a user's own that answer what no engine can play: one sentence, whose it is and what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dualpipe_sim import UserError, compare, simulate
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs import Flow, Phase
from dualpipe_sim.equal_terms import at_equal_stages

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import CommandLine


@dataclass
class Stages:
    answer: Callable[[int], object]
    transfer_s: Any = 0.0
    transfer_bytes: Any = 0.0

    def phases(self, task: Any) -> Any:  # noqa: ANN401 - what a stranger may bring
        return self.answer(task[0][0])


@dataclass
class Own:
    answer: Callable[[], object]

    def on(self, placement: object) -> object:  # noqa: ARG002 - the same wherever stages are
        return self.answer()


def phase(**changes: Any) -> Callable[[int], object]:  # noqa: ANN401 - what a stranger may bring
    return lambda kind: (Phase(Lane.COMPUTE, **{"duration_s": 1.0, "kind": kind, **changes}),)


def run(costs: object) -> float | None:
    return simulate(schedule="1f1b", ranks=1, micro_batches=1, costs=costs).makespan_s


def refusal(costs: object) -> str:
    with pytest.raises(UserError) as refused:
        run(costs)
    return str(refused.value).removeprefix("config: ")


PHASES_MUST = "costs: Stages.phases must return a tuple of phases, got"
HAS = "F of stage 0 has a phase"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda _: None, f"{PHASES_MUST} None for F of stage 0"),
        (lambda _: "ab", f"{PHASES_MUST} 'ab' for F of stage 0"),
        (lambda _: (1.0,), f"{PHASES_MUST} (1.0,) for F of stage 0"),
        (lambda kind: phase()(kind)[0], f"{PHASES_MUST} Phase("),  # type: ignore[index]
        (lambda kind: iter(phase()(kind)), f"{PHASES_MUST} <tuple_iterator"),  # type: ignore[call-overload]
        (lambda _: (), "the costs have no phases for F of stage 0; a task is one phase at least"),
        (phase(duration_s=None), "F of stage 0 takes None, which is no number of seconds"),
        (phase(duration_s="1 ms"), "F of stage 0 takes '1 ms', which is no number of seconds"),
        (phase(duration_s=np.ones(2)), "F of stage 0 takes array([1., 1.]), which is no number of seconds"),
        (phase(duration_s=nan), "F of stage 0 takes nan s; times must be finite and 0 or more"),
        (phase(alone_s=inf), "F of stage 0 takes, alone, inf s; times must be finite and 0 or more"),
        (phase(kind="F"), f"{HAS} 'op' of kind 'F'; kinds are F (0), B (1), I (2), W (3)"),
        (phase(kind=99), f"{HAS} 'op' of kind 99; kinds are"),
        (phase(half=1), f"{HAS} 'op' of half 1; it must be 0"),
        (phase(late=True), "F of stage 0 has late phases only; its output is there after one that is not"),
        (
            lambda kind: (Phase(Lane.DATA, 1.0, kind),),
            f"{HAS} on lane data, which only gathers weights and reduces gradients",
        ),
        (phase(flows=(Flow("ethernet", 1.0),)), f"{HAS} 'op' with flows (Flow("),  # type: ignore[arg-type]
        (phase(flows=(Flow("nvlink", 1.0, 0.0),)), f"{HAS} 'op' with flows (Flow("),
        (phase(after=(0,)), f"{HAS} 'op' after (0,); it is number 0 from 0, and waits for earlier ones by number"),
        (phase(after=1), f"{HAS} 'op' after 1; it is number 0"),
        (phase(layer="x"), f"{HAS} 'op' of layer 'x'; a name is text and a layer a whole number"),
        (phase(name=3), f"{HAS} 3 of layer -1; a name is text"),
        (phase(flows=((1, 2),)), f"{HAS} 'op' with flows ((1, 2),); each must be a Flow of 0 bytes or more"),
        (phase(flows=(Flow("nvlink", nan),)), f"{HAS} 'op' with flows"),
    ],
)
def test_phases_that_no_engine_can_play_are_one_sentence(answer: Callable[[int], object], message: str) -> None:
    assert refusal(Own(lambda: Stages(answer))).startswith(message)


class PairInThree(Stages):
    """Costs that know of a third half of an overlapped pair."""

    def phases(self, task: Any) -> Any:  # noqa: ANN401 - what a stranger may bring
        return phase(half=2 if len(task) == 2 else 0)(task[0][0])


def test_a_pair_has_two_halves() -> None:
    costs = Own(lambda: PairInThree(phase()))
    with pytest.raises(UserError, match="F of stage 1 and B of stage 2 has a phase 'op' of half 2; it must be 0, or 1"):
        simulate(schedule="dualpipe", ranks=2, micro_batches=4, costs=costs)


@pytest.mark.parametrize(
    ("transfer", "message"),
    [
        ({"transfer_s": "1 ms"}, "a transfer takes '1 ms', which is no number of seconds"),
        ({"transfer_s": nan}, "a transfer takes nan s; times must be finite and 0 or more"),
        ({"transfer_s": None, "transfer_bytes": -1}, "a transfer has -1 bytes; sizes must be finite and 0 or more"),
        ({"transfer_s": None, "transfer_bytes": "3"}, "a transfer has '3' bytes; sizes must be finite and 0 or more"),
    ],
)
def test_a_transfer_that_no_link_can_carry_is_one_sentence(transfer: dict[str, object], message: str) -> None:
    assert refusal(Own(lambda: Stages(phase(), **transfer))) == message


@pytest.mark.parametrize("answer", [None, 3, object()])
def test_what_is_no_costs_of_stages_is_one_sentence(answer: object) -> None:
    said = refusal(Own(lambda: answer))
    assert said.startswith(
        "costs: Own.on must return the costs of a placement's stages (phases, transfer_s, transfer_bytes); "
    )
    assert said.endswith("has no phases")


def test_lists_and_numbers_of_numpy_are_as_good() -> None:
    costs = Own(lambda: Stages(lambda kind: list(phase(duration_s=np.float32(1.0), layer=np.int64(3))(kind))))  # type: ignore[call-overload]
    assert run(costs) == 2.0


def test_what_it_raises_has_the_line_whoever_asks() -> None:
    broken = Own(lambda: Stages(lambda kind: 1 / (kind - kind)))
    place = rf"{re.escape(__file__)}:\d+: ZeroDivisionError: division by zero"
    assert re.fullmatch(f"costs: Stages.phases fails: {place}", refusal(broken))
    assert re.fullmatch(f"costs: Own.on fails: {place}", refusal(Own(lambda: 1 / 0)))
    with pytest.raises(UserError, match=f"^config: costs: Stages.phases fails: {place}"):
        simulate(schedule="zb-auto", ranks=1, micro_batches=1, costs=broken)
    with pytest.raises(UserError, match=f"^config: costs: Stages.phases fails: {place}"):
        compare(schedule=["1f1b", "gpipe"], ranks=1, micro_batches=1, costs=broken)


@dataclass
class Told(Own):
    cluster_answer: Callable[[Told], object] = lambda self: self
    fewer_answer: Callable[[Told], object] = lambda self: self

    def on_cluster(self, cluster: object) -> object:  # noqa: ARG002 - lies on none
        return self.cluster_answer(self)

    def on_fewer_ranks(self, shares: object) -> object:  # noqa: ARG002 - costs the same
        return self.fewer_answer(self)


def test_what_it_makes_of_itself_must_be_a_cost_model() -> None:
    must = r"must return a cost model, with a method on\(placement\), got None"
    with pytest.raises(UserError, match=f"^config: costs: Told.on_cluster {must}"):
        run(Told(lambda: Stages(phase()), cluster_answer=lambda _: None))
    costs = Told(lambda: Stages(phase()), fewer_answer=lambda _: None)
    experiment = load_experiment(
        {"schedule": "interleaved-1f1b", "pipeline": {"ranks": 4, "micro_batches": 4}}, {"costs": costs}
    )
    with pytest.raises(UserError, match=f"^config: costs: Told.on_fewer_ranks {must}"):
        at_equal_stages(experiment)


PLUGIN = """
from dataclasses import dataclass
from dualpipe_sim.costs import register

@register("broken")
@dataclass(frozen=True)
class Broken:
    def on(self, placement):
        return placement.nothing_of_the_kind
"""


@pytest.mark.parametrize("command", ["run", "compare", "memory"])
def test_on_the_command_line_it_is_one_line_with_both_files(
    command_line: CommandLine, tmp_path: Path, command: str
) -> None:
    (tmp_path / "broken.py").write_text(PLUGIN)
    config = tmp_path / "mine.yaml"
    config.write_text(
        "plugins: [broken.py]\nschedule: 1f1b\ncompare: [1f1b, gpipe]\npipeline: {ranks: 2, micro_batches: 2}\n"
        "costs: {kind: broken}\n"
    )
    done = command_line("--allow-plugins", command, config)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"dualpipe-sim: {config}: costs: Broken.on fails: {(tmp_path / 'broken.py').resolve()}:9: "
        "AttributeError: 'Placement' object has no attribute 'nothing_of_the_kind'\n"
    )
