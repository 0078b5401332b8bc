"""Stage layouts: Megatron's own examples, brute force for the balanced split, and what every mistake says."""

from __future__ import annotations

from itertools import combinations_with_replacement, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import simulate
from dualpipe_sim.costs.asked import op_seconds
from dualpipe_sim.errors import ScheduleError, UserError
from dualpipe_sim.model.layout import DepthTimes, StageLayers, balanced, even, lay_out, megatron
from dualpipe_sim.order.ops import F

Seconds = st.integers(0, 40).map(float)


def short(stages: tuple[StageLayers, ...]) -> list[str]:
    """Stages in Megatron's letters."""
    return ["E" * one.embedding + "t" * len(one.layers) + "m" * one.mtp + "L" * one.head for one in stages]


def test_megatrons_layout_of_deepseek_v3() -> None:
    """The table in Megatron-Core's user guide for ``Et*3|(tt|)*29,m|L`` on 16 ranks of two stages.

    Rank 0 holds the embedding and three layers, then two; ranks 1 to 13 two and two; 14 two and the MTP layer; 15 two
    and the loss (https://docs.nvidia.com/megatron-core/developer-guide/latest/user-guide/features/pipeline_parallel_layout.html).
    """
    stages = short(megatron("Et*3|(tt|)*29,m|L"))
    by_rank = [(stages[rank], stages[16 + rank]) for rank in range(16)]
    assert by_rank == [("Ettt", "tt"), *[("tt", "tt")] * 13, ("tt", "m"), ("tt", "L")]


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("E||t|L", ["E", "", "t", "L"]),  # the user guide: the second stage is empty
        ("E|(t|)*3,m|m||L", ["E", "t", "t", "t", "m", "m", "", "L"]),  # the help of Megatron's option
        ("Et*2,(t|t)*2,(|t)*2L", ["Ettt", "tt", "t", "t", "tL"]),
        ("tttt | tttt", ["tttt", "tttt"]),
    ],
)
def test_a_layout_string_unrolls(text: str, stages: list[str]) -> None:
    assert short(megatron(text)) == stages


def test_several_losses_are_one_each_the_models_own_first() -> None:
    # Megatron-LM PR 5318: multi-token prediction's losses on stages of their own
    stages = megatron("E|(t|)*10m|m|m|LL|LL")
    assert len(stages) == 16
    assert [(stage.head, stage.mtp_heads) for stage in stages[-3:]] == [(False, 0), (True, 1), (False, 2)]
    assert [stage.heads for stage in stages[-2:]] == [("head", "mtp head"), ("mtp head", "mtp head 2")]
    early = megatron("EtL|mL|mL")
    assert [stage.heads for stage in early] == [("head",), ("mtp head",), ("mtp head",)]
    (whole,) = megatron("EtmmL")
    assert whole.heads == ("head", "mtp head", "mtp head 2")


def test_losses_on_two_stages_share_their_work_and_need_the_head_twice() -> None:
    setting: dict[str, Any] = {"model": {"preset": "deepseek-v3", "layers": 10, "dense_layers": 0, "mtp_depth": 3}}
    setting |= {"parallel": {"expert": 8}, "ranks": 8, "micro_batches": 16}
    setting |= {"schedule": {"name": "interleaved-1f1b", "stages_per_rank": 2}}
    one, two = (
        simulate("deepseek_v3", **setting, **{"pipeline.layout": f"E|(t|)*10m|m|m|{losses}"})
        for losses in ("LLLL|", "LL|LL")
    )
    alone = [op_seconds(run.played.graph.costs, F, 16) for run in (one, two)]
    assert alone[1][14] == pytest.approx(alone[0][14] / 2)
    assert alone[1][15] == pytest.approx(alone[0][14] / 2)
    assert (one.makespan_s or 0.0) > (two.makespan_s or 0.0)
    # the head's matrix, in BF16, is on rank 7 for stage 15 as well as on rank 6 for stage 14
    weights = [
        int(run.memory.size_bytes[run.memory.peak_by_rank[7], 0]) for run in (one, two) if run.memory is not None
    ]
    assert weights[1] - weights[0] == pytest.approx(2 * 129280 * 7168, rel=0.01)


def test_layers_are_numbered_through_the_stages() -> None:
    assert [stage.layers for stage in megatron("Ett||t*3|mL")] == [(0, 1), (), (2, 3, 4), ()]


