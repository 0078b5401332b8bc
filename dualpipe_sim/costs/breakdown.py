"""What one micro-batch takes and leaves on one GPU, by kind of layer and part, and where its seconds come from.

A part of an op (:mod:`~dualpipe_sim.costs.parts`) is a phase to be: a block of a layer, an all-to-all. Here each is
taken apart once more, into the pieces that it is computed from (:mod:`~dualpipe_sim.costs.compute`). Seconds are those
of an op that runs alone, with nothing hidden behind anything else, and sum to those of its phases; what belongs to no
layer's own op is left out: weights gathered for it and gradients scattered behind it, copies to the host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor, log10
from typing import Literal, NamedTuple, TypeAlias

from dualpipe_sim.base.show import Table, Tabular, line
from dualpipe_sim.base.units import fitting_unit, format_number, format_seconds, number_of
from dualpipe_sim.costs.compute import Piece, block_pieces, embedding_pieces, head_pieces
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.op_phases import layer_again
from dualpipe_sim.costs.parts import Part, Parts
from dualpipe_sim.costs.phases import CONTEXT
from dualpipe_sim.costs.rates import timed_linear
from dualpipe_sim.costs.workload import WORKS, Block, Work, Workload
from dualpipe_sim.model.activations import LAYER_INPUT, head_activations, layer_activations
from dualpipe_sim.model.architecture import Layer, Model, Parameters
from dualpipe_sim.model.attention.registry import Attention, kinds
from dualpipe_sim.model.flops import linear_flops
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.layout import StageLayers
from dualpipe_sim.model.linear import Linear
from dualpipe_sim.model.recipe import Recompute
from dualpipe_sim.order.ops import Kind

PARTS = (
    "embedding", "attention", "mlp", "router", "experts", "shared", "norms", "head", "loss",
    "dispatch", "combine", "tensor_parallel", "context_parallel", "gaps", "host",
)  # fmt: skip
"""What layers, embedding and head may consist of, in the order in which they are shown."""

HEADINGS = ("part", "F", "I", "W", "again", "saved", "source")
"""What the table of a layer shows of each part."""

Does: TypeAlias = Literal["F", "I", "W", "again"]
"""What takes seconds: the kinds of work, and what of the forward runs again before a backward."""

_DOES: tuple[Does, ...] = (*WORKS, "again")
_FIELDS = ("forward_s", "input_gradient_s", "weight_gradient_s", "recompute_s", "saved_bytes", "parameters")
_MB = 1e6
_LEAST_SHARE = 0.005
_ROUNDING = 1e-9
"""Of a part's seconds: what is less is no time of its own."""


