"""Write the table of what FP8 buys into docs/costs_appendix.md: ``python docs/make_costs.py``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from dualpipe_sim.analysis.memory import Memory
from dualpipe_sim.base.precision import Precision
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.alltoall import AllToAll
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.model.footprint import bytes_by_unit
from dualpipe_sim.model.recipe import Recipe, Recompute
from dualpipe_sim.model.state import local_parameters, state_bytes
from dualpipe_sim.result import Result
from dualpipe_sim.simulation import run

PAGE = Path(__file__).parent / "costs_appendix.md"
BEGIN, END = "<!-- written by docs/make_costs.py -->\n", "<!-- until here -->\n"
MOE_LAYER = 30
"""Any layer of DeepSeek-V3 that has experts."""


@dataclass(frozen=True)
class Mixed(Recipe):
    """A recipe of which each effect has a precision of its own; ``precision`` is that of the GEMMs.

    Attributes:
        dispatch_and_caches: of the dispatched tokens and of cached activations.
        weights: of resident weights.

    """

    dispatch_and_caches: Precision = "fp8"
    weights: Precision = "fp8"

    @property
    def activation_bytes(self) -> float:
        """Bytes of an activation in a cache or on the wire."""
        return Recipe(self.dispatch_and_caches).activation_bytes

    @property
    def sent_bytes(self) -> float:
        """Bytes of an element of a token on its way to its experts."""
        return Recipe(self.dispatch_and_caches).sent_bytes

    @property
    def attention_output_bytes(self) -> float:
        """Bytes of an element of attention's cached output."""
        return Recipe(self.dispatch_and_caches).attention_output_bytes

    @property
    def weight_bytes(self) -> float:
        """Bytes of a resident weight."""
        return Recipe(self.weights).weight_bytes


def table() -> str:
    """Return both tables: quantity by quantity, and each effect alone."""
    fp8 = load_experiment("deepseek_v3")
    # One layout for all, that of FP8, so that only precision differs.
    layout = tuple(len(stage.layers) for stage in _costs(fp8).stage_layers(fp8.choice.ranks))
    fp8 = _changed(fp8, layout=layout)
    bf16 = _with(fp8, Recipe("bf16"))
    head = "| DeepSeek-V3, one H800 | BF16 | FP8 | |\n|---|---|---|---|\n"
    rows = (
        f"| {what} | {_text(wide)} | {_text(narrow)} | {narrow / wide:.2f} |\n"
        for (what, wide), (_, narrow) in zip(_quantities(_costs(bf16)), _quantities(_costs(fp8)), strict=True)
    )
    return f"{head}{''.join(rows)}\n{_effects(bf16)}"


def _quantities(costs: LayerCosts) -> Iterator[tuple[str, float]]:
    """Yield what precision changes, for one MoE layer and one micro-batch."""
    rates = costs.gpu.gemm_rates(costs.job.recipe.numbers.gemm)
    for name, rate in (
        ("GEMMs of F and I, TFLOPS", rates.dense_flops_per_s),
        ("the same, routed experts", rates.grouped_flops_per_s),
        ("GEMMs of W, TFLOPS", rates.weight_gradient_flops_per_s),
        ("the same, routed experts", rates.grouped_weight_gradient_flops_per_s),
    ):
        yield name, rate / 1e12
    parts = costs.parts
    compute_s = dict.fromkeys("FIW", 0.0)
    for (_, work), part in parts.layer(MOE_LAYER).items():
        compute_s[work] += part.alone_s
    yield from ((f"compute of {kind}, ms", seconds * 1e3) for kind, seconds in compute_s.items())
    dispatch = parts.exchanges(MOE_LAYER)["dispatch F"]
    yield "dispatch over InfiniBand, MB", _infiniband_bytes(costs) / 1e6
    yield "dispatch, alone, ms", dispatch.alone_s * 1e3
    yield "all four all-to-alls, alone, ms", sum(part.alone_s for part in parts.exchanges(MOE_LAYER).values()) * 1e3
    for what, recipe in (
        ("activations kept, V3's recomputation, MB", costs.job.recipe),
        ("the same, nothing recomputed", _keeping_all(costs.job.recipe)),
    ):
        yield what, bytes_by_unit(replace(costs.job, recipe=recipe))[MOE_LAYER].activations / 1e6
    yield "kept for a deferred W, MB", bytes_by_unit(costs.job)[MOE_LAYER].weight_gradient_inputs / 1e6
    job = costs.job
    layer = local_parameters(job.model.layer_parameters(job.model.layer_kinds()[-1]), job.parallel.expert)
    yield "resident weights, MB", state_bytes(layer, job.recipe, job.parallel).weights / 1e6


def _infiniband_bytes(costs: LayerCosts) -> float:
    alltoall = cast("AllToAll", costs.alltoall)
    job = costs.job
    return alltoall.exchange(job.tokens, job.model.hidden * job.recipe.activation_bytes).infiniband_bytes


def _effects(bf16: Experiment) -> str:
    """Return the step and the fullest rank's peak with each effect of FP8 alone."""
    recipes: dict[str, Recipe] = {
        "BF16": Recipe("bf16"),
        "GEMMs in FP8": Mixed("fp8", dispatch_and_caches="bf16", weights="bf16"),
        "dispatch and cached activations in FP8": Mixed("bf16", dispatch_and_caches="fp8", weights="bf16"),
        "resident weights in FP8": Mixed("bf16", dispatch_and_caches="bf16", weights="fp8"),
        "all of them: FP8": Recipe("fp8"),
        "FP8, nothing recomputed": _keeping_all(Recipe("fp8")),
        "BF16, nothing recomputed": _keeping_all(Recipe("bf16")),
    }
    head = "| DualPipe, 16 ranks, 120 micro-batches | step, s | peak, GB | fits |\n|---|---|---|---|\n"
    return head + "".join(f"| {what} | {_effect(_run(_with(bf16, recipe)))} |\n" for what, recipe in recipes.items())


def _effect(result: Result) -> str:
    memory = cast("Memory", result.memory)
    fits = f"no, by {memory.over[0].excess_bytes / 1e9:.1f} GB" if memory.over else "yes"
    return f"{result.step_time_s:.2f} | {memory.peak_bytes_by_rank.max() / 1e9:.1f} | {fits}"


def _keeping_all(recipe: Recipe) -> Recipe:
    return replace(recipe, recompute=Recompute.of(()))


def _with(experiment: Experiment, recipe: Recipe) -> Experiment:
    return _changed(experiment, recipe=recipe)


def _changed(experiment: Experiment, **settings: object) -> Experiment:
    """Return an experiment with another setting of its job."""
    costs = cast("LayerCosts", experiment.cost_model)
    return replace(experiment, cost_model=replace(costs, job=replace(costs.job, **settings)))  # type: ignore[arg-type]


def _costs(experiment: Experiment) -> LayerCosts:
    return cast("LayerCosts", experiment.costs)


def _run(experiment: Experiment) -> Result:
    return run(experiment)


def _text(amount: float) -> str:
    return f"{amount:.0f}" if amount >= 100 else f"{amount:.2f}"


def page() -> str:
    """Return the whole page with a current table."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