@given(st.integers(1, 200), st.integers(1, 64))
def test_even_stages_differ_by_one_layer_at_most(layers: int, stages: int) -> None:
    counts = even(layers, stages)
    assert sum(counts) == layers
    assert max(counts) - min(counts) <= 1


def test_the_rest_of_an_even_split_is_spread() -> None:
    assert even(10, 4) == (2, 3, 2, 3)


@given(st.lists(Seconds, min_size=1, max_size=8), Seconds, Seconds, st.integers(1, 5))
def test_the_balanced_split_is_the_best_of_all_splits(
    layers_s: list[float], before_s: float, after_s: float, stages: int
) -> None:
    def times(counts: tuple[int, ...]) -> list[float]:
        ends = [0, *(sum(counts[: stage + 1]) for stage in range(stages))]
        seconds = [sum(layers_s[begin:end]) for begin, end in pairwise(ends)]
        seconds[0] += before_s
        seconds[-1] += after_s
        return seconds

    def score(counts: tuple[int, ...]) -> tuple[float, float]:
        return max(times(counts)), sum(second**2 for second in times(counts))

    cuts = combinations_with_replacement(range(len(layers_s) + 1), stages - 1)
    splits = [tuple(end - begin for begin, end in pairwise([0, *cut, len(layers_s)])) for cut in cuts]
    found = balanced(DepthTimes(tuple(layers_s), before_s, after_s), stages)
    assert sum(found) == len(layers_s)
    assert score(found) == min(map(score, splits))


def test_a_heavy_head_takes_layers_from_its_stage() -> None:
    """Nine equal layers on three stages; a head as long as two layers leaves its stage with two, the others 4 and 3."""
    found = balanced(DepthTimes((1.0,) * 9, 0.0, 2.0), 3)
    assert sorted(found[:2]) == [3, 4]
    assert found[2] == 2


@pytest.mark.parametrize("choice", ["even", "balanced", (3, 2, 1), "Ettt|tt|tmL"])
def test_every_layout_holds_the_model_once_and_in_order(choice: str | tuple[int, ...]) -> None:
    stages = lay_out(choice, 3, 1, DepthTimes((1.0,) * 6, 0.5, 2.0))
    assert [layer for stage in stages for layer in stage.layers] == list(range(6))
    assert [stage.embedding for stage in stages] == [True, False, False]
    assert [(stage.mtp, stage.head) for stage in stages] == [(0, False), (0, False), (1, True)]


@pytest.mark.parametrize(
    ("choice", "error", "said"),
    [
        ((3, 3), ScheduleError, "pipeline.layout has 2 stages, but this schedule cuts the model into 3"),
        ((3, 3, 1), UserError, "pipeline.layout holds 7 layers, but the model has 6"),
        ("Ettt|tt|tL", UserError, "holds 0 multi-token prediction modules, but the model has 1"),
        ("tE|tt|tttmL", UserError, "must go from one E over all t and all m to one L, not as in 'tE|tt|tttmL'"),
        ("Ett|m|ttttL", UserError, "must go from one E"),
        ("Ettttmm|LL", UserError, "2 L, but the model and its 2 m have 3 losses; give one L for all, or one for each"),
        ("EttttLL|m", UserError, "an L stands before the m whose loss it is"),
        ("uneven", UserError, "must be 'even', 'balanced', a list of numbers of layers, or stages of E, t, m and L"),
        ("E((t)*2)*3|L", UserError, "got '(' in"),
        ("", UserError, "got nothing in ''"),
        ("t*99999999999|L", UserError, "repeats too often"),
        ("((t|)*9999)*9999", UserError, "pipeline.layout"),
    ],
)
def test_a_wrong_layout_is_named(choice: str | tuple[int, ...], error: type[UserError], said: str) -> None:
    with pytest.raises(error) as caught:
        lay_out(choice, 3, 1, DepthTimes((1.0,) * 6))
    assert said in str(caught.value)


@given(st.text("Etml|*()0123456789, ", max_size=20))
def test_any_text_is_a_layout_or_refused(text: str) -> None:
    try:
        stages = megatron(text)
    except UserError as error:
        assert "pipeline.layout" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert [layer for stage in stages for layer in stage.layers] == list(range(sum(len(s.layers) for s in stages)))
