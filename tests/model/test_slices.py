"""Cuts of sequences: Seq1F1B's balanced one, TeraPipe's dynamic programme, what SlimPipe exchanges."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import UserError, simulate
from dualpipe_sim.config.load import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.model.attention.registry import Exchanged
from dualpipe_sim.model.slices import Shape, balanced_cut, exchange_bytes, shares_of_even_slices, terapipe_cut

SHAPES = st.builds(
    lambda layers, heads, head, vocabulary: Shape(layers, heads * head, 4 * heads * head, heads, head, vocabulary),
    st.integers(1, 48), st.integers(1, 64), st.sampled_from([64, 128]), st.integers(0, 200_000),
)  # fmt: skip


def flops_by_hand(shape: Shape, begin: int, end: int) -> float:
    """FLOPs of F of some tokens, each of which attends, on average, to those before it and half of its slice."""
    layers, hidden, ffn, heads, head, vocabulary = shape
    tokens, keys = end - begin, (begin + end) / 2
    attended = tokens * keys * heads * (2 * head + 2 * head + 3)
    maps = tokens * (2 * hidden * 4 * heads * head + 2 * hidden * 2 * ffn)
    return layers * (attended + maps) + 2 * 2 * tokens * hidden * vocabulary


@given(SHAPES, st.integers(9, 17), st.integers(1, 8), st.sampled_from([1, 2, 8]))
def test_a_balanced_cut_gives_each_slice_as_many_flops(shape: Shape, power: int, slices: int, multiple: int) -> None:
    length = 2**power
    cut = balanced_cut(shape, length, slices, multiple)
    assert sum(cut) == length
    assert len(cut) == slices
    assert all(tokens % multiple == 0 for tokens in cut[1:])
    ends = np.cumsum(cut).tolist()
    share = flops_by_hand(shape, 0, length) / slices
    for tokens, end in list(zip(cut, ends, strict=True))[1:]:  # as long as the share lasts, and no multiple longer
        assert flops_by_hand(shape, end - tokens, end) <= share * (1 + 1e-9)
        assert flops_by_hand(shape, end - tokens - multiple, end) >= share * (1 - 1e-9)
    assert shape.flops(cut[-1], length) == pytest.approx(flops_by_hand(shape, length - cut[-1], length))


def test_a_sequence_too_short_is_refused() -> None:
    with pytest.raises(UserError, match="16 tokens are too few for 8 slices of multiples of 8"):
        balanced_cut(Shape(2, 64, 256, 4, 16, 100), 16, 8, 8)


def all_cuts(length: int) -> list[tuple[int, ...]]:
    inner = [cut for count in range(length) for cut in combinations(range(1, length), count)]
    return [tuple(np.diff([0, *cut, length]).tolist()) for cut in inner]


@settings(max_examples=30)
@given(
    st.integers(1, 9), st.integers(1, 8), st.sampled_from([1, 4]), st.floats(0, 3), st.floats(0, 2), st.floats(0, 0.5)
)
def test_terapipes_cut_is_the_best_of_all(
    count: int, ranks: int, multiple: int, launch: float, token: float, pair: float
) -> None:
    def seconds(tokens: int, context: int) -> float:
        return launch + token * tokens + pair * tokens * (context + tokens / 2)

    def takes(lengths: tuple[int, ...]) -> float:
        ends = np.cumsum([0, *lengths]).tolist()
        each = [seconds(length, begin) for length, begin in zip(lengths, ends, strict=False)]
        return sum(each) + (ranks - 1) * max(each)

    found = terapipe_cut(ranks, count * multiple, seconds, multiple)
    assert sum(found.lengths) == count * multiple
    assert found.seconds == pytest.approx(takes(found.lengths))
    assert found.seconds == pytest.approx(min(takes(tuple(multiple * one for one in cut)) for cut in all_cuts(count)))


def test_a_sequence_that_has_no_such_slices_is_refused() -> None:
    with pytest.raises(UserError, match="20 tokens cannot be cut into slices of multiples of 8"):
        terapipe_cut(4, 20, lambda tokens, _: float(tokens))


@given(st.integers(1, 9), st.integers(1, 64))
def test_after_the_exchange_all_ranks_attend_to_as_much(ranks: int, tokens: int) -> None:
    """Contexts are 0 to P-1 slices and half of the own; each pair moves keys until both have the mean, (P-1)/2 more."""
    moved = exchange_bytes(Exchanged(queries=3, keys_values=2, outputs=5), tokens, ranks, element_bytes=1.0)
    keys = [(one - tokens * (3 + 5)) / (tokens * 2) for one in moved]
    contexts = list(range(ranks))
    for pair, slices in enumerate(keys):
        contexts[pair] += slices  # type: ignore[call-overload]
        contexts[-1 - pair] -= slices  # type: ignore[call-overload]
    assert contexts == [(ranks - 1) / 2] * ranks


LLAMA: dict[str, Any] = {
    "schedule": "seq1f1b",
    "costs": {"kind": "layers"},
    "model": "llama3-8b",
    "gpu": "a100",
    "parallel": {"tensor": 1, "pipeline": 4},
    "training": {"global_batch": 8, "sequence_length": 32768, "recompute": "full"},
}


def test_even_slices_take_what_their_tokens_attend_to() -> None:
    costs = load_experiment(LLAMA).costs
    assert isinstance(costs, LayerCosts)
    model = costs.job.model
    shares = shares_of_even_slices(model, 32768, 4)
    assert sum(shares) == pytest.approx(1)
    # Of a token FLOPs are 2 for each parameter, and 2 x 2 x keys x 4096 for scores and their sum in 32 layers.
    maps = 2 * model.active_parameters()
    by_hand = np.array([maps + 32 * 4 * 4096 * 32768 * (part + 0.5) / 4 for part in range(4)])
    assert shares == pytest.approx(by_hand / by_hand.sum(), rel=0.01)
    assert shares[3] > 1.5 * shares[0]


def test_costs_by_layer_know_balanced_slices_and_even_ones() -> None:
    balanced, even, whole = (
        simulate(LLAMA, schedule=schedule, **{"costs.slices": slices})
        for schedule, slices in (("seq1f1b", "balanced"), ("seq1f1b", "even"), ("1f1b", "even"))
    )
    assert balanced.makespan_s is not None
    assert even.makespan_s is not None
    assert whole.makespan_s is not None
    assert balanced.makespan_s < even.makespan_s
    assert balanced.makespan_s < whole.makespan_s
    assert even.timeline is not None
    graph = even.timeline.graph
    busy = [
        np.bincount(graph.rank, weights=run.timeline.graph.duration_s[: graph.first_transfer])
        for run in (even, balanced)
        if run.timeline is not None
    ]
    assert busy[0] == pytest.approx(busy[1])  # the same work, dealt out otherwise


def test_a_result_says_how_much_slimpipe_would_exchange() -> None:
    # Of 8192 tokens queries and outputs of 4096, and of 1.5 slices keys and values of 8 heads of 128, two bytes each.
    result = simulate(LLAMA, schedule="slimpipe")
    assert result.timeline is not None
    megabytes = 8192 * 2 * (2 * 4096 + 1.5 * 2 * 8 * 128) / 1e6
    assert result.timeline.caveats == (
        f"slimpipe's ranks exchange attention, {megabytes:.1f} MB a layer and slice at most, which takes no time here",
    )
    other = simulate(LLAMA)
    assert other.timeline is not None
    assert other.timeline.caveats == ()
