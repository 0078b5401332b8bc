"""Software stacks: what the program that trains keeps and holds beyond what the mathematics needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from dualpipe_sim.base.show import brief
from dualpipe_sim.model.optimizer import Optimizer

StackName: TypeAlias = Literal["deepseek", "megatron", "torch-eager"]
STACK_NAMES: tuple[StackName, ...] = get_args(StackName)


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
        backward_workspace: whether gradients of activations on their way through a layer count.
        workspace_bytes: what GEMMs are given to work in.

    """

    name: StackName
    optimizer: Optimizer = field(default_factory=Optimizer)
    joint_projection: bool = False
    copy_for_each_expert: bool = False
    backward_workspace: bool = False
    workspace_bytes: float = 0.0

    __repr__ = brief


_MIB = 2.0**20

STACKS: Mapping[StackName, Stack] = {
    "deepseek": Stack("deepseek"),
    # Megatron-Core (https://github.com/NVIDIA/Megatron-LM) on Transformer Engine, whose GEMMs have a workspace of
    # 32 MiB, grouped ones one for each of four streams (``transformer_engine/pytorch/module/base.py``).
    "megatron": Stack(
        "megatron",
        Optimizer(moments="fp32"),
        joint_projection=True,
        copy_for_each_expert=True,
        backward_workspace=True,
        workspace_bytes=5 * 32 * _MIB,
    ),
    # AdamW on BF16 weights as PyTorch has it; cuBLAS is given 32 MiB on Hopper (``CUBLAS_WORKSPACE_CONFIG``).
    "torch-eager": Stack(
        "torch-eager",
        Optimizer(main_weights="none", gradients="bf16"),
        joint_projection=True,
        copy_for_each_expert=True,
        backward_workspace=True,
        workspace_bytes=32 * _MIB,
    ),
}
"""The stacks by name; DeepSeek's is the usual one, whose published trace the times are fitted to."""