@dataclass(frozen=True)
class PartBreakdown:
    """A part of a layer: what one micro-batch takes and leaves there.

    Attributes:
        name: one of ``PARTS``.
        forward_s: seconds of F.
        input_gradient_s: seconds of I; what runs again of single maps, norms and activations is among it.
        weight_gradient_s: seconds of W.
        recompute_s: seconds of what runs again before I, where whole layers or FFNs do.
        saved_bytes: what is kept from F to the backward.
        parameters: parameters on the GPU.
        seconds_by_source: all these seconds by where they come from, most first: ``table`` (kernels timed by shape),
            ``roofline`` (bytes over bandwidth), ``rate`` (a rate for all shapes), ``trace`` (DeepSeek's), ``measured``
            (given in the configuration), ``links``, ``host``.

    """

    name: str
    forward_s: float = 0.0
    input_gradient_s: float = 0.0
    weight_gradient_s: float = 0.0
    recompute_s: float = 0.0
    saved_bytes: int = 0
    parameters: int = 0
    seconds_by_source: Mapping[str, float] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where its seconds come from, the source of most first; empty where it takes none."""
        return " + ".join(self.seconds_by_source)

    def to_dict(self) -> dict[str, object]:
        """Return its name, amounts and source, ready for JSON."""
        return {"name": self.name, **{name: getattr(self, name) for name in _FIELDS}, "source": self.source}


@dataclass(frozen=True)
class LayerBreakdown(Tabular):
    """One layer of a kind, the embedding or the head, in parts.

    Attributes:
        kind: ``dense``, ``moe`` or ``attention`` (a layer without feed-forward network), with what tells its attention
            from that of others; or ``embedding``, ``head``.
        count: how many there are in the model.
        parts: what it consists of, in the order of ``PARTS``.
        flops: FLOPs on the GPU as MFU counts them: the backward as twice the forward, nothing again.

    """

    kind: str
    count: int
    parts: tuple[PartBreakdown, ...]
    flops: float = 0.0

    def __repr__(self) -> str:
        return line(self, self.label, number_of(len(self.parts), "part"), format_seconds(self.seconds))

    @property
    def label(self) -> str:
        """Its kind, and how many there are of several."""
        return self.kind if self.count == 1 else f"{self.kind} × {self.count}"

    @property
    def forward_s(self) -> float:
        """Seconds of F."""
        return sum(part.forward_s for part in self.parts)

    @property
    def input_gradient_s(self) -> float:
        """Seconds of I, without what runs again before it."""
        return sum(part.input_gradient_s for part in self.parts)

    @property
    def weight_gradient_s(self) -> float:
        """Seconds of W."""
        return sum(part.weight_gradient_s for part in self.parts)

    @property
    def recompute_s(self) -> float:
        """Seconds of what runs again before I."""
        return sum(part.recompute_s for part in self.parts)

    @property
    def seconds(self) -> float:
        """Seconds of all of that."""
        return self.forward_s + self.input_gradient_s + self.weight_gradient_s + self.recompute_s

    @property
    def saved_bytes(self) -> int:
        """What is kept from F to the backward."""
        return sum(part.saved_bytes for part in self.parts)

    @property
    def parameters(self) -> int:
        """Parameters on the GPU."""
        return sum(part.parameters for part in self.parts)

    @property
    def flops_per_s(self) -> float:
        """FLOPs that it achieves a second, over all of its seconds."""
        return self.flops / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, object]:
        """Return its kind, sums and parts, ready for JSON."""
        sums = {name: getattr(self, name) for name in _FIELDS}
        return {"kind": self.kind, "count": self.count, **sums, "parts": [part.to_dict() for part in self.parts]}

    def to_table(self) -> Table:
        """Return its parts as the table that it shows itself as."""
        unit, write = _seconds_column(max((self.forward_s, self.input_gradient_s, self.weight_gradient_s)))
        rows = [[part.name.replace("_", " "), *_cells(part, write), part.source or "–"] for part in self.parts]
        rows.append(["all", *_cells(self, write), ""])
        title = f"{self.label}: {unit} and MB; {format_number(self.parameters / 1e6)} M parameters on a GPU"
        return _without_again(Table(HEADINGS, rows, ("part", "source"), title, self._notes()), self.recompute_s)

    def _notes(self) -> list[str]:
        backward_s = self.input_gradient_s + self.weight_gradient_s + self.recompute_s
        said = [f"F {format_seconds(self.forward_s)}, backward {format_seconds(backward_s)}"]
        if self.flops_per_s:
            said.append(f"{self.flops_per_s / 1e12:,.0f} TFLOP/s of the model's FLOPs")
        sources = _by_source(self.parts)
        shares = {source: seconds / self.seconds for source, seconds in sources.items()}
        said += [", ".join(f"{share:.0%} {source}" for source, share in shares.items() if share >= _LEAST_SHARE)]
        return ["; ".join(filter(None, said))]


@dataclass(frozen=True)
class Breakdown(Tabular):
    """A model's layers on one GPU, by kind and part.

    >>> from dualpipe_sim.config import load_experiment
    >>> found = breakdown(load_experiment("deepseek_v3").costs)
    >>> [layer.label for layer in found.layers], found.tokens
    (['dense × 3', 'moe × 58'], 4096)
    >>> [part.name for part in found.layers[0].parts]
    ['attention', 'mlp', 'norms', 'gaps']

    Attributes:
        stack: the software.
        gpu: the GPU.
        tokens: tokens of a micro-batch on the GPU.
        layers: one layer of each kind, the shallowest first.
        embedding: the token embedding.
        head: the output head with the loss.

    """

    stack: str
    gpu: str
    tokens: int
    layers: tuple[LayerBreakdown, ...]
    embedding: LayerBreakdown
    head: LayerBreakdown

    def __repr__(self) -> str:
        return line(self, self.caption, *(layer.label for layer in self.layers))

    @property
    def caption(self) -> str:
        """The software, the GPU and what it has of a micro-batch."""
        return f"{self.stack} on {self.gpu}, {number_of(self.tokens, 'token')}"

    @property
    def all_of_it(self) -> tuple[LayerBreakdown, ...]:
        """Layers, embedding and head, in the order of the forward pass."""
        return (self.embedding, *self.layers, self.head)

    def to_dict(self) -> dict[str, object]:
        """Return everything, ready for JSON."""
        return {
            "stack": self.stack,
            "gpu": self.gpu,
            "tokens": self.tokens,
            "layers": [layer.to_dict() for layer in self.layers],
            "embedding": self.embedding.to_dict(),
            "head": self.head.to_dict(),
        }

    def to_table(self) -> Table:
        """Return a row for each kind of layer, the embedding and the head; each has a table of its own."""
        unit, write = _seconds_column(max(one.seconds for one in self.all_of_it))
        rows = [
            [one.label, *_cells(one, write), f"{one.flops_per_s / 1e12:,.0f}" if one.flops else "–"]
            for one in self.all_of_it
        ]
        title = f"{self.caption}: {unit} and MB of one layer and micro-batch"
        table = Table(("layer", *HEADINGS[1:-1], "TFLOP/s"), rows, ("layer",), title)
        return _without_again(table, sum(one.recompute_s for one in self.all_of_it))


def breakdown(costs: LayerCosts) -> Breakdown:
    """Return what one micro-batch takes and leaves on one GPU, by kind of layer and part.

    Where a number of layers of each stage is recomputed (``training.recompute.layers``), it is of those.

    Args:
        costs: the costs, on a cluster.

    Raises:
        UserError: costs without a cluster, or that do not fit it.

    """
    job = costs.job
    layers = job.shard.layer_kinds()
    counts, names = Counter(layers), _names(job.model.layer_kinds())
    firsts = {layer: layers.index(layer) for layer in counts}
    return Breakdown(
        job.recipe.stack.name,
        costs.gpu.name,
        job.micro_batch.tokens,
        tuple(_layer(costs, first, names[first], counts[layer]) for layer, first in firsts.items()),
        _end(costs, "embedding", embedding_pieces),
        _end(costs, "head", head_pieces),
    )


class _Share(NamedTuple):
    """Seconds of a part, and where they come from."""

    part: str
    seconds: float
    source: str


class _Sums:
    """Seconds of parts while they are added up: by what takes them, and by source."""

    def __init__(self) -> None:
        self._by_does: dict[str, dict[Does, float]] = {}
        self._by_source: dict[str, dict[str, float]] = {}

    def add(self, does: Does, shares: Iterable[_Share]) -> None:
        for part, seconds, source in shares:
            if seconds:
                by_does, by_source = self._by_does.setdefault(part, {}), self._by_source.setdefault(part, {})
                by_does[does] = by_does.get(does, 0.0) + seconds
                by_source[source] = by_source.get(source, 0.0) + seconds

    def parts(self, saved: Mapping[str, float], parameters: Mapping[str, float]) -> tuple[PartBreakdown, ...]:
        """Return the parts that take time or memory, in the order of ``PARTS``."""
        found = []
        for name in PARTS:
            forward_s, input_s, weight_s, again_s = (self._by_does.get(name, {}).get(does, 0.0) for does in _DOES)
            kept, held = (round(amounts.get(name, 0.0)) for amounts in (saved, parameters))
            sources = _most_first(self._by_source.get(name, {}))
            if sources or kept or held:
                found.append(PartBreakdown(name, forward_s, input_s, weight_s, again_s, kept, held, sources))
        return tuple(found)


def _layer(costs: LayerCosts, number: int, name: str, count: int) -> LayerBreakdown:
    """Return a layer as it is where it is the first of its stage, which runs again where any does."""
    parts, job = costs.parts, costs.job
    layer, whole = parts.model.layer_kinds()[number], job.recipe.recompute.whole(0)
    back, forward = parts.without_recompute if whole else parts, parts.layer(number)
    sums = _Sums()
    for block, work in forward:
        of_work = parts if work == "F" else back
        sums.add(work, _consisting(of_work.layer(number)[block, work], _pieces(of_work, layer, block, work)))
    for part in parts.exchanges(number).values():
        sums.add("F" if part.kind == Kind.F else "I", _exchanged(part))
    again = layer_again(parts, StageLayers((number,)), number)
    for block, repeated in (("attn", again.attn), ("mlp", again.mlp)):
        if repeated is not None:
            sums.add("again", _consisting(repeated, _pieces_again(parts, layer, block)))
    for exchange in (again.dispatch, again.combine):
        if exchange is not None:
            sums.add("again", _exchanged(exchange))
    here = _here(parts.model.layer_parameters(layer), job.parallel.expert)
    return LayerBreakdown(name, count, sums.parts(_saved(job, layer, whole=whole), here), _flops(layer, parts))


def _end(
    costs: LayerCosts, name: Literal["embedding", "head"], pieces: Callable[[Model, Work, Workload], list[Piece]]
) -> LayerBreakdown:
    """Return the embedding or the head."""
    job, parts = costs.job, costs.parts
    model, of_work, sums = job.shard, parts.embedding if name == "embedding" else parts.head, _Sums()
    for work, part in of_work.items():
        shares = [
            _Share(_OF_END.get(one.name, name), one.seconds, one.source) for one in pieces(model, work, parts.load)
        ]
        sums.add(work, _consisting(part, _with_gaps(shares, parts.load)))
    if name == "embedding":
        return LayerBreakdown(name, 1, sums.parts({}, _here(model.embedding_parameters())))
    stack = job.recipe.stack
    logits = job.model.vocabulary if stack.whole_logits else model.vocabulary
    saved = dict[str, float]()
    for item, size_bytes in head_activations(model, stack, job.micro_batch, logits).items():
        part_name = "loss" if item == "logits" else "norms"
        saved[part_name] = saved.get(part_name, 0.0) + size_bytes
    flops = 3.0 * sum(_linear_flops(linear, parts.load) for linear in model.head_linears())
    return LayerBreakdown(name, 1, sums.parts(saved, _here(model.head_parameters())), flops)


_OF_END = {"loss": "loss", "norm": "norms"}
"""The parts of the head's pieces by name; all others are the matrix's."""


def _consisting(part: Part, pieces: Sequence[_Share]) -> Iterator[_Share]:
    """Yield what a part consists of: its pieces, what it waits for the host, the collectives around it."""
    yield from pieces
    late_s = part.alone_s - sum(piece.seconds for piece in pieces)
    if late_s > _ROUNDING * part.alone_s:
        yield _Share("host", late_s, "host")
    for one in (*part.before, *part.after):
        yield _Share("context_parallel" if one.name == CONTEXT else "tensor_parallel", one.alone_s, "links")


def _exchanged(part: Part) -> list[_Share]:
    """Return an all-to-all's seconds."""
    return [_Share(part.name, part.alone_s, "links")]


