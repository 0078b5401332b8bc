"""One GPU's share of a layer in a tensor-parallel group, made by hand in torch: parameters, FLOPs and what it keeps.

A process stands for one rank: its weights are the shards, and a collective is what it does to shapes (a gather repeats
the rank's share, a scatter takes a slice), so gradients have the right shapes, and values that say nothing. Every
storage that autograd saves is named where it is made, and the names are those of the items, so that each item is
compared to the byte. Norms, gated activations and the maps that gather their input again for W are single functions, as
fused kernels are; the rest is torch's. Only where torch is installed; `make test-all` installs it beside the
environment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import pytest

from dualpipe_sim.base.precision import BF16_BYTES
from dualpipe_sim.model.activations import head_activations, layer_activations
from dualpipe_sim.model.architecture import GATED, Experts, Layer, Model
from dualpipe_sim.model.attention.softmax import SoftmaxAttention
from dualpipe_sim.model.flops import Flops, layer_flops, linear_flops
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe, Recompute
from dualpipe_sim.model.stacks import STACKS

torch = pytest.importorskip("torch", reason="torch is not installed; make test-all runs this")
pytestmark = pytest.mark.usefixtures("one_thread")
checkpoint = pytest.importorskip("torch.utils.checkpoint").checkpoint
flop_counter = pytest.importorskip("torch.utils.flop_counter")
StorageWeakRef = pytest.importorskip("torch.multiprocessing.reductions").StorageWeakRef

Tensor: TypeAlias = Any
"""A tensor, where torch may not be installed."""
Run: TypeAlias = Callable[..., Tensor]

TOKENS, SEQUENCE, HIDDEN = 64, 32, 48
KEEP_ALL = Recipe("bf16", recompute=Recompute.of(()))

MULTI_HEAD = SoftmaxAttention(heads=8, qk_head=16, v_head=16)
GROUPED = replace(MULTI_HEAD, kv_heads=4)
MULTI_QUERY = replace(MULTI_HEAD, kv_heads=1)
LATENT = SoftmaxAttention(heads=8, qk_head=16, rope_head=8, v_head=24, q_lora=40, kv_lora=32)
"""Values as wide as keys, since torch's attention on a CPU has them alike."""

LATENT_KEYS = replace(LATENT, q_lora=0)
STORED = replace(MULTI_HEAD, stored_scores=True)
STORED_LATENT = replace(LATENT, v_head=16, stored_scores=True)

DENSE = Model("small", HIDDEN, 1, 101, MULTI_HEAD, ffn=96)
EXPERTS = Experts(routed=8, active=4, ffn=32, shared=2)
MOE = Model("experts", HIDDEN, 1, 101, GROUPED, experts=EXPERTS)


