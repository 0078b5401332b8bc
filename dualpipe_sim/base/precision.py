"""Number formats and their bytes; models and GPUs both speak of them."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Format: TypeAlias = Literal["bf16", "fp8", "fp4"]
"""What a GEMM's operands are in, which is what a GPU's rates go by; FP16 goes as fast as BF16."""

Precision: TypeAlias = Literal["bf16", "fp16", "fp8", "fp8-tensor", "fp8-block", "mxfp8", "nvfp4"]
"""Recipes of formats for training; ``model/precision`` says what each is."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

FP32_BYTES = 4.0
BF16_BYTES = 2.0
FP8_BYTES = 1.0
FP4_BYTES = 0.5
E5M6_BYTES = 1.5
E8M0_BYTES = 1.0
"""A power of two that scales a block of MXFP8 (Open Compute Project, Microscaling Formats, version 1.0)."""

SCALE_BYTES = 4.0
"""A scale of FP8 numbers is one FP32 number (DeepGEMM, https://github.com/deepseek-ai/DeepGEMM, SM90 kernels)."""