def _pieces(parts: Parts, layer: Layer, block: Block, work: Work) -> list[_Share]:
    """Return the seconds of a block's pieces and of the gaps between them, as measured where they are."""
    pieces = block_pieces(parts.model, layer, block, work, parts.load)
    computed = [(one.kind, share) for one in pieces for share in _shares(one, layer, block, parts)]
    measured = parts.measured.compute.get((block, work)) if layer.moe or block == "attn" else None
    if measured is None:
        return _with_gaps([share for _, share in computed], parts.load)
    # Beside an all-to-all, on fewer SMs; GEMMs and attention are faster on all of them.
    share = parts.beside.share_of_sms
    by_kind = {"gemm": measured.gemm_s * share, "attention": measured.attention_s * share, "other": measured.other_s}
    shares = []
    for kind, seconds in by_kind.items():
        alike = [one for its_kind, one in computed if its_kind == kind and one.seconds]
        formulas_s = sum(one.seconds for one in alike)
        shares += [_Share(one.part, seconds * one.seconds / formulas_s, "measured") for one in alike]
        if not alike:
            shares.append(_Share("attention" if block == "attn" else "experts", seconds, "measured"))
    return _with_gaps(shares, parts.load, measured=True)


def _shares(piece: Piece, layer: Layer, block: Block, parts: Parts) -> list[_Share]:
    """Return a piece's seconds by part: a block's gradients, which are added as one, go by their number."""
    if piece.name != "sums":
        return [_Share(piece.part, piece.seconds, piece.source)]
    here = _here(parts.model.layer_parameters(layer), parts.load.expert_parallel)
    weights = {part: here[part] for part in _ADDED[block] if here[part]}
    each_s = piece.seconds / sum(weights.values())
    return [_Share(part, each_s * number, piece.source) for part, number in weights.items()]


