"""Number formats and their bytes; models and GPUs both speak of them."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Precision: TypeAlias = Literal["bf16", "fp8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

FP32_BYTES = 4.0
BF16_BYTES = 2.0
FP8_BYTES = 1.0
SCALE_BYTES = 4.0
"""A scale of FP8 numbers is one FP32 number (DeepGEMM, https://github.com/deepseek-ai/DeepGEMM, SM90 kernels)."""
