"""Torch's own 1F1B, whose traces name no op: real ones, of two H100, and made ones of a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualpipe_sim import build
from dualpipe_sim.calibration import calibrate, read_recording
from dualpipe_sim.engine.play import play
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.runtimes.registry import RUNTIMES
from tests.conftest import CommandLine

TRACES = Path(__file__).parent / "traces"
REAL = [TRACES / f"torch_1f1b_rank{rank}.json.gz" for rank in (0, 1)]
"""Of a small transformer (16 layers, hidden 1024), 8 micro-batches, two steps; of each event only what is read."""


def test_the_order_that_is_found_is_1f1bs() -> None:
    recording = read_recording(REAL)
    order = build("1f1b", 2, 8).order
    for step in {ran.step for ran in recording.ops}:
        for rank in (0, 1):
            ran = sorted(
                (one for one in recording.ops if (one.rank, one.step) == (rank, step)), key=lambda one: one.end_s
            )
            assert [one.action.text for one in ran] == [str(task) for task in order[rank]]


def test_a_real_trace_gives_kernels_and_the_hosts_time() -> None:
    found = calibrate(REAL, warm_up=0, runtime="torch", runtime_options={"version": "2.11"}, step_time_s=0.127)
    assert found.steps == 2
    assert found.host_share is not None
    assert 0.4 < found.host_share < 1
    for stage in (0, 1):
        forward, backward = found.ops[stage]["F"], found.ops[stage]["B"]
        # The same model without a profiler: 8 layers' kernels take 0.8 and 2 ms.
        assert forward.cold_s == pytest.approx(0.85e-3, rel=0.25)
        assert backward.cold_s == pytest.approx(2.1e-3, rel=0.25)
        assert forward.host_s < backward.host_s
    torch = RUNTIMES.get("torch").with_options({"version": "2.11"})
    again = play(lower(build("1f1b", 2, 8), found.costs, runtime=torch)).makespan_s
    assert again == pytest.approx(0.127, rel=2e-3)


def test_without_a_runtime_such_a_trace_is_read_too() -> None:
    assert list(calibrate(REAL, warm_up=0).ops[1]) == ["F", "B"]


def made(rank: int, micro_batches: int, *, steps: int, numbered: bool, spoiled: bool = False) -> dict[str, Any]:
    """Return a trace of a CPU rank of two: a forward of 10 us and a backward of 20 us, messages of 1 us."""
    events: list[dict[str, Any]] = []
    now = 0.0

    def add(name: str, category: str, length: float) -> None:
        nonlocal now
        if category == "cpu_op" and not name.startswith("autograd"):
            events.append({"ph": "s", "cat": "fwdbwd", "name": "fwdbwd", "ts": now + 1, "pid": 1, "tid": 1})
        events.append({"ph": "X", "cat": category, "name": name, "ts": now, "dur": length, "pid": 1, "tid": 1})
        now += length + 1

    kinds = "".join(str(task)[1] for task in build("1f1b", 2, micro_batches).order[rank])
    if spoiled:
        kinds = kinds[::-1]
    for step in range(steps):
        began = now
        for kind in kinds:
            add("gloo:recv", "user_annotation", 1)
            if kind == "F":
                add("aten::linear", "cpu_op", 10)
            else:
                add("autograd::engine::evaluate_function: MmBackward0", "cpu_op", 20)
        if numbered:
            name = f"ProfilerStep#{step + 3}"
            whole = {"ph": "X", "cat": "user_annotation", "name": name, "ts": began, "dur": now - began}
            events.append(whole | {"pid": 1, "tid": 1})
        now += 5
    return {"distributedInfo": {"rank": rank}, "traceEvents": events}


def write(path: Path, trace: dict[str, Any]) -> Path:
    path.write_text(json.dumps(trace), encoding="utf-8")
    return path


@pytest.mark.parametrize("micro_batches", [1, 2, 5])
@pytest.mark.parametrize("numbered", [True, False])
def test_steps_and_micro_batches_are_found_out(tmp_path: Path, micro_batches: int, numbered: bool) -> None:
    paths = [
        write(tmp_path / f"rank{rank}.json", made(rank, micro_batches, steps=3, numbered=numbered)) for rank in (0, 1)
    ]
    found = calibrate(paths, warm_up=0)
    assert found.steps == 3
    assert found.ops[0]["F"].time.samples == 3 * micro_batches
    assert found.ops[1]["F"].time.median_s == pytest.approx(10e-6)
    assert found.ops[0]["B"].time.median_s == pytest.approx(20e-6)


def test_another_order_is_not_taken_for_1f1b(command_line: CommandLine, tmp_path: Path) -> None:
    path = write(tmp_path / "rank0.json", made(0, 3, steps=1, numbered=False, spoiled=True))
    with pytest.raises(UserError, match=r"rank0\.json: no range of an op was found, and what ran is not torch's 1F1B"):
        calibrate([path])
    ended = command_line("calibrate", path, "-o", tmp_path / "costs.yaml")
    assert ended.returncode == 2
    assert not (tmp_path / "costs.yaml").exists()


def test_gpipes_ranges_need_no_map_and_its_messages_are_no_work(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []

    def add(name: str, category: str, at: float, length: float, **arguments: int) -> None:
        events.append(
            {"ph": "X", "cat": category, "name": name, "ts": at, "dur": length, "pid": 1, "tid": 1, "args": arguments}
        )

    for place, name in enumerate(["Forward 0", "Backward 0"]):
        at = 1000.0 * place
        add(name, "user_annotation", at, 100)
        add("nccl:coalesced", "user_annotation", at + 10, 5)
        add("cudaLaunchKernel", "cuda_runtime", at + 12, 1, correlation=10 * place + 1)
        add("ncclDevKernel_SendRecv", "kernel", at + 12, 400, correlation=10 * place + 1)
        add("cudaLaunchKernel", "cuda_runtime", at + 30, 1, correlation=10 * place + 2)
        add("gemm", "kernel", at + 412, 50, correlation=10 * place + 2)
    path = write(tmp_path / "rank3.json", {"distributedInfo": {"rank": 3}, "traceEvents": events})
    found = calibrate([path], warm_up=0, pipes=1)
    assert {stage: list(kinds) for stage, kinds in found.ops.items()} == {3: ["F", "B"]}
    assert found.ops[3]["F"].time.median_s == pytest.approx(50e-6)
