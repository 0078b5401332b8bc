"""Linear maps with their shapes: what parameters, FLOPs, seconds and bytes are derived from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dualpipe_sim.errors import UserError

Part: TypeAlias = Literal["attention", "gate", "routed", "shared", "dense", "head", "mtp"]
"""What a linear map belongs to; ``mtp`` is the projection that a multi-token prediction module starts with."""

HIGH_PRECISION: frozenset[Part] = frozenset({"gate", "head", "mtp"})
"""Parts kept in BF16 or higher also in FP8 training (DeepSeek-V3 report, section 3.3.1; for ``mtp`` assumed)."""

Cut: TypeAlias = Literal["columns", "rows"]
"""How tensor parallelism cuts a linear map: by its outputs, or by its inputs, so that the results are partial sums
(Megatron-LM, https://arxiv.org/abs/1909.08053, section 3)."""


@dataclass(frozen=True)
class Linear:
    """A linear map of a layer: one or more matrices of the same shape.

    >>> Linear("down", "dense", inputs=8, outputs=4, reads="activation", bias=True).parameters
    36

    Attributes:
        name: what it makes.
        part: what it belongs to.
        inputs: features in.
        outputs: features out.
        stored: matrices in the model.
        active: matrices that a token passes.
        reads: the activation that it reads; maps that read the same one share it in memory.
        cut: how tensor parallelism cuts it; None for a map that every GPU of the group has whole.
        from_latent: True for the maps that expand MLA's latents, which the backward pass may redo.
        bias: whether it adds a vector.

    """

    name: str
    part: Part
    inputs: int
    outputs: int
    reads: str
    stored: int = 1
    active: int = 1
    cut: Cut | None = None
    from_latent: bool = False
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Weights and biases stored."""
        return (self.inputs + self.bias) * self.outputs * self.stored

    @property
    def active_parameters(self) -> int:
        """Weights that one token passes."""
        return self.inputs * self.outputs * self.active


def share(what: str, size: int, gpus: int, key: str = "parallel.tensor") -> int:
    """Return the share of one of so many GPUs of a group, which a key says.

    Raises:
        UserError: they cannot share it out evenly; it says which numbers could.

    """
    if size % gpus:
        fitting = [number for number in range(1, 65) if size % number == 0]
        nearest = sorted(sorted(fitting, key=lambda number: abs(number - gpus))[:2])
        instead = " or ".join(map(str, nearest))
        raise UserError(f"{key}: {gpus} GPUs cannot share {what} out evenly, {size}; take {instead}")
    return size // gpus
