"""The optimizer: what is there of each parameter beside its weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dualpipe_sim.base.precision import BF16_BYTES, FP32_BYTES

Format: TypeAlias = Literal["fp32", "bf16", "none"]
"""How a number that the optimizer holds is stored, or that it is not there."""

_BYTES: dict[Format, float] = {"fp32": FP32_BYTES, "bf16": BF16_BYTES, "none": 0.0}


@dataclass(frozen=True)
class Optimizer:
    """What is there of each parameter beside its weight, for Adam and its kin.

    The defaults are the DeepSeek-V3 report's (section 3.3.3); Megatron-LM's distributed optimizer has moments in FP32,
    plain data parallelism in PyTorch no main weights.

    >>> Optimizer().state_bytes, Optimizer(moments="fp32").state_bytes
    (8.0, 12.0)

    Attributes:
        main_weights: copy of the weights that is updated; none where the resident ones are.
        moments: first and second moment.
        gradients: gradients, summed up over micro-batches.

    """

    main_weights: Format = "fp32"
    moments: Format = "bf16"
    gradients: Literal["fp32", "bf16"] = "fp32"

    @property
    def state_bytes(self) -> float:
        """Bytes a parameter of main weight and moments."""
        return _BYTES[self.main_weights] + 2 * _BYTES[self.moments]

    @property
    def gradient_bytes(self) -> float:
        """Bytes a parameter of its gradient."""
        return _BYTES[self.gradients]

    @property
    def in_place(self) -> bool:
        """Whether it updates the weights themselves."""
        return self.main_weights == "none"
