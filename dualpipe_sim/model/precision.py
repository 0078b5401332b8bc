"""What the precisions of training are: in what numbers linear maps compute, send, keep and hold.

Norms, router, head and embedding stay in BF16 or higher in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dualpipe_sim.base.precision import (
    BF16_BYTES,
    E5M6_BYTES,
    E8M0_BYTES,
    FP4_BYTES,
    FP8_BYTES,
    SCALE_BYTES,
    Format,
    Precision,
)


@dataclass(frozen=True)
class Numbers:
    """The numbers of one precision.

    >>> mx = NUMBERS["mxfp8"]
    >>> mx.gemm, mx.activation_bytes(), mx.resident_bytes()
    ('fp8', 1.03125, 4.0625)

    Attributes:
        gemm: what GEMMs read.
        element_bytes: bytes of a number that a GEMM reads.
        scale_bytes: bytes of a scale; 0 where one is for a whole tensor, or there is none.
        activation_group: activations that share a scale.
        weight_group: weights that share a scale.
        quantised: copies of a weight in these numbers, as rows and as columns, that lie beside one in BF16.
        sent: whether tokens go to their experts, and gradients back, in these numbers too.
        attention_output_bytes: bytes of an element of attention's kept output.
        promoted: whether accumulators are promoted to FP32 on the CUDA cores.

    """

    gemm: Format = "bf16"
    element_bytes: float = BF16_BYTES
    scale_bytes: float = 0.0
    activation_group: int = 1
    weight_group: int = 1
    quantised: int = 0
    sent: bool = False
    attention_output_bytes: float = BF16_BYTES
    promoted: bool = False

    def activation_bytes(self, group: int | None = None) -> float:
        """Return the bytes of an activation that a GEMM reads, its share of the scale included."""
        return self.element_bytes + self.scale_bytes / (group or self.activation_group)

    def weight_bytes(self, group: int | None = None) -> float:
        """Return the bytes of a weight that a GEMM reads, its share of the scale included."""
        return self.element_bytes + self.scale_bytes / (group or self.weight_group)

    def resident_bytes(self, group: int | None = None, *, primary: bool | None = None) -> float:
        """Return the bytes that a weight takes for the whole step.

        Args:
            group: weights that share a scale, if not as many as usual.
            primary: whether the quantised copies are the only ones; None for what is usual.

        """
        if self.gemm == "bf16":
            return BF16_BYTES
        alone = self.quantised == 0 if primary is None else primary
        copies = max(1, self.quantised)
        return copies * self.weight_bytes(group) + (0.0 if alone else BF16_BYTES)


NUMBERS: Mapping[Precision, Numbers] = {
    "bf16": Numbers(),
    "fp16": Numbers(),
    # DeepSeek-V3 report (https://arxiv.org/abs/2412.19437), section 3.3: scales of 1 x 128 and 128 x 128, attention's
    # output cached in E5M6, weights resident in FP8 alone.
    "fp8": Numbers("fp8", FP8_BYTES, SCALE_BYTES, 128, 128**2, 0, True, E5M6_BYTES, True),
    # Transformer Engine (https://docs.nvidia.com/deeplearning/transformer-engine): its recipes keep BF16 weights with
    # quantised copies for both ways of reading them, attention's output for the output map as it reads it, and leave
    # the dispatch in BF16. Scales: one a tensor (current or delayed); 1 x 128 and 128 x 128; 1 x 32; 1 x 16.
    "fp8-tensor": Numbers("fp8", FP8_BYTES, quantised=2, attention_output_bytes=BF16_BYTES + FP8_BYTES),
    "fp8-block": Numbers(
        "fp8", FP8_BYTES, SCALE_BYTES, 128, 128**2, quantised=2, attention_output_bytes=BF16_BYTES + FP8_BYTES
    ),
    "mxfp8": Numbers("fp8", FP8_BYTES, E8M0_BYTES, 32, 32, quantised=2, attention_output_bytes=BF16_BYTES + FP8_BYTES),
    "nvfp4": Numbers("fp4", FP4_BYTES, FP8_BYTES, 16, 16, quantised=2, attention_output_bytes=BF16_BYTES + FP4_BYTES),
}
"""The numbers of each precision."""
