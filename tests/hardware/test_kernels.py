"""Tables of kernels: what lies between their points and beyond them, what packaged ones say, what files must have."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.kernels import Grid, Kernels, packaged, read_collectives, read_table

RATES = st.floats(1.0, 1e3)
LLAMA: dict[str, Any] = {
    "pipeline": {"ranks": 2, "micro_batches": 4},
    "schedule": "1f1b",
    "stack": "megatron",
    "model": {"preset": "llama3-8b", "layers": 2},
    "gpu": "h100",
    "training": {"sequence_length": 4096, "precision": "bf16"},
}


@given(st.lists(RATES, min_size=8, max_size=8), st.tuples(*[st.floats(1.0, 64.0)] * 3))
def test_between_points_a_rate_lies_between_theirs(rates: list[float], point: tuple[float, float, float]) -> None:
    grid = Grid(dict(zip(product((2, 32), repeat=3), rates, strict=True)))
    assert min(rates) * (1 - 1e-9) <= grid.at(point) <= max(rates) * (1 + 1e-9)


@given(st.floats(0.1, 3.0), st.floats(0.1, 3.0), st.floats(2.0, 1000.0), st.floats(2.0, 1000.0))
def test_a_law_of_powers_is_met_between_its_points(first: float, second: float, x: float, y: float) -> None:
    """What is linear in logarithms: three points of x^a y^b an axis are all of it."""
    grid = Grid({(a, b): a**first * b**second for a in (2, 50, 1000) for b in (2, 50, 1000)})
    assert grid.at((x, y)) == pytest.approx(x**first * y**second, rel=1e-9)


def test_a_kernel_cut_smaller_than_was_timed_takes_as_long() -> None:
    """Half of the smallest size of an axis halves the FLOPs and the rate; beyond the largest the rate stays."""
    kernels = Kernels(gemm="h100")
    smallest, half, quarter = (kernels.gemm_flops_per_s("bf16", "F", tokens, 4096, 4096) for tokens in (128, 64, 32))
    assert smallest is not None
    assert half == pytest.approx(smallest / 2)
    assert quarter == pytest.approx(smallest / 4)
    large = [kernels.gemm_flops_per_s("bf16", "F", tokens, 4096, 4096) for tokens in (16384, 10**6)]
    assert large[0] == large[1]


def test_where_a_point_is_missing_the_nearest_stands_in() -> None:
    grid = Grid({(1, 1): 1.0, (1, 8): 8.0, (8, 1): 2.0})
    assert round(grid.at((8, 8)), 9) in (2.0, 8.0)


@given(st.sets(st.tuples(*[st.sampled_from((1, 2, 4, 32))] * 2), min_size=2, max_size=9), st.randoms())
def test_what_stands_in_does_not_depend_on_what_was_asked_before(points: set[tuple[int, int]], random: Random) -> None:
    values: dict[tuple[int, ...], float] = {point: 1.0 + place for place, point in enumerate(sorted(points))}
    asked = list(product((1, 2, 4, 32), repeat=2))
    random.shuffle(asked)
    grid = Grid(values)
    assert [grid.at(point) for point in asked] == [Grid(values).at(point) for point in asked]


@pytest.mark.parametrize("name", sorted(packaged()))
def test_packaged_tables_say_where_they_come_from_and_hold_plausible_rates(name: str) -> None:
    if name.startswith("nccl-"):
        times = read_collectives(name.removeprefix("nccl-"))
        gpus, sizes = times.axes
        for many in gpus:
            taken = [times.at((many, size)) for size in sizes]
            assert all(later > 0.8 * sooner for sooner, later in pairwise(taken))
        return
    table = read_table(name)
    assert "https://" in table.about or "Timed on" in table.about
    peak = {"bf16": 2600.0, "fp8": 5200.0, "fp4": 10500.0}
    for (_, numbers, _), grid in table.grids.items():
        corners = [grid.at(point) for point in product(*grid.axes)]
        assert min(corners) > 0
        assert max(corners) < peak[numbers]


@pytest.mark.parametrize(
    ("shape", "measured_us"),
    [  # cuBLAS of PyTorch 2.11 on another H100 (700 W), F, I and W, microseconds: none is a point of the table
        ((4096, 28672, 4096), (1364.84, 1386.73, 1464.86)),
        ((8192, 6144, 4096), (616.06, 589.3, 616.39)),
        ((4096, 14336, 4096), (674.12, 679.59, 684.19)),
        ((2048, 36864, 12288), (2610.88, 2677.12, 2847.57)),
        ((4096, 49152, 12288), (7200.74, 7310.72, 7262.75)),
    ],
)
def test_gemms_between_the_points_take_what_was_measured_within_an_eighth(
    shape: tuple[int, int, int], measured_us: tuple[float, float, float]
) -> None:
    tokens, outputs, inputs = shape
    for work, taken_us in zip(("F", "I", "W"), measured_us, strict=True):
        rate = Kernels(gemm="h100").gemm_flops_per_s("bf16", work, tokens, outputs, inputs)  # type: ignore[arg-type]
        assert rate is not None
        assert 2e6 * tokens * outputs * inputs / rate == pytest.approx(taken_us, rel=0.125)


def test_attention_is_slower_for_short_sequences_and_few_heads_and_by_an_older_kernel() -> None:
    kernels = Kernels(attention="h100")

    def rate(kernel: str, heads: int, length: int) -> float:
        found = kernels.attention_flops_per_s(kernel, "F", 128, heads, length)
        assert found is not None
        return found

    assert rate("cudnn", 32, 1024) < rate("cudnn", 32, 4096) < rate("cudnn", 32, 16384)
    assert rate("cudnn", 8, 4096) < rate("cudnn", 32, 4096)
    assert rate("flash-2", 32, 4096) < rate("cudnn", 32, 4096) == rate("fastest", 32, 4096)


def costs_of(**overrides: object) -> LayerCosts:
    costs = load_experiment(LLAMA, overrides).costs
    assert isinstance(costs, LayerCosts)
    return costs


def test_rates_of_ones_own_stand_in_for_the_presets_table() -> None:
    rates = {"dense": 1e15, "grouped": 1e15, "weight_gradient": 1e15, "grouped_weight_gradient": 1e15}
    own = costs_of(gpu={"preset": "h100", "gemm": {"bf16": rates}})
    assert (own.gpu.kernels.gemm, own.gpu.kernels.attention) == ("", "h100")
    assert own.gpu.kernels.gemm_pace == 1.0


def test_a_table_is_named_from_where_the_configuration_is(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        "kernel,numbers,tokens,outputs,inputs,forward\ngemm,bf16,4096,4096,4096,500\n", encoding="utf-8"
    )
    (tmp_path / "own.yaml").write_text(
        "pipeline: {ranks: 1, micro_batches: 1}\nschedule: 1f1b\nstack: megatron\n"
        "model: {preset: llama3-8b, layers: 1}\ngpu: {preset: h100, kernels: {gemm: own.csv}}\n"
        "training: {sequence_length: 4096, precision: bf16}\n",
        encoding="utf-8",
    )
    costs = load_experiment(tmp_path / "own.yaml").costs
    assert isinstance(costs, LayerCosts)
    assert costs.gpu.kernels.gemm_flops_per_s("bf16", "W", 4096, 4096, 4096) == pytest.approx(500e12)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kernel,numbers,tokens\ngemm,bf16,1\n", "there is no column 'outputs'"),
        ("kernel,numbers,tokens,outputs,inputs,forward\ngemm,bf16,1,1,1,nan\n", "forward must be a rate above zero"),
        ("kernel,numbers,tokens,outputs,inputs,forward\ngemm,bf16,1,1,1,-3\n", "forward must be a rate above zero"),
        (
            "kernel,numbers,tokens,outputs,inputs,forward\ngemm,bf16,x,1,1,3\n",
            "a size must be a whole number above zero, got 'x'",
        ),
        ("# nothing\n", "it has no rows"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        costs_of(**{"gpu.kernels.gemm": str(path)})


@pytest.mark.parametrize("stack", ["megatron", "deepseek"])
@pytest.mark.parametrize("key", ["gpu.kernels.gemm", "gpu.kernels.attention", "cluster.collectives"])
def test_a_table_that_there_is_not_is_refused_whether_or_not_a_run_asks_it(key: str, stack: str) -> None:
    with pytest.raises(UserError, match=rf"{key.removesuffix('.gemm').removesuffix('.attention')}: .* 'h10'.*h100"):
        costs_of(**{key: "h10", "stack": stack})


def test_a_table_of_ones_own_that_a_stack_never_asks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("kernel,numbers,tokens,outputs,inputs,forward\ngemm,bf16,1,1,1,500\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"own.csv counts for nothing: stack deepseek takes rates from gpu.gemm"):
        costs_of(**{"gpu.kernels.gemm": str(path), "stack": "deepseek"})