class Fused(torch.autograd.Function):  # type: ignore[misc, name-defined]
    """A function that saves those of its inputs that its backward reads, by number, as a fused kernel does."""

    @staticmethod
    def forward(ctx: Any, forward: Run, backward: Run, keep: Collection[int], *inputs: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(*(inputs[number] for number in keep))
        ctx.run = backward
        return forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        grads = ctx.run(grad, *ctx.saved_tensors)
        return None, None, None, *(grads if isinstance(grads, tuple) else (grads,))


def fused(forward: Run, backward: Run, *inputs: Tensor, keep: Collection[int]) -> Tensor:
    """A function of a forward, and of a backward that reads the output's gradient and the inputs that are kept."""
    return Fused.apply(forward, backward, keep, *inputs)


def storage(tensor: Tensor) -> Tensor:
    """A tensor's storage as a key that neither holds its bytes nor is ever another's."""
    return StorageWeakRef(tensor.untyped_storage())


def norm(x: Tensor, gain: Tensor) -> Tensor:
    def forward(x: Tensor, gain: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * gain

    def backward(grad: Tensor, x: Tensor, gain: Tensor) -> Tensor:
        return grad * gain, (grad * x).flatten(0, -2).sum(0)

    return fused(forward, backward, x, gain, keep=(0, 1))


def gated_unit(both: Tensor, *weights: Tensor, function: str = "silu") -> Tensor:
    """SwiGLU or GeGLU, weighed by each row's weight where there is one, which saves what goes in."""

    def forward(both: Tensor, *weights: Tensor) -> Tensor:
        gate, up = both.chunk(2, -1)
        inner = getattr(torch.nn.functional, function)(gate) * up
        return (inner * weights[0][:, None]).to(inner.dtype) if weights else inner

    def backward(grad: Tensor, both: Tensor, *weights: Tensor) -> Tensor:
        return torch.cat([grad, grad], -1) * both, *weights

    return fused(forward, backward, both, *weights, keep=range(1 + len(weights)))


ACTIVATIONS: dict[str, Run] = {
    "swiglu": gated_unit,
    "geglu": partial(gated_unit, function="gelu"),
    "gelu": torch.nn.functional.gelu,
    "relu2": lambda up: fused(
        lambda up: torch.relu(up).square(), lambda grad, up: 2 * grad * torch.relu(up), up, keep=(0,)
    ),
}


@dataclass
class Rank:
    """One GPU's share of a layer, made by hand from the sizes of the whole.

    Attributes:
        model: the whole model.
        layer: the layer.
        tensor: GPUs of the tensor-parallel group.
        sequence: whether they share the sequence out where nothing else is cut.
        spread: GPUs that routed experts are spread over; tokens take as many experts of each.
        experts_over: GPUs that share out each routed expert's width.
        stack: the software stack, which says whether projections are joint and dispatched tokens copied.
        again: what runs again in the backward.
        weights: the weights by part of the model and name.
        names: what each named storage is, with bytes by item.
        remakes: how storages that are not kept are made again.
        remade: what was made again, once.
        gathers_again: whether a map that is cut by columns gathers its input again for W, as Megatron-LM does.

    """

    model: Model
    layer: Layer
    tensor: int = 1
    sequence: bool = True
    spread: int = 1
    experts_over: int = 1
    stack: str = "deepseek"
    again: Recompute = KEEP_ALL.recompute
    weights: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    names: dict[Any, dict[str, int]] = field(default_factory=dict)
    remakes: dict[Any, Callable[[], Tensor]] = field(default_factory=dict)
    remade: dict[Any, Tensor] = field(default_factory=dict)
    gathers_again: bool = True

    @property
    def shares(self) -> int:
        """GPUs that share the sequence out."""
        return self.tensor if self.sequence else 1

    @property
    def joint(self) -> bool:
        """Whether queries, keys and values are made as one tensor."""
        return self.stack != "deepseek"

    @property
    def attention(self) -> SoftmaxAttention:
        """The whole attention."""
        assert isinstance(self.layer.attention, SoftmaxAttention)
        return self.layer.attention

    @property
    def batch(self) -> MicroBatch:
        """The micro-batch as the formulas have it: each token goes to every GPU of the experts."""
        own = TOKENS // self.shares
        received = own * self.spread if self.spread > 1 else None
        return MicroBatch(TOKENS, SEQUENCE, self.shares, received, expert_shares=self.experts_over)

    def input(self) -> Tensor:
        """The layer's input, of the rank's share of the sequence."""
        return torch.randn(TOKENS // self.shares, HIDDEN, dtype=torch.bfloat16, requires_grad=True)

    def weight(self, part: str, name: str, *shape: int) -> Tensor:
        """A weight, the same one whenever it is asked for."""
        if (part, name) not in self.weights:
            self.weights[part, name] = torch.randn(shape, dtype=torch.bfloat16, requires_grad=True)
        return self.weights[part, name]

    def parameters(self) -> dict[str, int]:
        """Elements of the weights by part."""
        found: Counter[str] = Counter()
        for (part, _), weight in self.weights.items():
            found[part] += weight.numel()
        return dict(found)

    def name(self, item: str, tensor: Tensor, *, remake: Callable[[], Tensor] | None = None, beside: int = 0) -> Tensor:
        """Name a tensor's storage.

        Args:
            item: the item that it is.
            tensor: the tensor.
            remake: how it is made again, where it is not to be kept.
            beside: features of the storage that count as what is beside the values.

        """
        key, size = storage(tensor), tensor.untyped_storage().nbytes()
        other = TOKENS * beside * BF16_BYTES
        self.names[key] = {item: size - other} | ({"beside values": other} if other else {})
        if remake is not None:
            self.remakes[key] = remake
        return tensor

    def gather(self, x: Tensor) -> Tensor:
        return x.repeat(self.shares, *(1,) * (x.dim() - 1)) if self.shares > 1 else x

    def scatter(self, y: Tensor) -> Tensor:
        return y[: len(y) // self.shares].clone() if self.shares > 1 else y

    def normed(self, x: Tensor, place: str) -> Tensor:
        """A norm of the residual stream, its input and output named."""
        gain = self.weight("norms", place, HIDDEN)
        remake = (lambda: norm(x, gain)) if self.again.norms else None
        y = norm(self.name("norm inputs", x), gain)
        if self.model.norm == "layer":
            y = y + self.weight("norms", f"{place} bias", HIDDEN)
        return self.name("norm outputs", y, remake=remake)

    def column(self, x: Tensor, part: str, name: str, outputs: int, *, bias: bool = False) -> Tensor:
        """A map cut by columns: it keeps the rank's share of its input, and gathers it again for W."""
        weight = self.weight(part, name, outputs, x.shape[1])
        if self.shares == 1:
            return self.whole(x, part, name, outputs, bias=bias)

        def forward(x: Tensor, weight: Tensor) -> Tensor:
            return torch.nn.functional.linear(self.gather(x), weight)

        def backward(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
            return self.scatter(grad @ weight), grad.T @ self.gather(x)

        if self.gathers_again:
            y = fused(forward, backward, x, weight, keep=(0, 1))
        else:
            whole = fused(self.gather, self.scatter, x, keep=())
            y = torch.nn.functional.linear(self.name("norm outputs", whole), weight)
        return y + self.weight(part, f"{name} bias", outputs) if bias else y

    def row(self, x: Tensor, part: str, name: str, *, bias: bool = False) -> Tensor:
        """A map cut by rows, its partial sums scattered; its bias is whole, and added after them."""
        weight = self.weight(part, name, HIDDEN, x.shape[1])
        if self.shares == 1:
            return self.whole(x, part, name, HIDDEN, bias=bias)

        def forward(x: Tensor, weight: Tensor) -> Tensor:
            return self.scatter(torch.nn.functional.linear(x, weight))

        def backward(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
            whole = self.gather(grad)
            return whole @ weight, whole.T @ x

        y = fused(forward, backward, x, weight, keep=(0, 1))
        return y + self.weight(part, f"{name} bias", HIDDEN) if bias else y

    def whole(self, x: Tensor, part: str, name: str, outputs: int, *, bias: bool = False) -> Tensor:
        """A map that every GPU has whole, of its own tokens."""
        y = torch.nn.functional.linear(x, self.weight(part, name, outputs, x.shape[1]))
        return y + self.weight(part, f"{name} bias", outputs) if bias else y

    def checkpointed(self, wanted: bool, function: Run, *inputs: Tensor) -> Tensor:
        """Run a function, again in the backward where that is wanted."""
        if not wanted:
            return function(*inputs)
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Run the layer."""
        self.name("norm inputs", x)
        return self.checkpointed(self.again.full, self._layer, x)

    def _layer(self, x: Tensor) -> Tensor:
        x = x + self._behind(self._attention(self.normed(x, "attention norm")), "attention")
        if self.layer.ffn == "none":
            return x
        ffn = self._experts if self.layer.moe else self._dense
        wanted = self.layer.ffn in self.again.blocks
        if wanted and self.again.norms:  # from the norm's input on, as nothing would keep its output
            self.name("norm inputs", x)
            out = self.checkpointed(True, lambda x: ffn(self.normed(x, "mlp norm")), x)
        else:
            out = self.checkpointed(wanted, ffn, self.normed(x, "mlp norm"))
        return x + self._behind(out, "mlp")

    def _behind(self, out: Tensor, place: str) -> Tensor:
        """What stands behind a block, on the rank's share of the sequence: a norm, dropout."""
        if self.model.post_norms:
            self.name("inputs of norms behind blocks", out)
            out = norm(out, self.weight("norms", f"behind {place}", HIDDEN))
        return self._dropped(out, "dropout masks") if self.model.dropout else out

    def _dropped(self, x: Tensor, item: str) -> Tensor:
        x, mask = torch.native_dropout(x, 0.1, True)
        self.name(item, mask)
        return x

    def _attention(self, x: Tensor) -> Tensor:
        q, k, v = self._latent(x) if self.attention.kv_lora else self._heads(x)
        stored = self.attention.stored_scores
        out = self.checkpointed(self.again.core, self._stored if stored else self._flash, q, k, v)
        if self.attention.gated:
            self.name("gate and output before it", out)
            gate = torch.sigmoid(self.column(x, "attention", "gate", out.shape[1]))
            out = out * self.name("gate and output before it", gate)
        self.name("attention's output", out)
        return self.row(out, "attention", "attention output", bias=self.attention.bias == "all")

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of multi-head and grouped attention."""
        attention = self.attention
        heads, kv_heads = attention.heads // self.tensor, max((attention.kv_heads or attention.heads) // self.tensor, 1)
        widths = (heads * attention.qk_head, kv_heads * attention.qk_head, kv_heads * attention.v_head)
        bias = attention.bias != "none"
        if self.joint:
            qkv = self.column(x, "attention", "qkv", sum(widths), bias=bias)
            # Stored scores' products need one stride for all heads of all sequences: a head's parts lie side by side.
            q, k, v = qkv.unflatten(1, (heads, -1)).chunk(3, 2) if attention.stored_scores else qkv.split(widths, 1)
        else:
            named = zip("qkv", widths, strict=True)
            q, k, v = (self.column(x, "attention", name, width, bias=bias) for name, width in named)
        beside = widths[0] + widths[1] if self.joint else 0
        self.name("keys and values", v, beside=beside)
        q, k = self._rotated(q, "queries"), self._rotated(k, "keys and values")
        return q.reshape(TOKENS, heads, -1), k.reshape(TOKENS, kv_heads, -1), v.reshape(TOKENS, kv_heads, -1)

    def _rotated(self, x: Tensor, item: str) -> Tensor:
        """Queries or keys behind their norm and rotation, which keeps nothing but the angles, and makes new tensors.

        Where norms run again, what they read stays in place of what they make; but of a joint tensor it stays anyway.
        """
        again = self.again.norms and self.attention.qk_norm != "none" and not self.joint
        if self.attention.qk_norm != "none" and not self.joint:
            self.name(item if again else "inputs of query and key norms", x)

        def function() -> Tensor:
            return self._head_norm(x, item).clone()

        return self.name(item, function(), remake=function if again else None)

    def _head_norm(self, x: Tensor, name: str) -> Tensor:
        """The norm of queries or keys, where there is one."""
        kind = self.attention.qk_norm
        if kind == "none":
            return x
        if kind == "all":
            return norm(x, self.weight("norms", name, x.shape[1]))
        heads = x.unflatten(1, (-1, self.attention.qk_dims))
        return norm(heads, self.weight("norms", name, heads.shape[2])).flatten(1)

    def _latent(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of latent attention: latents of the own tokens, heads of all of them."""
        one, heads = self.attention, self.attention.heads // self.tensor
        down = self.whole(x, "attention", "latents", one.q_lora + one.kv_lora + one.rope_head)
        self.name("latents", down)
        for_q, for_kv, rope = down.split((one.q_lora, one.kv_lora, one.rope_head), 1)
        q_from, q_again = self._latent_norm(for_q, "queries") if one.q_lora else (x, lambda: x)
        kv_from, kv_again = self._latent_norm(for_kv, "keys and values")

        def queries(latent: Tensor) -> Tensor:
            return self.column(latent, "attention", "queries", heads * one.qk_dims).unflatten(1, (heads, -1)).clone()

        def expanded(latent: Tensor) -> Tensor:
            widths = {"keys": one.qk_head, "values": one.v_head}
            if self.joint:
                both = self.column(latent, "attention", "keys and values", heads * sum(widths.values()))
                return both.unflatten(1, (heads, -1)).split(tuple(widths.values()), 2)
            maps = (self.column(latent, "attention", name, heads * width) for name, width in widths.items())
            return tuple(part.unflatten(1, (heads, -1)) for part in maps)

        def keys_values(latent: Tensor, rope: Tensor) -> tuple[Tensor, Tensor]:
            key, v = expanded(latent)
            rope = fused(self.gather, self.scatter, rope, keep=())
            return torch.cat([key, rope[:, None].expand(-1, heads, -1)], -1), v

        redone = self.again.up_projections
        both = self._once(lambda: keys_values(kv_again(), rope))
        q, (k, v) = queries(q_from), keys_values(kv_from, rope)
        self.name("queries", q, remake=(lambda: queries(q_again())) if redone and one.q_lora else None)
        self.name("keys and values", k, remake=(lambda: both()[0]) if redone else None)
        beside = heads * one.qk_head if self.joint and not redone else 0
        self.name("keys and values", v, remake=(lambda: both()[1]) if redone else None, beside=beside)
        return q, k, v

    def _latent_norm(self, latent: Tensor, name: str) -> tuple[Tensor, Callable[[], Tensor]]:
        """A latent's norm, and how what it makes is had again in the backward."""
        gain = self.weight("norms", f"latent of {name}", latent.shape[1])
        y = norm(latent, gain)
        remake = (lambda: norm(latent, gain)) if self.again.norms else None
        self.name("latent norm outputs", y, remake=remake)
        return y, remake or (lambda: y)

    def _once(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """A function that runs once, however often it is called."""

        def run() -> Tensor:
            if function not in self.remade:
                self.remade[function] = function()
            return self.remade[function]

        return run

    def _sequences(self, x: Tensor) -> Tensor:
        """(tokens, heads, head) as (sequences, heads, tokens of a sequence, head)."""
        return x.unflatten(0, (-1, SEQUENCE)).transpose(1, 2)

    def _flash(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Torch's own attention on a CPU."""
        attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out, statistics = attention(*map(self._sequences, (q, k, v)), 0.0, True)
        self.name("softmax statistics", statistics)
        return out.transpose(1, 2).flatten(2).flatten(0, 1)

    def _stored(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention that keeps what softmax makes; which tokens are a sequence is the same to its bytes."""
        q, k, v = (one.view(SEQUENCE, -1, one.shape[2]).transpose(0, 1) for one in (q, k, v))
        scores = torch.softmax(torch.bmm(q, k.transpose(1, 2)) * q.shape[2] ** -0.5, -1)
        self.name("scores", scores)
        if self.model.dropout:
            scores = self.name("scores", self._dropped(scores, "scores"))
        return torch.bmm(scores, v).transpose(0, 1).reshape(TOKENS, -1)

    def _activated(self, up: Tensor, part: str, *weights: Tensor) -> Tensor:
        """What an FFN's second map reads."""
        activation = self.model.activation
        self.name(f"{part} {activation} inputs", up)
        function = ACTIVATIONS[activation]
        wanted = self.again.activation or (part == "routed" and self.again.routed_activation)
        wanted = wanted and self.layer.ffn not in self.again.blocks and not (part == "shared" and self.again.shared)
        remake = (lambda: function(up, *weights)) if wanted else None
        return self.name(f"{part} {activation} outputs", function(up, *weights), remake=remake)

    def _ffn(self, x: Tensor, part: str, width: int, *, bias: bool = False) -> Tensor:
        gates = 2 if GATED[self.model.activation] else 1
        up = self.column(x, part, "up", gates * width // self.tensor, bias=bias)
        return self.row(self._activated(up, part), part, "down", bias=bias)

    def _dense(self, x: Tensor) -> Tensor:
        return self._ffn(x, "dense", self.model.ffn, bias=self.model.ffn_bias)

    def _experts(self, x: Tensor) -> Tensor:
        experts = self._its_experts
        out = self._routed(x)
        if experts.shared:
            width = experts.shared * (experts.shared_ffn or experts.ffn)
            out = out + self.checkpointed(self.again.shared and not self.again.moe, self._shared, x, width)
        return out

    @property
    def _its_experts(self) -> Experts:
        assert self.model.experts is not None
        return self.model.experts

    def _shared(self, x: Tensor, width: int) -> Tensor:
        out = self._ffn(x, "shared", width)
        if not self._its_experts.shared_gate:
            return out
        gate = torch.sigmoid(self.whole(x, "shared", "weighing", 1))
        return self.name("shared output and its gate", out) * self.name("shared output and its gate", gate)

    def _routed(self, x: Tensor) -> Tensor:
        """Router, dispatch, the rank's experts, combine.

        Other ranks are taken to have the same tokens and to send them, so that rows here are as if routing were even.
        Which rows are whose is had again from the router's choice, and not kept beside it.
        """
        experts, own = self._its_experts, len(x)
        scores = torch.softmax(self.whole(x, "gate", "gate", experts.routed), -1, dtype=torch.float32)
        weights, chosen = scores.view(own, self.spread, -1).topk(experts.active // self.spread)
        for tensor in (scores, chosen):
            self.name("router", tensor)
        senders = self.spread * self.experts_over
        arrived = x.repeat(senders, 1) if senders > 1 else x
        local = range(experts.routed // self.spread)

        def taken(chosen: Tensor, expert: int) -> Tensor:
            """Which of an arrived token's choices are an expert."""
            return chosen[:, 0].repeat(senders, 1) == expert

        def tokens(chosen: Tensor) -> Tensor:
            return torch.cat([taken(chosen, expert).nonzero()[:, 0] for expert in local])

        row_weights = fused(
            lambda weights, chosen: torch.cat([weights[:, 0].repeat(senders, 1)[taken(chosen, e)] for e in local]),
            lambda _, chosen: (torch.zeros(chosen.shape), None), weights, chosen, keep=(1,),
        )  # fmt: skip
        up = self._routed_up(arrived, chosen, taken, tokens)
        inner = self._activated(up, "routed", self.name("router", row_weights))
        counts = [int(taken(chosen, expert).sum()) for expert in local]
        maps = (self.weight("routed", f"down {e}", HIDDEN, experts.ffn // self.experts_over) for e in local)
        out = torch.cat(list(map(torch.nn.functional.linear, inner.split(counts), maps)))
        summed = fused(
            lambda out, chosen: out.new_zeros(len(chosen) * senders, HIDDEN).index_add(0, tokens(chosen), out),
            lambda grad, chosen: (grad[tokens(chosen)], None), out, chosen, keep=(1,),
        )  # fmt: skip
        return summed.view(senders, own, HIDDEN).sum(0)

    def _routed_up(self, arrived: Tensor, chosen: Tensor, taken: Run, tokens: Run) -> Tensor:
        """The first maps of experts, which read a copy of a token each, or the token where it arrived."""
        experts = self._its_experts
        outputs = (2 if GATED[self.model.activation] else 1) * experts.ffn // self.experts_over
        local = range(experts.routed // self.spread)
        weights = [self.weight("routed", f"up {expert}", outputs, HIDDEN) for expert in local]
        if self.joint:
            number = len(arrived)
            rows = fused(
                lambda arrived, chosen: arrived[tokens(chosen)],
                lambda grad, chosen: (_add(grad, tokens(chosen), number), None), arrived, chosen, keep=(1,),
            )  # fmt: skip
            self.name("dispatched tokens", rows)
            counts = [int(taken(chosen, expert).sum()) for expert in local]
            return torch.cat(list(map(torch.nn.functional.linear, rows.split(counts), weights)))
        if self.spread * self.experts_over > 1:
            self.name("dispatched tokens", arrived)
        return torch.cat(
            [_reading(arrived, chosen, weight, partial(taken, expert=e)) for e, weight in enumerate(weights)]
        )


def _add(grad: Tensor, tokens: Tensor, arrived: int) -> Tensor:
    return grad.new_zeros(arrived, grad.shape[1]).index_add(0, tokens, grad)


def _reading(arrived: Tensor, chosen: Tensor, weight: Tensor, taken: Callable[[Tensor], Tensor]) -> Tensor:
    """An expert's map of those arrived tokens that chose it, which takes them from the others again for W."""

    def forward(arrived: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
        return torch.nn.functional.linear(arrived[taken(chosen).any(1)], weight)

    def backward(grad: Tensor, arrived: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
        mine = taken(chosen).any(1)
        return _add(grad @ weight, mine.nonzero()[:, 0], len(arrived)), None, grad.T @ arrived[mine]

    return fused(forward, backward, arrived, chosen, weight, keep=(0, 1, 2))


def saved(rank: Rank, run: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
    """Return the bytes that autograd saves, by item, each storage once, weights left out."""
    found: dict[Any, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        found[storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = (run or rank)(rank.input())
    items = by_item(rank, found)
    out.sum().backward()  # which runs, so that all it needs was there
    return items


def by_item(rank: Rank, found: dict[Any, int]) -> dict[str, float]:
    """Return the bytes of storages by item; what has no name is an item too, so that nothing is overlooked."""
    weights = {storage(weight) for weight in rank.weights.values()}
    items: Counter[str] = Counter()
    for key, size in found.items():
        if key not in weights:
            items.update(rank.names.get(key, {f"{size} bytes without a name": size}))
    return dict(items)


def counted(rank: Rank) -> tuple[int, int]:
    """Return the FLOPs that torch counts of the forward, and of forward and backward."""

    def attention(q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> int:
        return int(flop_counter.sdpa_flop_count(q, k, v))

    def attention_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> int:
        return int(flop_counter.sdpa_backward_flop_count(grad, q, k, v))

    aten = torch.ops.aten  # whose attention on a CPU the counter does not know
    own = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    x = rank.input()
    with flop_counter.FlopCounterMode(display=False, custom_mapping=own) as counter:
        with torch.autograd.graph.saved_tensors_hooks(*hooks(rank)):
            out = rank(x)
        forward = counter.get_total_flops()
        out.sum().backward()
    return forward, counter.get_total_flops()


def hooks(rank: Rank) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return what autograd calls to save a tensor and to have it back, where some are made again instead."""

    def pack(tensor: Tensor) -> object:
        key = storage(tensor)
        if key not in rank.remakes:
            return tensor
        return key, (tensor.shape, tensor.stride(), tensor.storage_offset())

    def unpack(kept: Tensor) -> Tensor:
        if not isinstance(kept, tuple):
            return kept
        key, view = kept
        if key not in rank.remade:
            with torch.no_grad():
                rank.remade[key] = rank.remakes[key]()
        return rank.remade[key].as_strided(*view)

    return pack, unpack


def by_formula(rank: Rank, recipe: Recipe) -> dict[str, Flops]:
    """Return the FLOPs that the formulas say, by part: those of a token, times the tokens that pass it on a GPU."""
    shard = rank.model.over(rank.tensor, experts_over=rank.experts_over)
    layer = shard.layer_kinds()[0]
    parts = layer_flops(shard, layer, recipe, SEQUENCE, causal=False)
    own = rank.batch.own_tokens
    rows = dict.fromkeys(parts, TOKENS) | {"gate": own, "routed": own * rank.experts_over}
    found = {part: Flops(*(rows[part] * each for each in flops)) for part, flops in parts.items()}
    for linear in shard.linears(layer):
        if linear.cut is None and linear.part in {"attention", "shared"}:  # whole, of the own tokens alone
            part = "projections" if linear.part == "attention" else linear.part
            less = ((TOKENS - own) * each for each in linear_flops(linear, recipe))
            found[part] = Flops(*(a - b for a, b in zip(found[part], less, strict=True)))
    return found


def kept(rank: Rank, recipe: Recipe = KEEP_ALL) -> dict[str, float]:
    """Return what the formulas say that a rank keeps."""
    shard = rank.model.over(rank.tensor, experts_over=rank.experts_over)
    recipe = replace(recipe, stack=STACKS[rank.stack])  # type: ignore[index]
    return layer_activations(shard, shard.layer_kinds()[0], recipe, rank.batch)


def rank_of(name: str, tensor: int = 1, **others: Any) -> Rank:  # noqa: ANN401
    """Return a rank of one of the models, whose experts are spread over two GPUs where nothing else is said."""
    model = MODELS[name]
    return Rank(model, model.layer_kinds()[0], tensor, **{"spread": 2 if model.experts else 1} | others)


GPT = replace(
    DENSE, attention=replace(STORED, bias="all"), activation="gelu", dropout=True, norm="layer", ffn_bias=True
)
MODELS = {
    "multi-head": DENSE,
    "grouped": replace(DENSE, attention=GROUPED),
    "multi-query": replace(DENSE, attention=MULTI_QUERY, activation="geglu", post_norms=True),
    "normed heads": replace(DENSE, attention=replace(GROUPED, qk_norm="head", bias="qkv"), activation="relu2"),
    "normed": replace(DENSE, attention=replace(GROUPED, qk_norm="all")),
    "gated": replace(DENSE, attention=replace(GROUPED, gated=True)),
    "stored scores": replace(DENSE, attention=STORED, activation="gelu"),
    "gpt": GPT,
    "latent": replace(DENSE, attention=LATENT),
    "latent keys": replace(DENSE, attention=LATENT_KEYS),
    "stored latent": replace(DENSE, attention=STORED_LATENT),
    "experts": MOE,
    "latent and experts": replace(MOE, attention=LATENT, experts=replace(EXPERTS, shared_ffn=48)),
}


CASES = [
    (name, tensor, sequence)
    for name, model in MODELS.items()
    for tensor, sequence in [(1, True), (2, True), (4, True), (2, False), (4, False)]
    if sequence or model.experts is None  # a job refuses experts without sequence parallelism
]


@pytest.mark.parametrize("stack", ["deepseek", "megatron"])
@pytest.mark.parametrize(("name", "tensor", "sequence"), CASES)
def test_each_item_of_a_layer_is_what_autograd_saves(name: str, tensor: int, sequence: bool, stack: str) -> None:
    rank = rank_of(name, tensor, sequence=sequence, stack=stack)
    assert saved(rank) == kept(rank)


@pytest.mark.parametrize(("name", "tensor", "sequence"), CASES)
def test_flops_are_what_torch_counts(name: str, tensor: int, sequence: bool) -> None:
    """Not causal, as torch counts attention; its FlashAttention redoes the scores in the backward, as here."""
    rank = rank_of(name, tensor, sequence=sequence)
    formula = by_formula(rank, KEEP_ALL).values()
    assert counted(rank) == (sum(one.forward for one in formula), sum(sum(one) for one in formula))


@pytest.mark.parametrize("experts_over", [1, 2])
@pytest.mark.parametrize(("name", "tensor", "sequence"), CASES)
def test_shards_have_the_parameters_of_the_share(name: str, tensor: int, sequence: bool, experts_over: int) -> None:
    rank = rank_of(name, tensor, sequence=sequence, experts_over=experts_over)
    rank(rank.input())
    share = rank.model.over(tensor, experts_over=experts_over)
    parameters = share.layer_parameters(share.layer_kinds()[0])
    local = replace(parameters, routed=parameters.routed // rank.spread)
    assert rank.parameters() == {part: number for part, number in vars(local).items() if number}


@pytest.mark.parametrize("stack", ["deepseek", "megatron"])
@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize(("spread", "experts_over"), [(2, 2), (4, 1), (4, 2), (1, 2)])
def test_spread_and_cut_experts_keep_what_autograd_saves(
    spread: int, experts_over: int, tensor: int, stack: str
) -> None:
    rank = rank_of("experts", tensor, spread=spread, experts_over=experts_over, stack=stack)
    assert saved(rank) == kept(rank)


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize(("spread", "experts_over"), [(2, 2), (4, 1), (1, 2)])
def test_flops_of_spread_and_cut_experts_are_what_torch_counts(spread: int, experts_over: int, tensor: int) -> None:
    rank = rank_of("experts", tensor, spread=spread, experts_over=experts_over)
    formula = by_formula(rank, KEEP_ALL).values()
    assert counted(rank) == (sum(one.forward for one in formula), sum(sum(one) for one in formula))


@pytest.mark.parametrize("tensor", [1, 2])
def test_tokens_that_go_nowhere_are_the_norms_output(tensor: int) -> None:
    """Experts that are not spread, nor given copies, read the norm's output itself."""
    rank = rank_of("experts", tensor, spread=1)
    assert saved(rank) == kept(rank)
    assert "dispatched tokens" not in saved(rank)


@pytest.mark.parametrize("tensor", [1, 2])
def test_the_gate_of_shared_experts_keeps_what_it_weighs(tensor: int) -> None:
    """The gate, one element a token, and what it is multiplied with."""
    whole = rank_of("experts", tensor)
    model = replace(whole.model, experts=replace(EXPERTS, shared_gate=True))
    rank = replace(whole, model=model, layer=model.layer_kinds()[0])
    assert saved(rank) == kept(rank)
    formula = by_formula(rank, KEEP_ALL).values()
    assert counted(rank)[1] == sum(sum(one) for one in formula)
    share = model.over(tensor)
    assert rank.parameters()["shared"] == share.layer_parameters(share.layer_kinds()[0]).shared


@pytest.mark.parametrize("tensor", [2, 4])
def test_inputs_that_are_not_gathered_again_would_be_kept_whole(tensor: int) -> None:
    """That formulas and modules differ where they should: without the second gather all tokens stay, of both blocks."""
    rank = rank_of("multi-head", tensor, gathers_again=False, stack="megatron")
    formula = kept(rank)
    assert formula["norm outputs"] == 2 * TOKENS // tensor * HIDDEN * BF16_BYTES
    assert saved(rank) == formula | {"norm outputs": tensor * formula["norm outputs"]}


@pytest.mark.parametrize("tensor", [1, 2, 4])
def test_a_head_has_what_autograd_saves(tensor: int) -> None:
    """A vocabulary that is padded, and logits that the loss reads, whose gradient takes their place."""
    rank = rank_of("multi-head", tensor)
    share = rank.model.over(tensor)

    def head(x: Tensor) -> Tensor:
        rank.name("final norm's input", x)
        normed = rank.name("final norm's output", norm(x, rank.weight("norms", "final norm", HIDDEN)))
        logits = rank.column(normed, "head", "head", -(-rank.model.vocabulary // tensor))
        rank.name("logits", logits)
        return fused(lambda logits: logits.logsumexp(1), lambda grad, logits: grad[:, None] * logits, logits, keep=(0,))

    assert saved(rank, head) == head_activations(share, STACKS["deepseek"], rank.batch, share.vocabulary)
    head_parameters = share.head_parameters()
    assert rank.parameters() == {"norms": head_parameters.norms, "head": head_parameters.head}
