"""The architecture of a decoder-only model: layers of parts, their linear maps, and the parameters they hold.

A layer is attention, of whatever kind (``attention``), and a feed-forward network, dense or of experts. Everything else
(FLOPs, seconds, bytes) is derived from the shapes of these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from typing import Literal, NamedTuple, TypeAlias

from dualpipe_sim.base.records import need_positive
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError, quoted
from dualpipe_sim.model.attention.registry import Attention
from dualpipe_sim.model.linear import Cut, Linear, Part, share
from dualpipe_sim.model.pattern import MOST_LAYERS, unroll

FeedForward: TypeAlias = Literal["dense", "moe", "none"]

GATED = {"swiglu": True, "geglu": True, "gelu": False, "relu2": False}
"""Activations of feed-forward networks, and whether a second map gates what goes in, which makes three matrices."""

Activation: TypeAlias = Literal["swiglu", "geglu", "gelu", "relu2"]


class Layer(NamedTuple):
    """What a layer is made of; layers of the same parts are equal.

    Attributes:
        attention: its attention.
        ffn: its feed-forward network: the model's dense one, the model's experts, or none.

    """

    attention: Attention
    ffn: FeedForward

    @property
    def moe(self) -> bool:
        """Whether it has experts."""
        return self.ffn == "moe"

    @property
    def blocks(self) -> int:
        """Blocks with a norm before and a residual around: attention and feed-forward network, or one of them."""
        return bool(self.attention.linears(1)) + (self.ffn != "none")


@dataclass(frozen=True)
class LayerKind:
    """A kind of layer as a pattern names it by a letter; what it leaves out is the model's.

    Attributes:
        attention: its attention; None for the model's.
        ffn: ``dense``, ``moe`` or ``none``; None for experts where the model has some, else dense.

    """

    attention: Attention | None = None
    ffn: FeedForward | None = None


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
        shared_gate: whether a learned gate weighs the shared experts (Qwen3-Next).
        bias: whether experts' maps add vectors (gpt-oss).
        router_bias: whether the router's map adds a vector.
        correction_bias: whether the bias that evens out the load is a parameter; elsewhere it is a buffer.

    """

    routed: int
    active: int
    ffn: int
    shared: int = 0
    groups: int = 1
    group_limit: int = 1
    shared_ffn: int = 0
    shared_gate: bool = False
    bias: bool = False
    router_bias: bool = False
    correction_bias: bool = False

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

    def over(self, gpus: int, routed_over: int = 1) -> Experts:
        """Return one GPU's share: of shared experts in a tensor-parallel group, of routed ones in a group of theirs.

        Raises:
            UserError: a width cannot be shared out evenly.

        """
        own = replace(self, ffn=share("model.experts.ffn", self.ffn, routed_over, "parallel.expert_tensor"))
        if not self.shared:
            return own
        width = share("the width of the shared experts", self.shared_width, gpus)
        return replace(own, shared=1, shared_ffn=width)


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters by part; every field counts all experts.

    Attributes:
        attention: attention but for norms.
        dense: FFN of dense layers.
        routed: routed experts.
        shared: shared experts.
        gate: routers.
        norms: gains of the norms, and their biases.
        embedding: token embedding, and that of learned positions.
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
    """A decoder-only model.

    >>> from dualpipe_sim.config import load_experiment
    >>> model = load_experiment("deepseek_v3").job.model
    >>> round(model.parameters().total / 1e9), round(model.active_parameters() / 1e9)
    (671, 37)

    Attributes:
        name: what to call it.
        hidden: width of the residual stream.
        layers: layers, multi-token prediction left out.
        vocabulary: rows of the embedding.
        attention: the attention of every layer that has no other.
        ffn: width of a dense layer's FFN; 0 where no layer is dense.
        experts: experts of the MoE layers, or None for a dense model.
        dense_layers: layers at the start that are dense; all of them where there are no experts.
        pattern: the layers' kinds, a letter each, from the first layer on, begun again where it ends before they do;
            ``(sssssf)*10ss`` say. Letters are those of ``kinds``, with ``d`` for dense and ``m`` for MoE layers.
        kinds: kinds of layers by letter, for ``pattern``.
        activation: ``swiglu`` or ``geglu`` (three matrices an FFN), ``gelu`` or ``relu2`` (two).
        ffn_bias: whether the maps of dense FFNs add vectors.
        norm: ``rms``, or ``layer``, which has biases.
        post_norms: whether a block's output has a norm too (Gemma).
        positions: ``rotary`` (no parameters), ``learned``, or ``none``.
        max_positions: rows of learned positions.
        dropout: True where dropout masks are kept.
        tied_embedding: True where the head is the embedding's matrix.
        head_bias: whether the head adds a vector.
        mtp_depth: multi-token prediction modules, each a projection, one more layer and the shared head.

    """

    name: str
    hidden: int
    layers: int
    vocabulary: int
    attention: Attention
    ffn: int = 0
    experts: Experts | None = None
    dense_layers: int = 0
    pattern: str = ""
    kinds: Mapping[str, LayerKind] = field(default_factory=dict, hash=False)
    activation: Activation = "swiglu"
    ffn_bias: bool = False
    norm: Literal["rms", "layer"] = "rms"
    post_norms: bool = False
    positions: Literal["rotary", "learned", "none"] = "rotary"
    max_positions: int = 0
    dropout: bool = False
    tied_embedding: bool = False
    head_bias: bool = False
    mtp_depth: int = 0

    __repr__ = brief

    def __post_init__(self) -> None:
        need_positive(self, "model", zero=("ffn", "dense_layers", "mtp_depth", "max_positions"))
        if max(self.layers, self.mtp_depth) > MOST_LAYERS:
            key = "layers" if self.layers > MOST_LAYERS else "mtp_depth"
            raise UserError(f"model.{key}: must be up to {MOST_LAYERS}, not {getattr(self, key)}")
        if self.dense_layers > self.layers:
            raise UserError(f"model.dense_layers: must be at most the {self.layers} layers, not {self.dense_layers}")
        if self.experts is None and self.dense_layers not in (0, self.layers):
            raise UserError(
                f"model.dense_layers: {self.dense_layers} of {self.layers} layers need 'experts' for the rest"
            )
        if self.positions == "learned" and not self.max_positions:
            raise UserError("model.max_positions: is missing; learned positions have a row for each")
        self._check_kinds()
        if "dense" in {layer.ffn for layer in self._layer_kinds} and not self.ffn:
            raise UserError("model.ffn: is missing; dense layers have a width")

    @staticmethod
    def filled(given: Mapping[str, object]) -> Mapping[str, object]:
        """Return a mapping of keys in which what the attention of a kind of layer leaves out is the model's.

        >>> keys = {"attention": {"heads": 8, "qk_head": 64}, "kinds": {"s": {"attention": {"window": 128}}}}
        >>> Model.filled(keys)["kinds"]
        {'s': {'attention': {'heads': 8, 'qk_head': 64, 'window': 128}}}

        Args:
            given: plain values by key, as a file has them; not checked yet.

        """
        usual, kinds = given.get("attention"), given.get("kinds")
        if not isinstance(usual, Mapping) or not isinstance(kinds, Mapping):
            return given
        whole: dict[object, object] = {}
        for letter, kind in kinds.items():
            own = kind.get("attention") if isinstance(kind, Mapping) else None
            if isinstance(own, Mapping) and own.get("kind", usual.get("kind")) == usual.get("kind"):
                whole[letter] = dict(kind) | {"attention": {**usual, **own}}
            else:
                whole[letter] = kind
        return {**given, "kinds": whole}

    def _check_kinds(self) -> None:
        if self.kinds and not self.pattern:
            raise UserError(f"model.pattern: is missing; it says which layers are {' and '.join(sorted(self.kinds))}")
        if self.pattern and self.dense_layers:
            raise UserError("model.dense_layers: the pattern says which layers are dense; leave one of them out")
        for letter in self.kinds:
            if len(letter) != 1 or letter in "()*," or letter.isdigit() or letter.isspace():
                raise UserError(f"model.kinds: a kind is named by one letter, not by {quoted(letter)}")

    def over(self, gpus: int, *, experts_over: int = 1) -> Model:
        """Return what one GPU of a tensor-parallel group holds: a share of heads, FFN widths and the vocabulary.

        Norms, router, MLA's latents and the projection of multi-token prediction are whole on every GPU (for the last
        one assumed), and so are routed experts unless they are cut over a group of their own. A vocabulary that the
        GPUs do not divide is padded, as in Megatron-LM.

        >>> from dualpipe_sim.config import load_experiment
        >>> model = load_experiment("deepseek_v3").job.model
        >>> model.over(4).attention.heads, model.over(4).ffn, model.over(4).vocabulary
        (32, 4608, 32320)

        Raises:
            UserError: heads or a width cannot be shared out evenly.

        """
        if gpus == experts_over == 1:
            return self
        kinds = {
            letter: replace(kind, attention=kind.attention.over(gpus)) if kind.attention is not None else kind
            for letter, kind in self.kinds.items()
        }
        return replace(
            self,
            vocabulary=ceil(self.vocabulary / gpus),
            attention=self.attention.over(gpus),
            ffn=share("model.ffn", self.ffn, gpus),
            experts=None if self.experts is None else self.experts.over(gpus, experts_over),
            kinds=kinds,
        )

    def with_vocabulary_over(self, ranks: int) -> Model:
        """Return the model with one of so many shares of the vocabulary, padded where they are not alike."""
        return replace(self, vocabulary=ceil(self.vocabulary / ranks))

    def layer_kinds(self) -> tuple[Layer, ...]:
        """Return what each layer is, shallowest first."""
        return self._layer_kinds

    def kind_numbers(self) -> tuple[int, ...]:
        """Return a number for each layer, shallowest first; layers of the same kind have the same.

        A kind is told from others by all of its fields; a number is as good, and compared at once.
        """
        return self._kind_numbers

    @cached_property
    def _kind_numbers(self) -> tuple[int, ...]:
        number = {kind: place for place, kind in enumerate(dict.fromkeys(self._layer_kinds))}
        return tuple(number[kind] for kind in self._layer_kinds)

    @cached_property
    def _layer_kinds(self) -> tuple[Layer, ...]:
        if not self.pattern:
            dense = self.layers if self.experts is None else self.dense_layers
            return (Layer(self.attention, "dense"),) * dense + (Layer(self.attention, "moe"),) * (self.layers - dense)
        letters = unroll(self.pattern, "model.pattern")
        of_letter = {"d": LayerKind(ffn="dense"), "m": LayerKind(ffn="moe")} | dict(self.kinds)
        if unknown := next((letter for letter in letters if letter not in of_letter), None):
            known = ", ".join(sorted(of_letter))
            raise UserError(f"model.pattern: {quoted(unknown)} is no kind of layer; kinds are {known}")
        if not letters:
            raise UserError("model.pattern: has no letter; each stands for a layer")
        resolved = {letter: self._resolved(of_letter[letter]) for letter in dict.fromkeys(letters)}
        return tuple(resolved[letters[layer % len(letters)]] for layer in range(self.layers))

    def _resolved(self, kind: LayerKind) -> Layer:
        ffn = kind.ffn or ("dense" if self.experts is None else "moe")
        if ffn == "moe" and self.experts is None:
            raise UserError("model.experts: is missing; the pattern has MoE layers")
        return Layer(self.attention if kind.attention is None else kind.attention, ffn)

    def linears(self, layer: Layer) -> tuple[Linear, ...]:
        """Return the linear maps of a layer, in the order of the forward pass."""
        if layer not in self._linears:
            attention = layer.attention.linears(self.hidden)
            ffn = () if layer.ffn == "none" else _moe_linears(self) if layer.moe else _dense_linears(self)
            self._linears[layer] = (*attention, *ffn)
        return self._linears[layer]

    @cached_property
    def _linears(self) -> dict[Layer, tuple[Linear, ...]]:
        """Linear maps of a layer by its kind, as far as they were asked for."""
        return {}

    def head_linears(self) -> tuple[Linear, ...]:
        """Return the output head."""
        bias = self.head_bias
        return (Linear("head", "head", self.hidden, self.vocabulary, "final norm's output", cut="columns", bias=bias),)

    def mtp_linears(self) -> tuple[Linear, ...]:
        """Return what one multi-token prediction module has beside a layer and the shared head.

        It projects the hidden state joined with the next token's embedding (DeepSeek-V3 report, section 2.2).
        """
        return (Linear("mtp projection", "mtp", 2 * self.hidden, self.hidden, "joined input"),)

    @property
    def _norm(self) -> int:
        """Parameters of one norm of the residual stream."""
        return self.hidden * (2 if self.norm == "layer" else 1)

    def layer_parameters(self, layer: Layer) -> Parameters:
        """Return the parameters of one layer."""
        if layer not in self._of_layer:
            norms = layer.blocks * (2 if self.post_norms else 1) * self._norm + layer.attention.norm_parameters
            other = Parameters(norms=norms, attention=layer.attention.other_parameters)
            if layer.moe and self.experts is not None and self.experts.correction_bias:
                other += Parameters(gate=self.experts.routed)
            self._of_layer[layer] = _parameters(self.linears(layer)) + other
        return self._of_layer[layer]

    @cached_property
    def _of_layer(self) -> dict[Layer, Parameters]:
        """Parameters of a layer by its kind, as far as they were asked for."""
        return {}

    def embedding_parameters(self) -> Parameters:
        """Return the parameters of the token embedding, and of learned positions."""
        positions = self.max_positions if self.positions == "learned" else 0
        return Parameters(embedding=(self.vocabulary + positions) * self.hidden)

    def head_parameters(self) -> Parameters:
        """Return the parameters of the final norm and the head, whose matrix counts 0 where it is tied."""
        head = _parameters(self.head_linears()) + Parameters(norms=self._norm)
        return replace(head, head=self.vocabulary if self.head_bias else 0) if self.tied_embedding else head

    def mtp_parameters(self) -> Parameters:
        """Return the parameters of one multi-token prediction module, without the shared embedding and head."""
        own = _parameters(self.mtp_linears()) + Parameters(norms=3 * self._norm)
        return own + self.layer_parameters(self.layer_kinds()[-1])

    def parameters(self) -> Parameters:
        """Return the parameters of the whole model, multi-token prediction left out."""
        layers = Counter(self.layer_kinds())
        return sum(
            (self.layer_parameters(layer) * times for layer, times in layers.items()),
            start=self.embedding_parameters() + self.head_parameters(),
        )

    def passed_parameters(self) -> int:
        """Return all parameters but those of routed experts that a token does not pass."""
        whole = self.parameters()
        if self.experts is None:
            return whole.total
        return whole.total - whole.routed * (self.experts.routed - self.experts.active) // self.experts.routed

    def active_parameters(self) -> int:
        """Return the parameters of linear maps that one token passes: head counted, embedding and norms not."""
        layers = sum(
            times * linear.active_parameters
            for layer, times in Counter(self.layer_kinds()).items()
            for linear in self.linears(layer)
        )
        return layers + sum(linear.active_parameters for linear in self.head_linears())


