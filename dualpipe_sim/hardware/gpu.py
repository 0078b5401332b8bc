"""A GPU: how many SMs and bytes it has, and how fast its kernels run, by precision and class of GEMM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from dualpipe_sim.base.precision import Format
from dualpipe_sim.base.records import need_positive
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.kernels import Kernels

GemmClass: TypeAlias = Literal["dense", "grouped", "weight_gradient", "grouped_weight_gradient"]


@dataclass(frozen=True)
class Peak:
    """Datasheet rates without sparsity; MFU is measured against ``bf16``.

    Attributes:
        bf16_flops_per_s: tensor cores, BF16.
        fp32_flops_per_s: CUDA cores, FP32.
        fp8_flops_per_s: tensor cores, FP8; None where the GPU has none.
        fp4_flops_per_s: tensor cores, FP4; None where the GPU has none.

    """

    bf16_flops_per_s: float
    fp32_flops_per_s: float
    fp8_flops_per_s: float | None = None
    fp4_flops_per_s: float | None = None

    def __post_init__(self) -> None:
        need_positive(self, "gpu.peak")


@dataclass(frozen=True)
class GemmRates:
    """What GEMMs of one precision achieve on all SMs.

    Attributes:
        dense_flops_per_s: forward and input gradient of ordinary linear maps.
        grouped_flops_per_s: the same of routed experts, one GEMM for each expert on the GPU.
        weight_gradient_flops_per_s: weight gradient of ordinary linear maps.
        grouped_weight_gradient_flops_per_s: weight gradient of routed experts.

    """

    dense_flops_per_s: float
    grouped_flops_per_s: float
    weight_gradient_flops_per_s: float
    grouped_weight_gradient_flops_per_s: float

    def __post_init__(self) -> None:
        need_positive(self, "gpu.gemm")

    def of(self, gemm: GemmClass) -> float:
        """Return the rate of one class, in FLOP/s."""
        rate: float = getattr(self, f"{gemm}_flops_per_s")
        return rate


@dataclass(frozen=True)
class Gemm:
    """GEMM rates by precision.

    Attributes:
        bf16: of BF16 GEMMs.
        fp8: of FP8 GEMMs; None where the GPU has none.
        fp4: of FP4 GEMMs; None where the GPU has none.

    """

    bf16: GemmRates
    fp8: GemmRates | None = None
    fp4: GemmRates | None = None

    __repr__ = brief


@dataclass(frozen=True)
class AttentionRates:
    """What the attention kernels achieve on all SMs, of the FLOPs that they execute.

    Attributes:
        forward_flops_per_s: forward kernel.
        backward_flops_per_s: backward kernel.
        fp8_forward_flops_per_s: forward kernel in FP8; None where it goes as fast as in BF16.
        fp8_backward_flops_per_s: backward kernel in FP8; likewise.

    """

    forward_flops_per_s: float
    backward_flops_per_s: float
    fp8_forward_flops_per_s: float | None = None
    fp8_backward_flops_per_s: float | None = None

    def __post_init__(self) -> None:
        need_positive(self, "gpu.attention")

    def of(self, direction: Literal["forward", "backward"], *, fp8: bool = False) -> float:
        """Return the rate of one kernel, in FLOP/s."""
        rate: float = getattr(self, f"{direction}_flops_per_s")
        return (getattr(self, f"fp8_{direction}_flops_per_s") or rate) if fp8 else rate


@dataclass(frozen=True)
class OtherCosts:
    """Time a token of what is neither GEMM nor attention: casts, transposes, norms, permutation, RoPE, SwiGLU.

    It is bound by memory, so it does not depend on the number of SMs. For a model of width H it scales with
    H / ``hidden``, in the MLP part of MoE layers also with (experts a token) / ``active_experts``.

    Attributes:
        hidden: width of the model that the times were measured on.
        active_experts: routed experts a token there.
        attention_forward_s: seconds a token, attention part, forward.
        mlp_forward_s: MLP part, forward.
        mlp_input_gradient_s: MLP part, input gradient.
        attention_input_gradient_s: attention part, input gradient.
        mlp_weight_gradient_s: MLP part, weight gradient.
        attention_weight_gradient_s: attention part, weight gradient.

    """

    hidden: int
    active_experts: int
    attention_forward_s: float
    mlp_forward_s: float
    mlp_input_gradient_s: float
    attention_input_gradient_s: float
    mlp_weight_gradient_s: float
    attention_weight_gradient_s: float = 0.0

    def __post_init__(self) -> None:
        times = tuple(name for name in vars(self) if name.endswith("_s"))
        need_positive(self, "gpu.other", zero=times)


@dataclass(frozen=True)
class Other:
    """Times of everything else by precision, which decides the casts.

    Attributes:
        bf16: in BF16 training.
        fp8: in FP8 training, and in FP4 (assumed); None where the GPU has none.

    """

    bf16: OtherCosts
    fp8: OtherCosts | None = None

    __repr__ = brief


@dataclass(frozen=True)
class Gpu:
    """A GPU and what its kernels achieve.

    >>> from dualpipe_sim.config import load_experiment
    >>> gpu = load_experiment("deepseek_v3").cost_model.gpu
    >>> gpu.name, gpu.sms, gpu.peak.bf16_flops_per_s / 1e12
    ('h800', 132, 989.0)

    Attributes:
        name: what to call it.
        sms: streaming multiprocessors.
        memory_bytes: memory that a framework sees.
        hbm_bytes_per_s: achieved memory bandwidth.
        peak: datasheet rates.
        gemm: achieved GEMM rates.
        attention: achieved attention rates.
        other: time of everything else.
        kernels: tables of rates by shape, which stacks but DeepSeek's take first.
        kernel_gap: share by which gaps between kernels lengthen a compute phase.
        power_limited: whether it clocks down when it is busy; rates are then those of one that was busy all the time.
        host_bytes_per_s: bandwidth to the memory of its host, each way; 0 where it is not known.
        cluster: preset of the cluster that such GPUs are usually in; empty for none.

    """

    name: str
    sms: int
    memory_bytes: float
    hbm_bytes_per_s: float
    peak: Peak
    gemm: Gemm
    attention: AttentionRates
    other: Other
    kernels: Kernels = field(default_factory=Kernels)
    kernel_gap: float = 0.0
    power_limited: bool = False
    host_bytes_per_s: float = 0.0
    cluster: str = ""

    __repr__ = brief

    def __post_init__(self) -> None:
        need_positive(self, "gpu", zero=("kernel_gap", "host_bytes_per_s"))

    def gemm_rates(self, numbers: Format) -> GemmRates:
        """Return the rates of GEMMs that read such numbers.

        Raises:
            UserError: the GPU has none.

        """
        rates: GemmRates | None = getattr(self.gemm, numbers)
        if rates is None:
            name = numbers.upper()
            raise UserError(f"GPU {self.name} has no {name} rates (gpu.gemm.{numbers}); use {self._instead(self.gemm)}")
        return rates

    def other_costs(self, numbers: Format) -> OtherCosts:
        """Return the times of everything but GEMM and attention in training with such numbers.

        Raises:
            UserError: they are not known.

        """
        costs = self.other.bf16 if numbers == "bf16" else self.other.fp8
        if costs is None:
            times = f"times for {numbers.upper()} training (gpu.other.fp8)"
            raise UserError(f"GPU {self.name} has no {times}; use {self._instead(self.other)}")
        return costs

    def share_of_sms(self, sms: int | None) -> float:
        """Return the share of all SMs that ``sms`` are; None stands for all of them.

        Raises:
            UserError: there are not that many.

        """
        if sms is None:
            return 1.0
        if not 0 < sms <= self.sms:
            raise UserError(f"{sms} SMs for compute: GPU {self.name} has {self.sms}, of which at least 1 must compute")
        return sms / self.sms

    @staticmethod
    def _instead(known: Gemm | Other) -> str:
        """Return which precisions the GPU can do, in words."""
        return "precision fp8, mxfp8 or bf16" if known.fp8 else "precision bf16"
