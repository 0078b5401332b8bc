"""Compute phases of a layer, the head and the embedding, and the pieces that they consist of.

A piece is a linear map's GEMMs or attention's core (:mod:`dualpipe_sim.costs.rates`), on the share of SMs that compute,
or something else that memory bounds (:mod:`dualpipe_sim.costs.passes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from dualpipe_sim.base.precision import BF16_BYTES, FP32_BYTES
from dualpipe_sim.costs.passes import PART_OF, block_of, passes
from dualpipe_sim.costs.rates import Source, timed_attention, timed_linear
from dualpipe_sim.costs.workload import WORKS, Block, Work, Workload
from dualpipe_sim.model.architecture import Layer, Model
from dualpipe_sim.model.linear import Linear

LOSS_PASSES: dict[Work, int] = {"F": 2, "I": 2, "W": 0}
"""Passes over FP32 logits that the cross-entropy of DeepSeek's stack makes (assumed: two reads in F; a read and a write
in I)."""


class Compute(NamedTuple):
    """Seconds of one compute phase.

    Attributes:
        gemm_s: GEMMs.
        attention_s: attention's core.
        other_s: everything else.
        gap_s: gaps between kernels.
        kernels: number of GEMMs and attention kernels; all else is short.

    """

    gemm_s: float
    attention_s: float
    other_s: float
    gap_s: float
    kernels: int = 0

    @property
    def busy_s(self) -> float:
        """Time in kernels."""
        return self.gemm_s + self.attention_s + self.other_s

    @property
    def duration_s(self) -> float:
        """Time from the first kernel's start to the last one's end."""
        return self.busy_s + self.gap_s


class Piece(NamedTuple):
    """A piece of a compute phase.

    Attributes:
        part: what of a layer it belongs to: ``attention``, ``mlp``, ``experts``, ``shared``, ``router``, ``norms``.
        name: what it does.
        kind: GEMMs, attention's core, or something else.
        seconds: how long it takes, without gaps.
        source: where that comes from.

    """

    part: str
    name: str
    kind: Literal["gemm", "attention", "other"]
    seconds: float
    source: Source


def block_pieces(model: Model, layer: Layer, block: Block, work: Work, load: Workload) -> list[Piece]:
    """Return the pieces of a block of a layer for one kind of work; none of a block that it has not."""
    linears = [linear for linear in model.linears(layer) if block_of(linear) == block]
    if not linears:
        return []
    pieces = list(_gemms(linears, work, load))
    if block == "attn":
        core = timed_attention(layer, work, load)
        pieces.append(Piece("attention", "core", "attention", core.seconds, core.source))
    source: Source = "trace" if load.recipe.stack.traffic is None else "roofline"
    other = passes(model, layer, block, work, load)
    return [*pieces, *(Piece(one.part, one.name, "other", one.seconds, source) for one in other)]


def _gemms(linears: Iterable[Linear], work: Work, load: Workload) -> Iterator[Piece]:
    for linear in linears:
        timed = timed_linear(linear, work, load)
        yield Piece(PART_OF[linear.part], linear.name, "gemm", timed.seconds, timed.source)


def layer_compute(model: Model, layer: Layer, load: Workload) -> dict[tuple[Block, Work], Compute]:
    """Return the compute phases of one layer for one micro-batch; those of a block that it has not take no time.

    Returns:
        By block and work; ``("attn", "W")`` is the attention block's weight gradient, and so on.

    """
    return {(block, work): _compute(block_pieces(model, layer, block, work, load), load) for block, work in _PHASES}


def head_pieces(model: Model, work: Work, load: Workload) -> list[Piece]:
    """Return the output head's GEMM in BF16, its norm, and the loss."""
    traffic, width = load.recipe.stack.traffic, load.own_tokens * model.hidden
    logits = load.tokens * model.vocabulary
    pieces = list(_gemms(model.head_linears(), work, load))
    if traffic is None:
        sizes = {"loss": LOSS_PASSES[work] * logits * FP32_BYTES}
    else:
        sizes = {
            "loss": traffic.logits_bytes.of(work) * logits,
            "norm": traffic.norm.of(work) * width * BF16_BYTES,
            "sums": (work == "W") * load.added * traffic.added * model.vocabulary * model.hidden,
        }
    return [*pieces, *_of_bytes("head", sizes, load)]


def head_compute(model: Model, load: Workload) -> dict[Work, Compute]:
    """Return the output head with the loss."""
    return {work: _compute(head_pieces(model, work, load), load) for work in WORKS}


def mtp_compute(model: Model, load: Workload) -> dict[Work, Compute]:
    """Return the projection that starts a multi-token prediction module; its layer and head come on top."""
    return {work: _compute(list(_gemms(model.mtp_linears(), work, load)), load) for work in WORKS}


def embedding_pieces(model: Model, work: Work, load: Workload) -> list[Piece]:
    """Return the embedding: rows read and written in F; gradient rows read and written in W, nothing in I.

    The gradient is that of the whole matrix, which is set to zero first and, where it is no first one, added to others;
    DeepSeek's rows are added in FP32 (assumed).
    """
    traffic, rows = load.recipe.stack.traffic, load.tokens * model.hidden
    size = {"F": 2.0 * BF16_BYTES, "I": 0.0, "W": BF16_BYTES + 2.0 * FP32_BYTES}[work] * rows
    if traffic is not None and work == "W":
        size += (BF16_BYTES + load.added * traffic.added) * model.vocabulary * model.hidden
    return _of_bytes("embedding", {"rows": size}, load)


def embedding_compute(model: Model, load: Workload) -> dict[Work, Compute]:
    """Return the embedding."""
    return {work: _compute(embedding_pieces(model, work, load), load) for work in WORKS}


def _of_bytes(part: str, sizes: dict[str, float], load: Workload) -> list[Piece]:
    hbm = load.gpu.hbm_bytes_per_s
    return [Piece(part, name, "other", size / hbm, "roofline") for name, size in sizes.items() if size]


_PHASES: tuple[tuple[Block, Work], ...] = (
    ("attn", "F"), ("mlp", "F"), ("mlp", "I"), ("attn", "I"), ("mlp", "W"), ("attn", "W"),
)  # fmt: skip


def _compute(pieces: list[Piece], load: Workload) -> Compute:
    by_kind = {"gemm": 0.0, "attention": 0.0, "other": 0.0}
    for piece in pieces:
        by_kind[piece.kind] += piece.seconds
    kernels = sum(piece.kind != "other" and piece.seconds > 0 for piece in pieces)
    # Kernels by shape were timed back to back, gaps among them.
    gap_s = 0.0 if load.recipe.stack.by_shape else sum(by_kind.values()) * load.gpu.kernel_gap
    return Compute(by_kind["gemm"], by_kind["attention"], by_kind["other"], gap_s, kernels)
