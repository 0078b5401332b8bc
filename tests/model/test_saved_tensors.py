"""What a layer keeps until its backward, against what autograd saves of a layer made of torch's own modules.

Norms and SwiGLU are single functions here, as fused kernels are: they save what they read, no more. Only where torch is
installed; `make test-all` installs it beside the environment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dualpipe_sim.model.activations import layer_activations
from dualpipe_sim.model.architecture import Layer, Model
from dualpipe_sim.model.attention.softmax import SoftmaxAttention
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe, Recompute

torch = pytest.importorskip("torch", reason="torch is not installed; make test-all runs this")

TOKENS, HIDDEN, WIDTH, HEADS, HEAD = 64, 128, 352, 8, 16
ALL = Recipe("bf16", recompute=Recompute.of(()))


def norm(x: Any, gain: Any) -> Any:  # noqa: ANN401 - tensors, where torch may not be installed
    """RMSNorm that saves its input alone."""

    class RmsNorm(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any, gain: Any) -> Any:  # noqa: ANN401
            ctx.save_for_backward(x, gain)
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * gain

        @staticmethod
        def backward(ctx: Any, grad: Any) -> tuple[Any, Any]:  # noqa: ANN401
            x, gain = ctx.saved_tensors
            return grad * gain, (grad * x).sum(0)

    return RmsNorm.apply(x, gain)


def swiglu(both: Any) -> Any:  # noqa: ANN401
    """SwiGLU that saves what goes in."""

    class SwiGlu(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, both: Any) -> Any:  # noqa: ANN401
            ctx.save_for_backward(both)
            gate, up = both.chunk(2, -1)
            return torch.nn.functional.silu(gate) * up

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:  # noqa: ANN401
            (both,) = ctx.saved_tensors
            return torch.cat([grad, grad], -1) * both

    return SwiGlu.apply(both)


class Weights:
    """Weights as they are asked for, so that they are told from what is saved."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def __call__(self, outputs: int, inputs: int = 0) -> Any:  # noqa: ANN401
        shape = (outputs, inputs) if inputs else (outputs,)
        self.all.append(torch.randn(shape, dtype=torch.bfloat16, requires_grad=True))
        return self.all[-1]


def attend(q: Any, k: Any, v: Any) -> Any:  # noqa: ANN401
    """Attention of (tokens, heads, head) each."""
    heads_first = (one.transpose(0, 1)[None] for one in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=True, enable_gqa=True)
    return out[0].transpose(0, 1).flatten(1)


def grouped(x: Any, new: Weights, kv_heads: int) -> Any:  # noqa: ANN401
    qkv = torch.nn.functional.linear(x, new((HEADS + 2 * kv_heads) * HEAD, HIDDEN)).view(TOKENS, -1, HEAD)
    q, k, v = qkv.split((HEADS, kv_heads, kv_heads), 1)
    return attend(q, k, v)


def latent(x: Any, new: Weights) -> Any:  # noqa: ANN401
    """MLA: queries from a latent of 48, keys and values from one of 32, 8 rotary dimensions beside 16."""
    linear = torch.nn.functional.linear
    down = linear(x, new(48 + 32 + 8, HIDDEN))
    for_q, for_kv, rope = down.split((48, 32, 8), 1)
    q = linear(norm(for_q, new(48)), new(HEADS * 24, 48)).view(TOKENS, HEADS, 24)
    kv = linear(norm(for_kv, new(32)), new(HEADS * 32, 32)).view(TOKENS, HEADS, 32)
    k = torch.cat([kv[..., :16], rope[:, None].expand(-1, HEADS, -1)], -1)
    return attend(q, k, torch.nn.functional.pad(kv[..., 16:], (0, 8)))[:, :]


def saved_bytes(attention: Callable[[Any, Weights], Any], *, gated: bool) -> int:
    """Return the bytes that a layer's forward leaves for its backward, each storage once, weights left out."""
    new, storages = Weights(), {}

    def pack(tensor: Any) -> Any:  # noqa: ANN401
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    linear = torch.nn.functional.linear
    x = torch.randn(TOKENS, HIDDEN, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mixed = attention(norm(x, new(HIDDEN)), new)
        x = x + linear(mixed, new(HIDDEN, mixed.shape[1]))
        up = linear(norm(x, new(HIDDEN)), new((2 if gated else 1) * WIDTH, HIDDEN))
        inner = swiglu(up) if gated else torch.nn.functional.gelu(up)
        x = x + linear(inner, new(HIDDEN, WIDTH))
        x.sum().backward()
    own = {weight.untyped_storage().data_ptr() for weight in new.all}
    return sum(size for place, size in storages.items() if place not in own)


def model(attention: SoftmaxAttention, *, gated: bool) -> Model:
    return Model("small", HIDDEN, 1, 100, attention, ffn=WIDTH, activation="swiglu" if gated else "gelu")


PLAIN = SoftmaxAttention(heads=HEADS, qk_head=HEAD, v_head=HEAD)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("kv_heads", [8, 2, 1])
def test_a_layer_of_grouped_attention_keeps_what_autograd_saves(kv_heads: int, *, gated: bool) -> None:
    attention = replace(PLAIN, kv_heads=0 if kv_heads == HEADS else kv_heads)
    kept = layer_activations(model(attention, gated=gated), Layer(attention, "dense"), ALL, MicroBatch(TOKENS, TOKENS))
    assert saved_bytes(lambda x, new: grouped(x, new, kv_heads), gated=gated) == sum(kept.values())


def test_a_layer_of_latent_attention_keeps_what_autograd_saves() -> None:
    """Values are padded to the width of keys here, since torch's attention on a CPU has them alike."""
    attention = SoftmaxAttention(heads=HEADS, qk_head=16, rope_head=8, v_head=24, q_lora=48, kv_lora=32)
    kept = layer_activations(model(attention, gated=True), Layer(attention, "dense"), ALL, MicroBatch(TOKENS, TOKENS))
    assert math.isclose(saved_bytes(latent, gated=True), sum(kept.values()))
