"""Software stacks: what the program that trains keeps and holds beyond what the mathematics needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from dualpipe_sim.base.precision import BF16_BYTES, FP32_BYTES
from dualpipe_sim.base.show import brief
from dualpipe_sim.model.optimizer import Optimizer
from dualpipe_sim.model.traffic import (
    COMPILED,
    EAGER,
    ELEMENTARY_NORMS,
    FUSED,
    IDEAL,
    MEGATRON,
    MEGATRON_2021,
    Traffic,
)

StackName: TypeAlias = Literal[
    "deepseek",
    "megatron",
    "megatron-2021",
    "megatron-2022",
    "transformer-engine",
    "torch-eager",
    "torch-compile",
    "aleph-scaling",
    "aleph-scaling-fused",
    "ideal",
]


@dataclass(frozen=True)
class Logits:
    """Bytes of each logit.

    Attributes:
        kept: from the head's F to its backward.
        while_forward: beside those, while its F runs.
        while_backward: beside those, while its backward runs.

    """

    kept: float
    while_forward: float
    while_backward: float


@dataclass(frozen=True)
class Issue:
    """Seconds that the host takes to issue the work of a layer, below which no layer can be.

    Attributes:
        forward_s: its F.
        backward_s: its backward, I and W together.
        collective_s: each collective of a group around its blocks.
        routed_s: experts in its F, and half as much again in its backward.
        input_s: its I, where that is an op of its own.
        weight_s: its W, likewise.
        op_s: beside its layers, an op of a pipeline.

    """

    forward_s: float = 0.0
    backward_s: float = 0.0
    collective_s: float = 0.0
    routed_s: float = 0.0
    input_s: float = 0.0
    weight_s: float = 0.0
    op_s: float = 0.0

    def layer_s(self, works: tuple[str, ...], blocks: int, *, routed: bool) -> float:
        """Return what a layer's F, I, W, or both of a backward take the host, without collectives around blocks."""
        own_s, share = {
            ("F",): (self.forward_s, 1.0),
            ("I",): (self.input_s, 0.75),
            ("W",): (self.weight_s, 0.75),
            ("I", "W"): (self.backward_s, 1.5),
        }[works]
        return own_s * blocks / 2 + self.routed_s * share * routed


@dataclass(frozen=True)
class Stack:
    """What a software stack keeps.

    >>> STACKS["megatron"].optimizer.moments
    'fp32'

    Attributes:
        name: what to call it.
        optimizer: what there is of each parameter beside its weight, where nothing else is said.
        joint_projection: whether queries, keys and values are views of one tensor, which stays whole for the values'
            sake, beside rotated queries and keys; with MLA keys without their rotary part, and values.
        copy_for_each_expert: whether a token is dispatched, and kept, once for each of its experts, and not once for
            each GPU.
        weighs_returned: whether what experts return is kept until it is weighed and summed up, for the weights' sake.
        separate_gate: whether the activated gate of a gated FFN is kept beside its product with what it gates.
        separate_gain: whether a norm keeps its input without the gain, too.
        copied_output: whether attention's output is kept in another order of dimensions, too.
        backward_workspace: whether gradients of activations on their way through a layer count.
        logits: bytes of each logit while the loss is computed.
        keeps_gathered: whether what a block of a sequence-parallel group reads is kept as it was gathered, and not
            gathered again for W.
        sums_in_turn: whether what a tensor-parallel group sums in I waits for W, and what follows for the sum, since
            autograd makes both gradients of a map before its next step. Else the sum goes beside W, and what W gathers
            beside I, as in Megatron-LM since September 2021.
        whole_logits: whether each GPU of a tensor-parallel group has all of them.
        stops_early: whether a layer that runs again stops before its last map, whose output nothing needs
            (``torch.utils.checkpoint`` without reentrance).
        gradients_as_they_come: whether a parameter's gradient takes memory from its first backward on, and not for the
            whole step; buckets that plain data parallelism reduces are there all the time.
        bucket_bytes: bytes of gradients that plain data parallelism reduces at once; 0 for those of a layer.
        placeholder_gradients: whether a tensor of each shape of a weight is kept, in BF16, which stands for gradients
            that are summed elsewhere.
        traffic: how often it passes over what in memory; None for times a token as in DeepSeek's trace.
        issue: what the host takes to issue a layer.
        split_backward: what I and W take as ops of their own, over a full backward.
        workspace_bytes: what GEMMs are given to work in.
        reserved_bytes: what contexts and communicators take beside what is allocated (assumed).
        fragmentation: what the allocator loses of what comes and goes, as a share of that (assumed).

    """

    name: StackName
    optimizer: Optimizer = field(default_factory=Optimizer)
    joint_projection: bool = False
    copy_for_each_expert: bool = False
    weighs_returned: bool = False
    separate_gate: bool = False
    separate_gain: bool = False
    copied_output: bool = False
    backward_workspace: bool = False
    logits: Logits = field(default_factory=lambda: Logits(BF16_BYTES, FP32_BYTES, 0.0))
    keeps_gathered: bool = False
    sums_in_turn: bool = False
    whole_logits: bool = False
    stops_early: bool = False
    gradients_as_they_come: bool = False
    bucket_bytes: float = 0.0
    placeholder_gradients: bool = False
    traffic: Traffic | None = None
    issue: Issue = Issue()
    split_backward: float = 1.0
    workspace_bytes: float = 0.0
    reserved_bytes: float = 0.0
    fragmentation: float = 0.0

    __repr__ = brief

    @property
    def by_shape(self) -> bool:
        """Whether kernels take as long as others of their shape, and not as those of DeepSeek's trace."""
        return self.traffic is not None


