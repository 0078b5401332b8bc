"""Software stacks: what the program that trains keeps and holds beyond what the mathematics needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from dualpipe_sim.base.precision import BF16_BYTES, FP32_BYTES
from dualpipe_sim.base.show import brief
from dualpipe_sim.model.optimizer import Optimizer

StackName: TypeAlias = Literal[
    "deepseek", "megatron", "torch-eager", "torch-compile", "aleph-scaling", "aleph-scaling-fused"
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
        separate_gate: whether the activated gate of a gated FFN is kept beside its product with what it gates.
        separate_gain: whether a norm keeps its input without the gain, too.
        copied_output: whether attention's output is kept in another order of dimensions, too.
        backward_workspace: whether gradients of activations on their way through a layer count.
        logits: bytes of each logit while the loss is computed.
        whole_logits: whether each GPU of a tensor-parallel group has all of them.
        gradients_as_they_come: whether a parameter's gradient takes memory from its first backward on, and not for the
            whole step; buckets that plain data parallelism reduces are there all the time.
        placeholder_gradients: whether a tensor of each shape of a weight is kept, in BF16, which stands for gradients
            that are summed elsewhere.
        workspace_bytes: what GEMMs are given to work in.
        reserved_bytes: what contexts and communicators take beside what is allocated (assumed).
        fragmentation: what the allocator loses of what comes and goes, as a share of that (assumed).

    """

    name: StackName
    optimizer: Optimizer = field(default_factory=Optimizer)
    joint_projection: bool = False
    copy_for_each_expert: bool = False
    separate_gate: bool = False
    separate_gain: bool = False
    copied_output: bool = False
    backward_workspace: bool = False
    logits: Logits = field(default_factory=lambda: Logits(BF16_BYTES, FP32_BYTES, 0.0))
    whole_logits: bool = False
    gradients_as_they_come: bool = False
    placeholder_gradients: bool = False
    workspace_bytes: float = 0.0
    reserved_bytes: float = 0.0
    fragmentation: float = 0.0

    __repr__ = brief


_MIB = 2.0**20

# AdamW on BF16 weights as PyTorch has it; cuBLAS is given 32 MiB on Hopper (``CUBLAS_WORKSPACE_CONFIG``). The loss is
# computed in FP32: its log-softmax is kept; the forward also has the logits in BF16 and FP32, the backward the
# gradients of log-probabilities and of logits.
_EAGER = Stack(
    "torch-eager",
    Optimizer(main_weights="none", gradients="bf16"),
    joint_projection=True,
    copy_for_each_expert=True,
    separate_gate=True,
    backward_workspace=True,
    logits=Logits(FP32_BYTES, BF16_BYTES + FP32_BYTES, 2 * FP32_BYTES),
    gradients_as_they_come=True,
    workspace_bytes=32 * _MIB,
    reserved_bytes=1024 * _MIB,
    fragmentation=0.1,
)

# Aleph Alpha's Scaling (https://github.com/Aleph-Alpha/scaling, ``core/nn``, ``transformer/model``): ZeRO-1 with FP32
# main weights, BF16 gradients for the whole step, norms by elementary operations unless a kernel does them, a head
# whose outputs are gathered in BF16 and kept until the backward.
_SCALING = replace(
    _EAGER,
    name="aleph-scaling",
    optimizer=Optimizer(moments="fp32", gradients="bf16"),
    separate_gain=True,
    copied_output=True,
    logits=Logits(BF16_BYTES + FP32_BYTES, FP32_BYTES, 2 * FP32_BYTES),
    whole_logits=True,
    gradients_as_they_come=False,
    fragmentation=0.25,
)

STACKS: Mapping[StackName, Stack] = {
    "deepseek": Stack("deepseek"),
    # Megatron-Core (https://github.com/NVIDIA/Megatron-LM) on Transformer Engine, whose GEMMs have a workspace of
    # 32 MiB, grouped ones one for each of four streams, and which hands autograd a tensor that it keeps for each shape
    # of a weight whose gradient it added to the main one (``transformer_engine/pytorch/module/base.py``).
    "megatron": Stack(
        "megatron",
        Optimizer(moments="fp32"),
        joint_projection=True,
        copy_for_each_expert=True,
        backward_workspace=True,
        placeholder_gradients=True,
        workspace_bytes=5 * 32 * _MIB,
        reserved_bytes=2048 * _MIB,
        fragmentation=0.1,
    ),
    "torch-eager": _EAGER,
    "torch-compile": replace(_EAGER, name="torch-compile", separate_gate=False),
    "aleph-scaling": _SCALING,
    "aleph-scaling-fused": replace(_SCALING, name="aleph-scaling-fused", separate_gain=False),
}
"""The stacks by name; DeepSeek's is the usual one, whose published trace the times are fitted to."""
