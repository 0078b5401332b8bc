"""Orders searched for the best cuts of a plan: faster ones take their place, and where nothing is gained it is said."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from dualpipe_sim.base.signals import Stopped
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine import longest_path
from dualpipe_sim.experiment import Choice
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order import check_schedule
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.ops import I
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.plan import plan, search, searched
from dualpipe_sim.plan.space import experiment_at
from dualpipe_sim.schedules.registry import build
from dualpipe_sim.schedules.searched import searched as searched_schedule
from dualpipe_sim.simulation import run
from dualpipe_sim.sweeps.table import read_table

CommandLine: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"


@pytest.fixture(autouse=True)
def _short_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searched, "_MOVES", 60)


def small(schedules: list[Any], gpu_gb: float = 80, ranks: int = 4) -> dict[str, Any]:
    return {
        "pipeline": {"ranks": 4, "layout": "balanced"},
        "schedule": "1f1b",
        "costs": {"kind": "layers"},
        "model": {"preset": "deepseek-v2-lite", "layers": 9},
        "gpu": {"preset": "h800", "memory": f"{gpu_gb} GB"},
        "cluster": "h800-ib",
        "parallel": {"expert": 4, "data": 4},
        "training": {"sequence_length": 4096, "global_batch": 32},
        "plan": {"schedules": schedules, "ranks": [ranks]},
    }


def test_a_faster_order_takes_its_place_and_runs_as_any_other() -> None:
    found = plan(small(["1f1b", "gpipe"]), confirm=1, orders=1)
    (tried,) = found.searched
    first = found.candidates[found.ranking[0]]
    assert (first.schedule, tried.schedule, tried.faster) == ("searched", "1f1b", True)
    assert found.ranked[0]["step_time_s"] == tried.searched_step_time_s
    assert found.ranked[0]["confirmed_step_time_s"] is not None
    assert found.ranked[0]["peak_memory_bytes"] <= found.gpu_bytes  # type: ignore[operator]
    assert "searched: 1f1b" in "\n".join(found.to_table().notes)
    # Its order by itself, on the same cut, takes as long.
    order = found.order()
    check_schedule(order)
    at = experiment_at(found.experiment, first)
    again = run(replace(at, choice=Choice("mine", order.ranks, order.micro_batches, order=order)))
    assert again.step_time_s == pytest.approx(tried.searched_step_time_s, rel=1e-9)


@pytest.mark.parametrize("gpu_gb", [12, 20])
def test_orders_hold_what_the_cut_has_room_for(gpu_gb: float) -> None:
    found = plan(small(["1f1b"], gpu_gb), confirm=0, orders=1)
    first, second = found.ranked
    assert (first["schedule"], second["schedule"]) == ("searched", "1f1b")
    assert first["peak_memory_bytes"] <= gpu_gb * 1e9  # type: ignore[operator]


def test_where_nothing_is_gained_it_is_said_and_the_ranking_stays() -> None:
    # (1F1B needs 10.38 GB: with hardly more there is nothing to gain by an order)
    without, found = (plan(small(["1f1b"], 10.39), confirm=0, orders=orders) for orders in (0, 1))
    (tried,) = found.searched
    assert not tried.faster
    assert [row["point"] for row in found.ranked] == [row["point"] for row in without.ranked]
    assert "no searched order is faster than the schedules on its cut" in found.searches()
    assert "more" in tried.told()
    assert (without.searched, without.searches()) == ((), [])
    assert "searched" not in without.to_dict()


def test_cuts_are_searched_once_and_one_rank_has_none() -> None:
    config = small(["1f1b", "gpipe", "1f1b-overlap"])
    assert len(plan(config, confirm=0, orders=5).searched) == 1
    config["plan"] = {"schedules": ["1f1b"], "ranks": [1]}
    assert plan(config, confirm=0, orders=5).searched == ()


def test_the_file_holds_the_candidates_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    found = plan(small(["1f1b", "gpipe"]), confirm=0, orders=1, output=file)
    assert [row["schedule"] for row in read_table(file)] == ["1f1b", "gpipe"]
    again = plan(small(["1f1b", "gpipe"]), confirm=0, orders=1, output=file, resume=True)
    assert again.to_dict() == found.to_dict()


def test_ctrl_c_keeps_the_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise Stopped(2)

    monkeypatch.setattr(search, "search_orders", stopped)
    found = plan(small(["1f1b", "gpipe"]), orders=1)
    assert found.interrupted
    assert [row["schedule"] for row in found.ranked] == ["1f1b", "gpipe"]
    assert found.searches() == ["interrupted while orders were searched: none is confirmed"]


def test_on_the_command_line(command_line: CommandLine, tmp_path: Path) -> None:
    config, order = tmp_path / "small.yaml", tmp_path / "order.csv"
    config.write_text(json.dumps(small(["1f1b", "gpipe"])))
    asked = ("plan", str(config), "--search", "1", "--confirm", "0", "--order", str(order))
    said = command_line(*asked)
    assert said.returncode == 0
    assert "searched: 1f1b, 229.7 ms:" in said.stdout
    assert bool(parse_order(order.read_text()).of_kinds(I).any())
    told = json.loads(command_line(*asked, "--json").stdout)
    assert told["ranking"][0]["step_time_s"] == told["searched"][0]["searched_step_time_s"]
    refused = command_line("plan", str(config), "--search", "-1")
    assert refused.returncode == 2
    assert "orders must be 0 or more" in refused.stderr


def test_whole_backwards_are_searched_from_interleaved_1f1b() -> None:
    placement = build("interleaved-1f1b", 4, 8).placement
    for times in (OpTimes.uniform(placement), OpTimes.uniform(placement, forward=2.0, transfer=0.5)):
        seconds = [
            makespan_s(order, times)
            for order in (
                build("interleaved-1f1b", 4, 8),
                searched_schedule(4, 8, times, 2, "loop", activations=8, moves=20, split=False),
            )
        ]
        assert seconds[1] <= seconds[0] * (1 + 1e-9)


def makespan_s(order: Schedule, times: OpTimes) -> float:
    forward, backward_input, backward_weight = (
        tuple(one.tolist()) for one in (times.forward_s, times.backward_input_s, times.backward_weight_s)
    )
    costs = UniformCosts(forward, backward_input, backward_weight, transfer_s=times.transfer_s)
    return longest_path.play(lower(order, costs)).makespan_s