_MIB = 2.0**20

# Python's modules issue a kernel of F in some 55 us, autograd one of a backward in half of that, of which there are
# twice as many (a layer of 14 kernels that an H100 runs in 0.6 ms took 0.8 ms; one with experts 2.2 ms).
# Where its pipelining splits a backward, Python walks the graph once for I and once for W
# (``torch.distributed.pipelining._backward``), and each op is a step of a Python loop: medians of the runs in
# ``validation/torch_runs``, 2 and 4 layers a stage.
_ISSUE = Issue(
    forward_s=0.8e-3,
    backward_s=1.2e-3,
    collective_s=0.1e-3,
    routed_s=1.2e-3,
    input_s=1.5e-3,
    weight_s=2.2e-3,
    op_s=0.9e-3,
)

# AdamW on BF16 weights as PyTorch has it; cuBLAS is given 32 MiB on Hopper (``CUBLAS_WORKSPACE_CONFIG``). The loss is
# computed in FP32: its log-softmax is kept; the forward also has the logits in BF16 and FP32, the backward the
# gradients of log-probabilities and of logits.
_EAGER = Stack(
    "torch-eager",
    Optimizer(main_weights="none", gradients="bf16"),
    joint_projection=True,
    copy_for_each_expert=True,
    weighs_returned=True,
    separate_gate=True,
    backward_workspace=True,
    logits=Logits(FP32_BYTES, BF16_BYTES + FP32_BYTES, 2 * FP32_BYTES),
    keeps_gathered=True,
    sums_in_turn=True,
    stops_early=True,
    gradients_as_they_come=True,
    bucket_bytes=25 * _MIB,
    traffic=EAGER,
    issue=_ISSUE,
    split_backward=1.03,
    workspace_bytes=32 * _MIB,
    reserved_bytes=1024 * _MIB,
    fragmentation=0.1,
)

# Aleph Alpha's Scaling (https://github.com/Aleph-Alpha/scaling, ``core/nn``, ``transformer/model``): ZeRO-1 with FP32
# main weights, BF16 gradients for the whole step, norms by elementary operations unless a kernel does them, a head
# whose outputs are gathered in BF16 and kept until the backward, and checkpoints as of PyTorch 2.0, which run all of a
# layer again.
_SCALING = replace(
    _EAGER,
    name="aleph-scaling",
    optimizer=Optimizer(moments="fp32", gradients="bf16"),
    separate_gain=True,
    copied_output=True,
    logits=Logits(BF16_BYTES + FP32_BYTES, FP32_BYTES, 2 * FP32_BYTES),
    whole_logits=True,
    stops_early=False,
    gradients_as_they_come=False,
    traffic=ELEMENTARY_NORMS,
    fragmentation=0.25,
)

# Megatron-Core (https://github.com/NVIDIA/Megatron-LM) on Transformer Engine, whose GEMMs have a workspace of 32 MiB,
# grouped ones one for each of four streams, and which hands autograd a tensor that it keeps for each shape of a weight
# whose gradient it added to the main one (``transformer_engine/pytorch/module/base.py``).
_MEGATRON = Stack(
    "megatron",
    Optimizer(moments="fp32"),
    joint_projection=True,
    copy_for_each_expert=True,
    backward_workspace=True,
    placeholder_gradients=True,
    traffic=MEGATRON,
    issue=Issue(forward_s=0.6e-3, backward_s=0.9e-3, routed_s=0.6e-3),
    workspace_bytes=5 * 32 * _MIB,
    reserved_bytes=2048 * _MIB,
    fragmentation=0.1,
)

# Before FlashAttention and Transformer Engine: a layer is 18 kernels of Apex, cuBLAS and its own.
_MEGATRON_2022 = replace(
    _MEGATRON, name="megatron-2022", traffic=MEGATRON_2021, issue=Issue(forward_s=1.0e-3, backward_s=1.5e-3)
)

STACKS: Mapping[StackName, Stack] = {
    "deepseek": Stack("deepseek"),
    "megatron": _MEGATRON,
    "megatron-2021": replace(_MEGATRON_2022, name="megatron-2021", sums_in_turn=True),
    "megatron-2022": _MEGATRON_2022,
    "transformer-engine": replace(
        _EAGER, name="transformer-engine", separate_gate=False, sums_in_turn=False, traffic=FUSED
    ),
    "torch-eager": _EAGER,
    "torch-compile": replace(
        _EAGER,
        name="torch-compile",
        separate_gate=False,
        stops_early=False,
        traffic=COMPILED,
        issue=replace(_ISSUE, forward_s=0.5e-3, backward_s=0.7e-3, routed_s=0.0, collective_s=0.0),
    ),
    "aleph-scaling": _SCALING,
    "aleph-scaling-fused": replace(_SCALING, name="aleph-scaling-fused", separate_gain=False, traffic=EAGER),
    "ideal": Stack("ideal", Optimizer(moments="fp32"), joint_projection=True, traffic=IDEAL),
}
"""The stacks by name; DeepSeek's is the usual one, whose published trace the times are fitted to."""
