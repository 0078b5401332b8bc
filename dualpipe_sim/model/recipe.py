"""The training recipe: precision of GEMMs and caches, groups of scales, and what the backward pass recomputes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.precision import BF16_BYTES, FP8_BYTES, SCALE_BYTES, Precision
from dualpipe_sim.records import build, need_positive

PROMOTION_FMAS = 2
"""FP32 operations that promote one accumulator: multiply by the joint scale, add (assumed: one FMA each)."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained, as far as time and memory of a layer depend on it.

    The defaults are the DeepSeek-V3 report's (https://arxiv.org/abs/2412.19437, sections 3.2.3, 3.3):
    fine-grained FP8, RMSNorms, MLA up-projections and the SwiGLU recomputed.

    Attributes:
        precision: of the GEMMs, of the dispatched tokens, of cached activations and of resident weights.
        activation_group: activations that share a scale (1 x 128).
        weight_group: side of the weight block that shares a scale (128 x 128).
        accumulation_interval: products that a tensor core sums before promotion to FP32 (N_C).
        recompute_norms: norm outputs are recomputed, so only inputs are cached.
        recompute_up_projections: queries, keys and values are recomputed from MLA's latents.
        recompute_activation: outputs of SwiGLU or GELU are recomputed.

    """

    precision: Precision = "fp8"
    activation_group: int = 128
    weight_group: int = 128
    accumulation_interval: int = 128
    recompute_norms: bool = True
    recompute_up_projections: bool = True
    recompute_activation: bool = True

    def __post_init__(self) -> None:
        need_positive(self, "training")
        if self.precision not in ("bf16", "fp8"):
            raise UserError(f"training.precision: must be 'bf16' or 'fp8', not {self.precision!r}")

    @classmethod
    def from_mapping(cls, given: Mapping[str, object], where: str = "training") -> Recipe:
        """Build a recipe from a mapping.

        Raises:
            UserError: a key is unknown, or a value does not fit.

        """
        return build(cls, given, where)

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

    def promotion_factor(self, gpu: Gpu) -> float:
        """Return how many times longer an FP8 GEMM takes because accumulators are promoted.

        Promotion runs on the CUDA cores while the tensor cores go on (two warpgroups take turns, DeepSeek-V3
        report, section 3.3.2), so it costs nothing until it takes longer than they do: for each output,
        ``PROMOTION_FMAS`` FP32 operations for every N_C on the tensor cores, each at its peak rate. At 128
        that is about half the time, hidden, and the published rates hold it; below about 60 it sets the pace.
        """
        fp8 = gpu.peak.fp8_flops_per_s
        if not self.fp8 or fp8 is None:
            return 1.0
        return max(1.0, PROMOTION_FMAS * fp8 / gpu.peak.fp32_flops_per_s / self.accumulation_interval)