_ADDED: dict[Block, tuple[str, ...]] = {"attn": ("attention", "router"), "mlp": ("mlp", "experts", "shared")}


def _pieces_again(parts: Parts, layer: Layer, block: Block) -> list[_Share]:
    """Return those of a forward that runs again, without its last map where that is left out."""
    left_out = parts.left_out_again(layer) if block == "mlp" else []
    timed = [timed_linear(linear, "F", parts.load) for linear in left_out]
    return [*_pieces(parts, layer, block, "F"), *(_Share("mlp", -one.seconds, one.source) for one in timed)]


def _with_gaps(shares: list[_Share], load: Workload, *, measured: bool = False) -> list[_Share]:
    """Return shares with the gaps between kernels, which those timed by shape hold."""
    if load.recipe.stack.by_shape and not measured:
        return shares
    gap_s = sum(one.seconds for one in shares) * load.gpu.kernel_gap
    return [*shares, _Share("gaps", gap_s, "trace")]


def _saved(job: Job, layer: Layer, *, whole: bool) -> dict[str, float]:
    """Return the bytes that a layer keeps, by part; its input, where only that is left, is that of its first norm."""
    model, recipe, batch = job.shard, job.recipe, job.micro_batch
    if whole:
        recipe = replace(recipe, recompute=Recompute(full=True))
    attention = layer.attention.activations(recipe, batch, dropout=model.dropout)
    found = dict[str, float]()
    for item, size_bytes in layer_activations(model, layer, recipe, batch).items():
        part = "attention" if item in attention else _part_of(item)
        found[part] = found.get(part, 0.0) + size_bytes
    return found


