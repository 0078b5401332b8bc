"""The architecture of a transformer: its linear maps with their shapes, and the parameters they hold.

Everything else (FLOPs, seconds, bytes) is derived from these shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Literal, TypeAlias

from dualpipe_sim.base.records import need_positive
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError

LayerKind: TypeAlias = Literal["dense", "moe"]
Part: TypeAlias = Literal["attention", "gate", "routed", "shared", "dense", "head", "mtp"]
"""What a linear map belongs to; ``mtp`` is the projection that a multi-token prediction module starts with."""

HIGH_PRECISION: frozenset[Part] = frozenset({"gate", "head", "mtp"})
"""Parts kept in BF16 or higher also in FP8 training (DeepSeek-V3 report, section 3.3.1; for ``mtp`` assumed)."""

Cut: TypeAlias = Literal["columns", "rows"]
"""How tensor parallelism cuts a linear map: by its outputs, or by its inputs, so that the results are partial sums
(Megatron-LM, https://arxiv.org/abs/1909.08053, section 3)."""


@dataclass(frozen=True)
class Attention:
    """Attention of many heads, each with its own keys and values, sharing them in groups, or taking them from a latent.

    Multi-head attention (https://arxiv.org/abs/1706.03762), grouped-query attention (GQA,
    https://arxiv.org/abs/2305.13245; multi-query with one group), or multi-head latent attention (MLA, DeepSeek-V2,
    https://arxiv.org/abs/2405.04434).

    >>> Attention(heads=64, kv_heads=8, qk_head=128, v_head=128).key_value_outputs
    2048

    Attributes:
        heads: attention heads, each with its query.
        qk_head: dimensions of a query or key without its rotary part.
        v_head: dimensions of a value.
        kv_heads: heads of keys and values, which equal groups of queries share (GQA); 0 for as many as ``heads``.
        rope_head: further dimensions that carry the rotary embedding; MLA keeps one such key for all heads.
        q_lora: rank of the queries' latent; 0 for none.
        kv_lora: rank of the latent of keys and values; 0 for plain multi-head attention.
        stored_scores: True where the softmax's output is kept for the backward pass, as before FlashAttention.

    """

    heads: int
    qk_head: int
    v_head: int
    kv_heads: int = 0
    rope_head: int = 0
    q_lora: int = 0
    kv_lora: int = 0
    stored_scores: bool = False

    def __post_init__(self) -> None:
        need_positive(self, "model.attention", zero=("kv_heads", "rope_head", "q_lora", "kv_lora"))
        if self.kv_heads and self.kv_lora:
            raise UserError(
                "model.attention.kv_heads: with kv_lora (MLA) every head has its own keys and values; leave one out"
            )
        if self.heads % (self.kv_heads or 1):
            raise UserError(
                f"model.attention.kv_heads: {self.kv_heads} do not share {self.heads} heads out evenly; take a divisor"
            )

    @property
    def qk_dims(self) -> int:
        """Dimensions of a query or key in the dot product."""
        return self.qk_head + self.rope_head

    @property
    def query_outputs(self) -> int:
        """Outputs of the map that makes all heads' queries."""
        return self.heads * self.qk_dims

    @property
    def key_value_outputs(self) -> int:
        """Elements of a token's keys and values together, as attention's core reads them."""
        return (self.kv_heads or self.heads) * (self.qk_dims + self.v_head)

    def over(self, gpus: int) -> Attention:
        """Return the share of one GPU of a tensor-parallel group; fewer key-value heads than GPUs are there in copies.

        Raises:
            UserError: the heads cannot be shared out evenly.

        """
        heads = _share("model.attention.heads", self.heads, gpus)
        if not self.kv_heads or gpus % self.kv_heads == 0:
            return replace(self, heads=heads, kv_heads=min(self.kv_heads, 1))
        return replace(self, heads=heads, kv_heads=_share("model.attention.kv_heads", self.kv_heads, gpus))


@dataclass(frozen=True)
class Experts:
    """The experts of an MoE layer.

    Attributes:
        routed: routed experts.
        shared: experts that every token passes.
        active: routed experts that a token passes (top-k).
        ffn: width of one expert.
        groups: equal groups that the routed experts are in; routing scores a group by its experts.
        group_limit: groups that a token's experts may come from.
        shared_ffn: width of one shared expert; 0 for that of the others.

    """

    routed: int
    active: int
    ffn: int
    shared: int = 0
    groups: int = 1
    group_limit: int = 1
    shared_ffn: int = 0

    def __post_init__(self) -> None:
        need_positive(self, "model.experts", zero=("shared", "shared_ffn"))
        if self.routed % self.groups:
            raise UserError(f"model.experts.groups: {self.groups} groups do not divide {self.routed} routed experts")
        if self.group_limit > self.groups:
            raise UserError(f"model.experts.group_limit: must be at most {self.groups} groups, not {self.group_limit}")
        if self.active > self.group_limit * (self.routed // self.groups):
            raise UserError(
                f"model.experts.active: {self.active} experts a token do not fit in {self.group_limit} group(s) "
                f"of {self.routed // self.groups}"
            )

    @property
    def shared_width(self) -> int:
        """Width of all shared experts together: they are one FFN, as the published code has them."""
        return self.shared * (self.shared_ffn or self.ffn)

    def over(self, gpus: int) -> Experts:
        """Return the share of one GPU of a tensor-parallel group: of the shared experts; routed ones stay whole.

        Raises:
            UserError: the width cannot be shared out evenly.

        """
        if not self.shared:
            return self
        width = _share("the width of the shared experts", self.shared_width, gpus)
        return replace(self, shared=1, shared_ffn=width)


@dataclass(frozen=True)
class Linear:
    """A linear map of a layer: one or more matrices of the same shape.

    Attributes:
        name: what it makes.
        part: what it belongs to.
        inputs: features in.
        outputs: features out.
        stored: matrices in the model.
        active: matrices that a token passes.
        reads: the activation that it reads; maps that read the same one share it in memory.
        cut: how tensor parallelism cuts it; None for a map that every GPU of the group has whole.
        from_latent: True for the maps that expand MLA's latents, which the backward pass may redo.

    """

    name: str
    part: Part
    inputs: int
    outputs: int
    reads: str
    stored: int = 1
    active: int = 1
    cut: Cut | None = None
    from_latent: bool = False

    @property
    def parameters(self) -> int:
        """Weights stored; biases are left out everywhere."""
        return self.inputs * self.outputs * self.stored

    @property
    def active_parameters(self) -> int:
        """Weights that one token passes."""
        return self.inputs * self.outputs * self.active


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters by part; every field counts all experts.

    Attributes:
        attention: projections of attention.
        dense: FFN of dense layers.
        routed: routed experts.
        shared: shared experts.
        gate: routers.
        norms: gains of the norms.
        embedding: token embedding.
        head: output head (0 where it is the embedding's matrix).
        mtp: projections of multi-token prediction modules; their layers count in the fields above.

    """

    attention: int = 0
    dense: int = 0
    routed: int = 0
    shared: int = 0
    gate: int = 0
    norms: int = 0
    embedding: int = 0
    head: int = 0
    mtp: int = 0

    def __add__(self, other: Parameters) -> Parameters:
        return Parameters(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __mul__(self, times: int) -> Parameters:
        return Parameters(**{name: value * times for name, value in vars(self).items()})

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(vars(self).values())

    @property
    def expert(self) -> int:
        """Parameters that expert parallelism spreads."""
        return self.routed

    @property
    def non_expert(self) -> int:
        """Parameters that every rank of an expert-parallel group holds."""
        return self.total - self.routed

    @property
    def high_precision(self) -> int:
        """Parameters whose weights stay in BF16 or higher in FP8 training."""
        return self.gate + self.norms + self.embedding + self.head + self.mtp


@dataclass(frozen=True)
class Model:
    """A decoder-only transformer.

    >>> from dualpipe_sim.config import load_experiment
    >>> model = load_experiment("deepseek_v3").job.model
    >>> round(model.parameters().total / 1e9), round(model.active_parameters() / 1e9)
    (671, 37)

    Attributes:
        name: what to call it.
        hidden: width of the residual stream.
        layers: transformer layers, multi-token prediction left out.
        vocabulary: rows of the embedding.
        attention: the attention of every layer.
        ffn: width of a dense layer's FFN.
        experts: experts of the MoE layers, or None for a dense model.
        dense_layers: layers at the start that are dense; all of them where there are no experts.
        activation: ``swiglu`` (three matrices an FFN) or ``gelu`` (two).
        dropout: True where dropout masks are kept.
        tied_embedding: True where the head is the embedding's matrix.
        mtp_depth: multi-token prediction modules, each a projection, one more layer and the shared head.

    """

    name: str
    hidden: int
    layers: int
    vocabulary: int
    attention: Attention
    ffn: int
    experts: Experts | None = None
    dense_layers: int = 0
    activation: Literal["swiglu", "gelu"] = "swiglu"
    dropout: bool = False
    tied_embedding: bool = False
    mtp_depth: int = 0

    __repr__ = brief

    def __post_init__(self) -> None:
        need_positive(self, "model", zero=("dense_layers", "mtp_depth"))
        if self.dense_layers > self.layers:
            raise UserError(f"model.dense_layers: must be at most the {self.layers} layers, not {self.dense_layers}")
        if self.experts is None and self.dense_layers not in (0, self.layers):
            raise UserError(
                f"model.dense_layers: {self.dense_layers} of {self.layers} layers need 'experts' for the rest"
            )

    def over(self, gpus: int) -> Model:
        """Return what one GPU of a tensor-parallel group holds: a share of heads, FFN widths and the vocabulary.

        Norms, router, routed experts, MLA's latents and the projection of multi-token prediction are whole on every
        GPU (for the last one assumed). A vocabulary that the GPUs do not divide is padded, as in Megatron-LM.

        >>> from dualpipe_sim.config import load_experiment
        >>> model = load_experiment("deepseek_v3").job.model
        >>> model.over(4).attention.heads, model.over(4).ffn, model.over(4).vocabulary
        (32, 4608, 32320)

        Raises:
            UserError: heads or a width cannot be shared out evenly.

        """
        if gpus == 1:
            return self
        return replace(
            self,
            vocabulary=ceil(self.vocabulary / gpus),
            attention=self.attention.over(gpus),
            ffn=_share("model.ffn", self.ffn, gpus),
            experts=None if self.experts is None else self.experts.over(gpus),
        )

    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """Return the kind of each layer, shallowest first."""
        return self._layer_kinds

    @cached_property
    def _layer_kinds(self) -> tuple[LayerKind, ...]:
        dense = self.layers if self.experts is None else self.dense_layers
        return tuple("dense" if layer < dense else "moe" for layer in range(self.layers))

    def linears(self, kind: LayerKind) -> tuple[Linear, ...]:
        """Return the linear maps of a layer, in the order of the forward pass."""
        return (*_attention_linears(self), *(_moe_linears(self) if kind == "moe" else _dense_linears(self)))

    def head_linears(self) -> tuple[Linear, ...]:
        """Return the output head."""
        return (Linear("head", "head", self.hidden, self.vocabulary, "final norm's output", cut="columns"),)

    def mtp_linears(self) -> tuple[Linear, ...]:
        """Return what one multi-token prediction module has beside a layer and the shared head.

        It projects the hidden state joined with the next token's embedding (DeepSeek-V3 report, section 2.2).
        """
        return (Linear("mtp projection", "mtp", 2 * self.hidden, self.hidden, "joined input"),)

    def layer_parameters(self, kind: LayerKind) -> Parameters:
        """Return the parameters of one layer."""
        if kind not in self._of_layer:
            norms = 2 * self.hidden + self.attention.q_lora + self.attention.kv_lora
            self._of_layer[kind] = _parameters(self.linears(kind)) + Parameters(norms=norms)
        return self._of_layer[kind]

    @cached_property
    def _of_layer(self) -> dict[LayerKind, Parameters]:
        """Parameters of a layer by its kind, as far as they were asked for."""
        return {}

    def embedding_parameters(self) -> Parameters:
        """Return the parameters of the token embedding."""
        return Parameters(embedding=self.vocabulary * self.hidden)

    def head_parameters(self) -> Parameters:
        """Return the parameters of the final norm and the head, whose matrix counts 0 where it is tied."""
        head = _parameters(self.head_linears()) + Parameters(norms=self.hidden)
        return replace(head, head=0) if self.tied_embedding else head

    def mtp_parameters(self) -> Parameters:
        """Return the parameters of one multi-token prediction module, without the shared embedding and head."""
        own = _parameters(self.mtp_linears()) + Parameters(norms=3 * self.hidden)
        return own + self.layer_parameters(self.layer_kinds()[-1])

    def parameters(self) -> Parameters:
        """Return the parameters of the whole model, multi-token prediction left out."""
        ends = self.embedding_parameters() + self.head_parameters()
        kinds = self.layer_kinds()
        return ends + sum(
            (self.layer_parameters(kind) * kinds.count(kind) for kind in sorted(set(kinds))), start=Parameters()
        )

    def active_parameters(self) -> int:
        """Return the parameters of linear maps that one token passes: head counted, embedding and norms not."""
        layers = sum(linear.active_parameters for kind in self.layer_kinds() for linear in self.linears(kind))
        return layers + sum(linear.active_parameters for linear in self.head_linears())


def _parameters(linears: tuple[Linear, ...]) -> Parameters:
    return sum((Parameters(**{linear.part: linear.parameters}) for linear in linears), start=Parameters())


def _share(what: str, size: int, gpus: int) -> int:
    """Return the share of one of so many GPUs, or say which numbers of them there could be."""
    if size % gpus:
        fitting = [number for number in range(1, 65) if size % number == 0]
        nearest = sorted(sorted(fitting, key=lambda number: abs(number - gpus))[:2])
        instead = " or ".join(map(str, nearest))
        raise UserError(f"parallel.tensor: {gpus} GPUs cannot share {what} out evenly, {size}; take {instead}")
    return size // gpus


def _attention_linears(model: Model) -> tuple[Linear, ...]:
    """MLA as the DeepSeek-V3 report's section 2.1.1 has it; its two down-projections run as one matrix."""
    a, h, reads = model.attention, model.hidden, "attention norm's output"
    out = Linear("attention output", "attention", a.heads * a.v_head, h, "attention's output", cut="rows")
    if not a.kv_lora:
        outputs = a.query_outputs + a.key_value_outputs
        return Linear("queries, keys, values", "attention", h, outputs, reads, cut="columns"), out
    down = Linear("latents", "attention", h, a.q_lora + a.kv_lora + a.rope_head, reads)
    query_from, query_reads = (a.q_lora, "query latent") if a.q_lora else (h, reads)
    query = Linear(
        "queries", "attention", query_from, a.query_outputs, query_reads, cut="columns", from_latent=a.q_lora > 0
    )
    key_value = Linear(
        "keys and values",
        "attention",
        a.kv_lora,
        a.heads * (a.qk_head + a.v_head),
        "key-value latent",
        cut="columns",
        from_latent=True,
    )
    return down, query, key_value, out


_CUTS: tuple[Cut, Cut] = ("columns", "rows")


def _ffn_linears(model: Model, part: Part, width: int, reads: str, stored: int, active: int) -> tuple[Linear, Linear]:
    up_width = 2 * width if model.activation == "swiglu" else width
    columns, rows = (None, None) if part == "routed" else _CUTS
    up = Linear(f"{part} up", part, model.hidden, up_width, reads, stored, active, columns)
    return up, Linear(f"{part} down", part, width, model.hidden, f"{part} activation", stored, active, rows)


def _dense_linears(model: Model) -> tuple[Linear, ...]:
    return _ffn_linears(model, "dense", model.ffn, "mlp norm's output", 1, 1)


def _moe_linears(model: Model) -> tuple[Linear, ...]:
    experts = model.experts
    if experts is None:
        raise UserError(f"model {model.name} has no experts, so it has no MoE layer")
    reads = "mlp norm's output"
    gate = Linear("gate", "gate", model.hidden, experts.routed, reads)
    routed = _ffn_linears(model, "routed", experts.ffn, "dispatched tokens", experts.routed, experts.active)
    if not experts.shared:
        return gate, *routed
    return gate, *routed, *_ffn_linears(model, "shared", experts.shared_width, reads, 1, 1)
