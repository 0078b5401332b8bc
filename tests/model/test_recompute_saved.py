"""What layers keep, and compute again, with parts of them run again, against layers that torch runs again.

Whole layers, FFNs, shared experts and attention's core run again by torch's own checkpoints; norms, activations and
up-projections, whose outputs GEMMs or attention read, by hooks that make them again when the backward asks for them.
What is kept is what is alive between forward and backward, whoever holds it. Only where torch is installed;
`make test-all` installs it beside the environment.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from dualpipe_sim.model.recipe import Recipe, Recompute

torch = pytest.importorskip("torch", reason="torch is not installed; make test-all runs this")
from tests.model.test_tensor_parallel_saved import (  # noqa: E402 - which needs torch
    HIDDEN,
    MODELS,
    TOKENS,
    Rank,
    by_formula,
    by_item,
    counted,
    hooks,
    kept,
    rank_of,
    saved,
    storage,
)

checkpoint = pytest.importorskip("torch.utils.checkpoint")
TorchDispatchMode = pytest.importorskip("torch.utils._python_dispatch").TorchDispatchMode

pytestmark = pytest.mark.usefixtures("one_thread")

PARTS = ("norms", "up_projections", "activation", "routed_activation", "core", "shared", "mlp", "moe")
CHOICES = [("full",), ("norms", "up_projections", "activation"), *((one,) for one in PARTS), *combinations(PARTS, 2)]
"""What runs again: all, what usually does, every part and every two."""


class Made(TorchDispatchMode):  # type: ignore[misc, valid-type]
    """Every storage that is made, with its bytes, held by nothing here."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[Any, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.storages[storage(tensor)] = tensor.untyped_storage().nbytes()
        return out


def alive(rank: Rank) -> dict[str, float]:
    """Return the bytes that are alive between a layer's forward and its backward, by item, without its output."""
    with Made() as made, torch.autograd.graph.saved_tensors_hooks(*hooks(rank)):
        out = rank(rank.input())
    output = storage(out)
    items = by_item(rank, {key: size for key, size in made.storages.items() if not key.expired() and key != output})
    out.sum().backward()  # which runs, so that all it needs was there
    return items


def run_again(rank: Rank, recipe: Recipe) -> dict[str, float]:
    """Return the FLOPs of forwards that run whole before the backward, by part."""
    again = recipe.recompute
    parts = {"dense": again.mlp, "gate": again.moe, "routed": again.moe, "shared": again.moe}
    return {part: flops.forward for part, flops in by_formula(rank, recipe).items() if again.full or parts.get(part)}


def expected(rank: Rank, recipe: Recipe) -> tuple[float, float]:
    """Return the FLOPs of the forward, and of forward and backward, as the formulas have them."""
    formula = by_formula(rank, recipe).values()
    again = sum(run_again(rank, recipe).values())
    return sum(one.forward for one in formula), sum(sum(one) for one in formula) + again


def recomputing(name: str, *names: str, tensor: int = 2, stack: str = "deepseek") -> tuple[Rank, Recipe]:
    recompute = Recompute.of(names)
    return rank_of(name, tensor, stack=stack, again=recompute), Recipe("bf16", recompute=recompute)


@pytest.mark.parametrize("stack", ["deepseek", "megatron"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_alive_is_what_hooks_see_saved(name: str, stack: str) -> None:
    assert alive(rank_of(name, 2, stack=stack)) == saved(rank_of(name, 2, stack=stack))


@pytest.mark.parametrize("stack", ["deepseek", "megatron"])
@pytest.mark.parametrize("name", MODELS)
def test_a_layer_that_runs_parts_again_keeps_what_is_alive(name: str, stack: str) -> None:
    for names in CHOICES[1:]:
        rank, recipe = recomputing(name, *names, stack=stack)
        assert alive(rank) == kept(rank, recipe), names


@pytest.mark.parametrize("tensor", [1, 2, 4])
@pytest.mark.parametrize("name", MODELS)
def test_a_layer_that_runs_again_keeps_its_input(name: str, tensor: int) -> None:
    rank, recipe = recomputing(name, "full", tensor=tensor)
    assert alive(rank) == {"norm inputs": TOKENS // tensor * HIDDEN * 2}
    assert kept(rank, recipe) == {"layer input": TOKENS // tensor * HIDDEN * 2}


@pytest.mark.parametrize("name", MODELS)
def test_what_runs_again_is_what_torch_counts(name: str) -> None:
    """FFNs and whole layers have F, F, I and W; of other parts I has what is redone."""
    for names in CHOICES:
        rank, recipe = recomputing(name, *names)
        with checkpoint.set_checkpoint_early_stop(False):
            assert counted(rank) == expected(rank, recipe), names


@pytest.mark.parametrize("names", [("full",), ("mlp",)])
@pytest.mark.parametrize("tensor", [1, 2])
def test_torch_leaves_the_last_map_out_where_it_may(names: tuple[str, ...], tensor: int) -> None:
    """Its checkpoints end with the last tensor that the backward needs, which the last map's output is not.

    The formulas have the whole forward again, as Megatron-LM does. A map that is one function with its scatter saves
    behind it, and so runs to its end.
    """
    rank, recipe = recomputing("multi-head", *names, tensor=tensor)
    last_map = 2 * TOKENS * HIDDEN * MODELS["multi-head"].ffn if tensor == 1 else 0
    forward, both = expected(rank, recipe)
    assert counted(rank) == (forward, both - last_map)


def test_torch_leaves_the_second_product_of_stored_scores_out() -> None:
    """As above; Megatron-LM's selective recomputation has both products again, as the formulas do."""
    rank, recipe = recomputing("stored scores", "core")
    product = by_formula(rank, recipe)["core"].forward / 2
    forward, both = expected(rank, recipe)
    assert counted(rank) == (forward, both - product)