def _part_of(item: str) -> str:
    """Return the part that keeps an item; what is kept around blocks is the norms'."""
    return _ITEMS.get(item) or next((part for begin, part in _FFNS.items() if item.startswith(begin)), "norms")


_ITEMS = {
    LAYER_INPUT: "norms",
    "attention's output, copied": "attention",
    "beside values": "attention",
    "dispatched tokens": "experts",
    "router": "router",
}
_FFNS = {"dense ": "mlp", "routed ": "experts", "shared ": "shared"}


def _here(parameters: Parameters, expert: int = 1) -> dict[str, float]:
    """Return the parameters on a GPU by part; the routed experts are spread over so many."""
    return {
        "attention": parameters.attention,
        "mlp": parameters.dense,
        "experts": parameters.routed / expert,
        "shared": parameters.shared,
        "router": parameters.gate,
        "norms": parameters.norms,
        "embedding": parameters.embedding,
        "head": parameters.head,
    }


def _flops(layer: Layer, parts: Parts) -> float:
    """Return the FLOPs of a layer on the GPU as MFU counts them, with even routing."""
    load = parts.load
    core = load.tokens * layer.attention.core(load.sequence_length, causal=load.causal).forward
    return 3.0 * (core + sum(_linear_flops(linear, load) for linear in parts.model.linears(layer)))


