"""Kinds of attention: counted by hand, and what holds for each that there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim.errors import UserError
from dualpipe_sim.model.activations import layer_activations, weight_gradient_inputs
from dualpipe_sim.model.architecture import Experts, Layer, LayerKind, Model
from dualpipe_sim.model.attention.kimi_delta import KimiDelta
from dualpipe_sim.model.attention.mamba2 import Mamba2
from dualpipe_sim.model.attention.registry import Attention, kinds
from dualpipe_sim.model.attention.softmax import Indexer, SoftmaxAttention
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe, Recompute

SIZES: dict[str, dict[str, Any]] = {
    "softmax": {"heads": 8, "qk_head": 16, "v_head": 16},
    "gated-delta": {"key_heads": 8, "value_heads": 16, "key_head": 16, "value_head": 8},
    "kimi-delta": {"heads": 8, "head": 16},
    "lightning": {"heads": 8, "head": 16},
    "mamba2": {"heads": 8, "head": 16, "state": 32, "groups": 8},
    "none": {},
}
HIDDEN = 64


@pytest.fixture(params=kinds())
def attention(request: pytest.FixtureRequest) -> Attention:
    name = str(request.param)
    assert name in SIZES, f"give {name} a size here"
    return kinds()[name](**SIZES[name])


def test_gpus_of_a_group_share_out_what_is_cut(attention: Attention) -> None:
    whole, part = attention.linears(HIDDEN), attention.over(4).linears(HIDDEN)
    for one, share in zip(whole, part, strict=True):
        expected = 1 if one.cut is None else 4
        assert one.parameters == expected * share.parameters
        assert one.name == share.name
    core, own = attention.core(1024), attention.over(4).core(1024)
    assert (core.forward, core.backward) == pytest.approx((4 * own.forward, 4 * own.backward))


def test_heads_that_do_not_divide_are_refused(attention: Attention) -> None:
    if attention.linears(HIDDEN):
        with pytest.raises(UserError, match=r"parallel\.tensor: 3 GPUs cannot share model\.attention\.\w+ out evenly"):
            attention.over(3)


def test_twice_the_tokens_are_twice_the_bytes(attention: Attention) -> None:
    recipe = Recipe("bf16", recompute=Recompute.of(()))
    once = attention.activations(recipe, MicroBatch(512, 512), dropout=False)
    twice = attention.activations(recipe, MicroBatch(1024, 512), dropout=False)
    assert twice == pytest.approx({name: 2 * size for name, size in once.items()})
    assert min(once.values(), default=0) >= 0


def test_all_that_is_linear_takes_the_same_a_token_at_any_length(attention: Attention) -> None:
    short, long = attention.core(1024), attention.core(4096)
    assert long.forward == pytest.approx(short.forward * (4 if isinstance(attention, SoftmaxAttention) else 1))
    assert long.backward >= long.forward


@given(st.integers(1, 40), st.integers(0, 45), st.sampled_from(["window", "chunk", "top_k"]))
def test_keys_that_a_query_sees_are_those_that_one_counts(length: int, size: int, way: str) -> None:
    """Of a causal sequence, all keys before a query, itself counted; half a key less, as a diagonal counts half."""
    plain, most = SoftmaxAttention(heads=1, qk_head=1, v_head=1), size or length
    if way == "chunk":
        attention, most = replace(plain, chunk=size), min(most, length)
        seen = sum(range(1, most + 1)) / most  # of any whole chunk
        assert attention.keys_seen(length) == pytest.approx(seen - 1 / 2)
        return
    indexer = Indexer(1, 1, size) if size and way == "top_k" else None
    attention = replace(plain, indexer=indexer) if way == "top_k" else replace(plain, window=size)
    seen = sum(min(query + 1, most) for query in range(length)) / length
    assert attention.keys_seen(length) == pytest.approx(seen - min(most, length) / 2 / length)


def test_kimi_delta_has_the_parameters_of_its_modules() -> None:
    """Maps of q, k, v, of decay and gate over a latent each, of strength and output; convolutions, decays, norm."""
    net, hidden, wide = KimiDelta(heads=32, head=128), 2304, 4096
    maps = 3 * hidden * wide + 2 * (hidden * 128 + 128 * wide) + hidden * 32 + wide * hidden
    assert sum(linear.parameters for linear in net.linears(hidden)) == maps
    assert (net.other_parameters, net.norm_parameters) == (3 * wide * 4 + wide + 32, 128)


def test_a_hybrid_is_a_pattern_of_kinds() -> None:
    """Nemotron's: a Mamba-2 layer, one of experts, one of attention; each is a block with a norm and a residual."""
    mamba, plain = Mamba2(heads=8, head=16, state=32), SoftmaxAttention(heads=8, qk_head=16, v_head=16)
    nothing = kinds()["none"]()
    model = Model(
        "hybrid", HIDDEN, 5, 1000, plain, experts=Experts(routed=4, active=2, ffn=32), activation="relu2",
        pattern="MEA",
        kinds={"M": LayerKind(mamba, "none"), "E": LayerKind(nothing, "moe"), "A": LayerKind(ffn="none")},
    )  # fmt: skip
    assert model.layer_kinds() == (
        Layer(mamba, "none"), Layer(nothing, "moe"), Layer(plain, "none"), Layer(mamba, "none"), Layer(nothing, "moe"),
    )  # fmt: skip
    assert [layer.blocks for layer in model.layer_kinds()] == [1] * 5
    norms = 5 * HIDDEN + 2 * 128 + HIDDEN
    assert model.parameters().norms == norms
    assert model.parameters().routed == 2 * 4 * 2 * HIDDEN * 32
    batch = MicroBatch(256, 256)
    for layer in model.layer_kinds():
        kept = layer_activations(model, layer, Recipe("bf16"), batch)
        assert kept["norm inputs"] == 256 * HIDDEN * 2
        assert weight_gradient_inputs(model, layer, Recipe("bf16"), batch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": "dx"}, "model.pattern: 'x' is no kind of layer; kinds are d, m"),
        ({"pattern": "m"}, "model.experts: is missing; the pattern has MoE layers"),
        ({"kinds": {"s": LayerKind()}}, "model.pattern: is missing; it says which layers are s"),
        ({"kinds": {"ss": LayerKind()}, "pattern": "d"}, "model.kinds: a kind is named by one letter, not by 'ss'"),
        ({"ffn": 0}, "model.ffn: is missing; dense layers have a width"),
        ({"pattern": "d", "dense_layers": 2}, "model.dense_layers: the pattern says which layers are dense; leave one"),
        ({"positions": "learned"}, "model.max_positions: is missing; learned positions have a row for each"),
    ],
)
def test_layers_that_do_not_fit_are_refused_in_one_sentence(change: dict[str, Any], message: str) -> None:
    model = Model("mine", HIDDEN, 2, 1000, SoftmaxAttention(heads=8, qk_head=16, v_head=16), ffn=128)
    with pytest.raises(UserError) as error:
        replace(model, **change)
    assert str(error.value).startswith(message)
