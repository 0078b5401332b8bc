"""The training recipe: precision of GEMMs and caches, groups of scales, and what the backward pass recomputes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from dualpipe_sim.base.precision import BF16_BYTES, FP8_BYTES, FP32_BYTES, PRECISIONS, SCALE_BYTES, Precision
from dualpipe_sim.base.records import need_positive
from dualpipe_sim.errors import UserError


@dataclass(frozen=True)
class Recompute:
    """What the backward pass computes again instead of keeping it.

    >>> Recompute.of(["norms"]).names, Recompute(full=True).names
    (('norms',), ('full',))

    Attributes:
        norms: norm outputs, so that only inputs are cached.
        up_projections: queries, keys and values, from MLA's latents.
        activation: outputs of SwiGLU or GELU.
        core: attention's core, from queries, keys and values, so that scores, softmax's statistics or states are not
            kept; with stored scores this is selective recomputation (https://arxiv.org/abs/2205.05198).
        full: whole layers, of which only the input is cached (https://arxiv.org/abs/1604.06174); nothing else is then
            left to be recomputed.

    """

    norms: bool = True
    up_projections: bool = True
    activation: bool = True
    core: bool = False
    full: bool = False

    def __post_init__(self) -> None:
        if self.full:
            for name in ("norms", "up_projections", "activation", "core"):
                object.__setattr__(self, name, False)  # a layer's second forward has all of them

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all that is recomputed."""
        return tuple(name for name, yes in vars(self).items() if yes)

    @classmethod
    def of(cls, names: Collection[str]) -> Recompute:
        """Return the one that recomputes just what is named."""
        return cls(**{field.name: field.name in names for field in fields(cls)})


Format: TypeAlias = Literal["fp32", "bf16", "none"]
"""How a number that the optimizer holds is stored, or that it is not there."""

_BYTES: dict[Format, float] = {"fp32": FP32_BYTES, "bf16": BF16_BYTES, "none": 0.0}


@dataclass(frozen=True)
class Optimizer:
    """What is there of each parameter beside its weight, for Adam and its kin.

    The defaults are the DeepSeek-V3 report's (section 3.3.3); Megatron-LM's distributed optimizer has moments in FP32,
    plain data parallelism in PyTorch neither main weights nor shards.

    >>> Optimizer().state_bytes, Optimizer(moments="fp32").state_bytes
    (8.0, 12.0)

    Attributes:
        main_weights: copy of the weights that is updated; none where the resident ones are.
        moments: first and second moment.
        gradients: gradients, summed up over micro-batches.
        sharded: whether main weights and moments are shared out over all that hold the same parameter (ZeRO-1,
            https://arxiv.org/abs/1910.02054).

    """

    main_weights: Format = "fp32"
    moments: Format = "bf16"
    gradients: Literal["fp32", "bf16"] = "fp32"
    sharded: bool = True

    @property
    def state_bytes(self) -> float:
        """Bytes a parameter of main weight and moments."""
        return _BYTES[self.main_weights] + 2 * _BYTES[self.moments]

    @property
    def gradient_bytes(self) -> float:
        """Bytes a parameter of its gradient."""
        return _BYTES[self.gradients]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, as far as time and memory of a layer depend on it.

    The defaults are the DeepSeek-V3 report's (https://arxiv.org/abs/2412.19437, sections 3.2.3, 3.3):
    fine-grained FP8, RMSNorms, MLA up-projections and the SwiGLU recomputed.

    >>> Recipe(precision="bf16").recompute.names
    ('norms', 'up_projections', 'activation')

    Attributes:
        precision: of the GEMMs, of the dispatched tokens, of cached activations and of resident weights.
        activation_group: activations that share a scale (1 x 128).
        weight_group: side of the weight block that shares a scale (128 x 128).
        accumulation_interval: products that a tensor core sums before promotion to FP32 (N_C).
        recompute: what the backward pass computes again.
        optimizer: what is there of each parameter beside its weight.

    """

    precision: Precision = "fp8"
    activation_group: int = 128
    weight_group: int = 128
    accumulation_interval: int = 128
    recompute: Recompute = Recompute()
    optimizer: Optimizer = Optimizer()

    def __post_init__(self) -> None:
        need_positive(self, "training")
        if self.precision not in PRECISIONS:
            known = " or ".join(map(repr, PRECISIONS))
            raise UserError(f"training.precision: must be {known}, not {self.precision!r}")

    @property
    def fp8(self) -> bool:
        """True for FP8 training."""
        return self.precision == "fp8"

    @property
    def activation_bytes(self) -> float:
        """Bytes of an activation that a GEMM reads, its share of the scale included."""
        return FP8_BYTES + SCALE_BYTES / self.activation_group if self.fp8 else BF16_BYTES

    @property
    def attention_output_bytes(self) -> float:
        """Bytes of an element of attention's cached output: E5M6 in FP8 training (12 bits, section 3.3.3)."""
        return 1.5 if self.fp8 else BF16_BYTES

    @property
    def weight_bytes(self) -> float:
        """Bytes of a resident weight of a GEMM, its share of the scale included."""
        return FP8_BYTES + SCALE_BYTES / self.weight_group**2 if self.fp8 else BF16_BYTES