def _parameters(linears: tuple[Linear, ...]) -> Parameters:
    return sum((Parameters(**{linear.part: linear.parameters}) for linear in linears), start=Parameters())


_CUTS: tuple[Cut, Cut] = ("columns", "rows")


def _ffn_linears(
    model: Model, part: Part, width: int, reads: str, matrices: tuple[int, int], *, bias: bool
) -> tuple[Linear, Linear]:
    """Return the maps of an FFN of so many matrices, stored and active."""
    up_width = 2 * width if GATED[model.activation] else width
    columns, rows = (None, None) if part == "routed" else _CUTS
    up = Linear(f"{part} up", part, model.hidden, up_width, reads, *matrices, columns, bias=bias)
    down = Linear(f"{part} down", part, width, model.hidden, f"{part} activation", *matrices, rows, bias=bias)
    return up, down


def _dense_linears(model: Model) -> tuple[Linear, ...]:
    return _ffn_linears(model, "dense", model.ffn, "mlp norm's output", (1, 1), bias=model.ffn_bias)


def _moe_linears(model: Model) -> tuple[Linear, ...]:
    experts = model.experts
    if experts is None:
        raise UserError(f"model {model.name} has no experts, so it has no MoE layer")
    reads = "mlp norm's output"
    gate = Linear("gate", "gate", model.hidden, experts.routed, reads, bias=experts.router_bias)
    matrices = experts.routed, experts.active
    routed = _ffn_linears(model, "routed", experts.ffn, "dispatched tokens", matrices, bias=experts.bias)
    if not experts.shared:
        return gate, *routed
    shared = _ffn_linears(model, "shared", experts.shared_width, reads, (1, 1), bias=experts.bias)
    weighing = (Linear("shared experts' gate", "shared", model.hidden, 1, reads),) if experts.shared_gate else ()
    return gate, *routed, *weighing, *shared
