"""The training recipe: precision of GEMMs and caches, groups of scales, and what the backward pass recomputes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from dualpipe_sim.base.precision import BF16_BYTES, FP8_BYTES, PRECISIONS, Precision
from dualpipe_sim.base.records import need_positive
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError
from dualpipe_sim.model.optimizer import Optimizer
from dualpipe_sim.model.precision import NUMBERS, Numbers
from dualpipe_sim.model.stacks import STACKS, Stack

AttentionKernel: TypeAlias = Literal["fastest", "cudnn", "flash-2", "flash-1"]
"""Kernels of attention's core: NVIDIA's cuDNN, FlashAttention-2 (https://arxiv.org/abs/2307.08691) and its first
version (https://arxiv.org/abs/2205.14135)."""


@dataclass(frozen=True)
class Recompute:
    """What the backward pass computes again instead of keeping it.

    >>> Recompute.of(["norms"]).names, Recompute(full=True).names
    (('norms',), ('full',))

    Attributes:
        norms: norm outputs, so that only inputs are cached.
        up_projections: queries, keys and values, from MLA's latents.
        activation: outputs of SwiGLU or GELU.
        routed_activation: those of routed experts alone.
        core: attention's core, from queries, keys and values, so that scores, softmax's statistics or states are not
            kept; with stored scores this is selective recomputation (https://arxiv.org/abs/2205.05198).
        shared: shared experts.
        mlp: dense FFNs.
        moe: FFNs of experts, their all-to-alls among it.
        alternate: every second linear map of a layer (torchtitan's selection by op): keys, the output map and the map
            up beside the gate.
        full: whole layers, of which only the input is cached (https://arxiv.org/abs/1604.06174); nothing else is then
            left to be recomputed.
        layers: with ``full``, how many layers of a stage, from its first on; 0 for all.
        together: with ``full``, how many layers in a row run again together, of which only the first one's input is
            cached (Megatron-LM's method ``uniform``).

    """

    norms: bool = True
    up_projections: bool = True
    activation: bool = True
    routed_activation: bool = False
    core: bool = False
    shared: bool = False
    mlp: bool = False
    moe: bool = False
    alternate: bool = False
    full: bool = False
    layers: int = 0
    together: int = 1

    def __post_init__(self) -> None:
        if self.layers and not self.full:
            raise UserError("training.recompute.layers: says how many layers are recomputed whole; give full: true too")
        if self.together != 1 and not self.full:
            raise UserError("training.recompute.together: is of layers that are recomputed whole; give full: true too")
        if self.together < 1:
            raise UserError(f"training.recompute.together: must be 1 or more, not {self.together}")
        if self.full and not self.layers:
            for name in _PARTS:
                object.__setattr__(self, name, False)  # a layer's second forward has all of them

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all that is recomputed, with the number of layers where not all are."""
        named = tuple(name for name in (*_PARTS, "full") if getattr(self, name))
        numbers = (("layers", self.layers, 0), ("together", self.together, 1))
        return (*named, *(f"{name} {number}" for name, number, usual in numbers if number != usual))

    @property
    def blocks(self) -> frozenset[str]:
        """Which FFNs run their whole forward again: ``dense``, ``moe``."""
        return frozenset(kind for kind, again in (("dense", self.mlp), ("moe", self.moe)) if again)

    def whole(self, place: int) -> bool:
        """Return whether a layer at this place in its stage, counted from 0, is recomputed whole."""
        return self.full and (not self.layers or place < self.layers)

    @property
    def of_others(self) -> Recompute:
        """What is recomputed of layers that are not recomputed whole."""
        return replace(self, full=False, layers=0, together=1)

    @classmethod
    def of(cls, names: Collection[str]) -> Recompute:
        """Return the one that recomputes just what is named."""
        numbers = {name: int(number) for name, _, number in (one.partition(" ") for one in names) if number}
        kept = {name: name in names for name in (*_PARTS, "full")}
        return cls(**kept, layers=numbers.get("layers", 0), together=numbers.get("together", 1))


_PARTS = ("norms", "up_projections", "activation", "routed_activation", "core", "shared", "mlp", "moe", "alternate")


@dataclass(frozen=True)
class Offload:
    """What lies in the memory of a GPU's host for a while.

    Attributes:
        layers: layers of a stage, from its first on, whose activations go there behind F and come back before the
            backward.
        optimizer: share of the optimizer's states that lie there, and are updated there.

    """

    layers: int = 0
    optimizer: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.optimizer <= 1:
            raise UserError(f"training.offload.optimizer: must be a share from 0 to 1, not {self.optimizer}")


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, as far as time and memory of a layer depend on it.

    The defaults are the DeepSeek-V3 report's (https://arxiv.org/abs/2412.19437, sections 3.2.3, 3.3):
    fine-grained FP8, RMSNorms, MLA up-projections and the SwiGLU recomputed.

    >>> Recipe(precision="bf16").recompute.names
    ('norms', 'up_projections', 'activation')

    Attributes:
        precision: of the GEMMs, and what is sent, kept and held for them.
        activation_group: activations that share a scale; None for as many as the precision says.
        weight_group: side of the weight block that shares a scale; None for what the precision says.
        accumulation_interval: products that a tensor core sums before promotion to FP32 (N_C), with ``fp8``.
        low_precision_weights: whether resident weights are in these numbers alone, without a BF16 copy; None for what
            the precision says.
        low_precision_attention: whether attention's core computes in FP8, and keeps what it reads in it.
        recompute: what the backward pass computes again.
        optimizer: what is there of each parameter beside its weight.
        offload: what lies in the host's memory for a while.
        stack: the software that trains.
        attention_kernel: whose kernel attention's core is; ``fastest`` for that of those that were timed.

    """

    precision: Precision = "fp8"
    activation_group: int | None = None
    weight_group: int | None = None
    accumulation_interval: int = 128
    low_precision_weights: bool | None = None
    low_precision_attention: bool = False
    recompute: Recompute = Recompute()
    optimizer: Optimizer = field(default_factory=Optimizer)
    offload: Offload = Offload()
    stack: Stack = STACKS["deepseek"]
    attention_kernel: AttentionKernel = "fastest"

    __repr__ = brief

    def __post_init__(self) -> None:
        need_positive(self, "training")
        if self.precision not in PRECISIONS:
            known = " or ".join(map(repr, PRECISIONS))
            raise UserError(f"training.precision: must be {known}, not {self.precision!r}")

    @property
    def numbers(self) -> Numbers:
        """The numbers of the precision."""
        return NUMBERS[self.precision]

    @property
    def activation_bytes(self) -> float:
        """Bytes of an activation that a GEMM reads, its share of the scale included."""
        return self.numbers.activation_bytes(self.activation_group)

    @property
    def sent_bytes(self) -> float:
        """Bytes of an element of a token on its way to its experts."""
        return self.activation_bytes if self.numbers.sent else BF16_BYTES

    @property
    def attention_output_bytes(self) -> float:
        """Bytes of an element of attention's cached output."""
        return self.numbers.attention_output_bytes

    @property
    def attention_input_bytes(self) -> float:
        """Bytes of an element of the queries, keys and values that attention's core reads."""
        return FP8_BYTES if self.low_precision_attention else BF16_BYTES

    @property
    def weight_bytes(self) -> float:
        """Bytes of a resident weight of a GEMM, with its copies in other numbers and their scales."""
        group = None if self.weight_group is None else self.weight_group**2
        return self.numbers.resident_bytes(group, primary=self.low_precision_weights)