def _linear_flops(linear: Linear, load: Workload) -> float:
    """Return the FLOPs of a map's forward on the GPU."""
    rows = load.own_tokens if linear.cut is None else load.tokens
    return rows * (load.expert_tensor if linear.part == "routed" else 1) * linear_flops(linear).forward


def _names(layers: Sequence[Layer]) -> list[str]:
    """Return what to call each layer, those of one kind the same and others different."""
    distinct = list(dict.fromkeys(layers))
    mixing = [layer.attention for layer in distinct if layer.attention.linears(1)]
    names, taken = dict[Layer, str](), Counter[str]()
    for layer in distinct:
        name = "attention" if layer.ffn == "none" else str(layer.ffn)
        if layer.attention in mixing:
            name = ", ".join((name, *_apart(layer.attention, mixing)))
        taken[name] += 1
        names[layer] = name if taken[name] == 1 else f"{name} ({taken[name]})"
    return [names[layer] for layer in layers]


def _apart(attention: Attention, others: Sequence[Attention]) -> Iterator[str]:
    """Yield what tells a layer's attention from that of other layers."""
    if any(type(other) is not type(attention) for other in others):
        yield next((name for name, kind in kinds().items() if kind is type(attention)), type(attention).__name__)
    alike = [other for other in others if type(other) is type(attention)]
    for name in getattr(attention, "__dataclass_fields__", ()):
        value = getattr(attention, name)
        if value and any(getattr(other, name) != value for other in alike):
            said = isinstance(value, (int, float, str)) and value is not True
            yield f"{name} {value}" if said else name


def _by_source(parts: Iterable[PartBreakdown]) -> dict[str, float]:
    found = dict[str, float]()
    for part in parts:
        for source, seconds in part.seconds_by_source.items():
            found[source] = found.get(source, 0.0) + seconds
    return _most_first(found)


def _most_first(seconds: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(seconds.items(), key=lambda one: -one[1]))


_Write: TypeAlias = Callable[[float], str]


def _seconds_column(longest_s: float) -> tuple[str, _Write]:
    """Return the unit of a table's seconds, and how they are written in it: the longest with four digits."""
    unit = fitting_unit(longest_s)
    decimals = max(0, 3 - floor(log10(longest_s / unit.seconds))) if longest_s else 0
    return unit.name, lambda seconds: f"{seconds / unit.seconds:,.{decimals}f}" if seconds else "–"


def _cells(one: PartBreakdown | LayerBreakdown, write: _Write) -> list[str]:
    """Return seconds and saved megabytes, in the order of ``HEADINGS``."""
    seconds = (one.forward_s, one.input_gradient_s, one.weight_gradient_s, one.recompute_s)
    return [*map(write, seconds), f"{one.saved_bytes / _MB:,.1f}" if one.saved_bytes else "–"]


def _without_again(table: Table, seconds: float) -> Table:
    """Return a table without the column of what runs again where nothing does."""
    if seconds:
        return table
    place = list(table.headings).index("again")
    headings, *rows = ([*row[:place], *row[place + 1 :]] for row in (table.headings, *table.rows))
    return replace(table, headings=headings, rows=rows)
