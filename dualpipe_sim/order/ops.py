"""Ops and tasks as values: what runs, never when or for how long.

The letters are those of ``torch.distributed.pipelining``: ``F`` forward, ``B`` full backward, ``I`` backward for
the input, ``W`` backward for the weights (papers often write B for I).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["F", "B", "I", "W"]

KINDS: tuple[Kind, ...] = ("F", "B", "I", "W")
"""The letter of each kind code; columns of a schedule hold the codes below."""
F, B, I, W = range(4)


class Op(NamedTuple):
    """One forward or backward of one micro-batch through one stage, written ``5F3``: stage, kind, micro-batch."""

    kind: Kind
    stage: int
    microbatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.microbatch}"


class Pair(NamedTuple):
    """A forward and a backward of another micro-batch that run as one, written ``(0F7;7B3)OVERLAP_F_B``."""

    forward: Op
    backward: Op

    def __str__(self) -> str:
        return f"({self.forward};{self.backward})OVERLAP_F_B"


Task: TypeAlias = Op | Pair
"""What one slot of a rank's order holds."""
